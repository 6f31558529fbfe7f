//! What goroutines are blocked at: channels and locks, from the runtime's own wait queues.
//!
//! In: goroutines as a snapshot found them. Out: at which channel or lock each waits, and on whose
//! stacks else a lock is known. A wait queue's entry (`runtime.sudog`) names its goroutine, and is only
//! believed where that is the one we came from, and where the goroutine has not moved when all is read.
//! Queues are followed for a few steps, locks for a bounded number of waiters, stacks for a bounded
//! number of bytes: so this ends soon, whatever the process's memory holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    GoError, evenly,
    g::{G, Key},
    layout::Layout,
    memory::Reader,
    process_memory::{BATCH, Want},
};
use crate::event::{AtChannels, Blocking, Goroutine, Lock, Pid};

/// Channels told of one `select`.
const CHANNELS: usize = 8;
/// Goroutines at locks that are told; a longer queue says nothing more.
const AT_LOCKS: usize = 4_096;
/// Where the entry lies in the frames of `semacquire1` and of what it called: that far from the top.
const ENTRY_WITHIN: usize = 512;
/// Waiters whose stacks are searched for it, until it is known how far.
const SEARCHED: usize = 16;
/// How much of a stack is searched for pointers to locks.
const STACK_SEARCHED: u64 = 4 << 10;
/// Goroutines whose stacks are.
const STACKS: usize = 2_048;
/// A lock is a part of what a pointer points to if it lies so close behind it.
const PART: u64 = 512;

/// What these goroutines are blocked at; `keys` names them and perhaps others.
pub(super) fn blocking(
    reader: &Reader<'_>,
    pid: Pid,
    keys: &[Key],
    goroutines: &[Goroutine],
) -> Result<Blocking, GoError> {
    let addresses: HashMap<u64, u64> = keys.iter().map(|key| (key.id, key.address)).collect();
    let key = |goroutine: &Goroutine| {
        let address = *addresses.get(&goroutine.id)?;
        let id = goroutine.id;
        Some(Key { address, id })
    };
    let of = |wanted: fn(&str) -> bool| -> Vec<Key> {
        let chosen = goroutines.iter().filter(|of| wanted(&of.state));
        chosen.filter_map(key).collect()
    };
    let at_channels = channels(reader, &of(is_at_channel))?;
    let at_locks: Vec<Key> = evenly(
        of(|state| semaphore_offset(state).is_some()).into_iter(),
        AT_LOCKS,
    )
    .collect();
    let states: HashMap<u64, &str> = goroutines
        .iter()
        .map(|of| (of.id, of.state.as_str()))
        .collect();
    let everybody: Vec<Key> = goroutines.iter().filter_map(key).collect();
    let locks = locks(reader, &at_locks, &states, &everybody)?;
    Ok(Blocking {
        pid,
        at_channels,
        locks,
    })
}

fn is_at_channel(state: &str) -> bool {
    state == "select" || state == "chan receive" || state == "chan send"
}

/// Where the semaphore lies that such a goroutine waits at, within the lock it waits for
/// (`src/internal/sync/mutex.go`, `src/sync/rwmutex.go`).
fn semaphore_offset(state: &str) -> Option<u64> {
    match state {
        "sync.Mutex.Lock" => Some(4),
        "sync.RWMutex.Lock" => Some(8),
        "sync.RWMutex.RLock" => Some(12),
        _ => None,
    }
}

/// A `runtime.sudog`, as far as it is read.
struct Entry {
    g: u64,
    /// The semaphore, or the element to send.
    element: u64,
    next: u64,
    channel: u64,
}

fn entries(reader: &Reader<'_>, addresses: &[u64]) -> Result<Vec<Option<Entry>>, GoError> {
    let layout = reader.layout();
    let size = layout.sudog_bytes();
    let mut bytes = vec![0; addresses.len() * size];
    let mut wants: Vec<Want<'_>> = addresses
        .iter()
        .zip(bytes.chunks_mut(size))
        .map(|(address, buffer)| Want::new(*address, buffer))
        .collect();
    reader.memory().read_each(&mut wants)?;
    Ok(wants
        .iter()
        .map(|want| want.read.then(|| Entry::decode(want.buffer, layout))?)
        .collect())
}

impl Entry {
    fn decode(bytes: &[u8], layout: &Layout) -> Option<Self> {
        let word = |offset: u32| {
            let bytes = bytes.get(offset as usize..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        Some(Self {
            g: word(layout.sudog_g)?,
            element: word(layout.sudog_elem)?,
            next: word(layout.sudog_waitlink)?,
            channel: word(layout.sudog_c)?,
        })
    }
}

/// Those of `before` that are still where they were.
fn unmoved(reader: &Reader<'_>, before: &[G]) -> Result<HashSet<u64>, GoError> {
    let mut unmoved = HashSet::new();
    for batch in before.chunks(BATCH) {
        let addresses: Vec<u64> = batch.iter().map(|g| g.key.address).collect();
        for (before, after) in batch.iter().zip(reader.heads(&addresses)?) {
            if after.is_some_and(|after| before.stands_still(&after)) {
                unmoved.insert(before.key.id);
            }
        }
    }
    Ok(unmoved)
}

/// The `g`s of `keys` that are waiting and are who they were.
fn waiting(reader: &Reader<'_>, keys: &[Key]) -> Result<Vec<G>, GoError> {
    let mut found = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH) {
        let addresses: Vec<u64> = batch.iter().map(|key| key.address).collect();
        let heads = reader.heads(&addresses)?;
        let same = batch.iter().zip(heads).filter_map(|(key, g)| {
            g.filter(|g| g.key == *key && g.status.is_waiting() && g.is_plausible())
        });
        found.extend(same);
    }
    Ok(found)
}

/// At which channels these wait.
fn channels(reader: &Reader<'_>, keys: &[Key]) -> Result<Vec<AtChannels>, GoError> {
    let all = waiting(reader, keys)?;
    let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut queue: Vec<(Key, u64)> = all.iter().map(|g| (g.key, g.waiting)).collect();
    for _ in 0..CHANNELS {
        queue.retain(|(_, entry)| *entry != 0 && entry % 8 == 0);
        let addresses: Vec<u64> = queue.iter().map(|(_, entry)| *entry).collect();
        let found = entries(reader, &addresses)?;
        let mut next = Vec::with_capacity(queue.len());
        for ((key, _), entry) in queue.into_iter().zip(found) {
            if let Some(entry) = entry.filter(|entry| entry.g == key.address) {
                told.entry(key.id).or_default().push(entry.channel);
                next.push((key, entry.next));
            }
        }
        queue = next;
    }
    let unmoved = unmoved(reader, &all)?;
    told.retain(|id, _| unmoved.contains(id));
    let timed = timed(reader, told.values().flatten())?;
    Ok(told
        .into_iter()
        .map(|(goroutine, channels)| AtChannels {
            goroutine,
            timed: channels.iter().any(|channel| timed.contains(channel)),
            channels,
        })
        .collect())
}

/// Which of these channels are fed by timers; none where the version does not tell.
fn timed<'c>(
    reader: &Reader<'_>,
    channels: impl Iterator<Item = &'c u64>,
) -> Result<HashSet<u64>, GoError> {
    let Some(offset) = reader.layout().hchan_timer else {
        return Ok(HashSet::new());
    };
    let channels: BTreeSet<u64> = channels.copied().filter(|channel| *channel != 0).collect();
    let channels: Vec<u64> = channels.into_iter().collect();
    let at: Vec<u64> = channels
        .iter()
        .map(|channel| channel.wrapping_add(u64::from(offset)))
        .collect();
    let timers = reader.memory().words(&at)?;
    let fed = channels.into_iter().zip(timers);
    Ok(fed
        .filter(|(_, timer)| timer.is_some_and(|timer| timer != 0))
        .map(|(channel, _)| channel)
        .collect())
}

/// Which locks these wait at, and who else knows them.
fn locks(
    reader: &Reader<'_>,
    keys: &[Key],
    states: &HashMap<u64, &str>,
    everybody: &[Key],
) -> Result<Vec<Lock>, GoError> {
    let all = waiting(reader, keys)?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let semaphores = semaphores(reader, &all)?;
    let unmoved = unmoved(reader, &all)?;
    let mut locks: BTreeMap<u64, Lock> = BTreeMap::new();
    let mut begins: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (id, address) in semaphores {
        let offset = states.get(&id).and_then(|state| semaphore_offset(state));
        let Some(begin) = offset.and_then(|offset| address.checked_sub(offset)) else {
            continue;
        };
        if !unmoved.contains(&id) {
            continue;
        }
        begins.entry(begin).or_default().insert(address);
        let lock = locks.entry(address).or_insert_with(|| Lock {
            address,
            held: None,
            waiters: Vec::new(),
            known_to: Vec::new(),
        });
        lock.waiters.push(id);
        if states.get(&id) == Some(&"sync.Mutex.Lock") {
            lock.held = reader.memory().word(begin).ok().map(|state| state & 1 == 1);
        }
    }
    who_knows(reader, &mut locks, &begins, everybody)?;
    Ok(locks.into_values().collect())
}

/// The semaphore that each waits at. Its entry is named nowhere but in the frame of `semacquire1`,
/// which lies at the same distance from the top of the stack for all that wait in the same way.
fn semaphores(reader: &Reader<'_>, all: &[G]) -> Result<Vec<(u64, u64)>, GoError> {
    let mut found = Vec::with_capacity(all.len());
    let mut distances: BTreeSet<u64> = BTreeSet::new();
    let mut left: Vec<&G> = all.iter().collect();
    let mut searched = 0;
    while let Some(next) = left.first().copied().filter(|_| searched < SEARCHED) {
        searched += 1;
        if let Some(distance) = entry_distance(reader, next)?
            && distances.insert(distance)
        {
            let places: Vec<u64> = left
                .iter()
                .map(|g| g.position().sp.wrapping_add(distance))
                .collect();
            let pointers = reader.memory().words(&places)?;
            let pointers: Vec<u64> = pointers
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect();
            let entries = entries(reader, &pointers)?;
            let mut others = Vec::new();
            for (g, entry) in left.iter().copied().zip(entries) {
                match entry.filter(|entry| entry.g == g.key.address && entry.channel == 0) {
                    Some(entry) => found.push((g.key.id, entry.element)),
                    None => others.push(g),
                }
            }
            left = others;
        } else {
            left.remove(0);
        }
    }
    Ok(found)
}

/// How far from the top of its stack a waiter's entry is named.
fn entry_distance(reader: &Reader<'_>, g: &G) -> Result<Option<u64>, GoError> {
    let Some((top, length)) = g.stack(ENTRY_WITHIN as u64) else {
        return Ok(None);
    };
    let places: Vec<u64> = (0..length as u64 / 8).map(|word| top + word * 8).collect();
    let pointers = reader.memory().words(&places)?;
    let pointers: Vec<u64> = pointers
        .into_iter()
        .map(|pointer| pointer.filter(|pointer| pointer % 8 == 0).unwrap_or(0))
        .collect();
    let entries = entries(reader, &pointers)?;
    let is_its = |entry: &Option<Entry>| {
        let entry = entry.as_ref();
        entry.is_some_and(|entry| {
            entry.g == g.key.address && entry.channel == 0 && entry.element != 0
        })
    };
    Ok(entries.iter().position(is_its).map(|word| word as u64 * 8))
}

/// Searches stacks for pointers to the locks, or to what these are parts of: which those are, the stacks
/// of who waits tell.
fn who_knows(
    reader: &Reader<'_>,
    locks: &mut BTreeMap<u64, Lock>,
    begins: &BTreeMap<u64, BTreeSet<u64>>,
    everybody: &[Key],
) -> Result<(), GoError> {
    let waiters: HashSet<u64> = locks
        .values()
        .flat_map(|lock| lock.waiters.iter().copied())
        .collect();
    // Who waits for a lock may hold another: these first.
    let (first, others): (Vec<Key>, Vec<Key>) =
        everybody.iter().partition(|key| waiters.contains(&key.id));
    let room = STACKS.saturating_sub(first.len().min(STACKS / 2));
    let searched: Vec<Key> = evenly(first.into_iter(), STACKS / 2)
        .chain(evenly(others.into_iter(), room))
        .collect();
    let mut near: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for batch in searched.chunks(BATCH) {
        for (id, stack) in stacks(reader, batch)? {
            let (words, _) = stack.as_chunks::<8>();
            for word in words.iter().map(|word| u64::from_le_bytes(*word)) {
                let close = begins.range(word..word.saturating_add(PART));
                for (begin, semaphores) in close {
                    for address in semaphores {
                        near.entry(*address).or_default().push((id, begin - word));
                    }
                }
            }
        }
    }
    for (address, lock) in locks {
        let mentions = near.remove(address).unwrap_or_default();
        // What all that wait have in common is the lock itself and what it is a part of.
        let mut common: Option<HashSet<u64>> = None;
        for waiter in lock.waiters.iter().take(SEARCHED) {
            let of_waiter: HashSet<u64> = mentions
                .iter()
                .filter(|(id, _)| id == waiter)
                .map(|(_, before)| *before)
                .collect();
            if of_waiter.is_empty() {
                continue;
            }
            common = Some(match common {
                Some(common) => common.intersection(&of_waiter).copied().collect(),
                None => of_waiter,
            });
        }
        let common = common.unwrap_or_default();
        let known: BTreeSet<u64> = mentions
            .into_iter()
            .filter(|(id, before)| common.contains(before) && !lock.waiters.contains(id))
            .map(|(id, _)| id)
            .collect();
        lock.known_to = known.into_iter().collect();
    }
    Ok(())
}

/// The used part of each one's stack, as long as it does not run.
fn stacks(reader: &Reader<'_>, keys: &[Key]) -> Result<Vec<(u64, Vec<u8>)>, GoError> {
    let addresses: Vec<u64> = keys.iter().map(|key| key.address).collect();
    let heads = reader.heads(&addresses)?;
    let mut stacks: Vec<(u64, u64, Vec<u8>)> = keys
        .iter()
        .zip(heads)
        .filter_map(|(key, g)| {
            let g = g.filter(|g| g.key == *key && g.is_plausible() && !g.status.is_running())?;
            let (top, length) = g.stack(STACK_SEARCHED)?;
            Some((key.id, top, vec![0; length]))
        })
        .collect();
    let mut wants: Vec<Want<'_>> = stacks
        .iter_mut()
        .map(|(_, top, buffer)| Want::new(*top, buffer))
        .collect();
    reader.memory().read_each(&mut wants)?;
    let read: Vec<bool> = wants.iter().map(|want| want.read).collect();
    let stacks = stacks.into_iter().zip(read);
    Ok(stacks
        .filter(|(_, read)| *read)
        .map(|((id, _, stack), _)| (id, stack))
        .collect())
}
