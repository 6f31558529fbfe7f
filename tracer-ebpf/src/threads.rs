//! What a thread does on the scheduler, summed up: running, waiting for a CPU, stopped by a quota, blocked.
//!
//! Pure, so that it is tested where there is no kernel. A thread is always in one state, and each step of
//! the scheduler charges the time since the last one to the state that it ends, so the sums of a thread
//! are the time that it was watched, to the nanosecond. The kernel takes these steps under the lock of
//! the run queue that the thread is on, so they never meet.
//!
//! A step says what the thread was doing before it: who leaves a CPU was running. That makes up for what
//! is not known of a thread that was there before us (`seeded`), whose state was read a moment too early.
//!
//! Steps can be missed: on 6.18 about one in a thousand times a thread came to a CPU without our programs
//! being told, and no counter of the kernel's said so. That it left was always told, and the kernel's own
//! count of its slice says then when it came.

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
    /// It left its CPU for `state`. `ran` is asked for how long it had it where that it got it was missed.
    #[inline(always)]
    pub fn leaves(&mut self, now: u64, state: u32, voluntary: bool, ran: impl FnOnce() -> u64) {
        if self.state != RUNNING && self.seeded == 0 {
            let arrived = now.saturating_sub(ran()).max(self.since);
            self.arrives(arrived, self.cpu);
        }
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
        if let Some(sum) = self.sums.get_mut((was & 7) as usize) {
            *sum += passed;
        }
        // Two CPUs' clocks may differ by a hair.
        self.since = self.since.max(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that is in `state` since 1000.
    fn thread(state: u32) -> Thread {
        Thread {
            header: Header {
                kind: 0,
                what: 0,
                flags: 0,
                at: 0,
            },
            since: 1000,
            first: 1000,
            sums: [0; 8],
            voluntary: 0,
            involuntary: 0,
            migrations: 0,
            goid: 0,
            tgid: 1,
            tid: 2,
            state,
            cpu: 0,
            sequence: 0,
            seeded: 0,
            comm: [0; 16],
            slices: [0; RANGES],
            waits: [0; RANGES],
        }
    }

    /// All steps were seen.
    fn unasked() -> u64 {
        panic!("it is known since when it runs")
    }

    fn sums(thread: &Thread) -> [u64; 6] {
        let [
            running,
            woken,
            preempted,
            throttled,
            sleeping,
            uninterruptible,
            ..,
        ] = thread.sums;
        [
            running,
            woken,
            preempted,
            throttled,
            sleeping,
            uninterruptible,
        ]
    }

    #[test]
    fn every_nanosecond_is_charged_to_the_state_that_it_was_spent_in() {
        let mut thread = thread(RUNNING);
        thread.leaves(1010, SLEEPING, true, unasked);
        thread.wakes(1110, WOKEN);
        assert_eq!(thread.arrives(1111, 0).since, 1110);
        thread.leaves(1211, PREEMPTED, false, unasked);
        thread.arrives(1311, 0);
        thread.leaves(1411, UNINTERRUPTIBLE, true, unasked);
        thread.wakes(2411, WOKEN);
        thread.arrives(2412, 0);
        assert_eq!(sums(&thread), [210, 2, 100, 0, 100, 1000]);
        assert_eq!(thread.sums.iter().sum::<u64>(), 2412 - thread.first);
        assert_eq!((thread.voluntary, thread.involuntary), (2, 1));
        assert_eq!(thread.slices.iter().sum::<u32>(), 3);
        assert_eq!(thread.waits.iter().sum::<u32>(), 3);
    }

    #[test]
    fn a_wake_up_before_the_thread_has_left_its_cpu_is_none() {
        let mut thread = thread(RUNNING);
        thread.wakes(1005, WOKEN);
        thread.leaves(1010, PREEMPTED, false, unasked);
        assert_eq!(sums(&thread), [10, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_second_wake_up_does_not_shorten_the_wait_of_the_first() {
        let mut thread = thread(SLEEPING);
        thread.wakes(1100, WOKEN);
        thread.wakes(1200, WOKEN);
        let before = thread.arrives(1300, 0);
        assert_eq!((before.state, before.since), (WOKEN, 1100));
        assert_eq!(sums(&thread), [0, 200, 0, 0, 100, 0]);
    }

    #[test]
    fn being_throttled_is_no_wait_for_a_cpu_but_is_told_when_it_is_long() {
        let mut thread = thread(RUNNING);
        thread.leaves(1010, THROTTLED, false, unasked);
        let now = 1010 + LONG_WAIT;
        let before = thread.arrives(now, 0);
        assert!(before.is_long_wait(now) && before.state == THROTTLED);
        assert_eq!(sums(&thread), [10, 0, 0, LONG_WAIT, 0, 0]);
        assert!(thread.waits.iter().all(|count| *count == 0));
    }

    #[test]
    fn a_sleep_is_no_wait_however_long() {
        let mut thread = thread(SLEEPING);
        let now = 1000 + 10 * LONG_WAIT;
        assert!(!thread.arrives(now, 0).is_long_wait(now)); // its wake-up was not seen
        assert_eq!(sums(&thread), [0, 0, 0, 0, 10 * LONG_WAIT, 0]);
    }

    #[test]
    fn the_first_step_says_what_a_thread_from_before_was_doing() {
        let seeded = |state| Thread {
            seeded: 1,
            ..thread(state)
        };
        // `/proc` said something else a moment before it was entered.
        let mut running = seeded(SLEEPING);
        running.leaves(1010, SLEEPING, true, unasked);
        assert_eq!(sums(&running), [10, 0, 0, 0, 0, 0]);
        let mut waiting = seeded(RUNNING);
        waiting.arrives(1010, 0);
        assert_eq!(sums(&waiting), [0, 10, 0, 0, 0, 0]);
        let mut sleeping = seeded(RUNNING);
        sleeping.wakes(1010, WOKEN);
        assert_eq!(sums(&sleeping), [0, 0, 0, 0, 10, 0]);
        assert_eq!([running.seeded, waiting.seeded, sleeping.seeded], [0, 0, 0]);
    }

    #[test]
    fn missed_steps_are_made_up_for_by_the_kernels_count_of_the_slice() {
        let mut missed_both = thread(SLEEPING);
        missed_both.leaves(1500, SLEEPING, true, || 20);
        assert_eq!(sums(&missed_both), [20, 0, 0, 0, 480, 0]);
        let mut missed_one = thread(THROTTLED);
        missed_one.leaves(1500, PREEMPTED, false, || 20);
        assert_eq!(sums(&missed_one), [20, 0, 0, 480, 0, 0]);
        // A count of another class of threads may be of longer ago.
        let mut longer = thread(WOKEN);
        longer.leaves(1500, SLEEPING, true, || 10_000);
        assert_eq!(sums(&longer), [500, 0, 0, 0, 0, 0]);
        assert_eq!(longer.slices.iter().sum::<u32>(), 1);
    }

    #[test]
    fn going_on_elsewhere_is_a_migration_and_the_first_time_is_none() {
        let mut thread = thread(WOKEN);
        thread.cpu = NO_CPU;
        for cpu in [3, 3, 1] {
            thread.arrives(1010, cpu);
            thread.leaves(1020, PREEMPTED, false, unasked);
        }
        assert_eq!((thread.migrations, thread.cpu), (1, 1));
    }

    #[test]
    fn the_ranges_of_a_histogram_are_half_octaves() {
        let begins = |index: usize| (2 + index as u64 % 2) << (8 + index / 2);
        for index in 1..RANGES {
            assert_eq!(range(begins(index)), index);
            assert_eq!(range(begins(index) - 1), index - 1);
        }
        assert_eq!((range(0), range(u64::MAX)), (0, RANGES - 1));
    }

    #[test]
    fn a_clock_that_is_behind_that_of_another_cpu_charges_nothing_twice() {
        let mut thread = thread(WOKEN);
        thread.arrives(990, 0);
        assert_eq!((sums(&thread), thread.since), ([0; 6], 1000));
    }
}
