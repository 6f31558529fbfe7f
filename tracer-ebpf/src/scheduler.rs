//! Threads on CPUs and off them.
//!
//! On `sched_switch`, `sched_wakeup` and `sched_wakeup_new`, with the lock of a run queue held and
//! interrupts off: nothing here waits, allocates or wakes anybody. `current` is the thread that leaves.
//! Nearly all switches of a host concern no target, so they end after two loads from the tasks and two
//! from [`crate::MARKS`]. One that does costs a look-up and a dozen stores for each of the two threads.
//! The goroutine is read only of a thread that could have gone on.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_comm};
use tracer_ebpf::{
    Before, ENDED, Header, KIND_SWITCH, KIND_THREAD, KIND_WAITED, Loss, NO_CPU, PREEMPTED, RUNNING,
    SLEEPING, Switch, THROTTLED, Thread, UNINTERRUPTIBLE, WOKEN, Waited,
};

use crate::{
    EVENTS, TARGETS, THREADS,
    goroutine::running,
    kernel::{cpu, member, now, offset, read, timeline_wanted},
    losses,
    processes::is_marked,
    ring::{self, QUIETLY},
};

/// `TASK_UNINTERRUPTIBLE` and `TASK_DEAD`, `include/linux/sched.h`.
const TASK_UNINTERRUPTIBLE: u32 = 2;
const TASK_DEAD: u32 = 0x80;
/// `MAX_RT_PRIO`: from here on a priority is of the fair class, whose run queues have quotas.
const MAX_RT_PRIO: i32 = 100;

/// A thread of which nothing is known. In read-only data, since it is large for a stack of 512 bytes.
// SAFETY: all bytes zero is a value of a struct of integers.
static UNKNOWN: Thread = unsafe { core::mem::zeroed() };

/// `sched_switch(preempt, prev, next, prev_state)`; kernels before 5.18 do not pass the state.
#[inline(always)]
pub(crate) fn switched(preempted: bool, prev: u64, next: u64, state: Option<u32>) -> Option<()> {
    let prev_tgid: u32 = member(prev, offset!(task_tgid));
    let next_tgid: u32 = member(next, offset!(task_tgid));
    let (leaves, arrives) = (is_marked(prev_tgid), is_marked(next_tgid));
    if !leaves && !arrives {
        return None;
    }
    let (now, cpu) = (now(), cpu());
    let prev_tid: u32 = member(prev, offset!(task_pid));
    let next_tid: u32 = member(next, offset!(task_pid));
    let mut left = Left { state: 0, goid: 0 };
    let mut from = None;
    if leaves {
        let state = match state {
            Some(state) => state,
            None => read(prev, offset!(task_state))?,
        };
        // The kernel's own rule, `__schedule` in `kernel/sched/core.c`.
        let voluntary = !preempted && state != 0;
        left.state = becomes(prev, voluntary, state);
        if let Some(thread) = known(prev_tid, prev_tgid, now, left.state) {
            if !voluntary || timeline_wanted() {
                left.goid = goroutine(prev_tgid);
            }
            from = Some(());
            step(thread, |thread| {
                thread.leaves(now, left.state, voluntary, || slice(prev));
                thread.goid = left.goid;
            });
            if left.state == ENDED {
                end(thread, prev_tid, now);
            }
        }
    }
    let mut to = None;
    if arrives && let Some(thread) = known(next_tid, next_tgid, now, RUNNING) {
        to = Some(());
        let before = step(thread, |thread| thread.arrives(now, cpu));
        if before.is_long_wait(now) {
            tell_wait(thread, before, now, prev_tgid, prev_tid);
        }
    }
    if timeline_wanted() && (from.is_some() || to.is_some()) {
        let switch = Switch {
            header: Header {
                kind: KIND_SWITCH,
                what: left.state as u16,
                flags: 0,
                at: now,
            },
            goid: left.goid,
            cpu,
            from_tgid: from.map_or(0, |()| prev_tgid),
            from_tid: from.map_or(0, |()| prev_tid),
            to_tgid: to.map_or(0, |()| next_tgid),
            to_tid: to.map_or(0, |()| next_tid),
            _pad: 0,
        };
        ring::tell(switch, Loss::Switches)?;
    }
    Some(())
}

/// How a thread left its CPU.
struct Left {
    state: u32,
    goid: u64,
}

/// `sched_wakeup(task)`: it is on a run queue now, or was never off its CPU.
#[inline(always)]
pub(crate) fn woken(task: u64) -> Option<()> {
    let tgid: u32 = member(task, offset!(task_tgid));
    if !is_marked(tgid) {
        return None;
    }
    let tid: u32 = member(task, offset!(task_pid));
    let thread = THREADS.get_ptr_mut(tid)?;
    let state = if is_throttled(task) { THROTTLED } else { WOKEN };
    let now = now();
    step(thread, |thread| thread.wakes(now, state));
    Some(())
}

/// `sched_wakeup_new(task)`: a thread begins.
#[inline(always)]
pub(crate) fn woken_first(task: u64) -> Option<()> {
    let tgid: u32 = member(task, offset!(task_tgid));
    if !is_marked(tgid) {
        return None;
    }
    // SAFETY: the value is not read.
    unsafe { TARGETS.get(tgid) }?;
    let tid: u32 = member(task, offset!(task_pid));
    // Whoever had this id before has ended unseen.
    let _ = THREADS.remove(tid);
    if enter(tid, tgid, now(), WOKEN).is_none() {
        losses::count(Loss::Threads);
    }
    Some(())
}

/// A target called `execve` from the thread `old_tid`, which goes by the id of the process from now on.
#[inline(always)]
pub(crate) fn execed(tgid: u32, old_tid: u32) -> Option<()> {
    if old_tid == tgid {
        return None;
    }
    let now = now();
    let thread = THREADS.get_ptr_mut(old_tid)?;
    step(thread, |thread| {
        // It may have left its CPU under the new id already.
        let until = match THREADS.get_ptr(tgid) {
            // SAFETY: an element of the map; only its beginning is read, which never changes.
            Some(renamed) => unsafe { (*renamed).first },
            None => now,
        };
        thread.charge(RUNNING, until.max(thread.since), ENDED);
    });
    end(thread, old_tid, now);
    known(tgid, tgid, now, RUNNING);
    Some(())
}

/// The thread, entered now where it is a target's and was not seen before. `None` for a stranger.
#[inline(always)]
fn known(tid: u32, tgid: u32, now: u64, state: u32) -> Option<*mut Thread> {
    if let Some(thread) = THREADS.get_ptr_mut(tid) {
        return Some(thread);
    }
    // SAFETY: the value is not read.
    unsafe { TARGETS.get(tgid) }?;
    if state != ENDED {
        enter(tid, tgid, now, state);
    }
    None
}

/// Enters a thread that is in `state` from now on.
#[inline(always)]
fn enter(tid: u32, tgid: u32, now: u64, state: u32) -> Option<()> {
    THREADS.insert(tid, &UNKNOWN, u64::from(BPF_NOEXIST)).ok()?;
    let thread = THREADS.get_ptr_mut(tid)?;
    step(thread, |thread| {
        thread.tgid = tgid;
        thread.tid = tid;
        thread.state = state;
        thread.cpu = NO_CPU;
        thread.since = now;
        thread.first = now;
    });
    Some(())
}

/// Takes a step of a thread, so that who reads it meanwhile can tell.
#[inline(always)]
fn step<R>(thread: *mut Thread, take: impl FnOnce(&mut Thread) -> R) -> R {
    // SAFETY: an element of the map, which only who holds the lock of its run queue writes to.
    unsafe {
        let sequence = &raw mut (*thread).sequence;
        sequence.write_volatile(sequence.read_volatile().wrapping_add(1));
        let result = take(&mut *thread);
        sequence.write_volatile(sequence.read_volatile().wrapping_add(1));
        result
    }
}

/// Tells a thread that has just left its CPU for good, and forgets it.
#[inline(always)]
fn end(thread: *mut Thread, tid: u32, now: u64) {
    // SAFETY: an element of the map, of a thread that no longer takes steps.
    let thread = unsafe { &mut *thread };
    thread.header = Header {
        kind: KIND_THREAD,
        what: 0,
        flags: 0,
        at: now,
    };
    thread.comm = bpf_get_current_comm().unwrap_or_default();
    if EVENTS.output::<Thread>(&*thread, QUIETLY).is_err() {
        losses::count(Loss::ThreadEnds);
    }
    let _ = THREADS.remove(tid);
}

#[inline(always)]
fn tell_wait(thread: *mut Thread, before: Before, now: u64, by_tgid: u32, by_tid: u32) {
    // SAFETY: an element of the map.
    let thread = unsafe { &*thread };
    let waited = Waited {
        header: Header {
            kind: KIND_WAITED,
            what: before.state as u16,
            flags: 0,
            at: now,
        },
        from: before.since,
        goid: thread.goid,
        tgid: thread.tgid,
        tid: thread.tid,
        by_tgid,
        by_tid,
        by_comm: bpf_get_current_comm().unwrap_or_default(),
    };
    ring::tell(waited, Loss::Waits);
}

/// For how long a task of the fair class has run since it was picked.
#[inline(always)]
fn slice(task: u64) -> u64 {
    let ran = read::<u64>(task, offset!(task_ran)).unwrap_or(0);
    let before = read::<u64>(task, offset!(task_ran_before)).unwrap_or(0);
    ran.saturating_sub(before)
}

/// What a thread goes over to that leaves its CPU with this `__state`.
#[inline(always)]
fn becomes(task: u64, voluntary: bool, state: u32) -> u32 {
    if !voluntary {
        if is_throttled(task) {
            THROTTLED
        } else {
            PREEMPTED
        }
    } else if state & TASK_DEAD != 0 {
        ENDED
    } else if state & TASK_UNINTERRUPTIBLE != 0 {
        UNINTERRUPTIBLE
    } else {
        SLEEPING
    }
}

/// Whether a runnable task is kept from running by the quota of its cgroup. A kernel that throttles tasks
/// (6.18 on) says so of each; before, all tasks of a throttled run queue stand still.
#[inline(always)]
fn is_throttled(task: u64) -> bool {
    if offset!(task_throttled) != 0 {
        return member::<u8>(task, offset!(task_throttled)) != 0;
    }
    if offset!(task_cfs_rq) == 0 || offset!(cfs_rq_throttle_count) == 0 {
        return false;
    }
    let count = read::<u64>(task, offset!(task_cfs_rq))
        .and_then(|queue| read::<i32>(queue, offset!(cfs_rq_throttle_count)));
    count.is_some_and(|count| count > 0) && member::<i32>(task, offset!(task_prio)) >= MAX_RT_PRIO
}

/// The goroutine that the current thread, of this process, runs; 0 where there is none.
#[inline(always)]
fn goroutine(tgid: u32) -> u64 {
    // SAFETY: the value is only replaced as a whole, by user space.
    match unsafe { TARGETS.get(tgid) } {
        Some(target) if target.tls != 0 => running(target).map_or(0, |(_, goid)| goid),
        _ => 0,
    }
}
