//! Who runs on this thread: in process context, at a cost of about 60 ns for a Go program.
//!
//! Go keeps the running `g` in thread-local storage. Inside a cgo call that is `g0`, so the
//! goroutine is taken from `g.m.curg`.

use tracer_ebpf::{GoRuntime, Owner};

use crate::{
    GO_RUNTIMES,
    kernel::{current, offset, read, read_user, task},
};

/// Writes the current thread and, in a Go program whose layout is known, its goroutine to `to`.
#[inline(always)]
pub(crate) fn read_owner(to: &mut Owner) {
    let (tgid, tid) = current();
    to.tgid = tgid;
    to.tid = tid;
    to.goid = 0;
    to.g = 0;
    // SAFETY: the value is only replaced as a whole, by user space.
    if let Some(runtime) = unsafe { GO_RUNTIMES.get(tgid) }
        && let Some((g, goid)) = running(runtime)
    {
        to.g = g;
        to.goid = goid;
    }
}

#[inline(always)]
fn running(runtime: &GoRuntime) -> Option<(u64, u64)> {
    let base: u64 = read(task(), offset!(task_fsbase))?;
    let g: u64 = read_user(base.wrapping_add_signed(i64::from(runtime.tls)))?;
    let m: u64 = read_user(g + u64::from(runtime.g_m))?;
    let curg: u64 = read_user(m + u64::from(runtime.m_curg))?;
    if curg == 0 {
        return None;
    }
    Some((curg, read_user(curg + u64::from(runtime.g_goid))?))
}
