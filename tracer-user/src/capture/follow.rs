//! Following processes: those that were named, their children, and whoever serves them on this host.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use super::{
    CaptureError, Sink, early,
    live::{Live, tell},
    seed::{listens, seed},
};
use tracer_ebpf as wire;

use crate::event::{Event, Fact, Network, Pid, Relation, Role, Unseen};

impl Live {
    /// Traces processes from now on, and whoever serves them on this host.
    pub fn follow(&mut self, pids: impl IntoIterator<Item = Pid>, sink: &mut dyn Sink) {
        self.begin_with(pids, Relation::Target, sink);
        let peers = self.peers.all();
        if !peers.is_empty() {
            self.begin_with(peers, Relation::Peer, sink);
        }
    }

    /// Traces those of `pids` that are not traced yet, and tells what they have open.
    pub(super) fn begin_with(
        &mut self,
        pids: impl IntoIterator<Item = Pid>,
        relation: Relation,
        sink: &mut dyn Sink,
    ) {
        let unknown = |pid: &Pid| self.processes.get(*pid).is_none();
        let unknown: Vec<Pid> = pids.into_iter().filter(unknown).collect();
        let mut come = Vec::new();
        for pid in unknown {
            let read = self.early.take(pid);
            if self.get_to_know(pid, relation, read.program, sink) {
                come.push((pid, read.ports));
            }
        }
        // Whoever is traced is seen to use connections at once, and whether it asks or serves on one that was open
        // before follows from where it listens; and what uprobes tell has its effect at once. So both come first.
        for (pid, ports) in &come {
            let network = self.processes.get(*pid).and_then(|known| known.network);
            let Some(network) = network.and_then(|inode| u32::try_from(inode).ok()) else {
                continue;
            };
            for port in ports {
                // What finds no room is counted when it is found open.
                listens(&mut self.maps, *pid, network, *port);
            }
        }
        for (pid, _) in &come {
            self.probe(*pid, sink);
        }
        for (pid, _) in &come {
            self.trace(*pid, sink);
        }
        self.seed(sink);
        for (pid, _) in come {
            self.attend_to(pid, sink);
        }
    }

    /// Starts a command and traces it from its first instruction on.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, CaptureError> {
        // The kernel half follows the children of whoever is traced: for a moment that is us.
        let us = std::process::id();
        self.processes.mark(us, true);
        let child = command.spawn();
        self.processes.mark(us, false);
        child.map_err(|error| CaptureError::Command {
            command: command.get_program().to_string_lossy().into_owned(),
            why: error.to_string(),
        })
    }

    /// Looks at a process that was started by one that is traced, or that runs another program now.
    fn look_at(&mut self, pid: Pid, relation: Relation, sink: &mut dyn Sink) {
        if self.get_to_know(pid, relation, early::program(pid), sink) {
            self.probe(pid, sink);
            self.trace(pid, sink);
            self.attend_to(pid, sink);
        }
    }

    /// Tells of a process; whether it is still there.
    fn get_to_know(
        &mut self,
        pid: Pid,
        relation: Relation,
        program: early::Found,
        sink: &mut dyn Sink,
    ) -> bool {
        let Some((process, unseen)) = self.processes.know(pid, relation, program) else {
            return false;
        };
        tell(sink, Fact::Process(process));
        if let Some(namespace) = self.processes.get(pid).and_then(|known| known.network) {
            tell(sink, Fact::Network(Network { pid, namespace }));
        }
        for unseen in unseen {
            tell(sink, Fact::Unseen(unseen));
        }
        true
    }

    fn trace(&mut self, pid: Pid, sink: &mut dyn Sink) {
        if let Some(unseen) = self.processes.trace(pid) {
            tell(sink, Fact::Unseen(unseen));
        }
    }

    /// Looks from now on also at what the kernel half does not tell of a process.
    fn attend_to(&mut self, pid: Pid, sink: &mut dyn Sink) {
        self.threads.join(pid);
        self.tables.join(pid);
        if let Some(unseen) = self.queues.join(pid) {
            tell(sink, Fact::Unseen(unseen));
        }
        if self.options.goroutines {
            self.ask_for_goroutines(pid);
        }
    }

    /// Puts uprobes into a Go program, which takes some ten milliseconds.
    fn probe(&mut self, pid: Pid, sink: &mut dyn Sink) {
        let Some(known) = self.processes.get(pid) else {
            return;
        };
        let (ebpf, comm) = (&mut self.probes.ebpf, &known.process.comm);
        let unseen = known
            .understood()
            .and_then(|program| self.deciders.probe(pid, program, comm, ebpf));
        if let Some(unseen) = unseen {
            tell(sink, Fact::Unseen(unseen));
        }
    }

    fn seed(&mut self, sink: &mut dyn Sink) {
        match seed(&mut self.probes.ebpf, &mut self.maps) {
            Ok(events) => {
                for event in events {
                    self.opened(&event);
                    sink.event(event);
                }
            }
            Err(why) => tell(
                sink,
                Fact::Unseen(Unseen {
                    what: "connections that were open already".to_owned(),
                    why,
                    remedy: "they are seen from their next use on".to_owned(),
                }),
            ),
        }
    }

    /// A socket of ours is told: who is at its other end?
    pub(super) fn opened(&mut self, event: &Event) {
        let Fact::Opened(opened) = &event.fact else {
            return;
        };
        self.gaps.opened(opened.socket, event.at);
        if opened.role == Role::Client
            && let Some(known) = self.processes.get(opened.pid)
            && known.process.relation == Relation::Target
        {
            self.peers
                .connected(opened.remote, opened.pid, known.network);
        }
    }

    pub(super) fn process_changed(
        &mut self,
        what: u16,
        pid: Pid,
        parent: Pid,
        sink: &mut dyn Sink,
    ) {
        match what {
            wire::PROCESS_FORKED => {
                let relation = self.processes.relation(parent);
                self.look_at(pid, relation, sink);
            }
            wire::PROCESS_EXECED => {
                let relation = self.processes.relation(pid);
                self.stacks.forget(pid);
                self.samples.forget(pid);
                self.look_at(pid, relation, sink);
            }
            _ => {
                // The last two threads may end at once, and both be told to be the last.
                let told = self.ended.iter().any(|(_, ended)| *ended == pid);
                if self.processes.get(pid).is_some() && !told {
                    self.ended.push((Instant::now(), pid));
                    tell(sink, Fact::ProcessEnded { pid });
                }
            }
        }
    }

    pub(super) fn everybody_ended(&self) -> bool {
        let mut targets = self
            .processes
            .all()
            .filter(|known| known.process.relation == Relation::Target)
            .peekable();
        !self.ended.is_empty()
            && targets.peek().is_some()
            && targets.all(|known| {
                self.ended.iter().any(|(when, pid)| {
                    // Their last packets and closes come after the end.
                    *pid == known.process.pid && when.elapsed() > Duration::from_millis(200)
                })
            })
            && !self.may_come()
    }

    pub(super) fn look_at_all(&mut self) {
        if !self.options.goroutines {
            return;
        }
        let pids: Vec<Pid> = self
            .processes
            .all()
            .filter(|known| known.process.go_version.is_some())
            .map(|known| known.process.pid)
            .filter(|pid| !self.ended.iter().any(|(_, ended)| ended == pid))
            .collect();
        for pid in pids {
            self.ask_for_goroutines(pid);
        }
    }

    pub(super) fn ask_for_goroutines(&mut self, pid: Pid) {
        if let Some(program) = self
            .processes
            .get(pid)
            .and_then(|known| known.program.clone())
        {
            self.looks.ask_all(pid, program);
        }
    }
}
