//! An exchange as a story tells it: when it was asked, and what came of it.

use crate::event::{Actor, Pid};

use super::actor;

/// One exchange in the making.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(super) started: f64,
    pub(super) sent: f64,
    pub(super) bytes: u64,
    pub(super) answer: Option<(f64, u16, u64)>,
    pub(super) actor: Option<Actor>,
    pub(super) complete: bool,
    pub(super) arrived: Option<f64>,
    pub(super) last: Option<f64>,
}

impl Asked {
    /// A request of `bytes`, all of it sent (or read) at once.
    pub(crate) fn at(started: f64, bytes: u64) -> Self {
        Self {
            started,
            sent: started,
            bytes,
            answer: None,
            actor: None,
            complete: false,
            arrived: None,
            last: None,
        }
    }

    /// What we receive of it lay in the socket from then on.
    pub(crate) fn arrived(mut self, at: f64) -> Self {
        self.arrived = Some(at);
        self
    }

    /// Its last byte went later than its first.
    pub(crate) fn until(mut self, sent: f64) -> Self {
        self.sent = sent;
        self
    }

    /// It was answered at once, and is over; status 0 is one that nobody without the keys can read.
    pub(crate) fn answered(mut self, at: f64, status: u16) -> Self {
        self.answer = Some((at, status, 150));
        self.complete = true;
        self
    }

    /// The answer has begun, and is not over.
    pub(crate) fn answering(mut self, at: f64, status: u16) -> Self {
        self.answer = Some((at, status, 150));
        self
    }

    /// The answer has this size.
    pub(crate) fn sized(mut self, bytes: u64) -> Self {
        self.answer = self.answer.map(|(at, status, _)| (at, status, bytes));
        self
    }

    pub(crate) fn by(mut self, pid: Pid, goroutine: u64) -> Self {
        self.actor = Some(actor(pid, goroutine));
        self
    }
}
