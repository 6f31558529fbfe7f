//! When all goroutines of a process are looked at again.
//!
//! Growth shows between snapshots, and who stays shows in several of them. So each process is looked at
//! once a second at first, then less and less often: a long window needs few more of them than a short
//! one. Whatever they cost, and however many processes there are, all looks together take no more than
//! a small share of one CPU: 1,000 goroutines are read in 5 ms, 100,000 in a quarter of a second, and
//! these are then left alone for 5 s.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::event::Pid;

/// Looks at one process are at least so far apart.
const SOONEST: Duration = Duration::from_secs(1);

/// And at least the time since the first one, divided by this.
const SPREAD: u32 = 5;

/// The looks at one process so far.
struct Course {
    first: Instant,
    last: Instant,
    /// It is being looked at.
    under_way: bool,
}

/// The looks at every process.
pub(super) struct Rounds {
    /// After a look there is none for so many times as long as it took.
    pause: f64,
    processes: HashMap<Pid, Course>,
    /// Until then nobody is looked at for the sake of a round.
    rest: Option<Instant>,
}

impl Rounds {
    /// Looks that take this part of one CPU at most.
    pub(super) fn new(share: f64) -> Self {
        Self {
            pause: share.recip(),
            processes: HashMap::new(),
            rest: None,
        }
    }

    /// `pid` was asked for.
    pub(super) fn asked(&mut self, pid: Pid, now: Instant) {
        let course = self.processes.entry(pid).or_insert(Course {
            first: now,
            last: now,
            under_way: true,
        });
        course.last = now;
        course.under_way = true;
    }

    /// `pid` was looked at, which took so much CPU time, and may be looked at `again`.
    pub(super) fn looked(&mut self, pid: Pid, took: Duration, again: bool, now: Instant) {
        if again {
            if let Some(course) = self.processes.get_mut(&pid) {
                course.under_way = false;
            }
        } else {
            self.processes.remove(&pid);
        }
        self.rest = self.rest.max(Some(now + took.mul_f64(self.pause)));
    }

    /// Whose turn it is: of those that are due the one that was looked at longest ago.
    pub(super) fn due(&self, now: Instant) -> Option<Pid> {
        if self.rest.is_some_and(|rest| now < rest) {
            return None;
        }
        let is_due = |course: &&Course| {
            let apart = SOONEST.max((course.last - course.first) / SPREAD);
            !course.under_way && now.saturating_duration_since(course.last) >= apart
        };
        let due = self.processes.iter().filter(|(_, course)| is_due(course));
        due.min_by_key(|(pid, course)| (course.last, **pid))
            .map(|(pid, _)| *pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: f64 = 0.05;

    /// The seconds at which processes are looked at in `window` when each look takes `took`.
    fn looks(pids: u32, took: Duration, window: u64) -> Vec<f64> {
        let began = Instant::now();
        let mut rounds = Rounds::new(SHARE);
        for pid in 0..pids {
            rounds.asked(pid, began);
            rounds.looked(pid, took, true, began);
        }
        let mut told = vec![0.0; pids as usize];
        let mut now = began;
        while now < began + Duration::from_secs(window) {
            if let Some(pid) = rounds.due(now) {
                rounds.asked(pid, now);
                assert_ne!(rounds.due(now), Some(pid), "it is under way");
                rounds.looked(pid, took, true, now);
                told.push((now - began).as_secs_f64());
            }
            now += Duration::from_millis(5);
        }
        told
    }

    #[test]
    fn a_short_window_has_several_looks_and_a_long_one_not_many_more() {
        let cheap = Duration::from_millis(5);
        assert_eq!(looks(1, cheap, 5).len(), 5);
        assert!((8..=10).contains(&looks(1, cheap, 10).len()));
        assert!((20..=40).contains(&looks(1, cheap, 600).len()));
    }

    #[test]
    fn all_looks_together_take_a_twentieth_of_a_cpu_at_most() {
        for (pids, took) in [(1, 250), (50, 20), (7, 90)] {
            let after_the_first =
                looks(pids, Duration::from_millis(took), 60).len() as u64 - u64::from(pids);
            let spent = after_the_first * took;
            assert!(spent <= 60_000 / 20 + took, "{spent} ms");
        }
    }

    #[test]
    fn who_must_not_be_looked_at_again_is_left_alone() {
        let now = Instant::now();
        let mut rounds = Rounds::new(SHARE);
        rounds.asked(7, now);
        rounds.looked(7, Duration::ZERO, false, now);
        assert_eq!(rounds.due(now + Duration::from_secs(100)), None);
    }
}
