//! Every connection of a capture.
//!
//! In come segments, out come events. Bounded by the connections that are open at one time, not by the
//! capture: closed ones are kept a while, for their last packets and so that their numbers are those of
//! Wireshark, and those nobody ever answered, or that fell silent, are let go when there are too many.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, Hasher as _},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{
    connection::Connection,
    frames::Frames,
    segment::{Key, Segment},
    sequence::Counts,
    telling::Teller,
    turns::Moment,
};
use crate::event::Event;

/// Closed connections kept. A packet that comes later than this many others were closed begins a new
/// number, other than in Wireshark, which forgets nothing.
const CLOSED: usize = 32_768;

/// More connections than this at once, and those that are probably dead are let go.
const CROWD: usize = 65_536;

/// More than this at once are never kept.
const MOST: usize = 262_144;

/// No kernel waits longer for the answer to its SYN (`tcp_syn_retries` 6, tcp(7)), in nanoseconds.
const SYN_PATIENCE: u64 = 130_000_000_000;

/// A connection on which nothing moved for so long is let go where there are too many.
const IDLE: u64 = 600_000_000_000;

/// What became of one connection, beside the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its number as `tcp.stream` has it.
    pub number: u32,
    /// Its ends.
    pub key: Key,
    /// What was counted.
    pub counts: Counts,
    /// From the SYN to the ACK of its answer, in nanoseconds; 0 where that was not seen.
    pub handshake: u64,
}

/// Follows connections.
#[derive(Default)]
pub struct Tracker {
    table: HashTable<u32>,
    hash: RandomState,
    slots: Vec<Option<Connection>>,
    free: Vec<u32>,
    closed: VecDeque<(u32, u32)>,
    /// The slot of the last segment: the next one is often of the same connection.
    last: u32,
    streams: u32,
    crowd: usize,
    let_go: u64,
    lacking: u64,
    teller: Teller,
    /// Told of each connection that is no longer followed.
    each: Option<Box<dyn FnMut(Stream)>>,
}

impl Tracker {
    /// Follows nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            crowd: CROWD,
            ..Self::default()
        }
    }

    /// Has `each` told of every connection when it is no longer followed.
    pub fn each_stream(&mut self, each: impl FnMut(Stream) + 'static) {
        self.each = Some(Box::new(each));
    }

    /// Takes the next segment; what it tells waits in [`Self::events`].
    #[inline]
    pub fn take(&mut self, segment: &Segment<'_>) {
        let slot = match self.find(&segment.key) {
            Some(slot) if !self.is_over_for(slot, segment) => slot,
            Some(slot) => {
                self.let_go(slot, segment.at);
                self.add(segment)
            }
            None => self.add(segment),
        };
        self.last = slot;
        let Some(Some(connection)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if connection.take(segment, &mut self.teller) {
            let stream = connection.stream();
            self.closed.push_back((slot, stream));
            if self.closed.len() > CLOSED
                && let Some((slot, stream)) = self.closed.pop_front()
                && self.holds(slot, stream)
            {
                self.let_go(slot, segment.at);
            }
        }
    }

    /// What was told and not yet taken away.
    pub fn events(&mut self) -> &mut Vec<Event> {
        &mut self.teller.events
    }

    /// How many connections there were.
    #[must_use]
    pub fn streams(&self) -> u32 {
        self.streams
    }

    /// How many connections are kept.
    #[must_use]
    pub fn held(&self) -> usize {
        self.table.len()
    }

    /// How many requests were told whose first bytes the capture did not keep.
    #[must_use]
    pub fn cut_requests(&self) -> u64 {
        self.teller.cut_requests
    }

    /// How many connections were let go while they may have been open.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.let_go
    }

    /// How many packets the capture lacks, at least: they were acknowledged. Known at the end.
    #[must_use]
    pub fn lacking(&self) -> u64 {
        self.lacking
    }

    /// The capture is over at `at`, in nanoseconds since the Unix epoch: tells what is under way.
    pub fn end(&mut self, at: u64) {
        let now = Moment { at, frame: 0 };
        let mut slots = std::mem::take(&mut self.slots);
        for connection in slots.iter_mut().flatten() {
            connection.tell_rest(now, &mut self.teller);
            self.lacking += connection.lacking(at);
            self.tell_stream(connection);
        }
        self.table.clear();
    }

    /// Which packet told what.
    #[must_use]
    pub fn frames(self) -> Frames {
        self.teller.frames
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<u32> {
        if let Some(Some(last)) = self.slots.get(self.last as usize)
            && last.key() == key
        {
            return Some(self.last);
        }
        let is_it = |slot: &u32| self.key_of(*slot) == Some(key);
        self.table.find(hash(&self.hash, key), is_it).copied()
    }

    #[inline]
    fn key_of(&self, slot: u32) -> Option<&Key> {
        let connection = self.slots.get(slot as usize)?.as_ref()?;
        Some(connection.key())
    }

    #[inline]
    fn is_over_for(&self, slot: u32, segment: &Segment<'_>) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(connection)) if connection.is_over_for(segment))
    }

    fn holds(&self, slot: u32, stream: u32) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(connection)) if connection.stream() == stream)
    }

    fn add(&mut self, segment: &Segment<'_>) -> u32 {
        if self.table.len() >= self.crowd {
            self.make_room(segment.at);
        }
        let connection = Connection::new(segment, self.streams);
        self.streams = self.streams.wrapping_add(1);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(connection);
        }
        let (slots, state) = (&self.slots, &self.hash);
        let hash_of = |slot: &u32| match slots.get(*slot as usize) {
            Some(Some(connection)) => hash(state, connection.key()),
            _ => 0,
        };
        self.table
            .insert_unique(hash(state, &segment.key), slot, hash_of);
        slot
    }

    /// Forgets a connection at `now`; one that was still open is told as over with its last packet.
    fn let_go(&mut self, slot: u32, now: u64) {
        let Some(mut connection) = self.slots.get_mut(slot as usize).and_then(Option::take) else {
            return;
        };
        let found = self
            .table
            .find_entry(hash(&self.hash, connection.key()), |other| *other == slot);
        if let Ok(entry) = found {
            entry.remove();
        }
        self.free.push(slot);
        if !connection.is_closed() {
            connection.time_out(&mut self.teller);
        }
        self.lacking += connection.lacking(now);
        self.tell_stream(&connection);
    }

    fn tell_stream(&mut self, connection: &Connection) {
        if let Some(each) = &mut self.each {
            each(Stream {
                number: connection.stream(),
                key: *connection.key(),
                counts: *connection.counts(),
                handshake: connection.handshake(),
            });
        }
    }

    /// Lets go of connections that are probably dead; where that is not enough, of the longest silent.
    fn make_room(&mut self, now: u64) {
        let mut silent: Vec<(u64, u32)> = Vec::new();
        for (slot, connection) in self.slots.iter().enumerate() {
            if let (Some(connection), Ok(slot)) = (connection, u32::try_from(slot)) {
                silent.push((connection.last_at(), slot));
            }
        }
        silent.sort_unstable();
        let too_many = silent.len().saturating_sub(MOST * 3 / 4);
        let full = silent.len() >= MOST;
        for (place, (last, slot)) in silent.into_iter().enumerate() {
            let idle = now.saturating_sub(last);
            let (closed, unanswered) = match self.slots.get(slot as usize) {
                Some(Some(connection)) => (connection.is_closed(), connection.is_unanswered()),
                _ => continue,
            };
            let dead = (unanswered && idle >= SYN_PATIENCE) || (!closed && idle >= IDLE);
            if dead || (full && place < too_many) {
                self.let_go += u64::from(!closed && !unanswered);
                self.let_go(slot, now);
            }
        }
        self.crowd = (self.table.len() * 2).clamp(CROWD, MOST);
    }
}

#[inline]
fn hash(state: &RandomState, key: &Key) -> u64 {
    let mut hasher = state.build_hasher();
    for part in key.words() {
        hasher.write_u64(part);
    }
    hasher.finish()
}
