//! Facts about sockets that are not announced yet.
//!
//! Events come almost in order, so a socket's first facts may come before its opening. They wait
//! here for a moment; what nobody claims is a stray, and counted.

use std::{collections::VecDeque, time::Duration};

use crate::event::{Event, Fact, SocketId};

use super::socket_of;

/// Facts that wait. Only lost records or a badly sorted source fill this.
const WAITING: usize = 1_024;

/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Early {
    waiting: VecDeque<Event>,
    given_up: u64,
}

impl Early {
    pub(super) fn keep(&mut self, event: Event) {
        while self.waiting.len() >= WAITING
            || self
                .waiting
                .front()
                .is_some_and(|oldest| event.at.since(oldest.at) > PATIENCE)
        {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.waiting.push_back(event);
    }

    /// Those about `socket`, in the order they came.
    pub(super) fn of(&mut self, socket: SocketId) -> Vec<Event> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let (of_it, others) = self
            .waiting
            .drain(..)
            .partition(|event| concerns(event, socket));
        self.waiting = others;
        Vec::from_iter::<VecDeque<Event>>(of_it)
    }

    /// Those that nobody claimed, so far.
    pub(super) fn strays(&self) -> u64 {
        self.given_up + self.waiting.len() as u64
    }
}

fn concerns(event: &Event, socket: SocketId) -> bool {
    match &event.fact {
        Fact::Decision(decision) => decision.socket == Some(socket),
        fact => socket_of(fact) == Some(socket),
    }
}
