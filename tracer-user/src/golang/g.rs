//! What a `runtime.g` says of its goroutine.
//!
//! In: the bytes of a `g`, and the layout of its version. Out: its fields, and what follows from them
//! alone. Nothing here trusts them: a stack's range stays inside the bounds that the same `g` names.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::{layout::Layout, stack::Position, state::Status};

/// What names a goroutine: a `g` serves one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Of its `g`.
    pub address: u64,
    pub id: u64,
}

/// What we read of a `runtime.g`.
#[derive(Clone, Copy, Debug)]
pub(super) struct G {
    pub key: Key,
    pub stack_low: u64,
    pub stack_high: u64,
    pub m: u64,
    pub scheduled: Position,
    pub syscall: Position,
    pub status: Status,
    pub wait_since: u64,
    pub wait_reason: u8,
    pub parent: u64,
    pub go_pc: u64,
    pub start_pc: u64,
    /// The first entry in a channel's wait queue, or 0.
    pub waiting: u64,
    /// Its pprof labels, or 0.
    pub labels: u64,
    /// Counts how often it stopped running.
    pub stops: u8,
}

impl G {
    pub(super) fn decode(address: u64, bytes: &[u8], layout: &Layout) -> Option<Self> {
        let word = |offset: u32| {
            let bytes = bytes.get(offset as usize..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        Some(Self {
            key: Key {
                address,
                id: word(layout.goid)?,
            },
            stack_low: word(layout.stack_lo)?,
            stack_high: word(layout.stack_hi)?,
            m: word(layout.m)?,
            scheduled: Position {
                pc: word(layout.sched_pc)?,
                sp: word(layout.sched_sp)?,
            },
            syscall: Position {
                pc: word(layout.syscall_pc)?,
                sp: word(layout.syscall_sp)?,
            },
            status: Status::of(word(layout.status)? as u32),
            wait_since: word(layout.wait_since)?,
            wait_reason: *bytes.get(layout.wait_reason as usize)?,
            parent: word(layout.parent_goid)?,
            go_pc: word(layout.go_pc)?,
            start_pc: word(layout.start_pc)?,
            waiting: word(layout.waiting)?,
            labels: word(layout.labels)?,
            stops: *bytes.get(layout.tracking_seq as usize)?,
        })
    }

    /// Where its stack is to be walked from (`runtime.unwinder.initAt`).
    pub(super) fn position(&self) -> Position {
        if self.syscall.sp == 0 {
            self.scheduled
        } else {
            self.syscall
        }
    }

    /// The part of the stack in use, at most `most` bytes of it.
    pub(super) fn stack(&self, most: u64) -> Option<(u64, usize)> {
        let sp = self.position().sp;
        let used = self.stack_high.checked_sub(sp)?;
        (sp >= self.stack_low && used > 0).then_some((sp, usize::try_from(used.min(most)).ok()?))
    }

    /// It is the same goroutine and has not moved since: nor did it run and come back to the same place.
    pub(super) fn stands_still(&self, later: &Self) -> bool {
        self.key == later.key
            && self.stops == later.stops
            && self.status == later.status
            && self.scheduled == later.scheduled
            && self.syscall == later.syscall
            && self.stack_high == later.stack_high
    }

    /// It was started and has not run yet: it stands at its function's first instruction.
    pub(super) fn is_fresh(&self) -> bool {
        self.status.is_runnable() && self.scheduled.pc == self.start_pc
    }

    /// What is read makes sense for a `g` in `allgs`.
    pub(super) fn is_plausible(&self) -> bool {
        self.status.is_known()
            && (self.status.is_dead()
                || (self.key.id > 0
                    && self.key.id < 1 << 48
                    && self.stack_low < self.stack_high
                    && self.start_pc != 0))
    }

    /// How long it has waited, roughly. The runtime does not note when a goroutine blocks. The first
    /// garbage collection that finds it blocked notes when the collection *before* ended (`work.tstart`,
    /// `src/runtime/mgcmark.go` and `mgc.go`). So nothing is known until the second collection of the
    /// program's life, and from then on the time is too long, by at most what lies between two collections.
    /// The minutes in the runtime's own dumps are the same number.
    pub(super) fn waited(&self) -> Option<Duration> {
        if self.wait_since == 0 || !self.status.counts_wait() {
            return None;
        }
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
        Duration::from(now).checked_sub(Duration::from_nanos(self.wait_since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::layout::Version, *};

    const MOST: u64 = 1 << 20;

    proptest! {
        #[test]
        fn whatever_is_read_as_a_g_its_stack_stays_inside_its_bounds(
            bytes in prop::collection::vec(any::<u8>(), 400),
            minor in 21_u32..=27,
        ) {
            let layout = Layout::of(Version { minor, patch: 0 }).unwrap();
            let g = G::decode(8, &bytes, &layout).unwrap();
            if let Some((start, length)) = g.stack(MOST) {
                prop_assert!(start >= g.stack_low);
                prop_assert!(start + length as u64 <= g.stack_high);
                prop_assert!(length as u64 <= MOST);
            }
            prop_assert_eq!(G::decode(8, &bytes[..100], &layout).is_none(), true);
        }
    }
}
