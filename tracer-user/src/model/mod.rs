//! The story: processes, connections, exchanges, goroutines and the links between them.
//!
//! In come events, from whichever source; what comes out is what they say together. The model judges
//! nothing, reads no clock, opens no file, and stays bounded however long the stream is: what was
//! forgotten to keep it so is counted.

use std::collections::{BTreeMap, VecDeque};

use crate::event::{
    self, Attribution, BootInstant, Decider, Decision, Event, Fact, Goroutine, Pid, Role, SocketId,
    Source, Unseen,
};

mod attendance;
mod blocking;
mod connection;
mod connections;
mod course;
mod decisions;
mod dials;
mod dumps;
mod early;
mod exchange;
mod gaps;
mod goroutines;
mod known;
mod load;
mod pace;
mod pairing;
mod profile;
mod resources;
mod scheduler;
mod services;
mod stacks;
#[cfg(test)]
pub(crate) mod story;
mod surroundings;
#[cfg(test)]
mod tests;
mod traffic;

pub use attendance::{Attendance, Muster};
pub use blocking::{LockQueue, Suspect, SuspectedBy};
pub use connection::{ConnectFailed, Connection, Deadline, Decided, End, LocalClosed};
pub use course::Course;
pub use decisions::{DECISION_TO_CLOSE, TimeoutCheck};
pub use dumps::Fit;
pub use exchange::Exchange;
pub use goroutines::{Group, Taken, Whereabouts};
pub use load::{Load, Pressure};
pub use pace::{Kind, Pace, Paces};
pub use pairing::{Asking, PairedBy, Pairing, Served};
pub use profile::{Place, Sampled, TICK};
pub use resources::{Queue, Table};
pub use scheduler::Wait;
pub use services::{Service, Services};
pub use traffic::{Peer, Sizes, Tally, Traffic};

use blocking::Blocked;
use connections::Connections;
use decisions::Decisions;
use dials::Dials;
use early::Early;
use gaps::Gaps;
pub use gaps::WentWithout;
use goroutines::Goroutines;
use profile::Profile;
use resources::Resources;
use scheduler::Scheduler;
use stacks::Stacks;
use surroundings::Surroundings;

/// Different things that could not be seen, kept; a source tells a few.
const UNSEEN: usize = 256;

/// Looks at goroutines that were told without a connection, kept; the last ones.
const LOOKS: usize = 1_024;

/// Processes that ended, kept; the last ones. A target may start and end children all the time.
const ENDED: usize = 16_384;

/// What is known of one window on one host.
#[derive(Debug)]
pub struct Model {
    source: Source,
    now: BootInstant,
    ended: Option<BootInstant>,
    processes: BTreeMap<Pid, Process>,
    /// In the order of their ends.
    ended_processes: VecDeque<Pid>,
    processes_forgotten: u64,
    stacks: Stacks,
    connections: Connections,
    decisions: Decisions,
    dials: Dials,
    /// Processes whose server was told to end, and when first.
    shutdowns: BTreeMap<Pid, BootInstant>,
    goroutines: Goroutines,
    blocked: Blocked,
    resources: Resources,
    scheduler: Scheduler,
    profile: Profile,
    surroundings: Surroundings,
    losses: BTreeMap<String, u64>,
    unseen: Vec<Unseen>,
    gaps: Gaps,
    shed: Vec<WentWithout>,
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
            ended_processes: VecDeque::new(),
            processes_forgotten: 0,
            stacks: Stacks::default(),
            connections: Connections::default(),
            decisions: Decisions::default(),
            dials: Dials::default(),
            shutdowns: BTreeMap::new(),
            goroutines: Goroutines::default(),
            blocked: Blocked::default(),
            resources: Resources::default(),
            scheduler: Scheduler::default(),
            profile: Profile::default(),
            surroundings: Surroundings::default(),
            losses: BTreeMap::new(),
            unseen: Vec::new(),
            gaps: Gaps::default(),
            shed: Vec::new(),
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
                self.process_ended(at, *pid);
            }
            Fact::Stack { id, frames } => self.stacks.tell(*id, frames),
            Fact::Opened(opened) => {
                let frames = opened.stack.and_then(|id| self.stacks.frames(id));
                let asked = frames
                    .and_then(|frames| self.dials.opened(at, opened.pid, opened.remote, frames));
                self.connections.open(at, opened.clone(), asked);
                self.doubt(opened.socket);
                for early in self.early.of(opened.socket) {
                    self.apply(&early);
                }
            }
            Fact::Listening(listening) => self.resources.listening(at, *listening),
            Fact::Descriptors(descriptors) => self.resources.descriptors(at, descriptors),
            Fact::Decision(decision) => self.decided(at, decision),
            Fact::Thread(thread) => self.scheduler.thread(thread),
            Fact::Waited(waited) => self.scheduler.waited(at, waited),
            Fact::Sampled(sample) => self.profile.take(at, *sample),
            Fact::Host(host) => self.surroundings.host(at, host),
            Fact::Neighbours(told) => self.surroundings.neighbours = Some(told.clone()),
            Fact::Quota(quota) => self.surroundings.quota(at, quota),
            Fact::Runtime(runtime) => self.surroundings.runtime(at, runtime),
            Fact::Gap { from, until } => self.gap(*from, *until),
            Fact::Shed {
                shed,
                spent,
                budget,
            } => self.shed(at, *shed, (*spent, *budget)),
            Fact::Network(told) => self.connections.network(*told),
            Fact::MemoryLimit(limit) => self.surroundings.memory_limit(at, limit),
            // The timeline is for those who draw it: the sums tell the rest. Labels are for those who read the
            // snapshots: no rule judges by them.
            Fact::Switched(_) | Fact::Labels(_) => {}
            Fact::Blocking(told) => self.blocked.take(at, told, &self.goroutines),
            Fact::Goroutines(snapshot) => self.goroutines.take(at, snapshot),
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

    fn process_ended(&mut self, at: BootInstant, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if process.ended.replace(at).is_none() {
            self.ended_processes.push_back(pid);
        }
        if self.ended_processes.len() > ENDED
            && let Some(oldest) = self.ended_processes.pop_front()
        {
            // The id may be another's by now.
            let ended = self
                .processes
                .get(&oldest)
                .is_some_and(|it| it.ended.is_some());
            if ended {
                self.processes.remove(&oldest);
                self.processes_forgotten += 1;
            }
        }
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
        if decision.decider == Decider::TransportDial {
            if let Some(stack) = decision.stack {
                self.dials.asked(at, decision.actor.pid, stack);
            }
            return;
        }
        if decision.decider == Decider::ServerShutdown {
            self.shutdowns.entry(decision.actor.pid).or_insert(at);
            return;
        }
        let (socket, attribution) = match decision.socket {
            Some(socket) => (socket, Attribution::Direct),
            None if is_deadline(decision) => return,
            None => match self.decisions.take(at, decision) {
                Some(socket) => (socket, Attribution::Inferred),
                None => return,
            },
        };
        match self.connections.get_mut(socket) {
            Some(connection) if is_deadline(decision) => connection.deadline(Deadline {
                at,
                of: decision.decider,
            }),
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
                if told_before.is_none() && connection.vanished.is_none() {
                    self.connections.close(socket);
                }
            }
            Fact::Vanished { .. } => {
                let known = connection.is_over();
                connection.vanished.get_or_insert(at);
                if !known {
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
            Fact::Retransmitted { syn: false, .. } => connection.retransmit(at),
            Fact::Stalled(stall) => connection.stall(*stall),
            Fact::Unread { since, bytes, .. } => connection.unread = Some((*since, *bytes)),
            Fact::Dropped { reason, .. } => connection.dropped(reason.clone()),
            Fact::Request { number, head, .. } => {
                connection.exchanges.head(at, *number, head.clone());
            }
            Fact::Exchange(exchange) => {
                connection.served_by(exchange.actor);
                connection.exchanges.tell(exchange);
            }
            Fact::Goroutine { goroutine, .. } => connection.look(at, goroutine.clone()),
            _ => {}
        }
    }
}

fn is_deadline(decision: &Decision) -> bool {
    matches!(
        decision.decider,
        Decider::ReadDeadline | Decider::WriteDeadline
    )
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
        | Fact::Request { socket, .. }
        | Fact::Unread { socket, .. }
        | Fact::Vanished { socket } => Some(*socket),
        Fact::Stalled(stall) => Some(stall.socket),
        Fact::Closed(closed) => Some(closed.socket),
        Fact::Exchange(exchange) => Some(exchange.socket),
        Fact::Goroutine { socket, .. } => *socket,
        Fact::Process(_)
        | Fact::ProcessEnded { .. }
        | Fact::Stack { .. }
        | Fact::Opened(_)
        | Fact::Listening(_)
        | Fact::Descriptors(_)
        | Fact::Decision(_)
        | Fact::Goroutines(_)
        | Fact::Lost { .. }
        | Fact::Unseen(_)
        | Fact::Thread(_)
        | Fact::Waited(_)
        | Fact::Switched(_)
        | Fact::Sampled(_)
        | Fact::Host(_)
        | Fact::Neighbours(_)
        | Fact::Quota(_)
        | Fact::Runtime(_)
        | Fact::Blocking(_)
        | Fact::Gap { .. }
        | Fact::Shed { .. }
        | Fact::MemoryLimit(_)
        | Fact::Labels(_)
        | Fact::Network(_) => None,
    }
}
