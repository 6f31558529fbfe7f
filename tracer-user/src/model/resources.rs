//! What processes can run out of: places in the queues of their listening sockets, and file descriptors.
//!
//! In come counts as they stand at a moment; out comes how they went over the window: the first, the
//! worst and the last, and for descriptors their course, so that what grows is told from what grew.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::event::{BootInstant, Descriptors, Listening, Pid};

use super::Course;

/// Listening sockets and processes kept; a host has some hundreds.
const MOST: usize = 16_384;

/// The queue of a listening socket over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// As first told.
    pub first: (BootInstant, Listening),
    /// When it was fullest.
    pub fullest: (BootInstant, Listening),
    /// As last told.
    pub last: (BootInstant, Listening),
    /// When it was first told to have turned away more than before.
    pub overflowed: Option<BootInstant>,
}

impl Queue {
    /// Handshakes that found it full in the window.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.last.1.dropped.saturating_sub(self.first.1.dropped)
    }
}

/// The file descriptors of a process over the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// As first told.
    pub first: (BootInstant, Descriptors),
    /// When most were open.
    pub fullest: (BootInstant, Descriptors),
    /// As last told.
    pub last: (BootInstant, Descriptors),
    /// When a call was first told to have failed for want of one.
    pub refused: Option<BootInstant>,
    /// How many were open.
    course: Course<u64>,
}

impl Table {
    /// How many were open at `at`, as far as told; `None` before the first time.
    #[must_use]
    pub fn open_at(&self, at: BootInstant) -> Option<u64> {
        self.course.at(at).copied()
    }
}

#[derive(Debug, Default)]
pub(super) struct Resources {
    queues: BTreeMap<(Pid, SocketAddr), Queue>,
    tables: BTreeMap<Pid, Table>,
}

impl Resources {
    pub(super) fn listening(&mut self, at: BootInstant, told: Listening) {
        let key = (told.pid, told.address);
        if self.queues.len() == MOST && !self.queues.contains_key(&key) {
            return;
        }
        let queue = self.queues.entry(key).or_insert(Queue {
            first: (at, told),
            fullest: (at, told),
            last: (at, told),
            overflowed: None,
        });
        if told.queued > queue.fullest.1.queued {
            queue.fullest = (at, told);
        }
        if told.dropped > queue.first.1.dropped {
            queue.overflowed.get_or_insert(at);
        }
        queue.last = (at, told);
    }

    pub(super) fn descriptors(&mut self, at: BootInstant, told: &Descriptors) {
        if self.tables.len() == MOST && !self.tables.contains_key(&told.pid) {
            return;
        }
        let table = self.tables.entry(told.pid).or_insert_with(|| Table {
            first: (at, told.clone()),
            fullest: (at, told.clone()),
            last: (at, told.clone()),
            refused: None,
            course: Course::new(at, told.open),
        });
        table.course.go_on(at, told.open);
        let mut told = told.clone();
        if told.held.is_empty() {
            told.held.clone_from(&table.last.1.held);
        }
        if told.open > table.fullest.1.open {
            table.fullest = (at, told.clone());
        }
        if told.refused.is_some_and(|calls| calls > 0) {
            table.refused.get_or_insert(at);
        }
        table.last = (at, told);
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }
}
