//! Where the runtime of each Go version keeps what we read of a goroutine.
//!
//! In: the minor version, or the debug information of one executable. Out: byte offsets. The table is
//! for linux/amd64 and was taken from `runtime/runtime2.go` as each toolchain compiled it; a test
//! compares it with the debug information of every toolchain at hand, field by field. Of what is read here
//! one patch release changed one field; others may, so what is read is checked against itself, too.

/// Byte offsets in `runtime.g`, `runtime.m` (`src/runtime/runtime2.go`) and `runtime.pollDesc`; and in what the
/// runtime counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// `g.stack.lo`.
    pub stack_lo: u32,
    /// `g.stack.hi`.
    pub stack_hi: u32,
    /// `g.m`: the thread that runs it, or nil.
    pub m: u32,
    /// `g.sched.sp`: where it goes on when scheduled.
    pub sched_sp: u32,
    /// `g.sched.pc`.
    pub sched_pc: u32,
    /// `g.syscallsp`: non-zero in a system call, and then the stack starts there.
    pub syscall_sp: u32,
    /// `g.syscallpc`.
    pub syscall_pc: u32,
    /// `g.atomicstatus` (u32).
    pub status: u32,
    /// `g.goid`.
    pub goid: u32,
    /// `g.waitsince` (nanoseconds of `CLOCK_MONOTONIC`).
    pub wait_since: u32,
    /// `g.waitreason` (u8).
    pub wait_reason: u32,
    /// `g.parentGoid`.
    pub parent_goid: u32,
    /// `g.gopc`: the return address of the `go` statement.
    pub go_pc: u32,
    /// `g.startpc`: the goroutine's function.
    pub start_pc: u32,
    /// `g.labels`: its pprof labels, or nil.
    pub labels: u32,
    /// `g.trackingSeq` (u8): one more each time that it stops running.
    pub tracking_seq: u32,
    /// `m.procid`: the thread's id in the process's pid namespace.
    pub m_procid: u32,
    /// `m.curg`.
    pub m_curg: u32,
    /// `m.locks` (i32): not zero while the thread makes a goroutine, among others.
    pub m_locks: u32,
    /// `m.syscalltick` (u32): another for each system call. Since 1.26, where `trackingSeq` does not count
    /// these.
    pub m_syscall_tick: Option<u32>,
    /// `pollDesc.rseq` (`src/runtime/netpoll.go`): changes with each read deadline that is set.
    pub poll_read_seq: u32,
    /// `pollDesc.wseq`.
    pub poll_write_seq: u32,
    /// What the runtime counts; `None` where the debug information does not tell.
    pub figures: Option<Figures>,
    /// `g.waiting`: the first of the wait queues of channels it is in.
    pub waiting: u32,
    /// `sudog.g`: who waits (`src/runtime/runtime2.go`).
    pub sudog_g: u32,
    /// `sudog.elem`: the semaphore it waits at, where it is no channel. Since 1.26 the address is the
    /// second word of it.
    pub sudog_elem: u32,
    /// `sudog.waitlink`: the next queue that the same goroutine is in.
    pub sudog_waitlink: u32,
    /// `sudog.c`: the channel; as `elem`.
    pub sudog_c: u32,
    /// `hchan.timer` (`src/runtime/chan.go`), since 1.23.
    pub hchan_timer: Option<u32>,
}

/// Byte offsets of what the runtime says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// `p.timers.heap`, up to 1.22 `p.timers`: a slice, and right behind it the number of timers (u32).
    pub p_timers: u32,
    /// `mstats.numgc` (u32).
    pub memstats_collections: u32,
    /// `mstats.enablegc` (bool).
    pub memstats_enabled: u32,
    /// `gcControllerState.gcPercent` (i32).
    pub pacer_percent: u32,
    /// `gcControllerState.memoryLimit` (i64).
    pub pacer_limit: u32,
    /// `gcControllerState.heapMarked` (u64).
    pub pacer_live: u32,
}

/// A version of Go 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    /// `27` of `go1.27.3`.
    pub minor: u32,
    /// `3` of it; 0 for what came before the first patch.
    pub patch: u32,
}

impl Version {
    /// Of `go1.27.3`, `go1.27rc1`, `devel go1.27-abc` or `go1.27.3 X:boringcrypto`.
    pub(super) fn of(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("go1.")?;
        let (minor, rest) = number(rest)?;
        let patch = rest.strip_prefix('.').and_then(number);
        Some(Self {
            minor,
            patch: patch.map_or(0, |(patch, _)| patch),
        })
    }
}

/// The number that `text` begins with, and the rest.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|digit: char| !digit.is_ascii_digit());
    let (digits, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    Some((digits.parse().ok()?, rest))
}

/// The patch that made the timers in a `pollDesc` larger (`timer.isSending`).
const TIMERS_GREW: Version = Version {
    minor: 23,
    patch: 2,
};

/// The oldest minor version (`go1.MINOR`) whose layout is known.
pub(super) const OLDEST: u32 = 21;
/// The newest one.
pub(super) const NEWEST: u32 = 27;

impl Layout {
    /// The layout of a version; `None` for one this table does not have.
    pub(super) fn of(version: Version) -> Option<Self> {
        let minor = version.minor;
        let base = Self {
            stack_lo: 0,
            stack_hi: 8,
            m: 48,
            sched_sp: 56,
            sched_pc: 64,
            syscall_sp: 112,
            syscall_pc: 120,
            status: 144,
            goid: 152,
            wait_since: 168,
            wait_reason: 176,
            parent_goid: 272,
            go_pc: 280,
            start_pc: 296,
            labels: 344,
            tracking_seq: 191,
            m_procid: 72,
            m_curg: 192,
            m_locks: 264,
            m_syscall_tick: None,
            poll_read_seq: 64,
            poll_write_seq: 152,
            figures: Figures::of_minor(minor),
            waiting: 312,
            sudog_g: 0,
            sudog_elem: 24,
            sudog_waitlink: 64,
            sudog_c: 80,
            hchan_timer: None,
        };
        // 1.23 added g.syscallbp; 1.25 dropped gobuf.ret; 1.26 added a word before parentGoid. Timers, of
        // which a pollDesc holds two, grew in 1.23 and 1.25. In 1.26 what a sudog points at became two words.
        Some(match minor {
            21 => Self {
                tracking_seq: 188,
                ..base
            },
            22 => base,
            23 | 24 => Self {
                status: 152,
                goid: 160,
                wait_since: 176,
                wait_reason: 184,
                parent_goid: 280,
                go_pc: 288,
                start_pc: 304,
                labels: 352,
                // The timers grew once more in 1.23.2.
                poll_write_seq: if version < TIMERS_GREW { 160 } else { 168 },
                tracking_seq: 199,
                waiting: 320,
                hchan_timer: Some(32),
                ..base
            },
            25 => Self {
                syscall_sp: 104,
                syscall_pc: 112,
                m_procid: 64,
                m_curg: 184,
                m_locks: 256,
                poll_write_seq: 176,
                hchan_timer: Some(32),
                ..base
            },
            26 | 27 => Self {
                syscall_sp: 104,
                syscall_pc: 112,
                parent_goid: 280,
                go_pc: 288,
                start_pc: 304,
                labels: 352,
                m_procid: 64,
                m_curg: 184,
                m_syscall_tick: Some(788),
                poll_write_seq: 176,
                waiting: 320,
                sudog_elem: 32,
                sudog_waitlink: 72,
                sudog_c: 96,
                hchan_timer: Some(32),
                ..base
            },
            _ => return None,
        })
    }

    /// How many bytes of a `g` hold everything above.
    pub(super) fn g_bytes(&self) -> usize {
        let last = [
            self.stack_hi,
            self.m,
            self.sched_sp,
            self.sched_pc,
            self.syscall_sp,
            self.syscall_pc,
            self.status,
            self.goid,
            self.wait_since,
            self.wait_reason,
            self.parent_goid,
            self.go_pc,
            self.start_pc,
            self.waiting,
            self.labels,
            self.tracking_seq,
        ]
        .into_iter()
        .max()
        .unwrap_or(0);
        last as usize + size_of::<u64>()
    }

    /// How many bytes of a `sudog` do.
    pub(super) fn sudog_bytes(&self) -> usize {
        let last = self
            .sudog_g
            .max(self.sudog_elem)
            .max(self.sudog_waitlink)
            .max(self.sudog_c);
        last as usize + size_of::<u64>()
    }
}

impl Figures {
    fn of_minor(minor: u32) -> Option<Self> {
        // 1.23 moved a P's timers into a struct behind a lock; what lies before them in a P, and before the
        // flag in mstats, grew now and then.
        let (p_timers, memstats_collections, memstats_enabled) = match minor {
            21 => (8840, 7704, 7736),
            22 => (8872, 7704, 7736),
            23 | 24 => (8848, 7704, 7736),
            25 => (9400, 7680, 8256),
            26 | 27 => (13680, 7680, 10432),
            _ => return None,
        };
        Some(Self {
            p_timers,
            memstats_collections,
            memstats_enabled,
            pacer_percent: 0,
            pacer_limit: 8,
            pacer_live: 152,
        })
    }
}

/// The number by which the compiler marks functions it generated (`abi.FuncIDWrapper`, the last of
/// `src/internal/abi/symtab.go`'s list, which grew).
pub(super) fn wrapper_func_id(minor: u32) -> u8 {
    match minor {
        ..=21 => 21,
        22..=24 => 22,
        25.. => 23,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_and_patch_are_found_in_each_form_of_version() {
        for (text, expected) in [
            ("go1.27.3", Some((27, 3))),
            ("go1.21", Some((21, 0))),
            ("go1.27rc1", Some((27, 0))),
            ("devel go1.28-a1b2c3d4", Some((28, 0))),
            ("go1.26-devel_a1b2c3d4 X:nocoverageredesign", Some((26, 0))),
            ("go1.24.11 X:boringcrypto", Some((24, 11))),
            ("unknown", None),
        ] {
            let expected = expected.map(|(minor, patch)| Version { minor, patch });
            assert_eq!(Version::of(text), expected, "{text}");
        }
    }
}
