//! The story: processes, connections, exchanges, goroutines and the links between them.
//!
//! In come events, from whichever source; what comes out is what they say together. The model judges
//! nothing, reads no clock, opens no file, and stays bounded however long the stream is: what was
//! forgotten to keep it so is counted.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use crate::event::{
    self, Attribution, BootInstant, Decider, Decision, Event, Fact, Frame, Goroutine, Pid, Role,
    SocketId, Source, StackId, Unseen,
};

mod connection;
mod connections;
mod decisions;
mod early;
mod exchange;
mod goroutines;
mod pairing;
#[cfg(test)]
pub(crate) mod story;
#[cfg(test)]
mod tests;
mod traffic;

pub use connection::{ConnectFailed, Connection, Decided, End, LocalClosed};
pub use decisions::{DECISION_TO_CLOSE, TimeoutCheck};
pub use exchange::Exchange;
pub use goroutines::{Group, Taken};
pub use pairing::{Asking, PairedBy, Pairing, Served};
pub use traffic::{Peer, Sizes, Tally, Traffic};

use connections::Connections;
use decisions::Decisions;
use early::Early;
use goroutines::Goroutines;

/// Different things that could not be seen, kept; a source tells a few.
const UNSEEN: usize = 256;

/// Looks at goroutines that were told without a connection, kept; the last ones.
const LOOKS: usize = 1_024;

/// What is known of one window on one host.
#[derive(Debug)]
pub struct Model {
    source: Source,
    now: BootInstant,
    ended: Option<BootInstant>,
    processes: BTreeMap<Pid, Process>,
    stacks: HashMap<StackId, Vec<Frame>>,
    connections: Connections,
    decisions: Decisions,
    goroutines: Goroutines,
    losses: BTreeMap<String, u64>,
    unseen: Vec<Unseen>,
    early: Early,
    looks: VecDeque<(BootInstant, Pid, Goroutine)>,
}

/// A traced process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// What was told of it last.
    pub about: event::Process,
    /// When it ended, if that happened in the window.
    pub ended: Option<BootInstant>,
}

impl Model {
    /// A window about which nothing is known yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self {
            now: source.started,
            source,
            ended: None,
            processes: BTreeMap::new(),
            stacks: HashMap::new(),
            connections: Connections::default(),
            decisions: Decisions::default(),
            goroutines: Goroutines::default(),
            losses: BTreeMap::new(),
            unseen: Vec::new(),
            early: Early::default(),
            looks: VecDeque::new(),
        }
    }

    /// Takes the next event. It may be a little older than the one before.
    pub fn apply(&mut self, event: &Event) {
        let at = event.at;
        self.now = self.now.max(at);
        match &event.fact {
            Fact::Process(about) => self.process_told(about),
            Fact::ProcessEnded { pid } => {
                if let Some(process) = self.processes.get_mut(pid) {
                    process.ended = Some(at);
                }
            }
            Fact::Stack { id, frames } => {
                self.stacks.insert(*id, frames.clone());
            }
            Fact::Opened(opened) => {
                self.connections.open(at, opened.clone());
                for early in self.early.of(opened.socket) {
                    self.apply(&early);
                }
            }
            Fact::Decision(decision) => self.decided(at, decision),
            Fact::Goroutines(snapshot) => self.goroutines.take(at, snapshot.clone()),
            Fact::Lost { probe, count } => {
                let known = self.losses.entry(probe.clone()).or_default();
                *known = (*known).max(*count);
            }
            Fact::Unseen(unseen) => {
                if self.unseen.len() < UNSEEN && !self.unseen.contains(unseen) {
                    self.unseen.push(unseen.clone());
                }
            }
            Fact::Goroutine {
                pid,
                socket: None,
                goroutine,
            } => {
                if self.looks.len() == LOOKS {
                    self.looks.pop_front();
                }
                self.looks.push_back((at, *pid, goroutine.clone()));
            }
            fact => self.on_a_socket(at, fact),
        }
    }

    /// The window is over.
    pub fn end(&mut self, at: BootInstant) {
        self.now = self.now.max(at);
        self.ended = Some(self.now);
    }

    fn process_told(&mut self, about: &event::Process) {
        let ended = self.processes.get(&about.pid).and_then(|known| known.ended);
        self.processes.insert(
            about.pid,
            Process {
                about: about.clone(),
                ended,
            },
        );
    }

    fn decided(&mut self, at: BootInstant, decision: &Decision) {
        if decision.decider == Decider::ClientTimeoutChecked {
            self.decisions.check(at, decision);
            return;
        }
        let (socket, attribution) = match decision.socket {
            Some(socket) => (socket, Attribution::Direct),
            None => match self.decisions.take(at, decision) {
                Some(socket) => (socket, Attribution::Inferred),
                None => return,
            },
        };
        match self.connections.get_mut(socket) {
            Some(connection) => connection.decide(Decided {
                at,
                decision: decision.clone(),
                attribution,
            }),
            None => self.early.keep(Event {
                at,
                fact: Fact::Decision(decision.clone()),
            }),
        }
    }

    /// A fact about one socket.
    fn on_a_socket(&mut self, at: BootInstant, fact: &Fact) {
        let Some(socket) = socket_of(fact) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(socket) else {
            self.early.keep(Event {
                at,
                fact: fact.clone(),
            });
            return;
        };
        match fact {
            Fact::Established { .. } => {
                connection.established.get_or_insert(at);
            }
            Fact::ConnectFailed {
                why, actor, stack, ..
            } => {
                connection.connect_failed.get_or_insert(ConnectFailed {
                    at,
                    why: *why,
                    actor: *actor,
                    stack: *stack,
                });
            }
            Fact::PeerClosed { .. } => {
                connection.peer_closed.get_or_insert(at);
            }
            Fact::LocalClosed {
                abort,
                actor,
                stack,
                ..
            } => {
                if connection.role == Role::Client
                    && connection.decisions.is_empty()
                    && let Some((decided, decision)) =
                        self.decisions.carried_out(at, connection.pid, socket)
                {
                    connection.decide(Decided {
                        at: decided,
                        decision,
                        attribution: Attribution::Inferred,
                    });
                }
                connection.close(LocalClosed {
                    at,
                    abort: *abort,
                    actor: *actor,
                    stack: *stack,
                });
            }
            Fact::Closed(closed) => {
                let told_before = connection.closed.replace((at, *closed));
                if told_before.is_none() {
                    self.connections.close(socket);
                }
            }
            Fact::ResetSent { reason, .. } => {
                connection.reset_sent.get_or_insert((at, reason.clone()));
            }
            Fact::ResetReceived { .. } => {
                connection.reset_received.get_or_insert(at);
            }
            Fact::Retransmitted { syn: true, .. } => connection.syn_retransmits += 1,
            Fact::Retransmitted { syn: false, .. } => connection.retransmits += 1,
            Fact::Dropped { reason, .. } => connection.dropped(reason.clone()),
            Fact::Request { number, head, .. } => {
                connection.exchanges.head(at, *number, head.clone());
            }
            Fact::Exchange(exchange) => connection.exchanges.tell(exchange),
            Fact::Goroutine { goroutine, .. } => connection.look(at, goroutine.clone()),
            _ => {}
        }
    }

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

    /// The name of a process, for people.
    #[must_use]
    pub fn name(&self, pid: Pid) -> String {
        self.process(pid)
            .map_or_else(|| format!("process {pid}"), |p| p.about.comm.clone())
    }

    /// The frames of a stack, innermost first; none where it was never told.
    #[must_use]
    pub fn frames(&self, stack: Option<StackId>) -> &[Frame] {
        stack
            .and_then(|id| self.stacks.get(&id))
            .map_or(&[], Vec::as_slice)
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

    /// Every goroutine snapshot, by process and time.
    pub fn snapshots(&self) -> impl Iterator<Item = &Taken> {
        self.goroutines.taken()
    }

    /// Where the goroutines of each process are, by its last snapshot; the largest group first.
    #[must_use]
    pub fn goroutine_groups(&self) -> Vec<Group> {
        self.goroutines.groups()
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

fn socket_of(fact: &Fact) -> Option<SocketId> {
    match fact {
        Fact::Established { socket }
        | Fact::ConnectFailed { socket, .. }
        | Fact::PeerClosed { socket }
        | Fact::LocalClosed { socket, .. }
        | Fact::ResetSent { socket, .. }
        | Fact::ResetReceived { socket }
        | Fact::Retransmitted { socket, .. }
        | Fact::Dropped { socket, .. }
        | Fact::Request { socket, .. } => Some(*socket),
        Fact::Closed(closed) => Some(closed.socket),
        Fact::Exchange(exchange) => Some(exchange.socket),
        Fact::Goroutine { socket, .. } => *socket,
        Fact::Process(_)
        | Fact::ProcessEnded { .. }
        | Fact::Stack { .. }
        | Fact::Opened(_)
        | Fact::Decision(_)
        | Fact::Goroutines(_)
        | Fact::Lost { .. }
        | Fact::Unseen(_) => None,
    }
}
