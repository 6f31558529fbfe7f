//! The way out of the kernel: records go into a ring, wake nobody, and are counted where they find no
//! room.
//!
//! User space drains on a timer; a wake-up would cost more than twenty times the record.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, maps::ring_buf::RingBufEntry};
use tracer_ebpf::Loss;

use crate::{EVENTS, losses};

/// What every record is handed over with.
pub(crate) const QUIETLY: u64 = BPF_RB_NO_WAKEUP as u64;

/// Room for a record among the events. It is handed over by `submit(QUIETLY)`.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(loss: Loss) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        losses::count(loss);
    }
    entry
}

/// Hands over a record that is whole; where it finds no room it counts as `loss`.
#[inline(always)]
pub(crate) fn tell<T: Copy + 'static>(record: T, loss: Loss) -> Option<()> {
    let mut entry = reserve::<T>(loss)?;
    entry.write(record);
    entry.submit(QUIETLY);
    Some(())
}
