//! The host over the window, as `vmstat 1` and `top` would have shown it.

use serde::Serialize;

use crate::{
    event::Pid,
    model::{Load, Model},
};

/// The host over the window. Shares go from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostTold {
    /// CPUs on line.
    pub cpus: u32,
    /// Of the time of all CPUs: in user mode, niced included (`us`, `ni`).
    pub user_share: f64,
    /// In the kernel, interrupts included (`sy`, `hi`, `si`).
    pub system_share: f64,
    /// Doing nothing (`id`).
    pub idle_share: f64,
    /// Doing nothing while somebody waited for a disk (`wa`).
    pub io_wait_share: f64,
    /// Taken by the hypervisor for others (`st`).
    pub steal_share: f64,
    /// Threads that ran or could, on average (`r`).
    pub runnable_avg: f64,
    /// The same, at most.
    pub runnable_max: u32,
    /// Threads that waited for a disk, at most (`b`).
    pub blocked_max: u32,
    /// Context switches in a second (`cs`).
    pub switches_per_s: f64,
    /// Processes and threads started in a second.
    pub forks_per_s: f64,
    /// The load over 1, 5 and 15 minutes, at the end.
    pub load: [f64; 3],
    /// Memory, at the end (`MemTotal`, `MemAvailable`, `SwapTotal`, `SwapFree`).
    pub memory_total_bytes: u64,
    /// What could still be used without swapping.
    pub memory_available_bytes: u64,
    /// Swap.
    pub swap_total_bytes: u64,
    /// What of it was free.
    pub swap_free_bytes: u64,
    /// Pages swapped in, in a second.
    pub swapped_in_pages_per_s: f64,
    /// Pages swapped out, in a second.
    pub swapped_out_pages_per_s: f64,
    /// Pressure stall information; `null` where the kernel has none.
    pub pressure: Option<PressureTold>,
    /// Processes that are no targets and had the CPUs, the busiest first; by samples.
    pub neighbours: Vec<NeighbourTold>,
}

/// The share of the window in which some, or all, runnable threads lacked something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PressureTold {
    /// Some thread waited for a CPU.
    pub cpu_some_share: f64,
    /// Some thread waited for memory.
    pub memory_some_share: f64,
    /// All did.
    pub memory_full_share: f64,
    /// Some thread waited for a disk.
    pub io_some_share: f64,
    /// All did.
    pub io_full_share: f64,
}

/// A process that is no target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeighbourTold {
    /// Its id.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// CPU time that it took.
    pub cpu_s: f64,
    /// That, of the time of all CPUs.
    pub cpu_share: f64,
}

impl HostTold {
    pub(super) fn of(model: &Model) -> Option<Self> {
        let load = model.load()?;
        Some(Self {
            cpus: load.cpus,
            user_share: load.user,
            system_share: load.system,
            idle_share: load.idle,
            io_wait_share: load.io_wait,
            steal_share: load.steal,
            runnable_avg: load.runnable,
            runnable_max: load.runnable_max,
            blocked_max: load.blocked_max,
            switches_per_s: load.switches,
            forks_per_s: load.forks,
            load: load.load,
            memory_total_bytes: load.memory.total,
            memory_available_bytes: load.memory.available,
            swap_total_bytes: load.memory.swap_total,
            swap_free_bytes: load.memory.swap_free,
            swapped_in_pages_per_s: load.swapped.0,
            swapped_out_pages_per_s: load.swapped.1,
            pressure: load.pressure.map(|pressure| PressureTold {
                cpu_some_share: pressure.cpu,
                memory_some_share: pressure.memory.0,
                memory_full_share: pressure.memory.1,
                io_some_share: pressure.io.0,
                io_full_share: pressure.io.1,
            }),
            neighbours: neighbours(model, &load),
        })
    }
}

fn neighbours(model: &Model, load: &Load) -> Vec<NeighbourTold> {
    let capacity = load.capacity().as_secs_f64().max(f64::EPSILON);
    let busiest = model.neighbours().map(|told| told.busiest.as_slice());
    busiest
        .unwrap_or_default()
        .iter()
        .map(|(pid, comm, took)| NeighbourTold {
            pid: *pid,
            comm: comm.clone(),
            cpu_s: took.as_secs_f64(),
            cpu_share: took.as_secs_f64() / capacity,
        })
        .collect()
}
