//! Which connection a decision was about, where the decision itself does not say.
//!
//! Go's transport decides in one goroutine and closes in another a moment later, so a decision whose
//! connection could not be read belongs to the next connection that its process closes.

use std::{collections::VecDeque, time::Duration};

use crate::event::{BootInstant, Decider, Decision, Pid, SocketId};

/// How long after a decision the close that carries it out may come.
pub const DECISION_TO_CLOSE: Duration = Duration::from_millis(50);

/// Checks of `http.Client.Timeout` kept; they name no connection, so they cannot be kept with one.
const CHECKS: usize = 16_384;

/// Decisions waiting for their close, and closes for which a decision may still come. More than a
/// few only where a process decides without closing.
const PENDING: usize = 1_024;

/// What `closeLocked` is told once a connection's fate is decided already.
const AFTERMATH: [&str; 3] = [
    "http: persistConn.readLoop exiting",
    "net/http: request canceled",
    "use of closed network connection",
];

/// `net/http` looked whether `Client.Timeout` had passed: it is set, and it is what bounds the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutCheck {
    /// When.
    pub at: BootInstant,
    /// In which process.
    pub pid: Pid,
    /// By which goroutine.
    pub goroutine: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Decisions {
    checks: VecDeque<TimeoutCheck>,
    pending: VecDeque<(BootInstant, Decision)>,
    closes: VecDeque<(BootInstant, Pid, SocketId)>,
}

impl Decisions {
    pub(super) fn check(&mut self, at: BootInstant, decision: &Decision) {
        let check = TimeoutCheck {
            at,
            pid: decision.actor.pid,
            goroutine: decision.actor.goroutine,
        };
        push_bounded(&mut self.checks, check, CHECKS);
    }

    /// Takes a decision that names no connection. Gives the connection that was closed by it, where
    /// the close was told first; otherwise the decision waits.
    pub(super) fn take(&mut self, at: BootInstant, decision: &Decision) -> Option<SocketId> {
        if aftermath(decision) {
            return None;
        }
        let told_before = self.closes.iter().position(|(closed, pid, _)| {
            *pid == decision.actor.pid && *closed >= at && closed.since(at) <= DECISION_TO_CLOSE
        });
        if let Some((_, _, socket)) = told_before.and_then(|place| self.closes.remove(place)) {
            return Some(socket);
        }
        push_bounded(&mut self.pending, (at, decision.clone()), PENDING);
        None
    }

    /// The decision that the close of `socket` by `pid` at `at` carries out, if it was told before.
    pub(super) fn carried_out(
        &mut self,
        at: BootInstant,
        pid: Pid,
        socket: SocketId,
    ) -> Option<(BootInstant, Decision)> {
        self.pending
            .retain(|(decided, _)| at.since(*decided) <= DECISION_TO_CLOSE);
        let place = self
            .pending
            .iter()
            .position(|(decided, decision)| decision.actor.pid == pid && *decided <= at);
        if place.is_none() {
            push_bounded(&mut self.closes, (at, pid, socket), PENDING);
        }
        self.pending.remove(place?)
    }

    pub(super) fn checks(&self) -> impl Iterator<Item = &TimeoutCheck> {
        self.checks.iter()
    }
}

fn aftermath(decision: &Decision) -> bool {
    decision.decider == Decider::TransportClose
        && decision
            .error
            .as_deref()
            .is_some_and(|error| AFTERMATH.iter().any(|after| error.contains(after)))
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() == bound {
        queue.pop_front();
    }
    queue.push_back(item);
}
