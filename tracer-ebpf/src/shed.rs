//! What is done without to keep within the budget of CPU time. User space decides, by taking programs away
//! and by one word here; a connection is followed as a whole or not at all.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use tracer_ebpf::Shed;

use crate::SHED;

#[inline(always)]
fn shed() -> Option<&'static Shed> {
    SHED.get(0)
}

/// Whether packets are not seen any more.
#[inline(always)]
pub(crate) fn packets() -> bool {
    shed().is_some_and(|shed| shed.packets != 0)
}

/// Whether not every connection is followed.
#[inline(always)]
pub(crate) fn connections() -> bool {
    shed().is_some_and(|shed| shed.one_in > 1)
}

/// Whether a connection that is opened now is to be followed.
#[inline(always)]
pub(crate) fn follows() -> bool {
    match shed() {
        Some(shed) if shed.one_in > 1 => {
            // SAFETY: a helper without arguments.
            let number = unsafe { bpf_get_prandom_u32() } as u32;
            number.is_multiple_of(shed.one_in)
        }
        _ => true,
    }
}
