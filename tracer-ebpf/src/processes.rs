//! Children follow their parent.
//!
//! On `sched_process_fork`, `_exec` and `_exit`, in the context of the process itself; a fork of a
//! stranger costs one look-up. And what they are refused: `sys_exit` is passed by every system call of
//! the host at some 45 ns, so it is attached only while a target is short of file descriptors.

use tracer_ebpf::{
    Header, KIND_PROCESS, Loss, PROCESS_EXECED, PROCESS_EXITED, PROCESS_FORKED, ProcessChange,
};

use crate::{
    MARKS, REFUSED, TARGETS,
    kernel::{current, now, offset, read},
    losses, ring, scheduler,
};

/// `sched_process_fork(parent, child)`.
#[inline(always)]
pub(crate) fn forked(parent: u64, child: u64) -> Option<()> {
    let parent: u32 = read(parent, offset!(task_tgid))?;
    // SAFETY: the value is only replaced as a whole, by user space.
    let target = unsafe { TARGETS.get(parent) }?;
    let tgid: u32 = read(child, offset!(task_tgid))?;
    if tgid == parent {
        return None; // a thread
    }
    // Until it calls exec it runs the same program.
    if TARGETS.insert(tgid, target, 0).is_err() {
        losses::count(Loss::Targets);
    }
    mark(tgid);
    tell(PROCESS_FORKED, tgid, parent)
}

/// From now on a process may be a target: see [`is_marked`].
#[inline(always)]
fn mark(tgid: u32) {
    if let Some(mark) = MARKS.get_ptr_mut(tgid & 0xffff) {
        // SAFETY: an element of the map, which is only ever set.
        unsafe { *mark = 1 };
    }
}

/// Whether a process may be a target: some target's id ends in the same sixteen bits. A load in place of
/// a look-up, for what happens a million times a second.
#[inline(always)]
pub(crate) fn is_marked(tgid: u32) -> bool {
    MARKS.get(tgid & 0xffff).is_some_and(|mark| *mark != 0)
}

/// `sched_process_exec(task, old_pid, …)`.
#[inline(always)]
pub(crate) fn execed(old_tid: u32) -> Option<()> {
    let (tgid, _) = current();
    let target = TARGETS.get_ptr_mut(tgid)?;
    // Another program, another layout: user space will look at it.
    // SAFETY: an element of the map; a reader sees the old word or the new one.
    unsafe { (*target).tls = 0 };
    scheduler::execed(tgid, old_tid);
    tell(PROCESS_EXECED, tgid, 0)
}

/// `sched_process_exit(task)`: told of a process whose last thread ends. The first one may end long before,
/// as it does when another one calls `execve`.
#[inline(always)]
pub(crate) fn exited(task: u64) -> Option<()> {
    let (tgid, _) = current();
    // SAFETY: the value is not read.
    unsafe { TARGETS.get(tgid) }?;
    let signal: u64 = read(task, offset!(task_signal))?;
    if read::<i32>(signal, offset!(signal_live))? > 0 {
        return None;
    }
    tell(PROCESS_EXITED, tgid, 0)
}

/// `-EMFILE` and `-ENFILE`: the process's, or the host's, file descriptors ran out.
const OUT_OF_DESCRIPTORS: [i64; 2] = [-24, -23];

/// `sys_exit(regs, ret)`
#[inline(always)]
pub(crate) fn call_ended(result: i64) -> Option<()> {
    if result != OUT_OF_DESCRIPTORS[0] && result != OUT_OF_DESCRIPTORS[1] {
        return None;
    }
    let (tgid, _) = current();
    // SAFETY: the value is not read.
    unsafe { TARGETS.get(tgid) }?;
    if let Some(calls) = REFUSED.get_ptr_mut(tgid) {
        // SAFETY: the element of this CPU; a call does not end within another one's end.
        unsafe { *calls += 1 };
    } else {
        let _ = REFUSED.insert(tgid, 1, 0);
    }
    Some(())
}

#[inline(always)]
fn tell(what: u16, tgid: u32, parent: u32) -> Option<()> {
    let change = ProcessChange {
        header: Header {
            kind: KIND_PROCESS,
            what,
            flags: 0,
            at: now(),
        },
        tgid,
        parent,
    };
    ring::tell(change, Loss::Processes)
}
