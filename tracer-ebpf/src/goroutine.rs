//! Who runs on this thread: in process context, at a cost of about 50 ns for a Go program.
//!
//! Go keeps the running `g` in thread-local storage. Inside a cgo call and on the scheduler's stack
//! that is `g0`, whose id is 0; the goroutine is then `g.m.curg`.

use tracer_ebpf::{Owner, Target};

use crate::kernel::{current, offset, read, read_user, task};

/// Writes the current thread, which belongs to `target`, and its goroutine, where it is Go's and
/// runs one, to `to`.
#[inline(always)]
pub(crate) fn read_owner(target: &Target, to: &mut Owner) {
    let (tgid, tid) = current();
    to.tgid = tgid;
    to.tid = tid;
    to.goid = 0;
    to.g = 0;
    if target.tls != 0
        && let Some((g, goid)) = running(target)
    {
        to.g = g;
        to.goid = goid;
    }
}

/// The `runtime.g` and the id of the goroutine that the current thread runs.
#[inline(always)]
pub(crate) fn running(target: &Target) -> Option<(u64, u64)> {
    let base: u64 = read(task(), offset!(task_fsbase))?;
    let g: u64 = read_user(base.wrapping_add_signed(i64::from(target.tls)))?;
    let goid: u64 = read_user(g + u64::from(target.g_goid))?;
    if goid != 0 {
        return Some((g, goid));
    }
    let m: u64 = read_user(g + u64::from(target.g_m))?;
    let curg: u64 = read_user(m + u64::from(target.m_curg))?;
    if curg == 0 {
        return None;
    }
    Some((curg, read_user(curg + u64::from(target.g_goid))?))
}
