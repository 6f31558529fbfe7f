//! `events.gpl`: events in blocks with checksums.
//!
//! In: [`Event`](crate::event::Event)s. Out: the same events, up to the last whole block of the file.
//!
//! The file is a [`FileHeader`] and blocks, each a [`BlockHeader`] and its payload; numbers are
//! little-endian. The payload is `count` events, each a length (`u32`) and the event in
//! [postcard](https://postcard.jamesmunns.com/wire-format)'s encoding. An event larger than a block (a
//! process may have a million goroutines) is cut: blocks of count 0 hold its beginning, and the block
//! with its end has count 1.
//!
//! postcard tells fields by their order alone. So any change to what an event consists of is a new
//! format: raise [`FORMAT`]. Where it only adds kinds of events at the end of [`Fact`](crate::event::Fact),
//! older files are read on; otherwise raise [`OLDEST`] too.

mod read;
mod write;

pub(super) use read::{Ending, EventReader};
pub(super) use write::EventWriter;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

/// The version of the encoding of events and blocks: 3 adds what the scheduler and the host did, 4 gaps in
/// what was told, what was shed, memory limits, the labels of goroutines, and in which network processes are.
const FORMAT: u32 = 4;

/// The oldest version of which every event is still one of today's.
const OLDEST: u32 = 2;

/// As PNG's: a byte that is no text, the name, and both kinds of line end, so that a transfer that
/// changes text is noticed at once.
const MAGIC: [u8; 8] = *b"\x89GPL\r\n\x1a\n";

/// Most bytes in a block's payload. A length beyond it is damage, not a reason to take memory.
const BLOCK_LIMIT: usize = 16 << 20;

/// Most bytes of one event: a snapshot of some two million goroutines.
const EVENT_LIMIT: usize = 1 << 30;

/// A block is full when it has so many bytes.
const BLOCK_SIZE: usize = 64 << 10;

/// How the file begins.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct FileHeader {
    magic: [u8; 8],
    format: U32,
}

/// How a block begins.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct BlockHeader {
    /// Bytes of the payload.
    length: U32,
    /// Events that end in it.
    count: U32,
    /// The earliest and the latest time in it, in nanoseconds since boot.
    first: U64,
    last: U64,
    /// CRC-32 (IEEE) of the fields above and the payload.
    checksum: U32,
}

const _: () = assert!(size_of::<FileHeader>() == 12);
const _: () = assert!(size_of::<BlockHeader>() == 28);

impl BlockHeader {
    /// What `checksum` should be.
    fn sum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.length.as_bytes());
        hasher.update(self.count.as_bytes());
        hasher.update(self.first.as_bytes());
        hasher.update(self.last.as_bytes());
        hasher.update(payload);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests;
