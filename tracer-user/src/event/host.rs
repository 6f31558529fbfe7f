//! What surrounds the targets: the host's load, the quotas of their cgroups, what their Go runtimes say
//! of themselves. All of it is counted by others; we read it about once a second.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Pid;

/// The host's figures, as `vmstat 1` and `top` take them. Counters count since boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// CPUs that are on line.
    pub cpus: u32,
    /// Time of all CPUs together in user mode, niced included (`/proc/stat`).
    pub user: Duration,
    /// In the kernel, interrupts included.
    pub system: Duration,
    /// Doing nothing.
    pub idle: Duration,
    /// Doing nothing while somebody waits for a disk.
    pub io_wait: Duration,
    /// Taken by the hypervisor for others.
    pub steal: Duration,
    /// Threads that run or could (`procs_running`).
    pub runnable: u32,
    /// Threads that wait for a disk (`procs_blocked`).
    pub blocked: u32,
    /// Context switches.
    pub switches: u64,
    /// Processes and threads started.
    pub forks: u64,
    /// The load over 1, 5 and 15 minutes (`/proc/loadavg`).
    pub load: [f64; 3],
    /// Memory, in bytes (`/proc/meminfo`).
    pub memory: Memory,
    /// Pages swapped in and out (`/proc/vmstat`).
    pub swapped: (u64, u64),
    /// Time in which some, and in which all, runnable threads lacked something (`/proc/pressure`);
    /// `None` where the kernel does not tell.
    pub pressure: Option<Pressures>,
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
    /// `SwapTotal`.
    pub swap_total: u64,
    /// `SwapFree`.
    pub swap_free: u64,
}

/// Pressure stall information: for how long since boot something lacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressures {
    /// Some thread waited for a CPU.
    pub cpu_some: Duration,
    /// Some thread waited for memory; all did.
    pub memory: (Duration, Duration),
    /// Some thread waited for a disk; all did.
    pub io: (Duration, Duration),
}

/// Who else had the CPUs: processes that are no targets, by the profiler's samples since the window
/// began. The busiest first, a dozen at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Each with the CPU time its samples stand for.
    pub busiest: Vec<(Pid, String, Duration)>,
}

/// The CPU quota of a target's cgroup, or of one above it: the tightest that applies. Counters count
/// since the cgroup was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The process.
    pub pid: Pid,
    /// The cgroup that has the quota, as a path below its mount (`/system.slice/web.service`).
    pub cgroup: String,
    /// CPU time it may use in each period; `None` where there is no limit.
    pub quota: Option<Duration>,
    /// The period (`cpu.max`, `cpu.cfs_period_us`).
    pub period: Duration,
    /// Periods that passed in which it had something to run (`nr_periods`).
    pub periods: u64,
    /// Those in which its quota was used up (`nr_throttled`).
    pub throttled_periods: u64,
    /// For so long it was stopped, on all CPUs together (`throttled_usec`, `throttled_time`).
    pub throttled: Duration,
}

/// The memory limit of a target's cgroup, or of one above it: of several the one with the least room left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// The process.
    pub pid: Pid,
    /// The cgroup that has the limit, as a path below its mount.
    pub cgroup: String,
    /// Bytes that all in it may use together (`memory.max`, `memory.limit_in_bytes`).
    pub limit: u64,
    /// Bytes that they use and that the kernel cannot simply drop: without file pages that nobody used
    /// lately (`inactive_file`).
    pub used: u64,
}

/// What a Go runtime says of itself; read from the process's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The process.
    pub pid: Pid,
    /// `GOMAXPROCS` as it is now.
    pub max_procs: Option<u32>,
    /// It was set from outside: the environment has `GOMAXPROCS`.
    pub max_procs_set: bool,
    /// The runtime adapts it to the cgroup's quota by itself (from Go 1.25 on, unless told otherwise).
    pub adapts: bool,
    /// Timers in the heaps of all its Ps.
    pub timers: Option<u64>,
    /// Collections so far (`memstats.numgc`).
    pub collections: Option<u64>,
    /// Bytes that the last collection found live (`gcController.heapMarked`).
    pub live_bytes: Option<u64>,
    /// `GOGC`, or -1 for off.
    pub gc_percent: Option<i32>,
    /// `GOMEMLIMIT` in bytes, where one is set.
    pub memory_limit: Option<u64>,
}
