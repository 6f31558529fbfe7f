//! The locks of a process over the window: who queued, whose requests were late for it, and whether
//! anything moved.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    detect::finding::{Starter, Subject, Witness},
    event::{Attribution, BootInstant, Frame, Pid, Role},
    model::{Connection, Exchange, LockQueue, Model, Suspect},
};

use super::{lateness::LATE, scene::Scene};

/// Nobody who gets a lock now and then waits this long for it.
const STUCK: Duration = Duration::from_secs(3);

/// So many moments in a row say that nothing moves.
const MOMENTS: usize = 3;

/// One lock over the window.
pub(crate) struct Locked<'m> {
    pub(crate) pid: Pid,
    pub(crate) address: u64,
    /// Its queue, moment by moment.
    pub(crate) queues: Vec<&'m LockQueue>,
}

/// A request whose goroutine was seen to queue.
pub(crate) struct Queued<'m> {
    pub(crate) connection: &'m Connection,
    pub(crate) exchange: Exchange,
    /// From the request's end to the first byte of its answer, or until the window ended.
    pub(crate) waited: Duration,
}

impl<'m> Locked<'m> {
    /// Every lock of `pid` at which somebody was seen to wait.
    pub(crate) fn all(model: &'m Model, pid: Pid) -> Vec<Self> {
        let mut locks: BTreeMap<u64, Vec<&LockQueue>> = BTreeMap::new();
        for queue in model.locks(pid) {
            locks.entry(queue.address).or_default().push(queue);
        }
        let all = locks.into_iter();
        all.map(|(address, queues)| Self {
            pid,
            address,
            queues,
        })
        .collect()
    }

    /// The moment of the longest queue.
    pub(crate) fn longest(&self) -> Option<&'m LockQueue> {
        let queues = self.queues.iter().copied();
        queues.max_by_key(|queue| queue.waiters.len())
    }

    /// The moments in which more than `number` waited.
    pub(crate) fn moments_with(&self, number: usize) -> usize {
        let crowded = self
            .queues
            .iter()
            .filter(|queue| queue.waiters.len() >= number);
        crowded.count()
    }

    /// Since when nobody who waits has gone on, where that is long, and somebody has the lock.
    pub(crate) fn stuck_since(&self, model: &Model) -> Option<BootInstant> {
        let last = self.queues.last()?;
        let taken: Vec<BootInstant> = model
            .snapshots()
            .filter(|taken| taken.pid == self.pid)
            .map(|taken| taken.at)
            .collect();
        if taken.last() != Some(&last.at) || last.held == Some(false) {
            return None;
        }
        let now: HashSet<u64> = last.waiters.iter().copied().collect();
        let still: Vec<&&LockQueue> = self
            .queues
            .iter()
            .rev()
            .take_while(|queue| queue.waiters.iter().all(|id| now.contains(id)))
            .collect();
        let since = still.last()?.at;
        // It was never without a queue in between.
        let moments = taken.iter().filter(|at| **at >= since).count();
        (moments == still.len() && moments >= MOMENTS && last.at.since(since) >= STUCK)
            .then_some(since)
    }

    /// The requests whose goroutines were seen to queue, and that were late or are still unanswered.
    pub(crate) fn late(&self, scene: &Scene<'m>) -> Vec<Queued<'m>> {
        let mut late = Vec::new();
        for connection in scene.model.connections() {
            if connection.pid != self.pid || connection.role != Role::Server {
                continue;
            }
            for exchange in connection.exchanges() {
                let Some(id) = exchange.actor.and_then(|actor| actor.goroutine) else {
                    continue;
                };
                let until = exchange.first_byte.unwrap_or(scene.model.now());
                let waited = until.since(exchange.request_ended);
                let seen = self.queues.iter().any(|queue| {
                    (exchange.started..=until).contains(&queue.at) && queue.waiters.contains(&id)
                });
                if seen && waited >= LATE {
                    late.push(Queued {
                        connection,
                        exchange,
                        waited,
                    });
                }
            }
        }
        late
    }
}

/// The line at which most wait.
pub(crate) fn call(queue: &LockQueue) -> Option<&Frame> {
    queue.calls.first().map(|(frame, _)| frame)
}

/// A suspect as the report tells it.
pub(crate) fn suspect(model: &Model, pid: Pid, suspect: &Suspect) -> Witness {
    Witness {
        process: Subject::of(model, pid),
        id: suspect.id,
        state: suspect.state.clone(),
        wait_s: suspect.wait.map(|wait| wait.as_secs_f64()),
        attribution: Attribution::Inferred,
        frames: suspect.frames.clone(),
        created_by: suspect.created_by.as_ref().map(|frame| Starter {
            frame: frame.clone(),
            goroutine: None,
        }),
    }
}
