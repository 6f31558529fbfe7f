//! Goroutines from the process's memory, which never stops it.
//!
//! In: a [`Program`]. Out: what each goroutine does, worded and ordered as the runtime's own dumps tell
//! it (runtime frames and the runtime's own goroutines left out). The process runs on meanwhile, so
//! every `g` is read before and after its stack, and all of it again when it moved; one that never holds
//! still is told without frames. One that ran and came back to the very same place in between is not
//! noticed, but its stack must still end as goroutines' stacks end. The whole is no moment's picture:
//! goroutines are seen within a fraction of a second of each other.

use std::{collections::HashMap, time::Duration};

use procfs::process::Process;

use super::{
    GoError, Program,
    blocking::blocking,
    evenly,
    g::{G, Key},
    layout::Layout,
    process_memory::{BATCH, ProcessMemory, Want},
    stack::{End, Walk, walk},
    state::{IDLE_RUNTIME_WORKERS, state},
    traceback,
};
use crate::{
    event::{Blocking, Creation, Frame, Goroutine, Pid, Snapshot, SnapshotSource},
    plain,
};

/// More goroutines than this are taken for a wrong layout: their `g`s alone would fill 20 GB.
const MOST_GOROUTINES: u64 = 50_000_000;
/// Most stacks in use are smaller; the others are read a second time, whole.
const FIRST_STACK_READ: u64 = 4 << 10;
/// What is read of a deep stack at most.
const LARGEST_STACK_READ: u64 = 1 << 20;
/// How often a goroutine that moves is looked at again.
const ATTEMPTS: u32 = 5;
/// The pause before looking again grows by this.
const PAUSE: Duration = Duration::from_micros(100);
/// How many running goroutines are checked against the kernel's list of threads.
const THREADS_CHECKED: usize = 16;

/// Every goroutine of the program, but at most `limit` with their stacks; `total` counts them all.
/// Where there are more, those told are spread evenly over all of them, oldest slots to newest.
///
/// # Errors
///
/// [`GoError::Layout`] where the layout is unknown or what is read contradicts it,
/// [`GoError::Memory`] without the privilege to read, [`GoError::Gone`] where the process ended.
pub fn snapshot(program: &Program, limit: usize) -> Result<Snapshot, GoError> {
    let (snapshot, _) = Reader::new(program)?.snapshot(limit)?;
    Ok(snapshot)
}

/// The same, and what they are blocked at.
///
/// # Errors
///
/// As [`snapshot`].
pub fn snapshot_with_blocking(
    program: &Program,
    limit: usize,
) -> Result<(Snapshot, Blocking), GoError> {
    let mut reader = Reader::new(program)?;
    let (snapshot, keys) = reader.snapshot(limit)?;
    let blocking = blocking(&reader, program.pid(), &keys, &snapshot.goroutines)?;
    Ok((snapshot, blocking))
}

/// One goroutine, by the address of its `g` and by its id; `None` when it ended, or when its `g`
/// serves another goroutine by now.
///
/// # Errors
///
/// As [`snapshot`].
pub fn goroutine(program: &Program, g: u64, id: u64) -> Result<Option<Goroutine>, GoError> {
    let mut reader = Reader::new(program)?;
    Ok(reader.look_at(&[Key { address: g, id }])?.pop())
}

/// Reads goroutines of one program, and remembers what the addresses they share stand for.
pub(super) struct Reader<'a> {
    program: &'a Program,
    layout: Layout,
    /// By return address of the `go` statement.
    creations: HashMap<u64, Option<Frame>>,
    /// Name of a goroutine's first function, by its address.
    starts: HashMap<u64, Option<String>>,
}

/// How one goroutine's stack came out.
enum Look {
    /// It ended, or another took its `g`.
    Gone,
    /// It moved, or its stack could not be walked to the end: look again. With the frames that are
    /// sure nevertheless.
    Again(G, Vec<Frame>),
    Still(G, Vec<Frame>),
}

impl<'a> Reader<'a> {
    pub(super) fn new(program: &'a Program) -> Result<Self, GoError> {
        Ok(Self {
            program,
            layout: program.layout()?,
            creations: HashMap::new(),
            starts: HashMap::new(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn memory(&self) -> &ProcessMemory {
        &self.program.memory
    }

    fn snapshot(&mut self, limit: usize) -> Result<(Snapshot, Vec<Key>), GoError> {
        let all = self.census()?;
        let told: Vec<Key> = evenly(all.iter().copied(), limit).collect();
        let mut goroutines = Vec::with_capacity(told.len());
        for batch in told.chunks(BATCH) {
            goroutines.extend(self.look_at(batch)?);
        }
        let snapshot = Snapshot {
            pid: self.program.pid(),
            source: SnapshotSource::Memory,
            goroutines,
            total: all.len() as u64,
        };
        Ok((snapshot, told))
    }

    /// Every goroutine that the runtime's dumps would tell.
    pub(super) fn census(&mut self) -> Result<Vec<Key>, GoError> {
        let addresses = self.all_addresses()?;
        let mut alive = Vec::with_capacity(addresses.len());
        let mut with_thread = Vec::new();
        let mut wrong = 0;
        for batch in addresses.chunks(BATCH) {
            for g in self.heads(batch)? {
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
        }
        // A g that is being made may look odd; many of them mean that we read something else.
        if wrong > addresses.len() / 8 {
            return Err(self.program.unknown_layout(format!(
                "{wrong} of {} goroutines do not read like goroutines",
                addresses.len()
            )));
        }
        self.check_threads(&with_thread)?;
        Ok(alive)
    }

    /// The addresses in `runtime.allgs`. `g`s are never freed, and the slice only grows; when it moves
    /// to a larger array while we read, we start again.
    fn all_addresses(&self) -> Result<Vec<u64>, GoError> {
        let memory = &self.program.memory;
        let at = self
            .program
            .allgs
            .ok_or_else(|| {
                self.program.unknown_layout(
                    "runtime.allgadd does not load allgs in a way we know".to_owned(),
                )
            })?
            .wrapping_add(self.program.bias);
        let header = || {
            let mut words = [0; 24];
            memory.read(at, &mut words)?;
            let (words, _) = words.as_chunks::<8>();
            let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
            let mut next = || words.next().unwrap_or_default();
            Ok::<_, GoError>([next(), next(), next()])
        };
        for _ in 0..ATTEMPTS {
            let [array, length, capacity] = header()?;
            if length > capacity || length > MOST_GOROUTINES || array % 8 != 0 || array == 0 {
                std::thread::sleep(PAUSE);
                continue;
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default() * 8];
            memory.read(array, &mut bytes)?;
            let [again, ..] = header()?;
            if again == array {
                let (words, _) = bytes.as_chunks::<8>();
                return Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect());
            }
        }
        Err(self.program.unknown_layout(format!(
            "the list of goroutines at {at:#x} does not read like one"
        )))
    }

    /// Reads the `g` at each address; `None` where there is no memory.
    pub(super) fn heads(&self, addresses: &[u64]) -> Result<Vec<Option<G>>, GoError> {
        let size = self.layout.g_bytes();
        let mut bytes = vec![0; size * addresses.len()];
        let mut wants: Vec<Want<'_>> = addresses
            .iter()
            .zip(bytes.chunks_mut(size))
            .map(|(address, buffer)| Want::new(*address, buffer))
            .collect();
        self.program.memory.read_each(&mut wants)?;
        Ok(wants
            .iter()
            .map(|want| {
                want.read
                    .then(|| G::decode(want.address, want.buffer, &self.layout))?
            })
            .collect())
    }

    /// A goroutine with a thread is that thread's, and the kernel knows the thread. Where that never
    /// holds, the layout is not what we think.
    fn check_threads(&self, with_thread: &[u64]) -> Result<(), GoError> {
        for attempt in 0..ATTEMPTS {
            std::thread::sleep(PAUSE * attempt);
            let before = self.heads(with_thread)?;
            let threads = threads(self.program.pid());
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
        Err(self.program.unknown_layout(
            "no running goroutine belongs to a thread that the kernel knows".to_owned(),
        ))
    }

    /// `g.m.curg == g`, and `g.m.procid` is one of `threads`.
    fn is_owned(&self, g: &G, threads: &[u64]) -> bool {
        let m = |offset: u32| {
            self.program
                .memory
                .word(g.m.wrapping_add(u64::from(offset)))
        };
        m(self.layout.m_curg).is_ok_and(|curg| curg == g.key.address)
            && m(self.layout.m_procid).is_ok_and(|thread| threads.contains(&thread))
    }

    /// The runtime's own goroutines, which its dumps leave out (`runtime.isSystemGoroutine`). Those
    /// that run finalizers and clean-ups count while they run a user's; what they wait for tells,
    /// except in the short time when they run themselves.
    fn is_system(&mut self, g: &G) -> bool {
        let program = self.program;
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

    /// Reads these goroutines with their stacks; those that ended meanwhile are missing.
    fn look_at(&mut self, wanted: &[Key]) -> Result<Vec<Goroutine>, GoError> {
        let mut told: Vec<(usize, Goroutine)> = Vec::with_capacity(wanted.len());
        let mut left: Vec<(usize, Key)> = wanted.iter().copied().enumerate().collect();
        for attempt in 1..=ATTEMPTS {
            let looks = self.look_once(&left)?;
            let mut again = Vec::new();
            for ((place, key), look) in left.into_iter().zip(looks) {
                match look {
                    Look::Gone => {}
                    Look::Again(..) if attempt < ATTEMPTS => again.push((place, key)),
                    Look::Again(g, frames) | Look::Still(g, frames) => {
                        told.push((place, self.tell(&g, frames)));
                    }
                }
            }
            left = again;
            if left.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE * attempt);
        }
        told.sort_by_key(|(place, _)| *place);
        Ok(told.into_iter().map(|(_, goroutine)| goroutine).collect())
    }

    /// Reads each `g`, then the stacks, then each `g` again.
    fn look_once(&self, wanted: &[(usize, Key)]) -> Result<Vec<Look>, GoError> {
        let addresses: Vec<u64> = wanted.iter().map(|(_, key)| key.address).collect();
        let before = self.heads(&addresses)?;
        let ranges: Vec<(u64, usize)> = before
            .iter()
            .map(|g| {
                g.filter(|g| !g.status.is_running() && !g.status.is_dead())
                    .and_then(|g| g.stack(FIRST_STACK_READ))
                    .unwrap_or_default()
            })
            .collect();
        let mut bytes = vec![0; ranges.iter().map(|(_, length)| length).sum()];
        let mut rest = bytes.as_mut_slice();
        let mut stacks = Vec::with_capacity(ranges.len());
        for (address, length) in ranges {
            let (stack, others) = rest.split_at_mut_checked(length).unwrap_or_default();
            stacks.push(Want::new(address, stack));
            rest = others;
        }
        self.program.memory.read_each(&mut stacks)?;
        let after = self.heads(&addresses)?;
        let read = before.into_iter().zip(after).zip(&stacks);
        Ok(wanted
            .iter()
            .zip(read)
            .map(
                |((_, key), ((before, after), stack))| match before.zip(after) {
                    Some((before, after)) => self.look(*key, &before, after, stack),
                    None => Look::Gone,
                },
            )
            .collect())
    }

    /// Judges one goroutine, read before and after its stack was.
    fn look(&self, wanted: Key, before: &G, after: G, stack: &Want<'_>) -> Look {
        if after.key != wanted || after.status.is_dead() || !after.is_plausible() {
            Look::Gone
        } else if after.status.is_running() {
            // Its stack changes with every instruction.
            Look::Still(after, Vec::new())
        } else if !stack.read || !before.stands_still(&after) || after.status.stack_is_taken() {
            Look::Again(after, Vec::new())
        } else {
            self.unwind(after, stack.buffer)
        }
    }

    /// The frames of a goroutine that stood still while its stack was read.
    fn unwind(&self, g: G, stack: &[u8]) -> Look {
        let mut seen = walk(self.program, g.position(), stack);
        if seen.end == End::NeedsMore {
            match self.walk_deep(&g) {
                Some(deeper) => seen = deeper,
                None => return Look::Again(g, Vec::new()),
            }
        }
        match seen.end {
            End::Outermost | End::TooDeep => Look::Still(g, shown(&seen)),
            End::NeedsMore | End::Lost => Look::Again(g, shown(&seen)),
        }
    }

    /// Reads the stack again, more of it; `None` when the goroutine moved meanwhile.
    fn walk_deep(&self, g: &G) -> Option<Walk> {
        let (address, length) = g.stack(LARGEST_STACK_READ)?;
        let mut bytes = vec![0; length];
        self.program.memory.read(address, &mut bytes).ok()?;
        let [after] = self.heads(&[g.key.address]).ok()?.try_into().ok()?;
        g.stands_still(&after?)
            .then(|| walk(self.program, g.position(), &bytes))
    }

    fn tell(&mut self, g: &G, frames: Vec<Frame>) -> Goroutine {
        Goroutine {
            id: g.key.id,
            state: state(self.program.minor, g.status, g.wait_reason),
            wait: g.waited(),
            frames,
            created_by: self.creation(g),
        }
    }

    /// The `go` statement, as `runtime.printcreatedby` tells it: not for the main goroutine, and not
    /// for those the runtime started.
    fn creation(&mut self, g: &G) -> Option<Creation> {
        let program = self.program;
        let frame = self.creations.entry(g.go_pc).or_insert_with(|| {
            program
                .symbols
                .creation(g.go_pc.wrapping_sub(program.bias))
                .filter(|frame| traceback::shows(&frame.function, false))
        });
        Some(Creation {
            frame: frame.clone().filter(|_| g.key.id != 1)?,
            goroutine: (g.parent != 0).then_some(g.parent),
        })
    }
}

/// The frames that a dump shows.
fn shown(walk: &Walk) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for frame in traceback::written(walk.sites.iter().flat_map(|site| &site.calls)) {
        if traceback::shows(&frame.function, frames.is_empty()) {
            frames.push(frame.clone());
        }
    }
    frames
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
