//! How a goroutine's state is worded.
//!
//! In: the numbers in a `g`. Out: the words that the runtime's own dumps use. The wait reasons are
//! renumbered from version to version, so each minor has its own list, in the order of the constants
//! `waitReason…` with the words of `waitReasonStrings` (`src/runtime/runtime2.go`). Patch releases do
//! not change them.

/// What a goroutine is doing (`_Gidle` … `_Gdeadextra`, `src/runtime/runtime2.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(u32);

/// Set while the garbage collector looks at the stack.
const SCAN: u32 = 0x1000;
const RUNNABLE: u32 = 1;
const RUNNING: u32 = 2;
const SYSCALL: u32 = 3;
const WAITING: u32 = 4;
const DEAD: u32 = 6;
const COPYSTACK: u32 = 8;
/// Both since 1.26.
const LEAKED: u32 = 10;
const DEAD_EXTRA: u32 = 11;

impl Status {
    pub(super) fn of(word: u32) -> Self {
        Self(word)
    }

    fn plain(self) -> u32 {
        self.0 & !SCAN
    }

    /// It is one of those the runtime has, but for idle (0), which no `g` is any more when it comes into
    /// `allgs` (`runtime.newproc1`); anything else was not read from a `g`.
    pub(super) fn is_known(self) -> bool {
        matches!(self.plain(), RUNNABLE..=WAITING | DEAD | COPYSTACK..=DEAD_EXTRA)
    }

    /// It is free for reuse, so there is no goroutine.
    pub(super) fn is_dead(self) -> bool {
        matches!(self.plain(), DEAD | DEAD_EXTRA)
    }

    pub(super) fn is_runnable(self) -> bool {
        self.plain() == RUNNABLE
    }

    /// It is in a system call.
    pub(super) fn is_in_syscall(self) -> bool {
        self.plain() == SYSCALL
    }

    pub(super) fn is_running(self) -> bool {
        self.plain() == RUNNING
    }

    /// A thread belongs to it.
    pub(super) fn has_thread(self) -> bool {
        matches!(self.plain(), RUNNING | SYSCALL)
    }

    pub(super) fn is_waiting(self) -> bool {
        matches!(self.plain(), WAITING | LEAKED)
    }

    /// `g.waitsince` counts, where it is set.
    pub(super) fn counts_wait(self) -> bool {
        matches!(self.plain(), WAITING | LEAKED | SYSCALL)
    }

    /// Somebody else is at its stack, which may be moved meanwhile.
    pub(super) fn stack_is_taken(self) -> bool {
        self.0 & SCAN != 0 || self.plain() == COPYSTACK
    }
}

/// The state in the words of `runtime.goroutineheader` (`src/runtime/traceback.go`). Where the minor
/// version's wait reasons are not known, a waiting goroutine is just `waiting`.
pub(super) fn state(minor: Option<u32>, status: Status, reason: u8) -> String {
    let words = match status.plain() {
        0 => "idle",
        RUNNABLE => "runnable",
        RUNNING => "running",
        SYSCALL => "syscall",
        WAITING => "waiting",
        DEAD => "dead",
        COPYSTACK => "copystack",
        9 => "preempted",
        LEAKED => "leaked",
        DEAD_EXTRA => "waiting for cgo callback",
        _ => "???",
    };
    let reason = reasons(minor)
        .get(usize::from(reason))
        .copied()
        .filter(|reason| status.is_waiting() && !reason.is_empty());
    match (reason, status.plain()) {
        (Some(reason), LEAKED) => format!("{reason} (leaked)"),
        (None, LEAKED) => format!("{words} (leaked)"),
        (reason, _) => reason.unwrap_or(words).to_owned(),
    }
}

/// What the finalizer goroutine and the clean-up goroutines wait for when they have nothing to do.
pub(super) const IDLE_RUNTIME_WORKERS: [&str; 2] = ["finalizer wait", "cleanup wait"];

fn reasons(minor: Option<u32>) -> &'static [&'static str] {
    match minor {
        Some(21) => GO_1_21,
        Some(22) => GO_1_22,
        Some(23) => GO_1_23,
        Some(24) => GO_1_24,
        Some(25) => GO_1_25,
        Some(26 | 27) => GO_1_26,
        _ => &[],
    }
}

const GO_1_21: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
];

const GO_1_22: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
];

const GO_1_23: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
];

const GO_1_24: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (synctest)",
    "chan send (synctest)",
    "select (synctest)",
];

const GO_1_25: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "select",
    "select (no cases)",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "chan receive",
    "chan send",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

const GO_1_26: &[&str] = &[
    "",
    "GC assist marking",
    "IO wait",
    "dumping heap",
    "garbage collection",
    "garbage collection scan",
    "panicwait",
    "GC assist wait",
    "GC sweep wait",
    "GC scavenge wait",
    "finalizer wait",
    "force gc (idle)",
    "GOMAXPROCS updater (idle)",
    "semacquire",
    "sleep",
    "chan receive (nil chan)",
    "chan send (nil chan)",
    "select (no cases)",
    "select",
    "chan receive",
    "chan send",
    "sync.Cond.Wait",
    "sync.Mutex.Lock",
    "sync.RWMutex.RLock",
    "sync.RWMutex.Lock",
    "sync.WaitGroup.Wait",
    "trace reader (blocked)",
    "wait for GC cycle",
    "GC worker (idle)",
    "GC worker (active)",
    "preempted",
    "debug call",
    "GC mark termination",
    "stopping the world",
    "flushing proc caches",
    "trace goroutine status",
    "trace proc status",
    "page trace flush",
    "coroutine",
    "GC weak to strong wait",
    "synctest.Run",
    "synctest.Wait",
    "chan receive (durable)",
    "chan send (durable)",
    "select (durable)",
    "sync.WaitGroup.Wait (durable)",
    "cleanup wait",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(minor: u32, reason: u8) -> String {
        state(Some(minor), Status::of(WAITING), reason)
    }

    #[test]
    fn each_minor_version_words_its_own_numbers() {
        for (minor, reason, words) in [
            (21, 2, "IO wait"),
            (21, 19, "sleep"),
            (22, 36, "coroutine"),
            (23, 37, "GC weak to strong wait"),
            (24, 24, "sync.WaitGroup.Wait"),
            (25, 18, "GOMAXPROCS updater (idle)"),
            (25, 3, "chan receive (nil chan)"),
            (26, 15, "chan receive (nil chan)"),
            (27, 46, "cleanup wait"),
        ] {
            assert_eq!(waiting(minor, reason), words, "go1.{minor} {reason}");
        }
    }

    #[test]
    fn a_scan_does_not_hide_the_state() {
        assert_eq!(state(Some(27), Status::of(SCAN | WAITING), 2), "IO wait");
        assert_eq!(state(Some(27), Status::of(SCAN | RUNNING), 0), "running");
        assert!(Status::of(SCAN | WAITING).stack_is_taken());
    }

    #[test]
    fn an_unknown_reason_or_version_says_only_that_it_waits() {
        assert_eq!(waiting(27, 200), "waiting");
        assert_eq!(waiting(99, 2), "waiting");
        assert_eq!(waiting(27, 0), "waiting");
        assert_eq!(state(Some(27), Status::of(LEAKED), 2), "IO wait (leaked)");
        assert!(!Status::of(77).is_known());
    }
}
