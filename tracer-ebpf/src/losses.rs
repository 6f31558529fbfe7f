//! Nothing is lost silently: each record that found no room is counted, by what it was.
//!
//! Exactly: where a program is interrupted by another one on its CPU, both counts hold, since they are added
//! by one instruction. Only what is lost pays for that.

use core::arch::asm;

use tracer_ebpf::Loss;

use crate::{LOSSES, LOST};

/// Counts one; what leaves a hole in the story of sockets also in a sum, which user space looks at before it
/// believes what it reads.
#[inline(always)]
pub(crate) fn count(loss: Loss) {
    add(LOSSES.get_ptr_mut(loss as u32));
    if loss.leaves_hole() {
        add(LOST.get_ptr_mut(0));
    }
}

#[inline(always)]
fn add(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // Rust knows no atomic addition for this target, which has one (`BPF_ATOMIC | BPF_ADD`).
        // SAFETY: an element of a map, aligned to eight bytes.
        unsafe {
            asm!(
                "lock *(u64 *)({counter} + 0) += {one}",
                counter = in(reg) counter,
                one = in(reg) 1_u64,
            );
        }
    }
}
