//! Who runs, and where in the program, when the profiler's clock ticks.
//!
//! A `perf_event` program on each CPU, in the interrupt of its clock, 99 times a second. Of a target the
//! stacks are taken, 5 µs, each kept once in the map of stacks; of everybody else a count by process,
//! so that who takes the CPUs from the targets has a name.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_USER_STACK,
    helpers::{bpf_get_current_comm, generated::bpf_get_stack},
    programs::{PerfEventContext, tracing::StackIdContext as _},
};
use tracer_ebpf::{
    FLAG_STACK, Header, KIND_SAMPLE, Loss, Neighbour, STACK_DEPTH, Sample, Stack, Target,
};

use crate::{
    NEIGHBOURS, STACKS, TARGETS,
    goroutine::running,
    kernel::{current, now},
    losses,
    ring::{self, QUIETLY},
    sockets::read_stack,
};

/// `-EEXIST`: another stack has its place.
const TAKEN: i32 = -17;
/// There is no such stack.
const NONE: i32 = -1;

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
    // SAFETY: the context's registers; kernel addresses are the upper half.
    let in_kernel = unsafe { (*ctx.ctx).regs.rip as i64 } < 0;
    let user = place(ctx, u64::from(BPF_F_USER_STACK));
    let kernel = if in_kernel { place(ctx, 0) } else { NONE };
    let goid = match target.tls {
        0 => 0,
        _ => running(target).map_or(0, |(_, goid)| goid),
    };
    let sample = Sample {
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
    };
    if user == TAKEN || kernel == TAKEN {
        return tell_with_stacks(ctx, sample);
    }
    ring::tell(sample, Loss::Samples)
}

/// A sample whose stacks stand behind it.
#[repr(C)]
struct SampleWithStacks {
    sample: Sample,
    user: Stack,
    kernel: Stack,
}

/// Tells a sample of which a stack would go where another one is kept.
#[inline(always)]
fn tell_with_stacks(ctx: &PerfEventContext, sample: Sample) -> Option<()> {
    let mut entry = ring::reserve::<SampleWithStacks>(Loss::Samples)?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points into the reserved record, and the helper writes within `frames`.
    unsafe {
        (&raw mut (*record).sample).write(sample);
        (*record).sample.header.flags = FLAG_STACK;
        read_stack(ctx.as_ptr(), &raw mut (*record).user);
        let kernel = &raw mut (*record).kernel;
        (*kernel).length = if sample.kernel == NONE {
            0
        } else {
            bpf_get_stack(
                ctx.as_ptr(),
                (&raw mut (*kernel).frames).cast(),
                (STACK_DEPTH * size_of::<u64>()) as u32,
                0,
            )
        };
        if (*record).user.length < 0 || (*kernel).length < 0 {
            losses::count(Loss::Stacks);
        }
    }
    entry.submit(QUIETLY);
    Some(())
}

/// The place of the stack in the map of stacks; negative where there is none, or it is [`TAKEN`].
#[inline(always)]
fn place(ctx: &PerfEventContext, flags: u64) -> i32 {
    match ctx.get_stackid(&STACKS, flags) {
        Ok(place) => place as i32,
        Err(error) => error,
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
