//! What goroutines are blocked at: of each process the channels as they were last, and its locks as each
//! snapshot found them, with who may have them.
//!
//! A `sync.Mutex` does not note who locked it. So whoever may have it is looked for among the other
//! goroutines of the same moment: by their stacks' lines, and by the lock's address on their stacks.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::event::{AtChannels, Blocking, BootInstant, Frame, Lock, Pid};

use super::goroutines::{Goroutines, Whereabouts};

/// Moments whose locks are kept of each process; the last ones.
const MOMENTS: usize = 64;
/// Locks kept of each moment; those with the longest queues.
const LOCKS: usize = 64;
/// Suspects kept of each lock.
const SUSPECTS: usize = 16;

/// A lock at one moment, with those that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub struct LockQueue {
    /// When.
    pub at: BootInstant,
    /// The address of the semaphore that they wait at: the lock's name within its process.
    pub address: u64,
    /// Somebody has it; `None` where that could not be read.
    pub held: Option<bool>,
    /// Who waits.
    pub waiters: Vec<u64>,
    /// The lines that called `Lock` for them, with how many wait in each; the most frequent first.
    pub calls: Vec<(Frame, u64)>,
    /// Who may have it, the likeliest first.
    pub suspects: Vec<Suspect>,
    /// Goroutines of the process that ran at that moment, whose stacks cannot be read.
    pub running: u64,
}

/// A goroutine that may have a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Its id.
    pub id: u64,
    /// Why it is suspected.
    pub by: SuspectedBy,
    /// The address of the lock lies on its stack, or that of what the lock is a part of.
    pub knows: bool,
    /// What it was doing.
    pub state: String,
    /// For how long, where known.
    pub wait: Option<Duration>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started it.
    pub created_by: Option<Frame>,
    /// The lock that it waits for itself.
    pub waits_at: Option<u64>,
}

/// Why a goroutine is suspected to have a lock; the best reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SuspectedBy {
    /// It is past the line at which others wait for the lock, in the same function.
    Line,
    /// It is in another method of the same type, and knows the lock.
    Method,
    /// It knows the lock, and waits for another one.
    Address,
}

#[derive(Debug, Default)]
pub(super) struct Blocked {
    processes: BTreeMap<Pid, Known>,
}

#[derive(Debug, Default)]
struct Known {
    channels: HashMap<u64, AtChannels>,
    /// Waited at other channels in the moment before: they went on in between, and wait again.
    moved: HashSet<u64>,
    locks: VecDeque<Vec<LockQueue>>,
}

impl Blocked {
    /// Takes what is told of the moment of the last snapshot in `goroutines`.
    pub(super) fn take(&mut self, at: BootInstant, told: &Blocking, goroutines: &Goroutines) {
        let known = self.processes.entry(told.pid).or_default();
        let before = std::mem::take(&mut known.channels);
        for now in &told.at_channels {
            if let Some(before) = before.get(&now.goroutine)
                && before.channels != now.channels
            {
                known.moved.insert(now.goroutine);
            }
            known.channels.insert(now.goroutine, now.clone());
        }
        known.moved.retain(|id| known.channels.contains_key(id));
        if known.locks.len() == MOMENTS {
            known.locks.pop_front();
        }
        known.locks.push_back(queues(at, told, goroutines));
    }

    /// At which channels goroutine `id` of `pid` waited in the last moment.
    pub(super) fn at_channels(&self, pid: Pid, id: u64) -> Option<&AtChannels> {
        self.processes.get(&pid)?.channels.get(&id)
    }

    pub(super) fn moved(&self, pid: Pid, id: u64) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|known| known.moved.contains(&id))
    }

    pub(super) fn locks(&self, pid: Pid) -> impl Iterator<Item = &LockQueue> {
        let known = self.processes.get(&pid).into_iter();
        known.flat_map(|known| known.locks.iter().flatten())
    }
}

fn queues(at: BootInstant, told: &Blocking, goroutines: &Goroutines) -> Vec<LockQueue> {
    let mut largest: Vec<&Lock> = told.locks.iter().collect();
    largest.sort_by_key(|lock| std::cmp::Reverse(lock.waiters.len()));
    largest.truncate(LOCKS);
    if largest.is_empty() {
        return Vec::new();
    }
    let waits_at: HashMap<u64, u64> = told
        .locks
        .iter()
        .flat_map(|lock| lock.waiters.iter().map(|id| (*id, lock.address)))
        .collect();
    let running = goroutines
        .everybody(told.pid)
        .filter(|(_, other)| other.state == "running")
        .count() as u64;
    let mut queues: Vec<LockQueue> = largest
        .into_iter()
        .map(|lock| LockQueue {
            at,
            address: lock.address,
            held: lock.held,
            waiters: lock.waiters.clone(),
            calls: calls(told.pid, lock, goroutines),
            suspects: Vec::new(),
            running,
        })
        .collect();
    let known_to: HashMap<u64, HashSet<u64>> = told
        .locks
        .iter()
        .map(|lock| (lock.address, lock.known_to.iter().copied().collect()))
        .collect();
    for (id, other) in goroutines.everybody(told.pid) {
        for queue in &mut queues {
            let own = waits_at.get(&id).copied();
            if own == Some(queue.address) {
                continue;
            }
            let knows = known_to
                .get(&queue.address)
                .is_some_and(|known| known.contains(&id));
            if let Some(by) = suspected(queue, &other, knows, own.is_some()) {
                queue.suspect(id, by, knows, &other, own);
            }
        }
    }
    for queue in &mut queues {
        // Who is to unlock it needs its address, unless that is in the code: then nobody has it.
        if queue.suspects.iter().any(|suspect| suspect.knows) {
            queue.suspects.retain(|suspect| suspect.knows);
        }
    }
    queues
}

impl LockQueue {
    fn suspect(
        &mut self,
        id: u64,
        by: SuspectedBy,
        knows: bool,
        found: &Whereabouts<'_>,
        waits_at: Option<u64>,
    ) {
        let rank = |of: &Suspect| (of.by, of.waits_at.is_some(), !of.knows, of.id);
        let suspect = Suspect {
            id,
            by,
            knows,
            state: found.state.to_owned(),
            wait: found.wait,
            frames: found.frames.to_vec(),
            created_by: found.created_by.cloned(),
            waits_at,
        };
        let place = self
            .suspects
            .partition_point(|other| rank(other) < rank(&suspect));
        self.suspects.insert(place, suspect);
        self.suspects.truncate(SUSPECTS);
    }
}

/// The frame that called `Lock`: the innermost one outside the library's locks.
fn call(frames: &[Frame]) -> Option<&Frame> {
    let of_library = |frame: &&Frame| {
        ["sync.", "internal/sync.", "runtime."]
            .iter()
            .any(|package| frame.function.starts_with(package))
    };
    frames.iter().find(|frame| !of_library(frame))
}

fn calls(pid: Pid, lock: &Lock, goroutines: &Goroutines) -> Vec<(Frame, u64)> {
    let mut calls: Vec<(Frame, u64)> = Vec::new();
    for id in &lock.waiters {
        let Some(found) = goroutines.whereabouts(pid, *id) else {
            continue;
        };
        let Some(call) = call(found.frames) else {
            continue;
        };
        match calls.iter_mut().find(|(known, _)| known == call) {
            Some((_, number)) => *number += 1,
            None => calls.push((call.clone(), 1)),
        }
    }
    calls.sort_by(|a, b| (b.1, a.0.line).cmp(&(a.1, b.0.line)));
    calls
}

fn suspected(
    queue: &LockQueue,
    other: &Whereabouts<'_>,
    knows: bool,
    waits: bool,
) -> Option<SuspectedBy> {
    let past = |frame: &Frame| {
        let mut calls = queue.calls.iter();
        calls.any(|(call, _)| call.function == frame.function && call.line < frame.line)
    };
    if other.frames.iter().any(past) {
        return Some(SuspectedBy::Line);
    }
    if !knows {
        return None;
    }
    let same_type = |frame: &Frame| {
        let receiver = receiver(&frame.function);
        let mut calls = queue.calls.iter();
        receiver.is_some() && calls.any(|(call, _)| self::receiver(&call.function) == receiver)
    };
    // Who waits for the next lock in the same method is told by its line.
    let elsewhere = !waits && other.frames.iter().any(same_type);
    if elsewhere {
        Some(SuspectedBy::Method)
    } else {
        waits.then_some(SuspectedBy::Address)
    }
}

/// `main.(*store)` of `main.(*store).save`.
fn receiver(function: &str) -> Option<&str> {
    let end = function.find(").")?;
    function.get(..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_at_another_channel_than_before_has_gone_on_in_between() {
        let at = |goroutine, channel| AtChannels {
            goroutine,
            channels: vec![channel],
            timed: true,
        };
        let mut blocked = Blocked::default();
        for (moment, second) in [(0, 8), (1, 9)] {
            let told = Blocking {
                pid: 7,
                at_channels: vec![at(1, 8), at(2, second)],
                locks: Vec::new(),
            };
            blocked.take(BootInstant(moment), &told, &Goroutines::default());
        }
        assert!(!blocked.moved(7, 1));
        assert!(blocked.moved(7, 2));
        assert_eq!(blocked.at_channels(7, 2).unwrap().channels, [9]);
    }

    #[test]
    fn methods_are_known_by_their_type() {
        assert_eq!(receiver("main.(*store).save"), Some("main.(*store)"));
        assert_eq!(receiver("main.(*store).save.func1"), Some("main.(*store)"));
        assert_eq!(receiver("main.save"), None);
    }
}
