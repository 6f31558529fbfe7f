//! Requests that one kind of wait on the scheduler made late.
//!
//! In come the requests of a process with what held them up; out come those that lost so much to it that
//! somebody notices, and what they explain. A service that waits for CPUs and answers in time has lost
//! nothing.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    event::{Pid, SocketId},
    model::Connection,
};

use super::{
    held_up::{self, HeldUp},
    lateness::LATE,
    scene::Scene,
};

/// Who loses less does not notice. It is also from here on that the kernel half tells every request.
const NOTICED: Duration = Duration::from_millis(50);

/// The part of its time that a request must have lost: without, it would have been done half as soon again.
const PART: u32 = 3;

/// So many make a habit of it.
const HABIT: usize = 3;

/// Of a long wait, which everybody notices, a smaller share of the requests is worth a warning.
const OUTLIERS: f64 = 0.01;

/// A request that was late for it.
#[derive(Debug)]
pub(crate) struct Delayed<'m> {
    pub(crate) held: HeldUp<'m>,
    /// What it lost.
    pub(crate) lost: Duration,
    /// From when it was there to the first byte of its answer.
    took: Duration,
}

impl Delayed<'_> {
    /// Without, it would have been in time; or it is what took most of it.
    fn explains(&self) -> bool {
        let answered = self.held.exchange.answered();
        self.lost * 2 >= self.took || (answered && self.took.saturating_sub(self.lost) < LATE)
    }
}

/// The requests of one process that were late for it.
#[derive(Debug)]
pub(crate) struct Delays<'m> {
    /// In the order of what they lost.
    pub(crate) delayed: Vec<Delayed<'m>>,
    /// All that the process served.
    pub(crate) requests: u64,
}

impl<'m> Delays<'m> {
    /// Those of `pid`; `lost` says what of a wait counts.
    pub(crate) fn of(scene: &Scene<'m>, pid: Pid, lost: impl Fn(&HeldUp<'m>) -> Duration) -> Self {
        let mut delayed: Vec<Delayed<'m>> = scene
            .held_up(pid)
            .iter()
            .cloned()
            .map(|held| {
                let (from, until) = held_up::window(scene, held.connection, &held.exchange);
                Delayed {
                    lost: lost(&held),
                    took: until.since(from),
                    held,
                }
            })
            .filter(|one| one.lost >= NOTICED && one.lost * PART >= one.took)
            .collect();
        delayed.sort_by_key(|one| one.lost);
        let served = scene.served_by(pid).exchanges.exchanges;
        Self {
            requests: served.max(delayed.len() as u64),
            delayed,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.delayed.len() as u64
    }

    /// Enough of them to be worth a warning: `ordinary` is the share of the requests below which it may
    /// happen to anybody.
    pub(crate) fn are_many(&self, ordinary: f64) -> bool {
        let all = self.requests.max(1) as f64;
        let long = self.delayed.iter().filter(|one| one.lost >= LATE).count();
        let enough = |number: usize, share: f64| number >= HABIT && number as f64 >= share * all;
        enough(self.delayed.len(), ordinary) || enough(long, OUTLIERS)
    }

    /// The one in the middle of what was lost.
    pub(crate) fn example(&self) -> Option<&Delayed<'m>> {
        // Only those that were answered have an end to reckon to.
        let answered = self
            .delayed
            .iter()
            .filter(|one| one.held.exchange.answered());
        let answered: Vec<_> = answered.collect();
        let middle = answered.get(answered.len() / 2).copied();
        middle.or_else(|| self.delayed.get(self.delayed.len() / 2))
    }

    /// Most of what was lost befell the goroutines or threads of the requests themselves.
    pub(crate) fn are_direct(&self) -> bool {
        let sum = |of: fn(&Delayed<'_>) -> Duration| self.delayed.iter().map(of).sum::<Duration>();
        sum(|one| one.held.own) * 2 >= sum(|one| one.lost)
    }

    /// Both ends of the connections on which nothing was late, or went unanswered, for another reason.
    pub(crate) fn explained(&self) -> HashSet<SocketId> {
        let mut by_socket: BTreeMap<SocketId, (&Connection, HashSet<u32>)> = BTreeMap::new();
        for one in self.delayed.iter().filter(|one| one.explains()) {
            let connection = one.held.connection;
            let (_, numbers) = by_socket
                .entry(connection.socket)
                .or_insert_with(|| (connection, HashSet::new()));
            numbers.insert(one.held.exchange.number);
        }
        by_socket
            .into_values()
            .filter(|(connection, explained)| {
                connection.exchanges().iter().all(|exchange| {
                    let in_time = exchange.answered() && exchange.duration() < LATE;
                    in_time || explained.contains(&exchange.number)
                })
            })
            .flat_map(|(connection, _)| [Some(connection.socket), connection.other_end])
            .flatten()
            .collect()
    }
}
