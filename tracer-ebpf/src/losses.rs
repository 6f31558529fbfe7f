//! Nothing is lost silently: each record that found no room is counted, by what it was.

use tracer_ebpf::Loss;

use crate::LOSSES;

/// Counts one.
#[inline(always)]
pub(crate) fn count(loss: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: a slot of this CPU; a program interrupted here by another on the same CPU may lose
        // one count, never more.
        unsafe { *counter += 1 };
    }
}
