//! Goroutine dumps: the text that `runtime.Stack`, a SIGQUIT, a panic and
//! `/debug/pprof/goroutine?debug=2` give.
//!
//! In: text of Go 1.21 to 1.27, maybe cut off, maybe out of a log with other lines in it. Out: a
//! [`Census`], and what could not be understood. A goroutine whose heading is understood is never left
//! out, in whichever of the many forms it comes:
//!
//! ```text
//! goroutine 7 [chan receive, 3 minutes, locked to thread]:
//! goroutine 7 gp=0xc000002380 m=nil [IO wait]:                          SIGQUIT
//! goroutine 7 [select (durable), synctest bubble 4]:                    synctest
//! goroutine 7 [select labels:{"k": "v"}]:                               1.26, GODEBUG=tracebacklabels=1
//! goroutine 7 [select] {k: v, req: "a b"}:                              1.27
//! ```
//!
//! Kept are the state (with the runtime's `(leaked)` and `(durable)`), the waiting time in whole
//! minutes, the labels, the frames that a plain dump shows, and the `go` statement. Bubbles and the
//! stacks of ancestors are not; the moment's `(scan)` is no state; goroutine 0 is the stack on which a
//! thread schedules, and counted apart.
//!
//! Speed comes from reading bytes, a line at a time, and from making frames only of a stack that was
//! not seen before; memory goes with the distinct ones.

mod heading;
mod stack;
mod wrapping;

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    io::{self, Read},
    mem,
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::census::{Census, Group, Kind, Member, Members, Stack};
use heading::Heading;
pub(super) use heading::parse_labels;
use stack::Line;
pub(super) use stack::{file_and_line, frame, only_shown};
use wrapping::{Headings, Prefix};

/// Read at once.
const CHUNK: usize = 256 << 10;
/// A longer line is no line of a dump, nor a logger's with one in it.
const LONGEST_LINE: usize = 16 << 20;

/// What a dump held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// The goroutines.
    pub census: Census,
    /// Lines inside of goroutines, or that look like their headings, that were not understood. More
    /// than zero means that the dump was cut off or mixed with other output.
    pub unread_lines: u64,
    /// The first of them, or the heading of the goroutine it is in; counted from 1.
    pub first_unread: Option<u64>,
    /// It ends in the middle of a line of a goroutine: the runtime's own end at 64 MiB.
    pub cut: bool,
    /// Stacks on which threads schedule (goroutine 0), which are no goroutines and not kept.
    pub scheduler_stacks: u64,
}

/// Reads a dump of goroutines with headings.
///
/// # Errors
///
/// What `input` says.
pub fn read(mut input: impl Read) -> io::Result<Dump> {
    let mut reader = Reader::default();
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    let mut skips = false;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let more = match input.read(free) {
            Ok(0) => break,
            Ok(more) => more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = filled + more;
        let whole = buffer.get(..end).unwrap_or_default();
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', whole) {
            // The end of a line that was too long.
            if !mem::take(&mut skips) {
                reader.line(whole.get(start..newline).unwrap_or_default());
            }
            start = newline + 1;
        }
        filled = end - start;
        buffer.copy_within(start..end, 0);
        if skips {
            filled = 0;
        } else if filled == buffer.len() {
            if filled < LONGEST_LINE {
                buffer.resize(filled * 2, 0);
            } else {
                reader.number += 1;
                reader.unread(1);
                (filled, skips) = (0, true);
            }
        }
    }
    let last = buffer.get(..filled).unwrap_or_default();
    if filled > 0 {
        reader.line(last);
    }
    reader.dump.cut = filled > 0 && reader.block.is_some();
    Ok(reader.end())
}

/// Reads a dump that is in memory.
#[must_use]
pub fn parse(text: &[u8]) -> Dump {
    // Reading a slice cannot fail.
    read(text).unwrap_or_default()
}

/// Goes through a dump line by line.
#[derive(Default)]
struct Reader {
    dump: Dump,
    /// Of the line that is read, counted from 1.
    number: u64,
    /// The goroutine whose lines are read.
    block: Option<Block>,
    /// What of those lines is the same for all on its stack.
    outline: Vec<u8>,
    prefix: Option<Prefix>,
    /// How many goroutines there were, where the dump says that it does not tell all.
    total: Option<u64>,
    find: Headings,
    headings: Interned<Heading>,
    stacks: Interned<(Arc<Stack>, u64)>,
    groups: HashMap<(usize, usize), Members, RandomState>,
}

struct Block {
    id: u64,
    heading: usize,
    creator: Option<u64>,
    number: u64,
    part: Part,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The heading was read.
    Heading,
    /// Some of the stack.
    Stack,
    /// The `go` statement's function, whose place is next.
    Creation,
    /// All of it.
    Whole,
    /// All of it, and the stacks of those that started it.
    Ancestors,
}

impl Reader {
    /// A line as it stands in the file.
    #[inline]
    fn line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.prefix.is_none() && line.first() != Some(&b'{') {
            self.plain(line);
        } else {
            self.wrapped(line);
        }
    }

    /// A line that may have something around it.
    fn wrapped(&mut self, line: &[u8]) {
        if let Some(inner) = wrapping::docker(line) {
            self.plain(inner.as_bytes());
            return;
        }
        if line.starts_with(b"{") && self.find.may_be_in(line) {
            let dumps = wrapping::fields(line);
            if !dumps.is_empty() {
                self.end_block();
                for dump in dumps {
                    dump.lines().for_each(|line| self.plain(line.as_bytes()));
                    self.end_block();
                }
                return;
            }
        }
        let stripped = match &self.prefix {
            Some(prefix) => prefix.strip(line),
            None => Some(line),
        };
        match (stripped, &self.block) {
            (Some(stripped), _) => self.plain(stripped),
            // Only the first line of a message has the logger's prefix.
            (None, Some(block)) if block.part == Part::Heading => {
                self.prefix = None;
                self.plain(line);
            }
            (None, Some(block)) if block.part != Part::Whole => self.foreign(line),
            (None, _) => {
                self.end_block();
                self.prefix = None;
                self.plain(line);
            }
        }
    }

    /// A line with nothing around it, except what stands before a dump's first.
    #[inline]
    fn plain(&mut self, line: &[u8]) {
        if line.starts_with(b"goroutine ") {
            self.end_block();
            self.heading(line);
        } else if line.is_empty() {
            self.end_block();
        } else if self.block.is_some() {
            self.inside(line);
        } else {
            self.outside(line);
        }
    }

    #[inline]
    fn inside(&mut self, line: &[u8]) {
        let Some(block) = &mut self.block else {
            return;
        };
        let line_is = stack::outline(line);
        block.part = match (block.part, line_is) {
            (_, Line::Foreign) => return self.foreign(line),
            (_, Line::Register) => return self.end_block(),
            (Part::Ancestors, _) => return,
            (Part::Whole | Part::Stack | Part::Heading, Line::Ancestors) => Part::Ancestors,
            // Its last line was read; what follows without an empty line is not its own.
            (Part::Whole, _) => {
                self.end_block();
                return self.outside(line);
            }
            (Part::Creation, Line::Place(_)) => Part::Whole,
            (_, Line::Creation(_, creator)) => {
                block.creator = creator;
                Part::Creation
            }
            (Part::Heading, _) => Part::Stack,
            (part, _) => part,
        };
        stack::add(&mut self.outline, line_is);
    }

    /// A line inside of a goroutine that is none of its own.
    #[cold]
    fn foreign(&mut self, line: &[u8]) {
        if self.find.find(line).is_some()
            || matches!(&self.block, Some(block) if block.part == Part::Whole)
        {
            self.end_block();
            self.outside(line);
        } else {
            self.unread(1);
        }
    }

    fn outside(&mut self, line: &[u8]) {
        let Some(at) = self.find.find(line) else {
            self.total = self.total.max(recorded(line));
            return;
        };
        let (before, line) = line.split_at_checked(at).unwrap_or_default();
        if self.heading(line) {
            self.prefix = Prefix::of(before);
        }
    }

    /// Whether it is one.
    #[inline]
    fn heading(&mut self, line: &[u8]) -> bool {
        let parsed = heading::split(line).and_then(|(id, rest)| {
            let heading = self
                .headings
                .find_or_make(rest, |text| heading::parse(&String::from_utf8_lossy(text)))?;
            Some((id, heading))
        });
        match parsed {
            Some((id, heading)) => {
                if self
                    .headings
                    .get(heading)
                    .is_some_and(|heading| heading.says_more)
                {
                    self.unread(1);
                }
                self.block = Some(Block {
                    id,
                    heading,
                    creator: None,
                    number: self.number,
                    part: Part::Heading,
                });
                true
            }
            // The first line of a profile, or prose such as "goroutine running on …".
            None if !line.contains(&b'[') => false,
            None => {
                self.unread(1);
                false
            }
        }
    }

    #[inline]
    fn end_block(&mut self) {
        let Some(block) = self.block.take() else {
            return;
        };
        if block.id == 0 {
            self.dump.scheduler_stacks += 1;
            self.outline.clear();
            return;
        }
        let stack = self.stacks.find_or_make(&self.outline, |outline| {
            let (stack, unread) = stack::parse(outline);
            Some((Arc::new(stack), unread))
        });
        self.outline.clear();
        let Some(stack) = stack else {
            return;
        };
        if let Some((_, unread @ 1..)) = self.stacks.get(stack) {
            self.dump.unread_lines += unread;
            self.dump.first_unread.get_or_insert(block.number);
        }
        let heading = self.headings.get(block.heading);
        self.groups
            .entry((block.heading, stack))
            .or_default()
            .push(Member {
                id: block.id,
                wait: heading.and_then(|heading| heading.wait),
                creator: block.creator,
            });
    }

    fn unread(&mut self, lines: u64) {
        self.dump.unread_lines += lines;
        self.dump.first_unread.get_or_insert(self.number);
    }

    fn end(mut self) -> Dump {
        self.end_block();
        // In the order of the text, so that the same text gives the same census.
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_unstable_by_key(|(place, _)| *place);
        let groups = groups
            .into_iter()
            .filter_map(|((heading, stack), members)| {
                let heading = self.headings.get(heading)?;
                let (stack, _) = self.stacks.get(stack)?;
                Some(Group {
                    kind: Kind {
                        state: heading.state.clone(),
                        locked: heading.locked,
                        stack: Arc::clone(stack),
                        labels: Arc::clone(&heading.labels),
                    },
                    members,
                })
            });
        self.dump.census = Census::gather(groups, self.total);
        self.dump
    }
}

/// `5000 of 100000 goroutines; reading them was cut short`, as a recording's snapshots say it.
fn recorded(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b" goroutines; reading them was cut short")?;
    let (_, total) = std::str::from_utf8(line).ok()?.split_once(" of ")?;
    total.parse().ok()
}

/// What was made of texts, each text once.
struct Interned<T> {
    hasher: RandomState,
    places: HashTable<usize>,
    texts: Vec<(Box<[u8]>, T)>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            places: HashTable::new(),
            texts: Vec::new(),
        }
    }
}

impl<T> Interned<T> {
    fn get(&self, place: usize) -> Option<&T> {
        self.texts.get(place).map(|(_, made)| made)
    }

    /// The place of what `make` made of this text.
    #[inline]
    fn find_or_make(
        &mut self,
        text: &[u8],
        make: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<usize> {
        let hash = self.hasher.hash_one(text);
        let same = |place: &usize| {
            let known = self.texts.get(*place);
            known.is_some_and(|(known, _)| **known == *text)
        };
        if let Some(place) = self.places.find(hash, same) {
            return Some(*place);
        }
        let place = self.texts.len();
        self.texts.push((text.into(), make(text)?));
        let rehash = |place: &usize| {
            let known = self.texts.get(*place);
            known.map_or(0, |(known, _)| self.hasher.hash_one(&**known))
        };
        self.places.insert_unique(hash, place, rehash);
        Some(place)
    }
}

#[cfg(test)]
mod tests;
