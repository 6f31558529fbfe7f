//! Packets from the bytes of a capture file, pcap or pcapng.
//!
//! In: bytes, from any reader. Out: packets in the order of the file, each a view into the one buffer
//! they all pass through, so memory does not grow with the file. A file that ends or breaks in the
//! middle gives every packet before that, and says where and why; the caller decides what that means.

mod blocks;
mod buffer;
mod records;

use std::io::{self, Read};

use blocks::Blocks;
use buffer::Buffer;
use records::Records;

/// Bytes of the longest packet record or block that is believed. Wireshark's own bound for a packet
/// is 256 KiB (`WTAP_MAX_PACKET_SIZE_STANDARD`), for one of D-Bus or USB 128 MiB; TCP needs neither.
const LONGEST: usize = 16 << 20;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'b> {
    /// When, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Its number in the file as Wireshark counts them, from 1.
    pub frame: u64,
    /// How its first bytes are to be read (<https://www.tcpdump.org/linktypes.html>).
    pub link: u16,
    /// Where it was caught: the number of the interface, and the direction where the file tells it.
    pub place: u32,
    /// Bytes of the packet when it passed; more than `bytes` where the capture cut it.
    pub length: u32,
    /// What was kept of it.
    pub bytes: &'b [u8],
}

/// What a packet is, but for its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct About {
    at: u64,
    link: u16,
    place: u32,
    length: u32,
    /// Where its bytes lie, from the beginning of its record or block.
    from: usize,
    captured: usize,
}

/// A place where packets are caught, as one number: the same packet seen at two of them is a copy.
fn place(interface: u32, direction: u32) -> u32 {
    interface.wrapping_shl(3) | (direction & 0b111)
}

/// One record or block.
enum Item {
    /// A packet.
    Packet(About),
    /// Something that Wireshark shows as a row of its own, and hence counts.
    Row,
    /// Anything else.
    Other,
}

/// How far a capture goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// To its end.
    Whole,
    /// Its last record is cut.
    Cut {
        /// Where that record begins, in bytes.
        offset: u64,
        /// How much of it there is, in bytes.
        bytes: u64,
    },
    /// From here on it makes no sense.
    Damaged {
        /// Where, in bytes.
        offset: u64,
        /// What was found.
        found: String,
    },
}

/// Why a capture cannot be read at all, or no further.
#[derive(Debug)]
pub enum ReadError {
    /// What the reader, or the decompressor, said, and how far it had got.
    Read(u64, io::Error),
    /// There is nothing.
    Empty,
    /// These are not the first bytes of a capture.
    NotACapture(String),
}

enum Format {
    Records(Records),
    Blocks(Blocks),
}

/// Reads a capture, packet by packet.
pub struct Reader<R> {
    buffer: Buffer<R>,
    format: Format,
    frame: u64,
    ending: Option<Ending>,
    /// The last packet, to be given once more.
    again: Option<(About, usize)>,
}

/// What a format makes of the bytes at hand.
enum Step {
    /// So many bytes are one item.
    Took(usize, Item),
    /// At least so many bytes are wanted to tell.
    Wants(usize),
    /// It makes no sense.
    Damaged(String),
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut buffer = Buffer::new(input);
        let first = buffer
            .have(records::HEADER)
            .map_err(|error| ReadError::Read(0, error))?;
        if first.is_empty() {
            return Err(ReadError::Empty);
        }
        let format = if Blocks::begin(first) {
            Format::Blocks(Blocks::default())
        } else {
            match Records::begin(first) {
                Ok(records) => {
                    buffer.take(records::HEADER);
                    Format::Records(records)
                }
                Err(found) => return Err(ReadError::NotACapture(found)),
            }
        };
        Ok(Self {
            buffer,
            format,
            frame: 0,
            ending: None,
            again: None,
        })
    }

    /// The next packet; `None` at the end, of which [`Self::ending`] tells more.
    ///
    /// # Errors
    ///
    /// Those of the reader underneath.
    #[inline]
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        let (about, taken) = match self.again.take() {
            Some(last) => last,
            None => match self.advance()? {
                Some(next) => next,
                None => return Ok(None),
            },
        };
        let bytes = self.buffer.taken(taken, about.from, about.captured);
        Ok(Some(Packet {
            at: about.at,
            frame: self.frame,
            link: about.link,
            place: about.place,
            length: about.length,
            bytes,
        }))
    }

    /// The time of the next packet, which is still to be given.
    ///
    /// # Errors
    ///
    /// Those of the reader underneath.
    pub fn first_time(&mut self) -> Result<Option<u64>, ReadError> {
        if self.again.is_none() {
            self.again = self.advance()?;
        }
        Ok(self.again.map(|(about, _)| about.at))
    }

    fn advance(&mut self) -> Result<Option<(About, usize)>, ReadError> {
        if self.ending.is_some() {
            return Ok(None);
        }
        let mut wanted = 1;
        loop {
            let offset = self.buffer.offset();
            let bytes = self
                .buffer
                .have(wanted)
                .map_err(|error| ReadError::Read(offset, error))?;
            if bytes.len() < wanted {
                self.ending = Some(match bytes.len() {
                    0 => Ending::Whole,
                    bytes => Ending::Cut {
                        offset,
                        bytes: bytes as u64,
                    },
                });
                return Ok(None);
            }
            let step = match &mut self.format {
                Format::Records(records) => records.step(bytes),
                Format::Blocks(blocks) => blocks.step(bytes),
            };
            match step {
                Step::Took(length, item) => {
                    self.buffer.take(length);
                    wanted = 1;
                    match item {
                        Item::Packet(about) => {
                            self.frame += 1;
                            return Ok(Some((about, length)));
                        }
                        Item::Row => self.frame += 1,
                        Item::Other => {}
                    }
                }
                Step::Wants(more) => wanted = more,
                Step::Damaged(found) => {
                    self.ending = Some(Ending::Damaged { offset, found });
                    return Ok(None);
                }
            }
        }
    }

    /// How far it went; `None` while there may be more.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Frames given so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frame
    }

    /// `pcap` or `pcapng`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Records(_) => "pcap",
            Format::Blocks(_) => "pcapng",
        }
    }

    /// Packets that interfaces say they dropped; only pcapng can tell.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match &self.format {
            Format::Records(_) => 0,
            Format::Blocks(blocks) => blocks.dropped(),
        }
    }
}
