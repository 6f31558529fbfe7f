//! Who runs, and where in the program, when the profiler's clock ticks.
//!
//! A `perf_event` program on each CPU, in the interrupt of its clock, 99 times a second. Of a target the
//! stacks are taken, 5 µs, each kept once in the map of stacks; of everybody else a count by process,
//! so that who takes the CPUs from the targets has a name.

use aya_ebpf::{
    bindings::{BPF_F_USER_STACK, BPF_RB_NO_WAKEUP},
    helpers::bpf_get_current_comm,
    programs::{PerfEventContext, tracing::StackIdContext as _},
};
use tracer_ebpf::{Header, KIND_SAMPLE, Loss, Neighbour, Sample, Target};

use crate::{
    EVENTS, NEIGHBOURS, STACKS, TARGETS,
    goroutine::running,
    kernel::{current, now},
    losses,
};

/// `-EFAULT`: the thread has no such stack.
const NO_STACK: i32 = -14;

/// The clock ticked.
#[inline(always)]
pub(crate) fn taken(ctx: &PerfEventContext) -> Option<()> {
    let (tgid, tid) = current();
    if tid == 0 {
        return None; // idle
    }
    // SAFETY: the value is only replaced as a whole, by user space.
    match unsafe { TARGETS.get(tgid) } {
        Some(target) => tell(ctx, tgid, tid, target),
        None => count(tgid),
    }
}

#[inline(always)]
fn tell(ctx: &PerfEventContext, tgid: u32, tid: u32, target: &Target) -> Option<()> {
    let goid = match target.tls {
        0 => 0,
        _ => running(target).map_or(0, |(_, goid)| goid),
    };
    // SAFETY: the context's registers; kernel addresses are the upper half.
    let in_kernel = unsafe { (*ctx.ctx).regs.rip as i64 } < 0;
    let user = stack(ctx, u64::from(BPF_F_USER_STACK));
    let kernel = if in_kernel { stack(ctx, 0) } else { -1 };
    let Some(mut entry) = EVENTS.reserve::<Sample>(0) else {
        losses::count(Loss::Events);
        return None;
    };
    entry.write(Sample {
        header: Header {
            kind: KIND_SAMPLE,
            what: 0,
            flags: 0,
            at: now(),
        },
        goid,
        tgid,
        tid,
        user,
        kernel,
    });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}

/// The place of the stack in the map of stacks; negative where there is none.
#[inline(always)]
fn stack(ctx: &PerfEventContext, flags: u64) -> i32 {
    match ctx.get_stackid(&STACKS, flags) {
        Ok(place) => place as i32,
        Err(error) => {
            if error != NO_STACK {
                losses::count(Loss::Stacks);
            }
            error
        }
    }
}

/// Counts a process that is no target.
#[inline(always)]
fn count(tgid: u32) -> Option<()> {
    if let Some(known) = NEIGHBOURS.get_ptr_mut(tgid) {
        // SAFETY: the element of this CPU, and the clock does not tick within its own tick.
        unsafe { (*known).samples += 1 };
        return Some(());
    }
    let met = Neighbour {
        samples: 1,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    NEIGHBOURS.insert(tgid, met, 0).ok()
}
