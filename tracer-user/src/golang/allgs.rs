//! Who there is: every goroutine of a process, without their stacks.
//!
//! In: `runtime.allgs`, the slice of all `g`s. Out: the addresses and ids of those that the runtime's dumps
//! would tell. Here the layout proves itself: what does not read like goroutines, or has threads that the
//! kernel does not know, is an error. The slice is read a piece at a time, so that no length that it claims
//! takes memory, and no more is read of one that is wrong.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use procfs::process::Process;

use super::{
    GoError,
    g::{G, Key},
    memory::Reader,
    process_memory::BATCH,
    state::{IDLE_RUNTIME_WORKERS, state},
};
use crate::{event::Pid, plain};

/// More goroutines than this are taken for a wrong layout: their smallest stacks would fill 40 GB.
const MOST_GOROUTINES: u64 = 20_000_000;
/// How often the list is looked for, and the threads.
const ATTEMPTS: u32 = 5;
/// The pause before looking again grows by this.
const PAUSE: Duration = Duration::from_micros(100);
/// How often the list may move while it is read; it doubles each time.
const RETRIES: u32 = 64;
/// How many running goroutines are checked against the kernel's list of threads.
const THREADS_CHECKED: usize = 16;

/// The list of all `g`s.
struct Array {
    address: u64,
    length: usize,
}

impl Reader<'_> {
    /// Every goroutine that the runtime's dumps would tell.
    pub(super) fn census(&mut self) -> Result<Vec<Key>, GoError> {
        let mut array = self.array()?;
        let mut alive = Vec::new();
        let mut with_thread = Vec::new();
        let (mut read, mut wrong) = (0_usize, 0_usize);
        let mut retries = 0;
        while read < array.length {
            let addresses = self.addresses(&array, read);
            // The slice only grows. When it moved to a larger array meanwhile, what was read of the old one
            // may be anything by now.
            let now = self.array()?;
            if now.address != array.address && retries < RETRIES {
                array = now;
                retries += 1;
                continue;
            }
            let addresses = addresses?;
            read += addresses.len();
            for g in self.heads(&addresses)? {
                let Some(g) = g.filter(G::is_plausible) else {
                    wrong += 1;
                    continue;
                };
                if g.status.has_thread() && with_thread.len() < THREADS_CHECKED {
                    with_thread.push(g.key.address);
                }
                if !g.status.is_dead() && !self.is_system(&g) {
                    alive.push(g.key);
                }
            }
            // A g that is being made may look odd; many of them mean that we read something else.
            if wrong > read / 8 && (read == array.length || wrong > BATCH) {
                return Err(self.program().unknown_layout(format!(
                    "{wrong} of {read} goroutines do not read like goroutines"
                )));
            }
        }
        let mut ids: Vec<u64> = alive.iter().map(|key| key.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let twice = alive.len() - ids.len();
        if twice > alive.len() / 8 {
            return Err(self.program().unknown_layout(format!(
                "{twice} of {} goroutines have the id of another",
                alive.len()
            )));
        }
        self.check_threads(&with_thread)?;
        Ok(alive)
    }

    /// `runtime.allgs`, the slice of every `g` there is; they are never freed.
    fn array(&self) -> Result<Array, GoError> {
        let program = self.program();
        let unlike = |found: String| program.unknown_layout(found);
        let at = program
            .allgs
            .ok_or_else(|| {
                unlike("runtime.allgadd does not load allgs in a way we know".to_owned())
            })?
            .wrapping_add(program.bias);
        for attempt in 0..ATTEMPTS {
            self.memory().pause(PAUSE * attempt);
            let mut words = [0; 24];
            self.memory().read(at, &mut words)?;
            let (words, _) = words.as_chunks::<8>();
            let [address, length, capacity] = *words else {
                break;
            };
            let [address, length, capacity] = [address, length, capacity].map(u64::from_le_bytes);
            let whole = length <= capacity && length <= MOST_GOROUTINES;
            if whole && address % 8 == 0 && address != 0 {
                return Ok(Array {
                    address,
                    length: usize::try_from(length).unwrap_or_default(),
                });
            }
        }
        Err(unlike(format!(
            "the list of goroutines at {at:#x} does not read like one"
        )))
    }

    /// The next addresses in `array` behind those that were `read`.
    fn addresses(&self, array: &Array, read: usize) -> Result<Vec<u64>, GoError> {
        let number = array.length.saturating_sub(read).min(BATCH);
        let mut bytes = vec![0; number * 8];
        let at = array.address.wrapping_add(read as u64 * 8);
        self.memory().read(at, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// A goroutine with a thread is that thread's, and the kernel knows the thread. Where that never
    /// holds, the layout is not what we think.
    fn check_threads(&self, with_thread: &[u64]) -> Result<(), GoError> {
        for attempt in 0..ATTEMPTS {
            self.memory().pause(PAUSE * attempt);
            let before = self.heads(with_thread)?;
            let threads = threads(self.program().pid());
            let owners: Vec<bool> = before
                .iter()
                .map(|g| g.is_some_and(|g| self.is_owned(&g, &threads)))
                .collect();
            // Only those that kept their thread while we looked can contradict.
            let after = self.heads(with_thread)?;
            let mut kept = before.iter().zip(&after).zip(&owners).filter(|((before, after), _)| {
                matches!((before, after), (Some(before), Some(after))
                    if before.status.has_thread() && after.status.has_thread() && before.m == after.m)
            });
            if owners.contains(&true) || threads.is_empty() || kept.next().is_none() {
                return Ok(());
            }
        }
        Err(self.program().unknown_layout(
            "no running goroutine belongs to a thread that the kernel knows".to_owned(),
        ))
    }

    /// `g.m.curg == g`, and `g.m.procid` is one of `threads`.
    fn is_owned(&self, g: &G, threads: &[u64]) -> bool {
        let m = |offset: u32| self.memory().word(g.m.wrapping_add(u64::from(offset)));
        m(self.layout().m_curg).is_ok_and(|curg| curg == g.key.address)
            && m(self.layout().m_procid).is_ok_and(|thread| threads.contains(&thread))
    }

    /// The runtime's own goroutines, which its dumps leave out (`runtime.isSystemGoroutine`). Those
    /// that run finalizers and clean-ups count while they run a user's; what they wait for tells,
    /// except in the short time when they run themselves.
    fn is_system(&mut self, g: &G) -> bool {
        let program = self.program();
        let start = self
            .starts
            .entry(g.start_pc)
            .or_insert_with(|| program.symbols.name(g.start_pc.wrapping_sub(program.bias)));
        match start.as_deref() {
            None | Some("runtime.main" | "runtime.corostart" | "runtime.handleAsyncEvent") => false,
            Some("runtime.runfinq" | "runtime.runFinalizers" | "runtime.runCleanups") => {
                let state = state(program.minor, g.status, g.wait_reason);
                !g.status.is_waiting() || IDLE_RUNTIME_WORKERS.contains(&state.as_str())
            }
            Some(name) => name.starts_with("runtime."),
        }
    }

    /// Which of these may be in the making, so that the ids in their `g`s may still be those of the goroutines
    /// before them. Up to 1.23 a new goroutine becomes runnable a few instructions before it has its id
    /// (`runtime.newproc1`), for as long as its creator's thread is off its CPU right there. That thread
    /// holds a lock of its own meanwhile (`m.locks`).
    pub(super) fn being_made(&self, heads: &[Option<G>]) -> Result<HashSet<u64>, GoError> {
        let mut making = HashSet::new();
        if !self.program().names_late() {
            return Ok(making);
        }
        let fresh = heads.iter().flatten().filter(|g| g.is_fresh());
        let mut of_creators: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for g in fresh {
            of_creators.entry(g.parent).or_default().push(g.key.address);
        }
        for (creator, made) in of_creators {
            if self.may_be_making(creator)? {
                making.extend(made);
            }
        }
        Ok(making)
    }

    /// Whether this goroutine may be about to start another.
    fn may_be_making(&self, id: u64) -> Result<bool, GoError> {
        // Nobody: the runtime itself.
        if id == 0 {
            return Ok(false);
        }
        let Some(address) = self.by_id.get(&id) else {
            return Ok(true);
        };
        for _ in 0..ATTEMPTS {
            let [Some(g)] = self.heads(&[*address])?[..] else {
                return Ok(true);
            };
            if g.key.id != id || !g.status.is_running() {
                return Ok(false);
            }
            let locks = g.m.wrapping_add(u64::from(self.layout().m_locks));
            let locks = self.memory().word(locks).map(|word| word as u32);
            let [Some(again)] = self.heads(&[*address])?[..] else {
                return Ok(true);
            };
            // Else it is another thread's by now.
            if locks.is_ok_and(|locks| locks == 0) && again.m == g.m {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The process's threads, by their ids in its own pid namespace, which is what the runtime knows.
fn threads(pid: Pid) -> Vec<u64> {
    let threads = Process::new(pid.cast_signed()).and_then(|process| process.tasks());
    threads
        .into_iter()
        .flatten()
        .filter_map(|thread| {
            let status = plain::read(&format!("/proc/{pid}/task/{}/status", thread.ok()?.tid))?;
            let ids = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))?;
            ids.split_whitespace().next_back()?.parse().ok()
        })
        .collect()
}
