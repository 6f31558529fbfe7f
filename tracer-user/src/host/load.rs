//! The host's figures, as `vmstat 1` and `top` take them.
//!
//! In: `/proc`. Out: [`Host`], whose counters count since boot: what a window was like is the difference of
//! two readings.

use std::{io, time::Duration};

use procfs::{
    CpuPressure, Current as _, CurrentSI as _, IoPressure, KernelStats, LoadAverage, Meminfo,
    MemoryPressure, PressureRecord, ProcError, VmStat,
};

use crate::event::{Host, Memory, Pressures};

/// What the host is doing now.
///
/// # Errors
///
/// `/proc/stat` or `/proc/meminfo` cannot be read. What else the kernel does not tell is told as zero, or
/// as unknown where there is a way to say so.
pub fn load() -> io::Result<Host> {
    let stat = KernelStats::current().map_err(error)?;
    let cpu = &stat.total;
    let load = LoadAverage::current().map_or([0.0; 3], |load| {
        [load.one, load.five, load.fifteen].map(hundredths)
    });
    Ok(Host {
        cpus: u32::try_from(stat.cpu_time.len()).unwrap_or(u32::MAX),
        user: cpu.user_duration() + cpu.nice_duration(),
        system: [
            Some(cpu.system_duration()),
            cpu.irq_duration(),
            cpu.softirq_duration(),
        ]
        .into_iter()
        .flatten()
        .sum(),
        idle: cpu.idle_duration(),
        io_wait: cpu.iowait_duration().unwrap_or_default(),
        steal: cpu.steal_duration().unwrap_or_default(),
        runnable: stat.procs_running.unwrap_or(0),
        blocked: stat.procs_blocked.unwrap_or(0),
        switches: stat.ctxt,
        forks: stat.processes,
        load,
        memory: memory().map_err(error)?,
        swapped: swapped(),
        pressure: pressure(),
    })
}

fn memory() -> Result<Memory, ProcError> {
    let memory = Meminfo::current()?;
    Ok(Memory {
        total: memory.mem_total,
        available: memory.mem_available.unwrap_or(memory.mem_free),
        swap_total: memory.swap_total,
        swap_free: memory.swap_free,
    })
}

/// Pages in and out.
fn swapped() -> (u64, u64) {
    let counters = VmStat::current().map(|counters| counters.0);
    let counters = counters.unwrap_or_default();
    let of = |name| {
        let counter = counters.get(name).copied();
        counter.map_or(0, i64::unsigned_abs)
    };
    (of("pswpin"), of("pswpout"))
}

/// `None` before Linux 4.20, without `CONFIG_PSI`, and where it is switched off (`psi=0`).
fn pressure() -> Option<Pressures> {
    let total = |of: PressureRecord| Duration::from_micros(of.total);
    let (memory, io) = (MemoryPressure::current().ok()?, IoPressure::current().ok()?);
    Some(Pressures {
        cpu_some: total(CpuPressure::current().ok()?.some),
        memory: (total(memory.some), total(memory.full)),
        io: (total(io.some), total(io.full)),
    })
}

/// The kernel writes loads with two digits; a float of 32 bits holds them, one of 64 would show more.
fn hundredths(load: f32) -> f64 {
    (f64::from(load) * 100.0).round() / 100.0
}

fn error(error: ProcError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_that_runs_this_has_cpus_memory_and_a_past() {
        let before = load().unwrap();
        assert!(before.cpus > 0 && before.memory.total > before.memory.available);
        assert!(before.user > Duration::ZERO && before.idle > Duration::ZERO);
        assert!(before.runnable > 0, "we run");
        let after = load().unwrap();
        assert!(after.switches >= before.switches && after.forks >= before.forks);
        assert!(after.user + after.system >= before.user + before.system);
    }

    #[test]
    fn all_that_cpus_did_makes_up_the_time_since_boot() {
        let host = load().unwrap();
        let busy = host.user + host.system + host.idle + host.io_wait + host.steal;
        let since_boot = procfs::Uptime::current().unwrap().uptime_duration() * host.cpus;
        // A CPU that came late, or that was off line for a while, has less.
        assert!(busy <= since_boot.mul_f64(1.02), "{busy:?} {since_boot:?}");
        assert!(busy >= since_boot.mul_f64(0.5), "{busy:?} {since_boot:?}");
    }

    #[test]
    fn a_load_has_two_digits() {
        assert_eq!(hundredths(1.94), 1.94);
    }
}
