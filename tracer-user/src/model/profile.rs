//! Where the targets spent their CPU time, by samples: summed by stack for the whole window, and one by
//! one for the goroutines that requests may need them of.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use crate::event::{BootInstant, Pid, Sample, StackId};

/// The CPU time that one sample stands for: the profiler's clock ticks 99 times a second on each CPU.
pub const TICK: Duration = Duration::from_nanos(1_000_000_000 / 99);

/// Samples kept one by one; the last ones.
const KEPT: usize = 262_144;

/// A sample and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub at: BootInstant,
    /// What was running.
    pub sample: Sample,
}

/// Where a sample was: the stack in the program and the one in the kernel.
pub type Place = (Option<StackId>, Option<StackId>);

#[derive(Debug, Default)]
pub(super) struct Profile {
    places: BTreeMap<Pid, HashMap<Place, u64>>,
    samples: VecDeque<Sampled>,
    forgotten: u64,
}

impl Profile {
    pub(super) fn take(&mut self, at: BootInstant, sample: Sample) {
        let places = self.places.entry(sample.pid).or_default();
        *places.entry((sample.stack, sample.kernel)).or_default() += 1;
        if self.samples.len() == KEPT {
            self.samples.pop_front();
            self.forgotten += 1;
        }
        self.samples.push_back(Sampled { at, sample });
    }

    /// Every place of `pid` with its number of samples, in no order.
    pub(super) fn places(&self, pid: Pid) -> impl Iterator<Item = (Place, u64)> {
        let places = self.places.get(&pid).into_iter().flatten();
        places.map(|(place, count)| (*place, *count))
    }

    /// How many are no longer kept one by one; the sums have them.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Those kept one by one, oldest first.
    pub(super) fn samples(&self) -> impl Iterator<Item = &Sampled> {
        self.samples.iter()
    }
}
