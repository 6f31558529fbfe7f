//! The profiler's samples, summed by what a profile tells apart.

use std::collections::HashMap;

use crate::event::{Event, Fact, Pid, Sample, StackId};

/// Sums kept. A service with so many goroutines that they find no room has its further samples told
/// without thread and goroutine.
const APART: usize = 1 << 20;

/// In place of a stack that could not be walked, and of a function without a name, as `perf` has it.
pub(super) const UNKNOWN: &str = "[unknown]";

/// How often each thread and goroutine was seen where.
///
/// The model keeps the last samples one by one; a profile is of the whole recording, so they are summed
/// here as they are told.
#[derive(Debug, Default)]
pub struct Samples {
    seen: HashMap<Seen, u64>,
}

/// Who was seen where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Seen {
    /// The process.
    pub(super) pid: Pid,
    /// In the program.
    pub(super) stack: Option<StackId>,
    /// In the kernel.
    pub(super) kernel: Option<StackId>,
    /// The thread; `None` where it is not told apart.
    pub(super) thread: Option<u32>,
    /// The goroutine that it was running.
    pub(super) goroutine: Option<u64>,
}

impl Samples {
    /// Takes an event of the recording; most are none of ours.
    pub fn tell(&mut self, event: &Event) {
        if let Fact::Sampled(sample) = &event.fact {
            self.take(*sample);
        }
    }

    /// Nobody was seen running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn take(&mut self, sample: Sample) {
        let mut seen = Seen {
            pid: sample.pid,
            stack: sample.stack,
            kernel: sample.kernel,
            thread: Some(sample.tid),
            goroutine: sample.goroutine,
        };
        if self.seen.len() >= APART && !self.seen.contains_key(&seen) {
            (seen.thread, seen.goroutine) = (None, None);
        }
        *self.seen.entry(seen).or_default() += 1;
    }

    /// The sums, in an order of their own that is always the same.
    pub(super) fn sums(&self) -> Vec<(Seen, u64)> {
        let mut sums: Vec<_> = self
            .seen
            .iter()
            .map(|(seen, count)| (*seen, *count))
            .collect();
        sums.sort_unstable();
        sums
    }
}
