//! The sums of the targets' threads, read from the kernel's map about once a second, and what the kernel
//! half tells of threads on its own: waits that stood out, switches, ends.
//!
//! In: a process's threads as `/proc` lists them, and the map. Out: [`event::Thread`] of those that
//! took a step since they were told, of all of them at the end. What always holds: a thread that was
//! there before us is watched from when it was entered, every other one from its first wake-up.

use std::{
    collections::{HashMap, HashSet},
    fs,
    time::Duration,
};

use aya::maps::{HashMap as BpfHashMap, MapData};
use tracer_ebpf as wire;
use zerocopy::{FromBytes as _, FromZeros as _};

use super::{Sink, live::Live, looks::now, seed::bytes};
use crate::{
    event::{
        BootInstant, Event, Fact, Histogram, Left, Pid, Running, Shed, Switch, Thread, Waited,
        Waiting,
    },
    plain,
};

/// The kernel's map; values as bytes of [`wire::Thread`].
pub(super) type Map = BpfHashMap<MapData, u32, [u8; size_of::<wire::Thread>()]>;

/// Tries to read a thread between two of its steps.
const TRIES: usize = 8;

/// The threads of the targets.
pub(super) struct Threads {
    map: Map,
    told: HashMap<u32, Told>,
    /// Threads for which the map had no room.
    left_out: u64,
}

/// What was told of a thread last.
struct Told {
    pid: Pid,
    comm: String,
    sequence: u32,
}

impl Threads {
    pub(super) fn new(map: Map) -> Self {
        Self {
            map,
            told: HashMap::new(),
            left_out: 0,
        }
    }

    /// Enters the threads that a process has already; those that it starts are entered by the kernel half.
    pub(super) fn join(&mut self, pid: Pid) {
        const NOEXIST: u64 = 1;
        // Names may have changed with the program.
        self.told.retain(|_, told| told.pid != pid);
        for tid in of_process(pid) {
            let Some((state, cpu)) = stands(pid, tid) else {
                continue;
            };
            let at = now();
            let mut thread = wire::Thread::new_zeroed();
            (thread.tgid, thread.tid) = (pid, tid);
            (thread.since, thread.first) = (at.0, at.0);
            (thread.state, thread.cpu, thread.seeded) = (state, cpu, 1);
            let entered = self.map.insert(tid, bytes(&thread), NOEXIST);
            if entered.is_err() && self.map.get(&tid, 0).is_err() {
                self.left_out += 1;
            }
        }
    }

    /// Threads that were there before us and found no room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// A thread was told for the last time: its id may be another's soon.
    pub(super) fn ended(&mut self, tid: u32) {
        self.told.remove(&tid);
    }

    /// Forgets the threads of a process that is gone.
    pub(super) fn forget(&mut self, pid: Pid) {
        let map = &mut self.map;
        self.told.retain(|tid, told| {
            if told.pid == pid {
                // As a rule each was removed by the kernel half when it ended.
                let _ = map.remove(tid);
            }
            told.pid != pid
        });
    }

    /// The threads of a process that took a step since they were told, or `all`.
    fn news(&mut self, pid: Pid, all: bool) -> Vec<Event> {
        let mut news = Vec::new();
        let there: HashSet<u32> = of_process(pid).into_iter().collect();
        // Of those that are not, the last word may have been lost.
        self.told
            .retain(|tid, told| told.pid != pid || there.contains(tid));
        for tid in there {
            let Some(mut thread) = self.read(tid) else {
                continue;
            };
            let told = self.told.get(&tid);
            if !all && told.is_some_and(|told| told.sequence == thread.sequence) {
                continue;
            }
            if thread.seeded != 0
                && let Some((state, _)) = stands(pid, tid)
            {
                // It has taken no step since it was entered, so that is what it did all the time.
                thread.state = state;
            }
            let comm = match told {
                Some(told) if !all => told.comm.clone(),
                _ => comm(pid, tid).unwrap_or_default(),
            };
            let at = now();
            news.push(so_far(&thread, comm.clone(), at));
            let sequence = thread.sequence;
            self.told.insert(
                tid,
                Told {
                    pid,
                    comm,
                    sequence,
                },
            );
        }
        news
    }

    /// A thread as it is between two steps: read twice, and alike both times. One that never holds still
    /// for so long is taken as it was read last.
    fn read(&self, tid: u32) -> Option<wire::Thread> {
        let mut last = self.map.get(&tid, 0).ok()?;
        let mut thread = wire::Thread::read_from_bytes(&last).ok()?;
        for _ in 0..TRIES {
            let again = self.map.get(&tid, 0).ok()?;
            thread = wire::Thread::read_from_bytes(&again).ok()?;
            if again == last && thread.sequence % 2 == 0 {
                break;
            }
            last = again;
        }
        (thread.first != 0).then_some(thread)
    }
}

impl Live {
    /// Tells what the targets' threads did so far; of `all`, or of those that did anything.
    pub(super) fn tell_threads(&mut self, all: bool, sink: &mut dyn Sink) {
        if !self.budget.lacks(Shed::Scheduler) {
            self.tell_sums(all, sink);
        }
    }

    pub(super) fn tell_sums(&mut self, all: bool, sink: &mut dyn Sink) {
        let pids: Vec<Pid> = self
            .processes
            .all()
            .map(|known| known.process.pid)
            .collect();
        for pid in pids {
            for event in self.threads.news(pid, all) {
                sink.event(event);
            }
        }
    }
}

/// A thread that has ended.
pub(super) fn ended(from: &wire::Thread) -> Event {
    let at = BootInstant(from.header.at);
    let mut event = told(from, text(&from.comm), at);
    if let Fact::Thread(thread) = &mut event.fact {
        thread.ended = true;
    }
    event
}

/// A thread that goes on, with the time that it has been in its state.
fn so_far(from: &wire::Thread, comm: String, at: BootInstant) -> Event {
    let mut thread = *from;
    thread.charge(from.state, at.0, from.state);
    told(&thread, comm, at)
}

fn told(from: &wire::Thread, comm: String, at: BootInstant) -> Event {
    let sum = |state: u32| {
        let sum = from.sums.get(state as usize).copied();
        Duration::from_nanos(sum.unwrap_or(0))
    };
    let thread = Thread {
        pid: from.tgid,
        tid: from.tid,
        comm,
        since: BootInstant(from.first),
        ended: false,
        on_cpu: sum(wire::RUNNING),
        woken: sum(wire::WOKEN),
        preempted: sum(wire::PREEMPTED),
        throttled: sum(wire::THROTTLED),
        sleeping: sum(wire::SLEEPING),
        uninterruptible: sum(wire::UNINTERRUPTIBLE),
        voluntary: from.voluntary,
        involuntary: from.involuntary,
        migrations: from.migrations,
        slices: histogram(&from.slices),
        waits: histogram(&from.waits),
    };
    Event {
        at,
        fact: Fact::Thread(thread),
    }
}

/// Without the empty ranges at its end.
fn histogram(counts: &[u32]) -> Histogram {
    let used = counts.iter().rposition(|count| *count != 0);
    Histogram(
        counts
            .iter()
            .take(used.map_or(0, |last| last + 1))
            .copied()
            .collect(),
    )
}

/// A wait that stood out.
pub(super) fn waited(from: &wire::Waited) -> Event {
    let why = match u32::from(from.header.what) {
        wire::PREEMPTED => Waiting::Preempted,
        wire::THROTTLED => Waiting::Throttled,
        _ => Waiting::Woken,
    };
    let by = (from.by_tid != 0).then(|| Running {
        pid: from.by_tgid,
        tid: from.by_tid,
        comm: text(&from.by_comm),
    });
    Event {
        at: BootInstant(from.header.at),
        fact: Fact::Waited(Waited {
            pid: from.tgid,
            tid: from.tid,
            goroutine: (from.goid != 0).then_some(from.goid),
            from: BootInstant(from.from),
            why,
            by,
        }),
    }
}

/// A CPU went from one thread to another.
pub(super) fn switched(from: &wire::Switch) -> Event {
    let left = match u32::from(from.header.what) {
        wire::THROTTLED => Left::Throttled,
        wire::SLEEPING => Left::Sleeping,
        wire::UNINTERRUPTIBLE => Left::Uninterruptible,
        wire::ENDED => Left::Ended,
        _ => Left::Runnable,
    };
    Event {
        at: BootInstant(from.header.at),
        fact: Fact::Switched(Switch {
            cpu: from.cpu,
            from: (from.from_tid != 0).then_some((from.from_tgid, from.from_tid)),
            left,
            goroutine: (from.goid != 0).then_some(from.goid),
            to: (from.to_tid != 0).then_some((from.to_tgid, from.to_tid)),
        }),
    }
}

/// A name as the kernel has it.
pub(super) fn text(comm: &[u8; 16]) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The ids of a process's threads.
fn of_process(pid: Pid) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn comm(pid: Pid, tid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(
        String::from_utf8_lossy(&name)
            .trim_end_matches('\n')
            .to_owned(),
    )
}

/// What a thread does, and on which CPU it last did anything.
fn stands(pid: Pid, tid: u32) -> Option<(u32, u32)> {
    stat(&plain::read(&format!("/proc/{pid}/task/{tid}/stat"))?)
}

/// The same from the line in `stat`, see proc(5); `None` for one that has ended.
fn stat(line: &str) -> Option<(u32, u32)> {
    /// `processor`, counted from `state`.
    const PROCESSOR: usize = 36;
    // A name may have blanks and parentheses in it.
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = match fields.next()? {
        "R" => wire::RUNNING,
        "D" => wire::UNINTERRUPTIBLE,
        "Z" | "X" => return None,
        _ => wire::SLEEPING,
    };
    let cpu = fields.nth(PROCESSOR - 1).and_then(|cpu| cpu.parse().ok());
    Some((state, cpu.unwrap_or(wire::NO_CPU)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_state_and_cpu_are_found_behind_any_name() {
        let rest = "0 ".repeat(35);
        let line = format!("7 (a) S (b) D {rest}3 0 0");
        assert_eq!(stat(&line), Some((wire::UNINTERRUPTIBLE, 3)));
        assert_eq!(stat("7 (a) Z 0"), None);
        assert_eq!(stat("7 (a) S 0"), Some((wire::SLEEPING, wire::NO_CPU)));
        assert_eq!(stat(""), None);
    }

    #[test]
    fn the_time_that_a_thread_is_in_its_state_already_counts() {
        let mut thread = wire::Thread::new_zeroed();
        (thread.first, thread.since) = (100, 400);
        thread.state = wire::SLEEPING;
        thread.sums = [300, 0, 0, 0, 0, 0, 0, 0];
        thread.slices[2] = 1;
        let Fact::Thread(told) = so_far(&thread, "a".into(), BootInstant(1000)).fact else {
            panic!("no thread");
        };
        assert_eq!(told.on_cpu, Duration::from_nanos(300));
        assert_eq!(told.sleeping, Duration::from_nanos(600));
        assert_eq!(told.slices.0, [0, 0, 1]);
        assert!(told.waits.0.is_empty());
    }
}
