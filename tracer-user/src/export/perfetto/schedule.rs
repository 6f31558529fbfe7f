//! Every switch of the timeline, as the kernel's own `sched_switch` tells it.
//!
//! Only switches with a target's thread in them were recorded, and of the other thread nothing but that it
//! is no target's. It is told as idle, so a CPU looks idle while strangers have it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    mem,
};

use crate::event::{BootInstant, Left, Pid, Switch};

use super::{
    message::{FtraceEvent, FtraceEventBundle, SchedSwitch, TracePacket},
    packets::{Packets, SCHEDULE},
    tracks::Tracks,
};

/// Switches of a CPU in one packet.
const BUNDLE: usize = 1_024;

/// `DEFAULT_PRIO` of the kernel, that of a thread with nice 0; the real one was not recorded.
const PRIORITY: i32 = 120;

/// Switches on their way out, by CPU.
#[derive(Default)]
pub(super) struct Schedule {
    cpus: BTreeMap<u32, Cpu>,
}

#[derive(Default)]
struct Cpu {
    bundle: Vec<FtraceEvent>,
    /// Who took it last; `None` where nothing was told yet.
    taken: Option<Option<Thread>>,
}

/// A thread, by process and id.
type Thread = (Pid, u32);

impl Schedule {
    pub(super) fn tell(
        &mut self,
        at: BootInstant,
        switch: Switch,
        tracks: &mut Tracks<'_>,
        packets: &mut Packets<impl Write>,
    ) -> io::Result<()> {
        for (pid, tid) in [switch.from, switch.to].into_iter().flatten() {
            tracks.thread(pid, tid, packets)?;
        }
        let cpu = self.cpus.entry(switch.cpu).or_default();
        if cpu.taken == Some(None) && switch.from.is_some() {
            // It was a stranger's when it took the CPU: it became a target since.
            let became = Switch {
                from: None,
                to: switch.from,
                ..switch
            };
            cpu.bundle.push(told(at, became, tracks));
        }
        cpu.bundle.push(told(at, switch, tracks));
        cpu.taken = Some(switch.to);
        if cpu.bundle.len() >= BUNDLE {
            put(switch.cpu, mem::take(&mut cpu.bundle), packets)?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn end(self, packets: &mut Packets<impl Write>) -> io::Result<()> {
        self.cpus
            .into_iter()
            .try_for_each(|(number, cpu)| put(number, cpu.bundle, packets))
    }
}

fn put(cpu: u32, event: Vec<FtraceEvent>, packets: &mut Packets<impl Write>) -> io::Result<()> {
    packets.put(TracePacket {
        trusted_packet_sequence_id: SCHEDULE,
        ftrace_events: Some(FtraceEventBundle {
            cpu: Some(cpu),
            event,
        }),
        ..TracePacket::default()
    })
}

fn told(at: BootInstant, switch: Switch, tracks: &Tracks<'_>) -> FtraceEvent {
    let comm = |thread: Option<Thread>| match thread {
        Some((pid, tid)) => tracks.comm(pid, tid),
        None => format!("swapper/{}", switch.cpu),
    };
    let id = |thread: Option<Thread>| thread.map_or(0, |(_, tid)| tid);
    let (from, to) = (id(switch.from), id(switch.to));
    FtraceEvent {
        timestamp: at.0,
        pid: Some(from),
        sched_switch: Some(SchedSwitch {
            prev_comm: Some(comm(switch.from)),
            prev_pid: Some(from.cast_signed()),
            prev_prio: Some(PRIORITY),
            prev_state: Some(switch.from.map_or(0, |_| state(switch.left))),
            next_comm: Some(comm(switch.to)),
            next_pid: Some(to.cast_signed()),
            next_prio: Some(PRIORITY),
        }),
    }
}

/// `prev_state` as the tracepoint has it on kernels from 4.14 on (`include/linux/sched.h`).
fn state(left: Left) -> i64 {
    match left {
        Left::Runnable | Left::Throttled => 0,
        Left::Sleeping => 1,
        Left::Uninterruptible => 2,
        // EXIT_DEAD
        Left::Ended => 16,
    }
}
