//! What a Go runtime was doing at a stack: whose CPU time that was.
//!
//! A stack is looked through for the functions by which the parts of the runtime are entered; their names
//! are those of Go 1.21 to 1.27 (`runtime/time.go`, `mgc*.go`, `proc.go`, `chan.go`, `select.go`, `sema.go`,
//! `lock_futex.go`, `malloc.go`). One part works for another: a timer that fires makes goroutines
//! runnable, a timer that is made is allocated, an allocation helps the collector. The time is then that
//! of whoever started it, and the collector's always, whose work is nobody's in particular.

use std::collections::BTreeSet;

use crate::event::Frame;

/// What CPU time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    /// Making, setting, stopping and firing timers.
    Timers,
    /// Marking in the background.
    Marking,
    /// Marking in the background on a processor that had nothing else to do: it costs nobody anything.
    IdleMarking,
    /// Marking by goroutines that allocate, which must not go on before.
    Assist,
    /// The rest of collecting: sweeping, stopping the world, giving memory back.
    Sweeping,
    /// Changing who works: goroutines that are made runnable, wait and are looked for, threads that are
    /// woken and put to sleep.
    Scheduling,
    /// Looking which descriptors are ready.
    Polling,
    /// Finding room for what is allocated.
    Allocation,
    /// Whatever the program does itself.
    Program,
}

impl Work {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; Self::KINDS] = [
        Self::Timers,
        Self::Marking,
        Self::IdleMarking,
        Self::Assist,
        Self::Sweeping,
        Self::Scheduling,
        Self::Polling,
        Self::Allocation,
        Self::Program,
    ];

    /// How many there are.
    pub(crate) const KINDS: usize = Self::Program as usize + 1;

    /// What a program's stack and the kernel's stack below it stand for; innermost frames first.
    pub(crate) fn at(frames: &[Frame], kernel: &[Frame]) -> Self {
        let mut seen = [false; Self::KINDS];
        for frame in frames {
            if let Some(slot) = part(&frame.function).and_then(|work| seen.get_mut(work as usize)) {
                *slot = true;
            }
        }
        let has = |work: Self| seen.get(work as usize).copied().unwrap_or_default();
        let first = [
            Self::IdleMarking,
            Self::Assist,
            Self::Sweeping,
            Self::Marking,
            Self::Timers,
            Self::Polling,
            Self::Scheduling,
            Self::Allocation,
        ]
        .into_iter()
        .find(|work| has(*work));
        match first {
            Some(work) => work,
            None if kernel.iter().any(|frame| switches(&frame.function)) => Self::Scheduling,
            None => Self::Program,
        }
    }

    /// The collector's, and somebody pays for it.
    pub(crate) fn is_collecting(self) -> bool {
        matches!(self, Self::Marking | Self::Assist | Self::Sweeping)
    }
}

/// Somebody asked for memory here.
pub(crate) fn allocates(frames: &[Frame]) -> bool {
    frames
        .iter()
        .any(|frame| runtime(&frame.function).is_some_and(is_allocation))
}

/// The functions of package time, and those of others that stand on them, by which `stacks` make and set
/// timers; each once, in no order that means anything.
pub(crate) fn timer_functions<'f>(stacks: impl IntoIterator<Item = &'f [Frame]>) -> Vec<String> {
    const CALLED: [&str; 10] = [
        "time.After",
        "time.AfterFunc",
        "time.NewTimer",
        "time.NewTicker",
        "time.Tick",
        "time.Sleep",
        "time.(*Timer).Reset",
        "time.(*Ticker).Reset",
        "context.WithTimeout",
        "context.WithDeadline",
    ];
    let mut called = BTreeSet::new();
    for frames in stacks {
        let outermost = frames
            .iter()
            .rev()
            .find(|frame| CALLED.contains(&frame.function.as_str()));
        called.extend(outermost.map(|frame| frame.function.clone()));
    }
    called.into_iter().collect()
}

/// Tells by its name within the runtime whether a function is a door to one part.
type IsDoor = fn(&str) -> bool;

/// The part of the runtime to which a function is a door.
fn part(function: &str) -> Option<Work> {
    if let Some(name) = function.strip_prefix("time.") {
        return is_timer_of_time(name).then_some(Work::Timers);
    }
    let name = runtime(function)?;
    let doors: [(IsDoor, Work); 8] = [
        (is_idle_marking, Work::IdleMarking),
        (is_assist, Work::Assist),
        (is_sweeping, Work::Sweeping),
        (is_marking, Work::Marking),
        (is_timer, Work::Timers),
        (|name| name.starts_with("netpoll"), Work::Polling),
        (is_scheduling, Work::Scheduling),
        (is_allocation, Work::Allocation),
    ];
    doors
        .into_iter()
        .find(|(is, _)| is(name))
        .map(|(_, work)| work)
}

/// The name within the runtime: of a closure that of its function, and without the mark of an ABI. One
/// that was inlined into another package names none (`_.goready.func1`).
fn runtime(function: &str) -> Option<&str> {
    if function.starts_with("gcWriteBarrier") {
        return Some("wbBufFlush");
    }
    let closure = || function.strip_prefix("_.");
    let name = function.strip_prefix("runtime.").or_else(closure)?;
    if name.starts_with('(') {
        return Some(name);
    }
    name.split('.').next()
}

/// The exported functions of package time that concern timers, and the runtime's that it is linked with.
fn is_timer_of_time(name: &str) -> bool {
    const EXACT: [&str; 14] = [
        "NewTimer",
        "NewTicker",
        "AfterFunc",
        "After",
        "Tick",
        "Sleep",
        "newTimer",
        "startTimer",
        "stopTimer",
        "resetTimer",
        "modTimer",
        "sendTime",
        "goFunc",
        "when",
    ];
    EXACT.contains(&name) || name.starts_with("(*Timer).") || name.starts_with("(*Ticker).")
}

fn is_timer(name: &str) -> bool {
    // From Go 1.23 on they are methods; before that, functions of these names.
    const EXACT: [&str; 28] = [
        "blockTimerChan",
        "unblockTimerChan",
        "newTimer",
        "startTimer",
        "stopTimer",
        "resetTimer",
        "resettimer",
        "modTimer",
        "modtimer",
        "addtimer",
        "doaddtimer",
        "deltimer",
        "dodeltimer",
        "dodeltimer0",
        "cleantimers",
        "moveTimers",
        "adjusttimers",
        "addAdjustedTimers",
        "checkTimers",
        "runtimer",
        "runOneTimer",
        "clearDeletedTimers",
        "updateTimer0When",
        "updateTimerModifiedEarliest",
        "siftupTimer",
        "siftdownTimer",
        "resetForSleep",
        "timeSleepUntil",
    ];
    name.starts_with("(*timer).") || name.starts_with("(*timers).") || EXACT.contains(&name)
}

fn is_idle_marking(name: &str) -> bool {
    name == "gcDrainMarkWorkerIdle"
}

fn is_assist(name: &str) -> bool {
    name.starts_with("gcAssistAlloc") || name == "gcParkAssist" || name == "deductAssistCredit"
}

fn is_marking(name: &str) -> bool {
    const BEGIN: [&str; 10] = [
        "gcBgMark",
        "gcDrain",
        "markroot",
        "scanobject",
        "scanObject",
        "scanSpan",
        "scanstack",
        "greyobject",
        "wbBufFlush",
        "(*gcWork).",
    ];
    BEGIN.iter().any(|begin| name.starts_with(begin))
}

fn is_sweeping(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "bgsweep",
        "sweepone",
        "deductSweepCredit",
        "(*sweepLocked).sweep",
        "(*mspan).sweep",
        "bgscavenge",
        "gcStart",
        "gcMarkDone",
        "gcMarkTermination",
    ];
    EXACT.contains(&name) || name.starts_with("(*scavengerState).")
}

fn is_scheduling(name: &str) -> bool {
    const EXACT: [&str; 48] = [
        "schedule",
        "findRunnable",
        "findrunnable",
        "stealWork",
        "runqsteal",
        "runqgrab",
        "runqget",
        "runqput",
        "execute",
        "gogo",
        "mcall",
        "park_m",
        "gopark",
        "goparkunlock",
        "goready",
        "ready",
        "readyWithTime",
        "Gosched",
        "gosched_m",
        "goschedImpl",
        "goschedguarded",
        "goyield",
        "goyield_m",
        "casgstatus",
        "wakep",
        "startm",
        "stopm",
        "handoffp",
        "mPark",
        "startlockedm",
        "stoplockedm",
        "resetspinning",
        "injectglist",
        "newm",
        "newproc",
        "newproc1",
        "goexit0",
        "goexit1",
        "gdestroy",
        "notewakeup",
        "notesleep",
        "send",
        "recv",
        "selectgo",
        "sellock",
        "selunlock",
        "acquireSudog",
        "releaseSudog",
    ];
    const BEGIN: [&str; 8] = [
        "futex",
        "chansend",
        "chanrecv",
        "selectnb",
        "semacquire",
        "semrelease",
        "notifyList",
        "globrunq",
    ];
    EXACT.contains(&name) || BEGIN.iter().any(|begin| name.starts_with(begin))
}

fn is_allocation(name: &str) -> bool {
    const BEGIN: [&str; 10] = [
        "mallocgc",
        "newobject",
        "newarray",
        "makeslice",
        "growslice",
        "makechan",
        "makemap",
        "rawstring",
        "rawbyteslice",
        "concatstring",
    ];
    BEGIN.iter().any(|begin| name.starts_with(begin))
}

/// A function of the kernel that puts threads to sleep, wakes them, or changes from one to another.
fn switches(function: &str) -> bool {
    const BEGIN: [&str; 7] = [
        "__schedule",
        "finish_task_switch",
        "try_to_wake_up",
        "ttwu_",
        "wake_up_q",
        "futex_wait",
        "futex_wake",
    ];
    BEGIN.iter().any(|begin| function.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::frames;

    fn at(stack: &str) -> Work {
        let stack: Vec<&str> = stack.split(';').collect();
        Work::at(&frames(&stack), &[])
    }

    #[test]
    fn timers_that_fire_are_timers_whatever_they_wake() {
        for stack in [
            // perf record of a service with 300,000 timers, Go 1.27.
            "runtime.(*timers).siftDown;runtime.(*timers).deleteMin;runtime.(*timer).updateHeap;runtime.(*timer).unlockAndRun;runtime.(*timers).run;runtime.(*timers).check;runtime.findRunnable;runtime.schedule;runtime.goexit0;runtime.mcall",
            "runtime.gfget;runtime.newproc1;runtime.newproc.func1;runtime.newproc;time.goFunc;runtime.(*timer).unlockAndRun;runtime.(*timers).run;runtime.(*timers).check;runtime.findRunnable;runtime.schedule;runtime.goexit0;runtime.mcall",
            "runtime.casgstatus;runtime.ready;_.goready.func1;runtime.send;runtime.chansend;runtime.selectnbsend;time.sendTime;runtime.(*timer).unlockAndRun;runtime.(*timers).run;runtime.(*timers).check;runtime.stealWork;runtime.findRunnable;runtime.schedule;runtime.park_m;runtime.mcall",
            "runtime.unlock2;runtime.unblockTimerChan;runtime.chanrecv;runtime.chanrecv2;main.(*Watcher).byTicker;main.NewWatcher.func1.gowrap1;runtime.goexit",
            "runtime.lock2;time.resetTimer;time.(*Timer).Reset;main.(*Watcher).byTimer.func1;runtime.goexit.abi0",
            "runtime.mallocgcSmallScanNoHeaderSC4;runtime.mallocgc;runtime.newobject;runtime.makechan;time.NewTimer;time.After;main.(*Watcher).byAfter",
            // Names of Go 1.21 and 1.22.
            "runtime.siftdownTimer;runtime.dodeltimer0;runtime.runOneTimer;runtime.runtimer;runtime.checkTimers;runtime.findRunnable;runtime.schedule",
            "runtime.doaddtimer;runtime.addtimer;time.startTimer;time.NewTimer;main.poll",
            "runtime.modtimer;time.resetTimer;time.(*Timer).Reset;main.poll",
        ] {
            assert_eq!(at(stack), Work::Timers, "{stack}");
        }
    }

    #[test]
    fn the_collectors_time_is_told_from_what_it_interrupts() {
        for (stack, work) in [
            (
                "runtime.tryDeferToSpanScan;runtime.scanSpan;runtime.gcDrain;runtime.gcDrainMarkWorkerDedicated;runtime.gcBgMarkWorker.func2;runtime.systemstack;runtime.gcBgMarkWorker;runtime.gcBgMarkStartWorkers.gowrap1;runtime.goexit",
                Work::Marking,
            ),
            (
                "runtime.scanSpan;runtime.gcDrain;runtime.gcDrainMarkWorkerIdle;runtime.gcBgMarkWorker.func2;runtime.systemstack;runtime.gcBgMarkWorker",
                Work::IdleMarking,
            ),
            (
                "runtime.greyobject;runtime.scanobject;runtime.gcDrain;runtime.gcBgMarkWorker.func2;runtime.systemstack;runtime.gcBgMarkWorker",
                Work::Marking,
            ),
            (
                "runtime.tryDeferToSpanScan;runtime.scanSpan;runtime.gcDrainN;runtime.gcAssistAlloc1;runtime.gcAssistAlloc.func2;runtime.systemstack;runtime.gcAssistAlloc;runtime.deductAssistCredit;runtime.mallocgc;runtime.newobject;main.(*Item).clone",
                Work::Assist,
            ),
            (
                "runtime.tryDeferToSpanScan;runtime.wbBufFlush1;runtime.wbBufFlush.func1;runtime.systemstack;runtime.wbBufFlush;gcWriteBarrier;main.(*Item).clone",
                Work::Marking,
            ),
            (
                "runtime.(*sweepLocked).sweep;runtime.(*mcentral).cacheSpan;runtime.(*mcache).refill;runtime.mallocgc;main.(*Item).clone",
                Work::Sweeping,
            ),
            (
                "runtime.mallocgcTinySC2;runtime.mallocgc;main.(*Item).clone",
                Work::Allocation,
            ),
            (
                "runtime.memmove;main.(*Catalogue).SearchCopies",
                Work::Program,
            ),
        ] {
            assert_eq!(at(stack), work, "{stack}");
        }
    }

    #[test]
    fn handing_over_is_scheduling_and_waiting_for_the_network_is_not() {
        for (stack, work) in [
            (
                "runtime.futex;runtime.notesleep;runtime.stoplockedm;runtime.schedule;runtime.park_m;runtime.mcall",
                Work::Scheduling,
            ),
            (
                "runtime.futex.abi0;runtime.notewakeup;runtime.startm;runtime.wakep;runtime.ready;runtime.goready.func1;runtime.send;runtime.chansend;runtime.chansend1;main.pass",
                Work::Scheduling,
            ),
            (
                "internal/runtime/syscall/linux.Syscall6;runtime.netpoll;runtime.findRunnable;runtime.schedule;runtime.park_m;runtime.mcall",
                Work::Polling,
            ),
            (
                "syscall.Syscall;syscall.write;net.(*conn).Write;main.handle;runtime.goexit",
                Work::Program,
            ),
            (
                "main.(*Worker).schedule;main.recv;runtime.main",
                Work::Program,
            ),
        ] {
            assert_eq!(at(stack), work, "{stack}");
        }
    }

    #[test]
    fn outside_go_the_kernels_own_stack_tells() {
        let program = frames(&["pthread_cond_wait", "consume"]);
        let kernel = frames(&["finish_task_switch.isra.0", "__schedule", "futex_wait"]);
        assert_eq!(Work::at(&program, &kernel), Work::Scheduling);
        assert_eq!(Work::at(&program, &frames(&["tcp_sendmsg"])), Work::Program);
    }
}
