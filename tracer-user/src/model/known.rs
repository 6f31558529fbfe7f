//! What the model tells whoever asks it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::event::{
    self, AtChannels, BootInstant, Frame, Goroutine, Host, MemoryLimit, Neighbours, Pid, Quota,
    Role, Runtime, SocketId, Source, StackId, Thread, Unseen,
};

use super::{
    Attendance, Connection, Course, Group, Load, LockQueue, Model, Peer, Place, Process, Queue,
    Sampled, Table, Taken, TimeoutCheck, Traffic, Wait, Whereabouts,
};

impl Model {
    /// Where the events come from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The end of the window, or how far it has come.
    #[must_use]
    pub fn now(&self) -> BootInstant {
        self.ended.unwrap_or(self.now)
    }

    /// How long was watched.
    #[must_use]
    pub fn watched(&self) -> Duration {
        self.now().since(self.source.started)
    }

    /// Every process, by its id.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// One process.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// How many processes that ended are no longer kept.
    #[must_use]
    pub fn processes_forgotten(&self) -> u64 {
        self.processes_forgotten
    }

    /// It is a program of Go.
    #[must_use]
    pub fn is_go(&self, pid: Pid) -> bool {
        self.process(pid)
            .is_some_and(|process| process.about.go_version.is_some())
    }

    /// The network namespace that a process is in, by its inode; `None` where that was not told.
    #[must_use]
    pub fn network(&self, pid: Pid) -> Option<u64> {
        self.connections.network_of_process(pid)
    }

    /// The name of a process, for people.
    #[must_use]
    pub fn name(&self, pid: Pid) -> String {
        self.process(pid)
            .map_or_else(|| unnamed(pid), |p| p.about.comm.clone())
    }

    /// Who owns this end of a connection, for people: the process; in a packet capture, which shows none,
    /// the address that serves, or the host that asks.
    #[must_use]
    pub fn owner(&self, connection: &Connection) -> String {
        if event::is_host(connection.pid) && connection.role == Role::Server {
            connection.local.to_string()
        } else {
            self.name(connection.pid)
        }
    }

    /// The frames of a stack, innermost first; none where it was never told.
    #[must_use]
    pub fn frames(&self, stack: Option<StackId>) -> &[Frame] {
        stack
            .and_then(|id| self.stacks.frames(id))
            .unwrap_or_default()
    }

    /// Every connection still kept, in the order of their first sight.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter()
    }

    /// One connection.
    #[must_use]
    pub fn connection(&self, socket: SocketId) -> Option<&Connection> {
        self.connections.get(socket)
    }

    /// The same connection as its other end saw it, where that is on this host and traced.
    #[must_use]
    pub fn other_end(&self, connection: &Connection) -> Option<&Connection> {
        self.connection(connection.other_end?)
    }

    /// How many connections are no longer kept one by one.
    #[must_use]
    pub fn connections_left_out(&self) -> u64 {
        self.connections.left_out()
    }

    /// How many connections and exchanges that had gone wrong are no longer kept one by one. Above
    /// zero, the counts in findings are lower bounds.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.connections.forgotten()
    }

    /// All that processes asked and served, whether or not it is still kept one by one.
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<Peer, Traffic> {
        self.connections.traffic()
    }

    /// The times at which `net/http` looked whether `Client.Timeout` had passed, oldest first.
    pub fn timeout_checks(&self) -> impl Iterator<Item = &TimeoutCheck> {
        self.decisions.checks()
    }

    /// The stacks at which `pid` asked its transport for connections to `remote`, with how often, as far
    /// as seen; innermost frames first.
    pub fn callers(&self, pid: Pid, remote: SocketAddr) -> impl Iterator<Item = (&[Frame], u64)> {
        self.dials
            .callers(pid, remote)
            .map(|(stack, number)| (self.frames(Some(stack)), number))
    }

    /// When a server of `pid` was first told to end (`http.Server.Shutdown` or `Close`).
    #[must_use]
    pub fn shut_down(&self, pid: Pid) -> Option<BootInstant> {
        self.shutdowns.get(&pid).copied()
    }

    /// The queue of every listening socket.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.resources.queues()
    }

    /// The file descriptors of every process of which they are known.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.resources.tables()
    }

    /// Every goroutine snapshot, by process and time.
    pub fn snapshots(&self) -> impl Iterator<Item = &Taken> {
        self.goroutines.taken()
    }

    /// Where the goroutines of each process are, by its last snapshot; the largest group first.
    #[must_use]
    pub fn goroutine_groups(&self) -> Vec<Group> {
        self.goroutines.groups()
    }

    /// Where goroutine `id` of `pid` was in its process's last snapshot.
    #[must_use]
    pub fn whereabouts(&self, pid: Pid, id: u64) -> Option<Whereabouts<'_>> {
        self.goroutines.whereabouts(pid, id)
    }

    /// Where each goroutine of `pid` that has an id was in its process's last snapshot; in no order.
    pub fn everybody(&self, pid: Pid) -> impl Iterator<Item = (u64, Whereabouts<'_>)> {
        self.goroutines.everybody(pid)
    }

    /// Where goroutines of `pid` stood in all its snapshots: state, frames, and how many in all of them
    /// together; in no order.
    pub fn seen(&self, pid: Pid) -> impl Iterator<Item = (&str, &[Frame], u64)> {
        self.goroutines.seen(pid)
    }

    /// Who came and left at each place where goroutines of `pid` were; in no order.
    #[must_use]
    pub fn attendances(&self, pid: Pid) -> Vec<Attendance<'_>> {
        self.goroutines.attendances(pid)
    }

    /// At which channels goroutine `id` of `pid` waited when its process was last looked at.
    #[must_use]
    pub fn at_channels(&self, pid: Pid, id: u64) -> Option<&AtChannels> {
        self.blocked.at_channels(pid, id)
    }

    /// Goroutine `id` of `pid`, which waits at a channel, waited at another one before.
    #[must_use]
    pub fn moved(&self, pid: Pid, id: u64) -> bool {
        self.blocked.moved(pid, id)
    }

    /// The locks of `pid` at which goroutines waited, at each moment when its memory was read, oldest first.
    pub fn locks(&self, pid: Pid) -> impl Iterator<Item = &LockQueue> {
        self.blocked.locks(pid)
    }

    /// The last look at goroutine `id` of `pid` between two moments, and its time, among those told
    /// without a connection.
    #[must_use]
    pub fn look(
        &self,
        pid: Pid,
        id: u64,
        from: BootInstant,
        to: BootInstant,
    ) -> Option<(BootInstant, &Goroutine)> {
        self.looks
            .iter()
            .rev()
            .find(|(at, of, goroutine)| {
                *of == pid && goroutine.id == id && (from..=to).contains(at)
            })
            .map(|(at, _, goroutine)| (*at, goroutine))
    }

    /// Threads of the targets, ended ones among them, by process and id.
    pub fn threads(&self) -> impl Iterator<Item = &Thread> {
        self.scheduler.threads()
    }

    /// For each process the sum of its threads that ended and are no longer kept one by one; `tid` and
    /// `comm` are those of one of them.
    pub fn threads_gone(&self) -> impl Iterator<Item = &Thread> {
        self.scheduler.gone()
    }

    /// How many threads are no longer kept one by one.
    #[must_use]
    pub fn threads_left_out(&self) -> u64 {
        self.scheduler.left_out()
    }

    /// Waits of `pid`'s threads for a CPU that stood out, in the order of their ends.
    pub fn waits(&self, pid: Pid) -> impl Iterator<Item = &Wait> {
        self.scheduler.waits(pid)
    }

    /// How many waits are no longer kept.
    #[must_use]
    pub fn waits_forgotten(&self) -> u64 {
        self.scheduler.forgotten()
    }

    /// Where `pid` spent its CPU time: every place with its number of samples, each standing for
    /// [`TICK`](super::TICK); in no order.
    pub fn places(&self, pid: Pid) -> impl Iterator<Item = (Place, u64)> {
        self.profile.places(pid)
    }

    /// Samples of running targets, oldest first; of a long window the last ones.
    pub fn samples(&self) -> impl Iterator<Item = &Sampled> {
        self.profile.samples()
    }

    /// How many samples are no longer kept one by one; the places have them.
    #[must_use]
    pub fn samples_forgotten(&self) -> u64 {
        self.profile.forgotten()
    }

    /// The host's figures over the window; `None` where nobody read them.
    #[must_use]
    pub fn host(&self) -> Option<&Course<Host>> {
        self.surroundings.host.as_ref()
    }

    /// How busy the host was over the window; `None` where nobody read it at least twice.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        Load::of(self.host()?)
    }

    /// Who else had the host's CPUs.
    #[must_use]
    pub fn neighbours(&self) -> Option<&Neighbours> {
        self.surroundings.neighbours.as_ref()
    }

    /// The CPU quota of `pid`'s cgroup over the window.
    #[must_use]
    pub fn quota(&self, pid: Pid) -> Option<&Course<Quota>> {
        self.surroundings.quotas.get(&pid)
    }

    /// The memory limit of `pid`'s cgroup over the window; `None` where it has none.
    #[must_use]
    pub fn memory_limit(&self, pid: Pid) -> Option<&Course<MemoryLimit>> {
        self.surroundings.memory_limits.get(&pid)
    }

    /// What the Go runtime of `pid` said of itself over the window.
    #[must_use]
    pub fn runtime(&self, pid: Pid) -> Option<&Course<Runtime>> {
        self.surroundings.runtimes.get(&pid)
    }

    /// Records lost, by probe; only those that lost any.
    #[must_use]
    pub fn losses(&self) -> BTreeMap<&str, u64> {
        self.losses
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(probe, count)| (probe.as_str(), *count))
            .collect()
    }

    /// What could not be seen.
    #[must_use]
    pub fn unseen(&self) -> &[Unseen] {
        &self.unseen
    }

    /// Facts about sockets whose opening was never told: records were lost, or came far too late.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.early.strays()
    }
}

fn unnamed(pid: Pid) -> String {
    if event::is_host(pid) {
        "one of many hosts".to_owned()
    } else {
        format!("process {pid}")
    }
}
