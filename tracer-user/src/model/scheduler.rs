//! What the targets' threads did on the CPUs, and the waits for a CPU that stood out.

use std::collections::{BTreeMap, VecDeque};

use crate::event::{BootInstant, Pid, Thread, Waited};

/// Threads kept one by one, ended ones first to go; their sums go on in [`Scheduler::gone`].
const THREADS: usize = 16_384;

/// Waits kept of one process; the last ones.
const WAITS: usize = 32_768;

/// A wait for a CPU and when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When the thread got a CPU.
    pub until: BootInstant,
    /// What was told of it.
    pub told: Waited,
}

#[derive(Debug, Default)]
pub(super) struct Scheduler {
    threads: BTreeMap<(Pid, u32), Thread>,
    /// Ended threads in the order in which they ended.
    ended: VecDeque<(Pid, u32)>,
    /// The sums of threads that are no longer kept one by one, and how many they are.
    gone: BTreeMap<Pid, Thread>,
    left_out: u64,
    waits: BTreeMap<Pid, VecDeque<Wait>>,
    forgotten: u64,
}

impl Scheduler {
    pub(super) fn thread(&mut self, told: &Thread) {
        let key = (told.pid, told.tid);
        let before = self.threads.insert(key, told.clone());
        let same = before.filter(|before| before.since == told.since);
        if told.ended && !same.is_some_and(|before| before.ended) {
            self.ended.push_back(key);
        }
        while self.threads.len() > THREADS {
            let Some(key) = self.ended.pop_front() else {
                break;
            };
            if let Some(thread) = self.threads.remove(&key) {
                self.go(thread);
            }
        }
    }

    fn go(&mut self, thread: Thread) {
        self.left_out += 1;
        let Some(sum) = self.gone.get_mut(&thread.pid) else {
            self.gone.insert(thread.pid, thread);
            return;
        };
        sum.since = sum.since.min(thread.since);
        sum.on_cpu += thread.on_cpu;
        sum.woken += thread.woken;
        sum.preempted += thread.preempted;
        sum.throttled += thread.throttled;
        sum.sleeping += thread.sleeping;
        sum.uninterruptible += thread.uninterruptible;
        sum.voluntary += thread.voluntary;
        sum.involuntary += thread.involuntary;
        sum.migrations += thread.migrations;
        sum.slices.add(&thread.slices);
        sum.waits.add(&thread.waits);
    }

    pub(super) fn waited(&mut self, until: BootInstant, told: &Waited) {
        let waits = self.waits.entry(told.pid).or_default();
        if waits.len() == WAITS {
            waits.pop_front();
            self.forgotten += 1;
        }
        waits.push_back(Wait {
            until,
            told: told.clone(),
        });
    }

    pub(super) fn threads(&self) -> impl Iterator<Item = &Thread> {
        self.threads.values()
    }

    /// The sum of the threads of each process that are no longer kept one by one.
    pub(super) fn gone(&self) -> impl Iterator<Item = &Thread> {
        self.gone.values()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn waits(&self, pid: Pid) -> impl Iterator<Item = &Wait> {
        self.waits.get(&pid).into_iter().flatten()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
