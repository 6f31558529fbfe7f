//! What goroutines are blocked at: of each process the last state of its channels, and its locks as each
//! snapshot found them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::event::{AtChannels, Blocking, BootInstant, Lock, Pid};

/// Moments whose locks are kept of each process; the last ones.
const MOMENTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Blocked {
    processes: BTreeMap<Pid, Known>,
}

#[derive(Debug, Default)]
struct Known {
    channels: HashMap<u64, AtChannels>,
    /// Waited at other channels in the moment before: they went on in between, and wait again.
    moved: HashSet<u64>,
    locks: VecDeque<(BootInstant, Vec<Lock>)>,
}

impl Blocked {
    pub(super) fn take(&mut self, at: BootInstant, told: &Blocking) {
        let known = self.processes.entry(told.pid).or_default();
        let before = std::mem::take(&mut known.channels);
        for now in &told.at_channels {
            if let Some(before) = before.get(&now.goroutine)
                && before.channels != now.channels
            {
                known.moved.insert(now.goroutine);
            }
            known.channels.insert(now.goroutine, now.clone());
        }
        known.moved.retain(|id| known.channels.contains_key(id));
        if known.locks.len() == MOMENTS {
            known.locks.pop_front();
        }
        known.locks.push_back((at, told.locks.clone()));
    }

    /// At which channels goroutine `id` of `pid` waited in the last moment.
    pub(super) fn at_channels(&self, pid: Pid, id: u64) -> Option<&AtChannels> {
        self.processes.get(&pid)?.channels.get(&id)
    }

    pub(super) fn moved(&self, pid: Pid, id: u64) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|known| known.moved.contains(&id))
    }

    pub(super) fn locks(&self, pid: Pid) -> impl Iterator<Item = (BootInstant, &[Lock])> {
        let known = self.processes.get(&pid).into_iter();
        known.flat_map(|known| known.locks.iter().map(|(at, locks)| (*at, locks.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_at_another_channel_than_before_has_gone_on_in_between() {
        let at = |goroutine, channel| AtChannels {
            goroutine,
            channels: vec![channel],
            timed: true,
        };
        let mut blocked = Blocked::default();
        for (moment, second) in [(0, 8), (1, 9)] {
            let told = Blocking {
                pid: 7,
                at_channels: vec![at(1, 8), at(2, second)],
                locks: Vec::new(),
            };
            blocked.take(BootInstant(moment), &told);
        }
        assert!(!blocked.moved(7, 1));
        assert!(blocked.moved(7, 2));
        assert_eq!(blocked.at_channels(7, 2).unwrap().channels, [9]);
        assert_eq!(blocked.locks(7).count(), 2);
    }
}
