//! How busy the host was over the window: what its counters say between the first reading and the last.

use std::time::Duration;

use crate::event::{Host, Memory, Pressures};

use super::Course;

/// The host over the window. A share goes from 0 to 1: those of CPU time are of all CPUs together, those of
/// pressure are of the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// How long that was: from the first reading to the last.
    pub over: Duration,
    /// CPUs on line at its end.
    pub cpus: u32,
    /// CPU time in user mode, niced included.
    pub user: f64,
    /// In the kernel, interrupts included.
    pub system: f64,
    /// Doing nothing.
    pub idle: f64,
    /// Doing nothing while somebody waited for a disk.
    pub io_wait: f64,
    /// Taken by the hypervisor for others.
    pub steal: f64,
    /// Threads that ran or could, on average over the readings. Whoever read them is one.
    pub runnable: f64,
    /// The same, at most.
    pub runnable_max: u32,
    /// Threads that waited for a disk, at most.
    pub blocked_max: u32,
    /// Context switches in a second.
    pub switches: f64,
    /// Processes and threads started in a second.
    pub forks: f64,
    /// The load over 1, 5 and 15 minutes, at the end.
    pub load: [f64; 3],
    /// Memory at the end, in bytes.
    pub memory: Memory,
    /// Pages swapped in and out in a second.
    pub swapped: (f64, f64),
    /// Shares of the window in which something lacked; `None` where the kernel does not tell.
    pub pressure: Option<Pressure>,
}

/// Shares of the window in which some, or all, runnable threads lacked something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some thread waited for a CPU.
    pub cpu: f64,
    /// Some thread waited for memory; all did.
    pub memory: (f64, f64),
    /// Some thread waited for a disk; all did.
    pub io: (f64, f64),
}

impl Load {
    /// `None` where the host was read only once.
    pub(super) fn of(course: &Course<Host>) -> Option<Self> {
        let ((began, first), (ended, last)) = (course.first(), course.last());
        let over = ended.since(*began);
        let window = Some(over.as_secs_f64()).filter(|window| *window > 0.0)?;
        let spent = |of: fn(&Host) -> Duration| of(last).saturating_sub(of(first)).as_secs_f64();
        let parts = [
            |host: &Host| host.user,
            |host: &Host| host.system,
            |host: &Host| host.idle,
            |host: &Host| host.io_wait,
            |host: &Host| host.steal,
        ]
        .map(spent);
        let all: f64 = parts.iter().sum();
        let [user, system, idle, io_wait, steal] = parts.map(|part| part / all.max(f64::EPSILON));
        let rate = |of: fn(&Host) -> u64| of(last).saturating_sub(of(first)) as f64 / window;
        let readings = || course.readings().map(|(_, host)| host);
        let runnable: u64 = readings().map(|host| u64::from(host.runnable)).sum();
        Some(Self {
            over,
            cpus: last.cpus,
            user,
            system,
            idle,
            io_wait,
            steal,
            runnable: runnable as f64 / readings().count().max(1) as f64,
            runnable_max: readings().map(|host| host.runnable).max()?,
            blocked_max: readings().map(|host| host.blocked).max()?,
            switches: rate(|host| host.switches),
            forks: rate(|host| host.forks),
            load: last.load,
            memory: last.memory,
            swapped: (rate(|host| host.swapped.0), rate(|host| host.swapped.1)),
            pressure: first
                .pressure
                .zip(last.pressure)
                .map(|(first, last)| Pressure::between(first, last, window)),
        })
    }

    /// The share of the CPU time of all CPUs in which they did something.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.user + self.system
    }

    /// The CPU time that there was: the window on every CPU.
    #[must_use]
    pub fn capacity(&self) -> Duration {
        self.over * self.cpus
    }
}

impl Pressure {
    fn between(first: Pressures, last: Pressures, window: f64) -> Self {
        let share = |of: fn(&Pressures) -> Duration| {
            of(&last).saturating_sub(of(&first)).as_secs_f64() / window
        };
        Self {
            cpu: share(|told| told.cpu_some),
            memory: (share(|told| told.memory.0), share(|told| told.memory.1)),
            io: (share(|told| told.io.0), share(|told| told.io.1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BootInstant;

    fn second(n: u64, host: Host) -> (BootInstant, Host) {
        (BootInstant(n * 1_000_000_000), host)
    }

    fn host(user: u64, idle: u64, runnable: u32) -> Host {
        Host {
            cpus: 2,
            user: Duration::from_secs(1_000 + user),
            idle: Duration::from_secs(5_000 + idle),
            runnable,
            switches: 70_000 + 500 * user,
            ..Host::default()
        }
    }

    #[test]
    fn counters_since_boot_become_shares_and_rates_of_the_window() {
        let (at, first) = second(100, host(0, 0, 1));
        let mut course = Course::new(at, first);
        for (n, runnable) in [(1, 4), (2, 7)] {
            let (at, read) = second(100 + n, host(n, n, runnable));
            course.go_on(at, read);
        }
        let load = Load::of(&course).unwrap();
        assert_eq!(load.over, Duration::from_secs(2));
        assert_eq!((load.user, load.idle, load.busy()), (0.5, 0.5, 0.5));
        assert_eq!((load.runnable, load.runnable_max), (4.0, 7));
        assert_eq!(load.switches, 500.0);
        assert_eq!(load.capacity(), Duration::from_secs(4));
        assert_eq!(load.pressure, None);
    }

    #[test]
    fn one_reading_says_nothing_of_a_window() {
        let (at, read) = second(100, host(0, 0, 1));
        assert_eq!(Load::of(&Course::new(at, read)), None);
    }
}
