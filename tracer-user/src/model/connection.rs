//! One socket from its first sight to its end.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::event::{
    Actor, Attribution, BootInstant, Closed, ConnectFailure, Decider, Decision, Goroutine, Opened,
    Origin, Pid, Role, SocketId, StackId, Stall, is_host,
};

use super::{
    exchange::{Exchange, Exchanges},
    traffic::{Peer, Tally, Traffic},
};

/// Decisions kept of each connection. The first one decides; what follows is its aftermath.
const DECISIONS: usize = 4;

/// Deadlines that passed, kept of each connection; the first ones. A program that polls by setting
/// deadlines passes many.
const DEADLINES: usize = 16;

/// Looks at the goroutine that serves a connection, kept of each.
const LOOKS: usize = 4;

/// Gaps in messages kept of each connection, and times of segments sent again.
const STALLS: usize = 16;
const RETRANSMITS: usize = 64;

/// Different drop reasons kept of each connection.
const DROP_REASONS: usize = 8;

/// A connection as one of its sockets saw it.
///
/// Where both ends are on this host and traced, each end is a `Connection` of its own and names the
/// other in `other_end`.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The socket.
    pub socket: SocketId,
    /// Whose it is.
    pub pid: Pid,
    /// Who asks on it.
    pub role: Role,
    /// How it came to be known.
    pub origin: Origin,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// When it was opened, or found.
    pub opened: BootInstant,
    /// Who opened it.
    pub opened_by: Option<Actor>,
    /// Where it was opened.
    pub opened_at: Option<StackId>,
    /// Where it was asked for, where a goroutine of `net/http`'s transport opened it.
    pub asked_at: Option<StackId>,
    /// When the handshake was done, if that happened in the window.
    pub established: Option<BootInstant>,
    /// How connecting failed.
    pub connect_failed: Option<ConnectFailed>,
    /// The peer's FIN.
    pub peer_closed: Option<BootInstant>,
    /// Our own close or shutdown; the first where there are several.
    pub local_closed: Option<LocalClosed>,
    /// Our RST, and the kernel's word for why.
    pub reset_sent: Option<(BootInstant, Option<String>)>,
    /// The peer's RST.
    pub reset_received: Option<BootInstant>,
    /// When the kernel was done with it, and what it had counted.
    pub closed: Option<(BootInstant, Closed)>,
    /// Segments sent again, SYNs apart.
    pub retransmits: u32,
    /// When they were; the first ones.
    pub retransmitted: Vec<BootInstant>,
    /// Gaps in the middle of messages; the first ones.
    pub stalls: Vec<Stall>,
    /// Since when bytes of the peer lie in the socket unread, and how many, at its end or the window's.
    pub unread: Option<(BootInstant, Option<u64>)>,
    /// SYNs sent again.
    pub syn_retransmits: u32,
    /// Packets dropped by this kernel, by its reason.
    pub drops: BTreeMap<String, u64>,
    /// What decided its fate, in the order it happened.
    pub decisions: Vec<Decided>,
    /// Deadlines set on it that passed, in the order they did.
    pub deadlines: Vec<Deadline>,
    /// Looks at the goroutine that serves it, each with its time.
    pub looks: Vec<(BootInstant, Goroutine)>,
    /// The socket at the other end, where that is a traced one on this host.
    pub other_end: Option<SocketId>,
    /// It was found to be gone, and how it ended was lost.
    pub vanished: Option<BootInstant>,
    /// Records were lost while it was open: that something was not told of it means nothing.
    pub in_gap: bool,
    /// In which network its addresses are meant: see `Connections::network_of`.
    pub(super) network: Option<u64>,
    pub(super) exchanges: Exchanges,
}

/// How connecting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectFailed {
    /// When.
    pub at: BootInstant,
    /// Why.
    pub why: ConnectFailure,
    /// Who gave up, where it was the process itself.
    pub actor: Option<Actor>,
    /// Where it gave up.
    pub stack: Option<StackId>,
}

/// Our own close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalClosed {
    /// When.
    pub at: BootInstant,
    /// With a reset.
    pub abort: bool,
    /// Who closed.
    pub actor: Option<Actor>,
    /// Where.
    pub stack: Option<StackId>,
}

/// A decision about this connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// When.
    pub at: BootInstant,
    /// What.
    pub decision: Decision,
    /// How it is known to be about this connection.
    pub attribution: Attribution,
}

/// A deadline that the program had set on the connection, and that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: BootInstant,
    /// It was for reading, or for writing.
    pub of: Decider,
}

/// How a connection ended, in the words of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We closed first.
    FinLocal,
    /// The peer closed first.
    FinRemote,
    /// We reset it.
    ResetLocal,
    /// The peer reset it.
    ResetRemote,
    /// It was answered by RST in place of a handshake.
    Refused,
    /// No handshake: nobody answered, or the process would not wait longer.
    Timeout,
    /// It is still open.
    Open,
}

impl Connection {
    pub(super) fn opened(at: BootInstant, opened: Opened) -> Self {
        Self {
            socket: opened.socket,
            pid: opened.pid,
            role: opened.role,
            origin: opened.origin,
            local: opened.local,
            remote: opened.remote,
            opened: at,
            opened_by: opened.actor,
            opened_at: opened.stack,
            asked_at: None,
            established: (opened.origin == Origin::Accepted).then_some(at),
            connect_failed: None,
            peer_closed: None,
            local_closed: None,
            reset_sent: None,
            reset_received: None,
            closed: None,
            retransmits: 0,
            retransmitted: Vec::new(),
            stalls: Vec::new(),
            unread: None,
            syn_retransmits: 0,
            drops: BTreeMap::new(),
            decisions: Vec::new(),
            deadlines: Vec::new(),
            looks: Vec::new(),
            other_end: None,
            vanished: None,
            in_gap: false,
            network: None,
            exchanges: Exchanges::default(),
        }
    }

    /// Its exchanges, oldest first: the last ones, and before these what went wrong.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.list()
    }

    /// All its exchanges, counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.exchanges.tally()
    }

    /// The address of who asks.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        match self.role {
            Role::Client => self.local,
            Role::Server => self.remote,
        }
    }

    /// The address of who answers.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        match self.role {
            Role::Client => self.remote,
            Role::Server => self.local,
        }
    }

    /// What it is counted by.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::of(self.pid, self.role, self.local, self.remote)
    }

    /// The handshake was done, in the window or before it.
    #[must_use]
    pub fn was_established(&self) -> bool {
        self.established.is_some() || self.origin == Origin::Found
    }

    /// It still waits for the answer to its SYN.
    #[must_use]
    pub fn connecting(&self) -> bool {
        self.role == Role::Client
            && !self.in_gap
            && !self.was_established()
            && self.connect_failed.is_none()
            && self.ended().is_none()
    }

    /// How long the handshake took.
    #[must_use]
    pub fn connect_time(&self) -> Option<Duration> {
        (self.origin == Origin::Connected)
            .then_some(self.established)?
            .map(|at| at.since(self.opened))
    }

    /// When the peer was first known to have left, by FIN or RST.
    #[must_use]
    pub fn peer_left(&self) -> Option<BootInstant> {
        earliest([self.peer_closed, self.reset_received])
    }

    /// When we left, by FIN or RST.
    #[must_use]
    pub fn left(&self) -> Option<BootInstant> {
        earliest([
            self.local_closed.map(|closed| closed.at),
            self.reset_sent.as_ref().map(|(at, _)| *at),
        ])
    }

    /// When the first of both ends left, or connecting failed.
    #[must_use]
    pub fn ended(&self) -> Option<BootInstant> {
        earliest([
            self.left(),
            self.peer_left(),
            self.connect_failed.map(|failed| failed.at),
        ])
        .or(self.closed.map(|(at, _)| at))
        .or(self.vanished)
    }

    /// Nothing more can come of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed.is_some() || self.vanished.is_some()
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> End {
        if let Some(failed) = self.connect_failed {
            return match failed.why {
                ConnectFailure::Refused => End::Refused,
                ConnectFailure::TimedOut | ConnectFailure::Abandoned | ConnectFailure::Error(_) => {
                    End::Timeout
                }
            };
        }
        let aborted = self.local_closed.filter(|closed| closed.abort);
        let ends = [
            (self.reset_received, End::ResetRemote),
            (self.reset_sent.as_ref().map(|(at, _)| *at), End::ResetLocal),
            (aborted.map(|closed| closed.at), End::ResetLocal),
            (self.local_closed.map(|closed| closed.at), End::FinLocal),
            (self.peer_closed, End::FinRemote),
        ];
        ends.into_iter()
            .filter_map(|(at, end)| Some((at?, end)))
            .min_by_key(|(at, _)| *at)
            .map_or_else(
                || self.closed.map_or(End::Open, |_| End::FinLocal),
                |(_, end)| end,
            )
    }

    /// The kernel counted more bytes from the peer than any exchange tells of: some were received in
    /// a way that cannot be watched (`splice(2)`), so silence of the peer must not be concluded. From a
    /// packet capture nothing is hidden in this way.
    #[must_use]
    pub fn heard_unseen(&self) -> bool {
        !is_host(self.pid)
            && self.origin != Origin::Found
            && self.role == Role::Client
            && self
                .closed
                .is_some_and(|(_, closed)| closed.bytes_received > self.tally().response_bytes)
    }

    /// Records are lost from then on.
    pub(super) fn lies_in_gap(&mut self, from: BootInstant) {
        self.in_gap = true;
        self.exchanges.may_lack_records_from(from);
    }

    pub(super) fn decide(&mut self, decided: Decided) {
        if self.decisions.len() < DECISIONS {
            self.decisions.push(decided);
        }
    }

    pub(super) fn deadline(&mut self, deadline: Deadline) {
        if self.deadlines.len() < DEADLINES {
            self.deadlines.push(deadline);
        }
    }

    /// Somebody took a request. Processes may share a listener, and which of them accepts is not seen.
    pub(super) fn served_by(&mut self, actor: Option<Actor>) {
        let seen = actor.filter(|actor| actor.attribution == Attribution::Direct);
        if let (Role::Server, Some(actor)) = (self.role, seen) {
            self.pid = actor.pid;
        }
    }

    pub(super) fn look(&mut self, at: BootInstant, goroutine: Goroutine) {
        if self.looks.len() < LOOKS {
            self.looks.push((at, goroutine));
        }
    }

    pub(super) fn retransmit(&mut self, at: BootInstant) {
        self.retransmits += 1;
        if self.retransmitted.len() < RETRANSMITS {
            self.retransmitted.push(at);
        }
    }

    pub(super) fn stall(&mut self, stall: Stall) {
        if self.stalls.len() < STALLS {
            self.stalls.push(stall);
        }
    }

    pub(super) fn dropped(&mut self, reason: String) {
        if self.drops.len() < DROP_REASONS || self.drops.contains_key(&reason) {
            *self.drops.entry(reason).or_default() += 1;
        }
    }

    pub(super) fn close(&mut self, closing: LocalClosed) {
        let first = self.local_closed.get_or_insert(closing);
        first.abort |= closing.abort;
        first.stack = first.stack.or(closing.stack);
        first.actor = first.actor.or(closing.actor);
    }

    /// A rule may want to see it: something went wrong, was sent again, or was slow.
    pub(super) fn remarkable(&self) -> bool {
        self.went_wrong() || self.retransmits > 0 || self.exchanges.slow()
    }

    /// Connecting failed or took a second SYN, it was reset, packets of it were dropped, or an exchange
    /// went wrong.
    pub(super) fn went_wrong(&self) -> bool {
        self.connect_failed.is_some()
            || self.syn_retransmits > 0
            || self.reset_received.is_some()
            || self.reset_sent.is_some()
            || !self.drops.is_empty()
            || !self.looks.is_empty()
            || !self.stalls.is_empty()
            || self.unread.is_some()
            || self.exchanges.went_wrong()
    }

    /// Adds what is left of it when it is no longer kept.
    pub(super) fn count_into(&self, traffic: &mut Traffic) {
        let refused = self
            .connect_failed
            .is_some_and(|failed| failed.why == ConnectFailure::Refused);
        traffic.connections += 1;
        traffic.established += u64::from(self.was_established());
        traffic.refused += u64::from(refused);
        self.exchanges.count_into(&mut traffic.exchanges);
    }
}

fn earliest<const N: usize>(times: [Option<BootInstant>; N]) -> Option<BootInstant> {
    times.into_iter().flatten().min()
}
