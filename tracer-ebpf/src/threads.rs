//! What a thread does on the scheduler, summed up: running, waiting for a CPU, stopped by a quota, blocked.
//!
//! Pure, so that it is tested where there is no kernel. A thread is always in one state, and each step of
//! the scheduler charges the time since the last one to the state that it ends, so the sums of a thread
//! are the time that it was watched, to the nanosecond. The kernel takes these steps under the lock of
//! the run queue that the thread is on, so they never meet.
//!
//! A step says what the thread was doing before it: who leaves a CPU was running. That makes up for what
//! is not known of a thread that was there before us (`seeded`), whose state was read a moment too early.

use crate::Header;

/// It has a CPU. The states are indices into [`Thread::sums`].
pub const RUNNING: u32 = 0;
/// It was woken, and waits for a CPU.
pub const WOKEN: u32 = 1;
/// It could go on, and waits for a CPU.
pub const PREEMPTED: u32 = 2;
/// It could go on, but for the quota of its cgroup.
pub const THROTTLED: u32 = 3;
/// It sleeps, interruptibly; stopped and traced threads too.
pub const SLEEPING: u32 = 4;
/// It sleeps, and no signal reaches it.
pub const UNINTERRUPTIBLE: u32 = 5;
/// It has ended.
pub const ENDED: u32 = 6;

/// Ranges of a histogram, two for each power of two nanoseconds from 512 ns up.
pub const RANGES: usize = 44;
/// No CPU: the thread has not run since it is watched.
pub const NO_CPU: u32 = u32::MAX;
/// A wait for a CPU from which on it is told one by one, in nanoseconds.
pub const LONG_WAIT: u64 = 2_000_000;

record! {
    /// A thread of a target: the value of the map of threads, by its id, and as such a record when it ends.
    pub struct Thread = 520 {
        /// Of the record: `at` is the end.
        pub header: Header,
        /// Since when it is in its state.
        pub since: u64,
        /// Since when it is watched; 0 for a moment while it is entered.
        pub first: u64,
        /// Nanoseconds by state; the last one is never used, so that an index needs three bits.
        pub sums: [u64; 8],
        /// Times it left a CPU because it blocked (`nvcsw`).
        pub voluntary: u64,
        /// Times it left a CPU though it could go on (`nivcsw`).
        pub involuntary: u64,
        /// Times it went on on another CPU than before.
        pub migrations: u64,
        /// The goroutine that it was running when it last left a CPU though it could go on, or 0.
        pub goid: u64,
        /// The process.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// What it does.
        pub state: u32,
        /// Where it last ran, or [`NO_CPU`].
        pub cpu: u32,
        /// Odd while a step is taken: what is read then does not fit together.
        pub sequence: u32,
        /// 1 until its first step where it was there before us.
        pub seeded: u32,
        /// Its name, once it has ended.
        pub comm: [u8; 16],
        /// How long it ran each time.
        pub slices: [u32; RANGES],
        /// How long it waited for a CPU each time.
        pub waits: [u32; RANGES],
    }
}

/// What a thread did until it got a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its state.
    pub state: u32,
    /// Since when.
    pub since: u64,
}

impl Before {
    /// Whether it could have run and did not for so long that it is told.
    #[inline(always)]
    pub fn is_long_wait(&self, now: u64) -> bool {
        matches!(self.state, WOKEN | PREEMPTED | THROTTLED)
            && now.saturating_sub(self.since) >= LONG_WAIT
    }
}

impl Thread {
    /// It left its CPU for `state`.
    #[inline(always)]
    pub fn leaves(&mut self, now: u64, state: u32, voluntary: bool) {
        let slice = self.charge(RUNNING, now, state);
        count(&mut self.slices, slice);
        if voluntary {
            self.voluntary += 1;
        } else {
            self.involuntary += 1;
        }
    }

    /// It was woken. One that has not left its CPU yet, or waits for one, goes on as before.
    #[inline(always)]
    pub fn wakes(&mut self, now: u64, state: u32) {
        let was = if self.seeded != 0 && self.state < SLEEPING {
            SLEEPING
        } else {
            self.state
        };
        if was == SLEEPING || was == UNINTERRUPTIBLE {
            self.charge(was, now, state);
        }
    }

    /// It got a CPU.
    #[inline(always)]
    pub fn arrives(&mut self, now: u64, cpu: u32) -> Before {
        let state = if self.seeded != 0 { WOKEN } else { self.state };
        let since = self.since;
        let waited = self.charge(state, now, RUNNING);
        if state == WOKEN || state == PREEMPTED {
            count(&mut self.waits, waited);
        }
        if self.cpu != cpu {
            if self.cpu != NO_CPU {
                self.migrations += 1;
            }
            self.cpu = cpu;
        }
        Before { state, since }
    }

    /// Charges the time since the last step to `was`; how long that is.
    #[inline(always)]
    pub fn charge(&mut self, was: u32, now: u64, next: u32) -> u64 {
        let passed = now.saturating_sub(self.since);
        self.sums[(was & 7) as usize] += passed;
        self.since = now;
        self.state = next;
        self.seeded = 0;
        passed
    }
}

#[inline(always)]
fn count(histogram: &mut [u32; RANGES], nanoseconds: u64) {
    let place = range(nanoseconds);
    if let Some(counter) = histogram.get_mut(place) {
        *counter += 1;
    }
}

/// The range that a duration falls into: range `i` begins at `(2 + i % 2) << (8 + i / 2)` nanoseconds.
#[inline(always)]
fn range(nanoseconds: u64) -> usize {
    let log = 63 - (nanoseconds | 512).leading_zeros();
    let half = (nanoseconds >> (log - 1)) & 1;
    (2 * (log as usize - 9) + half as usize).min(RANGES - 1)
}
