//! A capture of gopulse's own, block by block.
//!
//! In: a file that [`super::Writer`] or [`super::Rewriter`] wrote, perhaps cut, perhaps from a stranger.
//! Out: its blocks as they stand. Reading ends at the first block that is not whole; memory is bounded by
//! [`BLOCK_LIMIT`].

use std::io::{self, Read};

use super::{block::Kind, option};

/// The longest block that is read, in bytes: a packet of the snap length, and thousands of comments.
const BLOCK_LIMIT: u32 = 16 << 20;

/// Bytes of a block that are not its body: type and length before it, the length once more behind.
const AROUND: usize = 12;

/// The blocks of a capture.
pub struct Blocks<R> {
    input: R,
    kind: u32,
    block: Vec<u8>,
    begun: bool,
}

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    kind: u32,
    /// All of it, both lengths included.
    pub(super) bytes: &'a [u8],
}

/// What a block is, as far as it matters to whoever rewrites a capture.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A packet.
    Packet(CapturedPacket<'a>),
    /// An entry of a journal.
    Journal(Entry<'a>),
    /// The statistics at the end.
    Statistics,
    /// Anything else.
    Other,
}

/// A packet as the capture holds it.
#[derive(Clone, Copy, Debug)]
pub struct CapturedPacket<'a> {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Length of the whole IP packet.
    pub wire_length: u32,
    /// What was captured, from the IP header on.
    pub bytes: &'a [u8],
    /// The block's body up to its options.
    pub(super) before_options: &'a [u8],
    pub(super) options: &'a [u8],
}

/// An entry of a journal: `NAME=value` lines.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(&'a [u8]);

impl<R: Read> Blocks<R> {
    /// Begins at the start of a capture; give it an input that buffers.
    pub fn new(input: R) -> Self {
        Self {
            input,
            kind: 0,
            block: Vec::new(),
            begun: false,
        }
    }

    /// The next block; `None` where no whole one follows.
    ///
    /// # Errors
    ///
    /// What the input says; `InvalidData` where it is no capture of gopulse's.
    #[expect(
        clippy::should_implement_trait,
        reason = "a block is lent, which an iterator cannot do"
    )]
    pub fn next(&mut self) -> io::Result<Option<Block<'_>>> {
        if self.fill()? {
            self.begun = true;
            return Ok(Some(Block {
                kind: self.kind,
                bytes: &self.block,
            }));
        }
        // Without a whole header nobody can read what may follow.
        if self.begun { Ok(None) } else { Err(foreign()) }
    }

    /// Whether a whole block followed.
    fn fill(&mut self) -> io::Result<bool> {
        let mut head = [0; 8];
        if !fill(&mut self.input, &mut head)? {
            return Ok(false);
        }
        let [k0, k1, k2, k3, l0, l1, l2, l3] = head;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let expected = self.begun || kind == Kind::SectionHeader as u32;
        if !expected || length % 4 != 0 || !(AROUND as u32..=BLOCK_LIMIT).contains(&length) {
            return Ok(false);
        }
        self.kind = kind;
        self.block.clear();
        self.block.extend_from_slice(&head);
        let rest = u64::from(length) - head.len() as u64;
        // Grows with what is there, not with what the length claims.
        (&mut self.input).take(rest).read_to_end(&mut self.block)?;
        Ok(self.block.len() == length as usize
            && self.block.last_chunk() == Some(&length.to_le_bytes()))
    }
}

impl<'a> Block<'a> {
    /// What it is; a packet or an entry that makes no sense is [`Content::Other`].
    #[must_use]
    pub fn content(&self) -> Content<'a> {
        let body = self.bytes.get(8..self.bytes.len() - 4).unwrap_or_default();
        if self.kind == Kind::EnhancedPacket as u32 {
            CapturedPacket::of(body).map_or(Content::Other, Content::Packet)
        } else if self.kind == Kind::SystemdJournal as u32 {
            Content::Journal(Entry(body))
        } else if self.kind == Kind::InterfaceStatistics as u32 {
            Content::Statistics
        } else {
            Content::Other
        }
    }
}

impl<'a> CapturedPacket<'a> {
    fn of(body: &'a [u8]) -> Option<Self> {
        const FIXED: usize = 20;
        let (words, _) = body.get(..FIXED)?.as_chunks::<4>();
        let [_, high, low, captured, wire] = <[[u8; 4]; 5]>::try_from(words).ok()?;
        let captured = usize::try_from(u32::from_le_bytes(captured)).ok()?;
        let (before_options, options) =
            body.split_at_checked(FIXED + captured.checked_next_multiple_of(4)?)?;
        Some(Self {
            at: u64::from(u32::from_le_bytes(high)) << 32 | u64::from(u32::from_le_bytes(low)),
            wire_length: u32::from_le_bytes(wire),
            bytes: body.get(FIXED..FIXED + captured)?,
            before_options,
            options,
        })
    }

    /// The comments on it that are text.
    pub fn comments(&self) -> impl Iterator<Item = &'a str> {
        self.options()
            .filter(|(code, _)| *code == option::COMMENT)
            .filter_map(|(_, comment)| str::from_utf8(comment).ok())
    }

    /// Its other options.
    pub(super) fn options_but_comments(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.options().filter(|(code, _)| *code != option::COMMENT)
    }

    /// Its options up to the first that is not whole.
    fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            let &[c0, c1, l0, l1] = rest.first_chunk()?;
            let code = u16::from_le_bytes([c0, c1]);
            let length = usize::from(u16::from_le_bytes([l0, l1]));
            let value = rest.get(4..4 + length)?;
            rest = rest
                .get(4 + length.next_multiple_of(4)..)
                .unwrap_or_default();
            (code != 0).then_some((code, value))
        })
    }
}

impl<'a> Entry<'a> {
    /// The value of the first field of this name, if it is text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.0
            .split(|byte| *byte == b'\n')
            .filter_map(|line| str::from_utf8(line).ok()?.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// Whether there was enough to fill `buffer`.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn foreign() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a capture that gopulse wrote",
    )
}
