//! Goroutines from the process's memory, which never stops it.
//!
//! In: a [`Program`]. Out: what each goroutine does, worded and ordered as the runtime's own dumps tell
//! it (runtime frames and the runtime's own goroutines left out). The process runs on meanwhile, so
//! every `g` is read before and after its stack and labels, and all of it again when it moved; one that
//! never holds still is told without frames, and counted. One that ran and came back to the very same
//! place in between is noticed by the runtime's own count of its stops. The whole is no moment's picture:
//! goroutines are seen within a fraction of a second of each other. Nothing read is trusted: lengths are
//! bounded, and what all of them may make us copy together is, too.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{
    GoError, Program,
    blocking::blocking,
    evenly,
    g::{G, Key},
    labels::{self, Carried, Gathered, Set},
    layout::{self, Layout},
    process_memory::{BATCH, Memory, Want},
    stack::{End, Walk, walk},
    state::state,
    traceback,
};
use crate::event::{Blocking, Creation, Frame, Goroutine, Labels, Snapshot, SnapshotSource};

/// Most stacks in use are smaller; the others are read a second time, whole.
const FIRST_STACK_READ: u64 = 4 << 10;
/// What is read of a deep stack at most.
const LARGEST_STACK_READ: u64 = 2 << 20;
/// What is read of a stack grows by this, until its end is in it.
const DEEPER: u64 = 8;
/// Most bytes of deep stacks that one reading copies; whoever comes later is told with the upper part.
const MOST_DEEP: usize = 1 << 30;
/// Most bytes of labels that one reading takes; those of whoever comes later are unread.
const MOST_TEXTS: usize = 16 << 20;
/// How often a goroutine that moves is looked at again.
const ATTEMPTS: u32 = 5;
/// The pause before looking again grows by this.
const PAUSE: Duration = Duration::from_micros(100);

/// What was read of a program's goroutines.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The goroutines.
    pub snapshot: Snapshot,
    /// Their pprof labels.
    pub labels: Labels,
    /// How many of those told have no whole stack, because they moved however often they were looked at, or
    /// stand in code that nobody can unwind.
    pub unsettled: u64,
    /// How many were left out, because their ids were about to change.
    pub unnamed: u64,
}

/// Every goroutine of the program, but at most `limit` with their stacks; `total` counts them all.
/// Where there are more, those told are spread evenly over all of them, oldest slots to newest.
///
/// # Errors
///
/// [`GoError::Layout`] where the layout is unknown or what is read contradicts it,
/// [`GoError::Memory`] without the privilege to read, [`GoError::Gone`] where the process ended.
pub fn read(program: &Program, limit: usize) -> Result<Reading, GoError> {
    let (reading, _) = Reader::new(program)?.read(limit)?;
    Ok(reading)
}

/// The same, and what they are blocked at.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_blocking(program: &Program, limit: usize) -> Result<(Reading, Blocking), GoError> {
    let mut reader = Reader::new(program)?;
    let (reading, keys) = reader.read(limit)?;
    let goroutines = &reading.snapshot.goroutines;
    let blocking = blocking(&reader, program.pid(), &keys, goroutines)?;
    Ok((reading, blocking))
}

/// One goroutine, by the address of its `g` and by its id; `None` when it ended, or when its `g`
/// serves another goroutine by now.
///
/// # Errors
///
/// As [`read`].
pub fn goroutine(program: &Program, g: u64, id: u64) -> Result<Option<Goroutine>, GoError> {
    let mut reader = Reader::new(program)?;
    reader.texts_allowed = 0;
    let told = reader.look_at(&[Key { address: g, id }])?.pop();
    Ok(told.map(|told| told.goroutine))
}

/// Reads goroutines of one program, and remembers what the addresses they share stand for.
pub(super) struct Reader<'a> {
    program: &'a Program,
    layout: Layout,
    /// By return address of the `go` statement.
    creations: HashMap<u64, Option<Frame>>,
    /// Name of a goroutine's first function, by its address.
    pub(super) starts: HashMap<u64, Option<String>>,
    /// The addresses of `g`s by the ids of their goroutines, once they were needed.
    pub(super) by_id: HashMap<u64, u64>,
    /// Bytes of labels that may still be read.
    texts_allowed: usize,
    /// Bytes of deep stacks that may.
    deep_allowed: usize,
    unsettled: u64,
    unnamed: u64,
}

/// A goroutine as it is told.
struct Told {
    goroutine: Goroutine,
    labels: Carried,
}

/// How one goroutine came out.
enum Look {
    /// It ended, or another took its `g`.
    Gone,
    /// It moved, or its stack could not be walked to the end: look again. With the frames that are
    /// sure nevertheless.
    Again(G, Vec<Frame>, Carried),
    /// Its id may be that of the goroutine before it: look again.
    Unnamed,
    Still(G, Vec<Frame>, Carried),
}

/// What the `g`s say at one moment.
struct Moment {
    heads: Vec<Option<G>>,
    /// The number of the system call that each is in, where the `g` itself does not count them.
    calls: HashMap<u64, u32>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(program: &'a Program) -> Result<Self, GoError> {
        Ok(Self {
            program,
            layout: program.layout()?,
            creations: HashMap::new(),
            starts: HashMap::new(),
            by_id: HashMap::new(),
            texts_allowed: MOST_TEXTS,
            deep_allowed: MOST_DEEP,
            unsettled: 0,
            unnamed: 0,
        })
    }

    pub(super) fn program(&self) -> &'a Program {
        self.program
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn memory(&self) -> &dyn Memory {
        self.program.memory.as_ref()
    }

    fn read(&mut self, limit: usize) -> Result<(Reading, Vec<Key>), GoError> {
        let all = self.census()?;
        if self.program.names_late() {
            self.by_id = all.iter().map(|key| (key.id, key.address)).collect();
        }
        let wanted: Vec<Key> = evenly(all.iter().copied(), limit).collect();
        let pid = self.program.pid();
        let mut goroutines = Vec::with_capacity(wanted.len());
        let mut labels = Gathered::default();
        for batch in wanted.chunks(BATCH) {
            for told in self.look_at(batch)? {
                labels.take(told.goroutine.id, told.labels);
                goroutines.push(told.goroutine);
            }
        }
        let reading = Reading {
            snapshot: Snapshot {
                pid,
                source: SnapshotSource::Memory,
                goroutines,
                total: all.len() as u64,
            },
            labels: labels.end(pid),
            unsettled: self.unsettled,
            unnamed: self.unnamed,
        };
        Ok((reading, wanted))
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

    /// Reads these goroutines with their stacks; those that ended meanwhile are missing.
    fn look_at(&mut self, wanted: &[Key]) -> Result<Vec<Told>, GoError> {
        let mut told: Vec<(usize, Told)> = Vec::with_capacity(wanted.len());
        let mut left: Vec<(usize, Key)> = wanted.iter().copied().enumerate().collect();
        for attempt in 1..=ATTEMPTS {
            let looks = self.look_once(&left)?;
            let mut again = Vec::new();
            for ((place, key), look) in left.into_iter().zip(looks) {
                match look {
                    Look::Gone => {}
                    Look::Again(..) | Look::Unnamed if attempt < ATTEMPTS => {
                        again.push((place, key));
                    }
                    Look::Unnamed => self.unnamed += 1,
                    Look::Again(g, frames, labels) => {
                        self.unsettled += 1;
                        told.push((place, self.tell(&g, frames, labels)));
                    }
                    Look::Still(g, frames, labels) => {
                        told.push((place, self.tell(&g, frames, labels)));
                    }
                }
            }
            left = again;
            if left.is_empty() {
                break;
            }
            self.memory().pause(PAUSE * attempt);
        }
        told.sort_by_key(|(place, _)| *place);
        Ok(told.into_iter().map(|(_, told)| told).collect())
    }

    /// Reads each `g`, then the stacks and labels, then each `g` again.
    fn look_once(&mut self, wanted: &[(usize, Key)]) -> Result<Vec<Look>, GoError> {
        let addresses: Vec<u64> = wanted.iter().map(|(_, key)| key.address).collect();
        let before = self.moment(&addresses)?;
        let ranges: Vec<(u64, usize)> = before
            .heads
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
        self.memory().read_each(&mut stacks)?;
        let sets = self.labels(&before.heads)?;
        let making = self.being_made(&before.heads)?;
        let after = self.moment(&addresses)?;
        let mut looks = Vec::with_capacity(wanted.len());
        for (((_, key), place), stack) in wanted.iter().zip(0..).zip(&stacks) {
            let of = |moment: &Moment| moment.heads.get(place).copied().flatten();
            let look = match of(&before).zip(of(&after)) {
                Some((g, _)) if making.contains(&g.key.address) => Look::Unnamed,
                Some((was, is)) => {
                    let call = |moment: &Moment| moment.calls.get(&is.key.address).copied();
                    let still = was.stands_still(&is) && call(&before) == call(&after);
                    let labels = if was.labels == 0 && is.labels == 0 {
                        Some(Carried::None)
                    } else if was.labels == is.labels {
                        let set = sets.get(&is.labels).cloned();
                        Some(set.map_or(Carried::Unread, Carried::Set))
                    } else {
                        None
                    };
                    self.look(*key, is, still, labels, stack)
                }
                None => Look::Gone,
            };
            looks.push(look);
        }
        Ok(looks)
    }

    /// The `g`s at these addresses, as they are now.
    fn moment(&self, addresses: &[u64]) -> Result<Moment, GoError> {
        let heads = self.heads(addresses)?;
        let Some(offset) = self.layout.m_syscall_tick else {
            let calls = HashMap::new();
            return Ok(Moment { heads, calls });
        };
        let called: Vec<G> = heads
            .iter()
            .flatten()
            .filter(|g| g.status.is_in_syscall())
            .copied()
            .collect();
        let places: Vec<u64> = called
            .iter()
            .map(|g| g.m.wrapping_add(u64::from(offset)))
            .collect();
        let numbers = self.memory().words(&places)?;
        let calls = called.iter().zip(numbers);
        let calls = calls
            .filter_map(|(g, number)| Some((g.key.address, number? as u32)))
            .collect();
        Ok(Moment { heads, calls })
    }

    /// What the labels are that these carry, by the pointers to them.
    fn labels(&mut self, heads: &[Option<G>]) -> Result<HashMap<u64, Set>, GoError> {
        let pointers: BTreeSet<u64> = heads.iter().flatten().map(|g| g.labels).collect();
        let pointers: Vec<u64> = pointers
            .into_iter()
            .filter(|pointer| *pointer != 0 && pointer % 8 == 0)
            .collect();
        if pointers.is_empty() || self.texts_allowed == 0 {
            return Ok(HashMap::new());
        }
        let mut allowed = self.texts_allowed;
        let form = labels::Form::of(self.program.minor.unwrap_or(layout::NEWEST));
        let sets = labels::read(self.memory(), form, &pointers, &mut allowed)?;
        self.texts_allowed = allowed;
        Ok(sets)
    }

    /// Judges one goroutine, read before and after its stack was; `labels` are `None` where they changed.
    fn look(
        &mut self,
        wanted: Key,
        g: G,
        still: bool,
        labels: Option<Carried>,
        stack: &Want<'_>,
    ) -> Look {
        if g.key != wanted || g.status.is_dead() || !g.is_plausible() {
            return Look::Gone;
        }
        let Some(labels) = labels else {
            return Look::Again(g, Vec::new(), Carried::Unread);
        };
        if g.status.is_running() {
            // Its stack changes with every instruction.
            Look::Still(g, Vec::new(), labels)
        } else if !stack.read || !still || g.status.stack_is_taken() {
            Look::Again(g, Vec::new(), labels)
        } else {
            self.unwind(g, stack.buffer, labels)
        }
    }

    /// The frames of a goroutine that stood still while its stack was read.
    fn unwind(&mut self, g: G, stack: &[u8], labels: Carried) -> Look {
        let mut seen = walk(self.program, g.position(), stack);
        let mut read = FIRST_STACK_READ;
        while seen.end == End::NeedsMore && read < LARGEST_STACK_READ && self.deep_allowed > 0 {
            read *= DEEPER;
            match self.walk_deep(&g, read) {
                Some(deeper) => seen = deeper,
                None => return Look::Again(g, Vec::new(), labels),
            }
        }
        match seen.end {
            End::Outermost | End::TooDeep => Look::Still(g, shown(&seen), labels),
            End::NeedsMore | End::Lost => Look::Again(g, shown(&seen), labels),
        }
    }

    /// Reads the stack again, so much of it; `None` when the goroutine moved meanwhile.
    fn walk_deep(&mut self, g: &G, most: u64) -> Option<Walk> {
        let (address, length) = g.stack(most)?;
        self.deep_allowed = self.deep_allowed.saturating_sub(length);
        let before = self.moment(&[g.key.address]).ok()?;
        let mut bytes = vec![0; length];
        self.memory().read(address, &mut bytes).ok()?;
        let after = self.moment(&[g.key.address]).ok()?;
        let [is] = *after.heads.as_slice() else {
            return None;
        };
        (g.stands_still(&is?) && before.calls == after.calls)
            .then(|| walk(self.program, g.position(), &bytes))
    }

    fn tell(&mut self, g: &G, frames: Vec<Frame>, labels: Carried) -> Told {
        let goroutine = Goroutine {
            id: g.key.id,
            state: state(self.program.minor, g.status, g.wait_reason),
            wait: g.waited(),
            frames,
            created_by: self.creation(g),
        };
        Told { goroutine, labels }
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
