//! What threads did on the CPUs: sums, waits that stood out, switches, samples.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootInstant, Pid, StackId};

/// What a thread did on the scheduler, from when it was first seen until the event's time. Told about
/// once a second while it is active, when it ends, and at the end of the window; the later one replaces
/// the earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its process.
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Since when it is watched.
    pub since: BootInstant,
    /// It has ended.
    pub ended: bool,
    /// Running.
    pub on_cpu: Duration,
    /// Runnable and waiting for a CPU since it was woken.
    pub woken: Duration,
    /// Runnable and waiting for a CPU since another thread took it.
    pub preempted: Duration,
    /// Runnable, and stopped by the quota of its cgroup.
    pub throttled: Duration,
    /// Blocked in an interruptible sleep: on a futex, a socket, a timer.
    pub sleeping: Duration,
    /// Blocked where no signal reaches it: as a rule on a disk.
    pub uninterruptible: Duration,
    /// Switched out because it blocked.
    pub voluntary: u64,
    /// Switched out while runnable.
    pub involuntary: u64,
    /// Went on on another CPU than before.
    pub migrations: u64,
    /// How long it ran each time.
    pub slices: Histogram,
    /// How long it waited for a CPU each time; being throttled is no wait for a CPU.
    pub waits: Histogram,
}

impl Thread {
    /// Runnable, waiting for a CPU, and allowed to run.
    #[must_use]
    pub fn run_queue(&self) -> Duration {
        self.woken + self.preempted
    }

    /// Blocked.
    #[must_use]
    pub fn blocked(&self) -> Duration {
        self.sleeping + self.uninterruptible
    }
}

/// How often a duration fell into each of a row of ranges, two for each power of two nanoseconds from
/// 512 ns up: range `i` begins at `(2 + i % 2) << (8 + i / 2)` nanoseconds, the first one at 0, and the
/// last one has no end. Ranges at the end that are empty may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(pub Vec<u32>);

impl Histogram {
    /// Where range `index` begins.
    #[must_use]
    pub fn begins(index: usize) -> Duration {
        if index == 0 {
            return Duration::ZERO;
        }
        let shift = u32::try_from(8 + index / 2).unwrap_or(u32::MAX);
        let nanoseconds = (2 + index as u64 % 2).checked_shl(shift);
        Duration::from_nanos(nanoseconds.unwrap_or(u64::MAX))
    }

    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The duration that a share `of` (0 to 1) of all do not exceed, by the upper end of its range; zero
    /// where there are none.
    #[must_use]
    pub fn quantile(&self, of: f64) -> Duration {
        let wanted = (self.count() as f64 * of).ceil() as u64;
        let mut passed = 0;
        for (index, count) in self.0.iter().enumerate() {
            passed += u64::from(*count);
            if passed >= wanted.max(1) {
                return Self::begins(index + 1);
            }
        }
        Duration::ZERO
    }

    /// Adds another one's durations.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, its) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(*its);
        }
    }
}

/// A runnable thread that did not run for long: from `from` until the event's time, when it got a CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// Its process.
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// The goroutine that it was running when it lost the CPU; `None` where it ran none (a thread that
    /// was woken has parked its goroutine before).
    pub goroutine: Option<u64>,
    /// Since when it was runnable.
    pub from: BootInstant,
    /// Why it did not run.
    pub why: Waiting,
    /// Who had the CPU right before it; `None` where that was idle.
    pub by: Option<Running>,
}

/// Why a runnable thread does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// It was woken, and the CPU was another's.
    Woken,
    /// It was running, and another took the CPU.
    Preempted,
    /// The quota of its cgroup was used up.
    Throttled,
}

/// A thread that has a CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
}

/// One CPU went from one thread to another, at least one of them a target's. Told only where the whole
/// timeline is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Which CPU.
    pub cpu: u32,
    /// The target's thread that left it; `None` for a stranger or idle.
    pub from: Option<(Pid, u32)>,
    /// What became of that one.
    pub left: Left,
    /// The goroutine that it was running.
    pub goroutine: Option<u64>,
    /// The target's thread that took it; `None` for a stranger or idle.
    pub to: Option<(Pid, u32)>,
}

/// How a thread left its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// It is runnable.
    Runnable,
    /// It is runnable, and its cgroup's quota is used up.
    Throttled,
    /// It sleeps, interruptibly.
    Sleeping,
    /// It sleeps, and no signal reaches it.
    Uninterruptible,
    /// It ended.
    Ended,
}

/// A thread of a target was running when the profiler's clock ticked on its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its process.
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// The goroutine that it was running; `None` outside Go, and where the runtime worked for itself.
    pub goroutine: Option<u64>,
    /// Where in the program.
    pub stack: Option<StackId>,
    /// Where in the kernel; `None` in user mode.
    pub kernel: Option<StackId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_a_histogram_are_half_octaves_from_512_ns() {
        let begins: Vec<_> = (0..6).map(|i| Histogram::begins(i).as_nanos()).collect();
        assert_eq!(begins, [0, 768, 1024, 1536, 2048, 3072]);
    }

    #[test]
    fn a_quantile_is_the_upper_end_of_its_range() {
        let histogram = Histogram(vec![98, 1, 0, 0, 1]);
        assert_eq!(histogram.quantile(0.5), Histogram::begins(1));
        assert_eq!(histogram.quantile(0.99), Histogram::begins(2));
        assert_eq!(histogram.quantile(1.0), Histogram::begins(5));
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }
}
