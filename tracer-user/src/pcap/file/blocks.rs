//! The newer format: blocks
//! ([draft-ietf-opsawg-pcapng](https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/)).
//!
//! Read are sections in either byte order, interfaces with their link type, clock and losses, and the
//! three kinds of packets. All other blocks are passed over; those that Wireshark shows as a row
//! among the packets are counted as it counts them.

use super::{About, Item, LONGEST, Step};

mod kind {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OLD_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const STATISTICS: u32 = 5;
    pub(super) const PACKET: u32 = 6;
    /// A line of systemd's journal; Sysdig's events, in three versions; custom blocks, of both kinds.
    pub(super) const ROWS: [u32; 6] = [9, 0x204, 0x208, 0x221, 0xbad, 0x4000_0bad];
}

mod option {
    pub(super) const TIME_RESOLUTION: u16 = 9;
    pub(super) const TIME_OFFSET: u16 = 14;
    pub(super) const PACKET_FLAGS: u16 = 2;
    pub(super) const INTERFACE_DROPPED: u16 = 5;
    pub(super) const SYSTEM_DROPPED: u16 = 7;
}

const BIG: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
const LITTLE: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];

/// Type and length before a block's body, and its length again behind.
const AROUND: usize = 12;

/// Interfaces of one section; more are nonsense.
const INTERFACES: usize = 1 << 16;

/// A capture in blocks.
#[derive(Default)]
pub(super) struct Blocks {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Interfaces of the sections before, so that a place is never taken for another one.
    before: u32,
    /// What the interfaces of the sections before dropped.
    dropped: u64,
    /// The time of the last packet, for those that have none.
    last: u64,
}

struct Interface {
    link: u16,
    snap: u32,
    clock: Clock,
    dropped: u64,
}

/// How an interface tells time.
#[derive(Clone, Copy)]
struct Clock {
    /// Nanoseconds in a unit, where that is a whole number.
    whole: Option<u64>,
    /// Units in a second.
    per_second: u128,
    /// Seconds to add.
    offset: i64,
}

impl Clock {
    /// Microseconds, which is what an interface without `if_tsresol` means.
    const DEFAULT: Self = Self {
        whole: Some(1_000),
        per_second: 1_000_000,
        offset: 0,
    };

    /// `if_tsresol`: a power of ten, or with the highest bit of two.
    fn set_resolution(&mut self, resolution: u8) {
        let exponent = u32::from(resolution & 0x7f);
        let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
        self.per_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
        let divides = 1_000_000_000_u128.checked_rem(self.per_second) == Some(0);
        let whole = 1_000_000_000_u128.checked_div(self.per_second);
        self.whole = whole
            .filter(|_| divides)
            .and_then(|whole| u64::try_from(whole).ok());
    }

    #[inline]
    fn nanoseconds(&self, units: u64) -> u64 {
        let since = match self.whole {
            Some(whole) => units.saturating_mul(whole),
            None => u128::from(units)
                .saturating_mul(1_000_000_000)
                .checked_div(self.per_second)
                .and_then(|since| u64::try_from(since).ok())
                .unwrap_or(u64::MAX),
        };
        if self.offset == 0 {
            return since;
        }
        since.saturating_add_signed(self.offset.saturating_mul(1_000_000_000))
    }
}

impl Blocks {
    /// The file begins with a section.
    pub(super) fn begin(bytes: &[u8]) -> bool {
        bytes.first_chunk::<4>() == Some(&kind::SECTION.to_be_bytes())
            && matches!(bytes.get(8..12), Some(magic) if magic == BIG || magic == LITTLE)
    }

    pub(super) fn dropped(&self) -> u64 {
        let of_section: u64 = self.interfaces.iter().map(|i| i.dropped).sum();
        self.dropped.saturating_add(of_section)
    }

    #[inline]
    fn word(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk::<4>()?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    #[inline]
    fn half(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    fn long(&self, bytes: &[u8]) -> Option<u64> {
        let bytes = *bytes.first_chunk::<8>()?;
        Some(if self.big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }

    #[inline]
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        let Some(first) = bytes.first_chunk::<AROUND>() else {
            return Step::Wants(AROUND);
        };
        if first.starts_with(&kind::SECTION.to_be_bytes()) {
            // Which way round its length is to be read, the section itself says.
            match first.last_chunk::<4>() {
                Some(&BIG) => self.big_endian = true,
                Some(&LITTLE) => self.big_endian = false,
                _ => return Step::Damaged("a section of neither byte order".to_owned()),
            }
        }
        let (Some(kind), Some(length)) = (self.word(bytes, 0), self.word(bytes, 4)) else {
            return Step::Wants(AROUND);
        };
        // The draft wants multiples of four; some writers forget to say the padding they write.
        let length = (length as usize).next_multiple_of(4);
        if !(AROUND..=LONGEST).contains(&length) {
            return Step::Damaged(format!(
                "a block of type 0x{kind:x} that says it has {length} bytes"
            ));
        }
        let Some(block) = bytes.get(..length) else {
            return Step::Wants(length);
        };
        let body = block.get(8..length - 4).unwrap_or_default();
        match self.block(kind, body) {
            Some(item) => Step::Took(length, item),
            None => Step::Damaged(format!(
                "a block of type 0x{kind:x} whose {length} bytes do not fit together"
            )),
        }
    }

    /// What a block is; `None` where it contradicts itself.
    #[inline]
    fn block(&mut self, kind: u32, body: &[u8]) -> Option<Item> {
        Some(match kind {
            kind::PACKET => {
                let interface = self.word(body, 0)?;
                let (high, low) = (self.word(body, 4)?, self.word(body, 8)?);
                let (captured, length) = (self.word(body, 12)?, self.word(body, 16)?);
                let captured = captured as usize;
                let options = body.get(20..)?.get(captured.checked_next_multiple_of(4)?..);
                body.get(20..)?.get(..captured)?;
                let direction = match options {
                    Some(options) if !options.is_empty() => self.direction(options),
                    _ => 0,
                };
                Item::Packet(self.packet(
                    interface,
                    direction,
                    (high, low),
                    20,
                    captured,
                    length,
                )?)
            }
            kind::OLD_PACKET => {
                let interface = u32::from(self.half(body, 0)?);
                let (high, low) = (self.word(body, 4)?, self.word(body, 8)?);
                let (captured, length) = (self.word(body, 12)? as usize, self.word(body, 16)?);
                body.get(20..)?.get(..captured)?;
                Item::Packet(self.packet(interface, 0, (high, low), 20, captured, length)?)
            }
            kind::SIMPLE_PACKET => {
                let length = self.word(body, 0)?;
                let interface = self.interfaces.first()?;
                let room = body.len() - 4;
                let snap = match interface.snap {
                    0 => room,
                    snap => snap as usize,
                };
                let captured = (length as usize).min(snap).min(room);
                Item::Packet(About {
                    at: self.last,
                    link: interface.link,
                    place: super::place(self.before, 0),
                    length: length.max(captured as u32),
                    from: 12,
                    captured,
                })
            }
            kind::INTERFACE => {
                self.interface(body)?;
                Item::Other
            }
            kind::STATISTICS => {
                self.statistics(body);
                Item::Other
            }
            kind::SECTION => {
                self.dropped = self.dropped();
                self.before = self.before.wrapping_add(self.interfaces.len() as u32);
                self.interfaces.clear();
                Item::Other
            }
            row if kind::ROWS.contains(&row) => Item::Row,
            _ => Item::Other,
        })
    }

    #[inline]
    fn packet(
        &mut self,
        interface: u32,
        direction: u32,
        (high, low): (u32, u32),
        from: usize,
        captured: usize,
        length: u32,
    ) -> Option<About> {
        let told = self.interfaces.get(interface as usize)?;
        self.last = told
            .clock
            .nanoseconds(u64::from(high) << 32 | u64::from(low));
        Some(About {
            at: self.last,
            link: told.link,
            place: super::place(self.before.wrapping_add(interface), direction),
            length: length.max(captured as u32),
            from: 8 + from,
            captured,
        })
    }

    fn interface(&mut self, body: &[u8]) -> Option<()> {
        let mut interface = Interface {
            link: self.half(body, 0)?,
            snap: self.word(body, 4)?,
            clock: Clock::DEFAULT,
            dropped: 0,
        };
        self.each_option(body.get(8..)?, |code, value| match (code, value) {
            (option::TIME_RESOLUTION, [resolution, ..]) => {
                interface.clock.set_resolution(*resolution);
            }
            (option::TIME_OFFSET, value) => {
                let seconds = self.long(value).unwrap_or_default();
                interface.clock.offset = seconds.cast_signed();
            }
            _ => {}
        });
        if self.interfaces.len() < INTERFACES {
            self.interfaces.push(interface);
        }
        Some(())
    }

    /// What an interface dropped; told again, it is the sum so far.
    fn statistics(&mut self, body: &[u8]) {
        let (Some(interface), Some(options)) = (self.word(body, 0), body.get(12..)) else {
            return;
        };
        let mut dropped = 0_u64;
        self.each_option(options, |code, value| {
            if matches!(code, option::INTERFACE_DROPPED | option::SYSTEM_DROPPED) {
                dropped = dropped.saturating_add(self.long(value).unwrap_or_default());
            }
        });
        if let Some(known) = self.interfaces.get_mut(interface as usize) {
            known.dropped = known.dropped.max(dropped);
        }
    }

    /// 1 for a packet that came in, 2 for one that went out, 0 where that is not told.
    fn direction(&self, options: &[u8]) -> u32 {
        let mut direction = 0;
        self.each_option(options, |code, value| {
            if let (option::PACKET_FLAGS, Some(flags)) = (code, self.word(value, 0)) {
                direction = flags & 0b11;
            }
        });
        direction
    }

    fn each_option(&self, mut options: &[u8], mut each: impl FnMut(u16, &[u8])) {
        while let (Some(code), Some(length)) = (self.half(options, 0), self.half(options, 2)) {
            let length = usize::from(length);
            let Some(value) = options.get(4..4 + length) else {
                return;
            };
            if code == 0 {
                return;
            }
            each(code, value);
            options = options
                .get(4 + length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }
}
