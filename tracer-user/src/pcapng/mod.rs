//! Packets as a pcapng capture that Wireshark, tshark and tcpdump open as it is.
//!
//! In: [`Packet`]s in the order in which they are to be numbered. Out: one section of
//! [draft-ietf-opsawg-pcapng](https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/), little-endian.
//!
//! A capture can be read again block by block, and written anew with comments on its packets and entries of
//! a journal between them.
//!
//! What always holds:
//! - each block goes to the output in a single `write_all`, so an output that keeps or drops whole
//!   writes never holds half a block;
//! - every interface has the same link type and snap length, and there is one from the start, because
//!   libpcap (hence tcpdump) refuses a file without interfaces or with differing ones;
//! - times are nanoseconds of the wall clock.

mod block;
mod checksum;
mod read;
mod rewrite;
mod segment;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    io::{self, Write},
};

use block::{Block, Kind};

use crate::event::{BootInstant, Packet, Source, SourceKind};

pub use read::{Block as CapturedBlock, Blocks, CapturedPacket, Content, Entry};
pub use rewrite::Rewriter;
pub use segment::Segment;

/// Most bytes kept of a packet: tcpdump's own bound, and the same for every interface.
pub const SNAP_LENGTH: u32 = 262_144;

/// The link type of packets that begin at their IP header, either version
/// ([`LINKTYPE_RAW`](https://www.tcpdump.org/linktypes.html)).
const LINKTYPE_RAW: u16 = 101;

/// The loopback device's index in every network namespace (`LOOPBACK_IFINDEX` in the kernel's `net/flow.h`).
const LOOPBACK: u32 = 1;

/// Option codes; they mean different things in different blocks.
mod option {
    /// In every block: text for people.
    pub(super) const COMMENT: u16 = 1;
    /// Section header.
    pub(super) const SHB_HARDWARE: u16 = 2;
    pub(super) const SHB_OS: u16 = 3;
    pub(super) const SHB_USERAPPL: u16 = 4;
    /// Interface description.
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    /// Enhanced packet.
    pub(super) const EPB_FLAGS: u16 = 2;
    /// Interface statistics.
    pub(super) const ISB_STARTTIME: u16 = 2;
    pub(super) const ISB_ENDTIME: u16 = 3;
    pub(super) const ISB_IFRECV: u16 = 4;
    pub(super) const ISB_IFDROP: u16 = 5;
    pub(super) const ISB_OSDROP: u16 = 7;
    pub(super) const ISB_USRDELIV: u16 = 8;
}

/// Bits of `epb_flags`.
mod flag {
    pub(super) const INBOUND: u32 = 0b01;
    pub(super) const OUTBOUND: u32 = 0b10;
    /// The network card was to fill the checksum in.
    pub(super) const CHECKSUM_NOT_READY: u32 = 1 << 9;
}

/// Writes one capture, packet by packet.
///
/// It does not buffer: give it an output that does.
pub struct Writer<W: Write> {
    output: W,
    block: Block,
    /// Wall clock minus boot clock, in nanoseconds.
    wall_minus_boot: i128,
    started: BootInstant,
    interfaces: Interfaces,
    packets: u64,
}

/// The interfaces told so far.
#[derive(Default)]
struct Interfaces {
    /// From the kernel's index to the place in `packets`, which is the number that blocks refer to.
    numbers: HashMap<u32, u32>,
    /// Packets written, by number.
    packets: Vec<u64>,
}

impl<W: Write> Writer<W> {
    /// Begins a capture on `output`; `source` tells the host and joins the clocks.
    ///
    /// # Errors
    ///
    /// What `output` says.
    pub fn new(output: W, source: &Source) -> io::Result<Self> {
        let mut writer = Self {
            output,
            block: Block::default(),
            wall_minus_boot: source.started_wall.as_nanosecond() - i128::from(source.started.0),
            started: source.started,
            interfaces: Interfaces::default(),
            packets: 0,
        };
        writer.section_header(source)?;
        writer.declare(LOOPBACK, "lo")?;
        Ok(writer)
    }

    /// Whether packets of the interface with this index may refer to it by a name.
    #[must_use]
    pub fn knows(&self, index: u32) -> bool {
        self.interfaces.numbers.contains_key(&index)
    }

    /// Names the interface with this index; the first name stays.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn declare(&mut self, index: u32, name: &str) -> io::Result<()> {
        if self.knows(index) {
            return Ok(());
        }
        self.block
            .begin(Kind::InterfaceDescription)
            .u16(LINKTYPE_RAW)
            .u16(0)
            .u32(SNAP_LENGTH)
            .text(option::IF_NAME, name)
            .text(option::IF_DESCRIPTION, &format!("interface index {index}"))
            .option(option::IF_TSRESOL, &[9])
            .end_of_options();
        self.output.write_all(self.block.seal())?;
        let number = u32::try_from(self.interfaces.packets.len()).map_err(io::Error::other)?;
        self.interfaces.numbers.insert(index, number);
        self.interfaces.packets.push(0);
        Ok(())
    }

    /// Writes one packet and returns its number, counted from 1 as Wireshark does (`frame.number`).
    ///
    /// An interface that nobody named is called `if` and its index.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn packet(&mut self, packet: &Packet) -> io::Result<u64> {
        let interface = self.interface(packet.interface)?;
        let at = upper_word_first(self.wall(packet.at));
        let snapped = packet
            .bytes
            .get(..SNAP_LENGTH as usize)
            .unwrap_or(&packet.bytes);
        let captured = u32::try_from(snapped.len()).unwrap_or(SNAP_LENGTH);
        self.block
            .begin(Kind::EnhancedPacket)
            .u32(interface)
            .u64(at)
            .u32(captured)
            .u32(packet.wire_length.max(captured))
            .padded(snapped)
            .option(option::EPB_FLAGS, &flags(packet).to_le_bytes())
            .end_of_options();
        self.output.write_all(self.block.seal())?;
        if let Some(count) = self.interfaces.packets.get_mut(interface as usize) {
            *count += 1;
        }
        self.packets += 1;
        Ok(self.packets)
    }

    /// How many packets were written.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The output, for example to flush it.
    pub fn output_mut(&mut self) -> &mut W {
        &mut self.output
    }

    /// The output, with the capture left as it stands: readable, but without statistics.
    pub fn into_output(self) -> W {
        self.output
    }

    /// Ends the capture with the statistics of each interface; `lost` packets were captured by the
    /// kernel but never reached this writer.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn finish(&mut self, ended: BootInstant, lost: u64) -> io::Result<()> {
        let started = upper_word_first(self.wall(self.started));
        let ended = upper_word_first(self.wall(ended));
        for (number, packets) in (0_u32..).zip(&self.interfaces.packets) {
            // Losses are counted for the ring that all interfaces share, and stand where any capture
            // has at least one interface.
            let lost = if number == 0 { lost } else { 0 };
            let received = packets.saturating_add(lost);
            self.block
                .begin(Kind::InterfaceStatistics)
                .u32(number)
                .u64(ended)
                .option(option::ISB_STARTTIME, &started.to_le_bytes())
                .option(option::ISB_ENDTIME, &ended.to_le_bytes())
                .option(option::ISB_IFRECV, &received.to_le_bytes())
                .option(option::ISB_USRDELIV, &packets.to_le_bytes());
            if number == 0 {
                self.block
                    // Which of the two a tool shows differs (Wireshark: the first, as dumpcap writes it).
                    .option(option::ISB_IFDROP, &lost.to_le_bytes())
                    .option(option::ISB_OSDROP, &lost.to_le_bytes())
                    .text(
                        option::COMMENT,
                        "drops are of all interfaces together, and both counts tell the same packets",
                    );
            }
            self.block.end_of_options();
            self.output.write_all(self.block.seal())?;
        }
        Ok(())
    }

    fn section_header(&mut self, source: &Source) -> io::Result<()> {
        const BYTE_ORDER: u32 = 0x1A2B_3C4D;
        const LENGTH_UNKNOWN: u64 = u64::MAX;
        self.block
            .begin(Kind::SectionHeader)
            .u32(BYTE_ORDER)
            .u16(1)
            .u16(0)
            .u64(LENGTH_UNKNOWN);
        // Only a live capture is written on the machine that it is of.
        if source.kind == SourceKind::Live {
            self.block
                .text(option::SHB_HARDWARE, std::env::consts::ARCH);
        }
        self.block
            .text(
                option::SHB_OS,
                &format!("Linux {} on {}", source.kernel, source.host),
            )
            .text(
                option::SHB_USERAPPL,
                concat!("gopulse ", env!("CARGO_PKG_VERSION")),
            )
            .end_of_options();
        self.output.write_all(self.block.seal())
    }

    fn interface(&mut self, index: u32) -> io::Result<u32> {
        if let Some(number) = self.interfaces.numbers.get(&index) {
            return Ok(*number);
        }
        self.declare(index, &format!("if{index}"))?;
        Ok(self
            .interfaces
            .numbers
            .get(&index)
            .copied()
            .unwrap_or_default())
    }

    /// Nanoseconds since 1970.
    fn wall(&self, at: BootInstant) -> u64 {
        u64::try_from(i128::from(at.0) + self.wall_minus_boot).unwrap_or_default()
    }
}

fn flags(packet: &Packet) -> u32 {
    if !packet.outgoing {
        return flag::INBOUND;
    }
    if checksum::is_unfinished(&packet.bytes, packet.wire_length) {
        flag::OUTBOUND | flag::CHECKSUM_NOT_READY
    } else {
        flag::OUTBOUND
    }
}

/// A timestamp as blocks hold it: two words, the upper one first whatever the byte order.
fn upper_word_first(nanoseconds: u64) -> u64 {
    nanoseconds.rotate_left(32)
}
