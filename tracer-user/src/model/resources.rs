//! What processes can run out of: places in the queues of their listening sockets, and file descriptors.
//!
//! In come counts as they stand at a moment; out comes how they went over the window: the first, the
//! worst and the last, and for descriptors their course, so that what grows is told from what grew.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::event::{BootInstant, Descriptors, Listening, Pid};

/// Listening sockets and processes kept; a host has some hundreds.
const MOST: usize = 16_384;

/// Moments kept of each process's course; when there are more, every second one goes.
const COURSE: usize = 64;

/// The queue of a listening socket over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// As first told.
    pub first: (BootInstant, Listening),
    /// When it was fullest.
    pub fullest: (BootInstant, Listening),
    /// As last told.
    pub last: (BootInstant, Listening),
    /// When it was first told to have dropped more than before.
    pub overflowed: Option<BootInstant>,
}

impl Queue {
    /// Handshakes dropped in the window.
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
    /// How many were open, over time; thinned out evenly.
    course: Vec<(BootInstant, u64)>,
    /// How often they were told, and of how many tellings one is in the course.
    told: u64,
    every: u64,
}

impl Table {
    /// How many were open at `at`, as far as told; `None` before the first time.
    #[must_use]
    pub fn open_at(&self, at: BootInstant) -> Option<u64> {
        if at >= self.last.0 {
            return Some(self.last.1.open);
        }
        let told = self.course.partition_point(|(when, _)| *when <= at);
        let (_, open) = self.course.get(told.checked_sub(1)?)?;
        Some(*open)
    }

    fn go_on(&mut self, at: BootInstant, open: u64) {
        if self.course.len() >= COURSE {
            let mut stays = false;
            self.course.retain(|_| {
                stays = !stays;
                stays
            });
            self.every *= 2;
        }
        if self.told.is_multiple_of(self.every) {
            self.course.push((at, open));
        }
        self.told += 1;
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
            course: Vec::new(),
            told: 0,
            every: 1,
        });
        table.go_on(at, told.open);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(open: u64) -> Descriptors {
        Descriptors {
            pid: 7,
            open,
            limit: 1024,
            refused: None,
            held: Vec::new(),
        }
    }

    #[test]
    fn the_course_of_descriptors_stays_small_and_true() {
        let mut resources = Resources::default();
        for second in 0..1_000 {
            resources.descriptors(BootInstant(second), &told(second));
        }
        let table = resources.tables().next().unwrap();
        assert!(table.course.len() <= COURSE);
        assert_eq!(table.open_at(BootInstant(2_000)), Some(999));
        let middle = table.open_at(BootInstant(500)).unwrap();
        assert!((460..=500).contains(&middle), "{middle}");
        assert_eq!(table.first.1.open, 0);
    }
}
