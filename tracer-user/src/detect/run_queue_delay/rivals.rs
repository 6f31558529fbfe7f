//! Who had the CPUs that requests waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    detect::grounds::{delays::Delays, held_up::window, scene::Scene},
    event::{Pid, Waiting},
};

/// Processes of one name, and for how long they had the CPU that a request waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    /// Their name.
    pub(super) comm: String,
    /// Their ids; more than one of a pool of workers.
    pub(super) pids: BTreeSet<Pid>,
    /// How long requests waited while it was theirs.
    pub(super) waited: Duration,
}

/// Everybody who had them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// Other processes, who was waited for longest first.
    pub(super) others: Vec<Rival>,
    /// For how long it was the process's own threads.
    pub(super) own: Duration,
    /// All waits for which somebody is known.
    pub(super) all: Duration,
}

impl Rivals {
    /// For the requests of `pid` that were late for it. A wait counts for who had the CPU right before it
    /// ended; of the others that had it meanwhile nothing is known.
    pub(super) fn of(scene: &Scene<'_>, pid: Pid, delays: &Delays<'_>) -> Self {
        let mut rivals = Self::default();
        let mut counted = BTreeSet::new();
        let mut by_name: BTreeMap<&str, Rival> = BTreeMap::new();
        for one in &delays.delayed {
            let whole = window(scene, one.held.connection, &one.held.exchange);
            for wait in scene.schedule.waits(pid, whole) {
                let key = (wait.told.tid, wait.until);
                let Some(by) = wait
                    .told
                    .by
                    .as_ref()
                    .filter(|_| wait.told.why != Waiting::Throttled && counted.insert(key))
                else {
                    continue;
                };
                let waited = wait.until.since(wait.told.from);
                rivals.all += waited;
                if by.pid == pid {
                    rivals.own += waited;
                    continue;
                }
                let rival = by_name.entry(&by.comm).or_insert_with(|| Rival {
                    comm: by.comm.clone(),
                    pids: BTreeSet::new(),
                    waited: Duration::ZERO,
                });
                rival.pids.insert(by.pid);
                rival.waited += waited;
            }
        }
        rivals.others = by_name.into_values().collect();
        rivals
            .others
            .sort_by_key(|rival| std::cmp::Reverse(rival.waited));
        rivals
    }

    /// The part of the waits, from 0 to 1, that is `waited`.
    pub(super) fn share(&self, waited: Duration) -> f64 {
        waited.as_secs_f64() / self.all.as_secs_f64().max(f64::EPSILON)
    }

    /// Other processes had the CPU for most of the waits.
    pub(super) fn are_others(&self) -> bool {
        !self.all.is_zero() && self.own * 2 < self.all
    }
}
