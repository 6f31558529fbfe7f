//! Blocks to events.

use std::{
    io::{self, Read},
    path::Path,
};

use zerocopy::{FromBytes, IntoBytes};

use super::{
    super::RecordingError, BLOCK_LIMIT, BlockHeader, EVENT_LIMIT, FORMAT, FileHeader, MAGIC, OLDEST,
};
use crate::event::{BootInstant, Event};

/// Reads `events.gpl`, one block at a time.
pub(in crate::recording) struct EventReader<R: Read> {
    input: R,
    /// Bytes of the input.
    length: u64,
    /// Where in the input the block at hand begins and ends.
    begin: u64,
    end: u64,
    /// Its payload (behind those of the blocks that hold the beginning of its event), how far it is
    /// read, and how many events are left in it.
    payload: Vec<u8>,
    cursor: usize,
    left: u32,
    latest: BootInstant,
    ending: Option<Ending>,
}

/// How a file of events ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::recording) enum Ending {
    /// After a whole block.
    Whole,
    /// In the middle of a block: the writer died, or the file was cut.
    Truncated {
        /// The offset of the last whole block's end.
        at: u64,
        /// What follows and cannot be read.
        bytes: u64,
    },
    /// At a block that is not what was written.
    Damaged {
        /// Its offset.
        at: u64,
        /// From there on.
        bytes: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Why there is no next event.
enum Stop {
    Whole,
    Truncated,
    Damaged(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn damaged(why: &str) -> Stop {
    Stop::Damaged(why.to_owned())
}

impl<R: Read> EventReader<R> {
    /// Reads the header of an input of `length` bytes; `path` is for messages.
    pub(in crate::recording) fn new(
        mut input: R,
        length: u64,
        path: &Path,
    ) -> Result<Self, RecordingError> {
        let header = read_up_to(&mut input, size_of::<FileHeader>()).map_err(|source| {
            RecordingError::Read {
                path: path.to_owned(),
                source,
            }
        })?;
        let mut reader = Self {
            input,
            length,
            begin: 0,
            end: header.len() as u64,
            payload: Vec::new(),
            cursor: 0,
            left: 0,
            latest: BootInstant::default(),
            ending: None,
        };
        let magic = header.get(..MAGIC.len()).unwrap_or(&header);
        if !MAGIC.starts_with(magic) {
            return Err(RecordingError::NotARecording {
                path: path.to_owned(),
                found: "it does not begin as a file of events does".to_owned(),
            });
        }
        match FileHeader::ref_from_bytes(&header) {
            Ok(header) => check_format(header.format.get(), path)?,
            // The host went down before the header was on disk.
            Err(_) => reader.stop(Stop::Truncated),
        }
        Ok(reader)
    }

    /// How the file ended; `None` while there may be more events.
    pub(in crate::recording) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// The latest time in the blocks read so far.
    pub(in crate::recording) fn latest(&self) -> BootInstant {
        self.latest
    }

    fn event(&mut self) -> Result<Event, Stop> {
        while self.left == 0 {
            self.block()?;
        }
        let rest = self.payload.get(self.cursor..).unwrap_or_default();
        let (length, rest) = rest
            .split_first_chunk()
            .ok_or_else(|| damaged("its events are fewer than it says"))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let encoded = rest
            .get(..length)
            .ok_or_else(|| damaged("an event reaches beyond its block"))?;
        let (event, rest) =
            postcard::take_from_bytes(encoded).map_err(|error| Stop::Damaged(error.to_string()))?;
        if !rest.is_empty() {
            return Err(damaged("an event is shorter than it says"));
        }
        self.cursor += size_of::<u32>() + length;
        self.left -= 1;
        Ok(event)
    }

    /// Reads the next block; one of count 0 is kept for the block that follows it.
    fn block(&mut self) -> Result<(), Stop> {
        if self.cursor > 0 {
            if self.cursor != self.payload.len() {
                return Err(damaged("its events are more than it says"));
            }
            self.cursor = 0;
            self.payload.clear();
            self.payload.shrink_to(BLOCK_LIMIT);
        }
        let begun = self.payload.len();
        // An event over several blocks is lost from its first one on.
        if begun == 0 {
            self.begin = self.end;
        }

        let header = read_up_to(&mut self.input, size_of::<BlockHeader>())?;
        if header.is_empty() && begun == 0 {
            return Err(Stop::Whole);
        }
        let header = BlockHeader::read_from_bytes(&header).map_err(|_| Stop::Truncated)?;
        let length = header.length.get() as usize;
        if length == 0 || length > BLOCK_LIMIT || begun + length > EVENT_LIMIT + BLOCK_LIMIT {
            return Err(Stop::Damaged(format!(
                "its length of {length} bytes is absurd"
            )));
        }
        self.input
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut self.payload)?;
        let payload = self.payload.get(begun..).unwrap_or_default();
        if payload.len() < length {
            return Err(Stop::Truncated);
        }
        if header.sum(payload) != header.checksum.get() {
            return Err(damaged("its checksum does not match"));
        }
        if begun > 0 && header.count.get() > 1 {
            return Err(damaged("it should hold the rest of one event"));
        }
        self.left = header.count.get();
        self.latest = self.latest.max(BootInstant(header.last.get()));
        self.end += (header.as_bytes().len() + length) as u64;
        Ok(())
    }

    fn stop(&mut self, stop: Stop) {
        let at = self.begin;
        let bytes = self.length.saturating_sub(at);
        self.ending = Some(match stop {
            Stop::Whole => Ending::Whole,
            Stop::Truncated => Ending::Truncated { at, bytes },
            Stop::Damaged(why) => Ending::Damaged { at, bytes, why },
        });
    }
}

impl<R: Read> Iterator for EventReader<R> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.ending.is_some() {
            return None;
        }
        self.event().map_err(|stop| self.stop(stop)).ok()
    }
}

fn check_format(found: u32, path: &Path) -> Result<(), RecordingError> {
    match found {
        OLDEST..=FORMAT => Ok(()),
        0 => Err(RecordingError::NotARecording {
            path: path.to_owned(),
            found: "there is no format 0".to_owned(),
        }),
        _ => Err(RecordingError::Newer {
            path: path.to_owned(),
            found: format!("gopulse.events/{found}"),
            known: format!("gopulse.events/{FORMAT}"),
        }),
    }
}

/// Reads `length` bytes, or what there is.
fn read_up_to(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    input.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
