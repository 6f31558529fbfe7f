//! The classic format: a header, then records
//! ([draft-ietf-opsawg-pcap](https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/)).
//!
//! Read are both byte orders, micro- and nanoseconds, and Alexey Kuznetzov's variant, whose records
//! also tell the interface and the direction.

use super::{About, Item, LONGEST, Step};

/// Length of the file's header.
pub(super) const HEADER: usize = 24;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const KUZNETZOV: u32 = 0xa1b2_cd34;

/// A capture in the classic format.
pub(super) struct Records {
    big_endian: bool,
    link: u16,
    /// Nanoseconds in a unit of the second part of a time.
    unit: u64,
    /// Length of a record's header.
    header: usize,
}

impl Records {
    /// From the file's first bytes; what they are instead, where they are none.
    pub(super) fn begin(bytes: &[u8]) -> Result<Self, String> {
        let Some(magic) = bytes.first_chunk::<4>() else {
            return Err(format!("it has only {} bytes", bytes.len()));
        };
        let known = |magic| [MICROSECONDS, NANOSECONDS, KUZNETZOV].contains(&magic);
        let (big_endian, magic) = match (u32::from_be_bytes(*magic), u32::from_le_bytes(*magic)) {
            (magic, _) if known(magic) => (true, magic),
            (_, magic) if known(magic) => (false, magic),
            (magic, _) => return Err(format!("it begins with 0x{magic:08x}")),
        };
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(format!(
                "it is cut in its header, after {} of {HEADER} bytes",
                bytes.len()
            ));
        };
        let [.., a, b, c, d] = *header;
        let mut records = Self {
            big_endian,
            link: 0,
            unit: if magic == NANOSECONDS { 1 } else { 1_000 },
            header: if magic == KUZNETZOV { 24 } else { 16 },
        };
        // The upper bits tell of a frame check sequence at the end of packets.
        records.link = (records.number([a, b, c, d]) & 0xffff) as u16;
        Ok(records)
    }

    #[inline]
    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    #[inline]
    pub(super) fn step(&self, bytes: &[u8]) -> Step {
        let (Some(header), true) = (bytes.first_chunk::<16>(), bytes.len() >= self.header) else {
            return Step::Wants(self.header);
        };
        let word = |n: usize| {
            let [a, b, c, d] =
                [n, n + 1, n + 2, n + 3].map(|n| header.get(n).copied().unwrap_or(0));
            self.number([a, b, c, d])
        };
        let (seconds, fraction) = (word(0), word(4));
        let (captured, length) = (word(8) as usize, word(12));
        if captured > LONGEST {
            return Step::Damaged(format!(
                "a packet of {captured} bytes, which no capture holds"
            ));
        }
        let whole = self.header + captured;
        if bytes.len() < whole {
            return Step::Wants(whole);
        }
        Step::Took(
            whole,
            Item::Packet(About {
                at: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit,
                link: self.link,
                place: self.place(bytes),
                length: length.max(captured as u32),
                from: self.header,
                captured,
            }),
        )
    }

    /// The interface and the direction, which only Kuznetzov's records tell.
    fn place(&self, bytes: &[u8]) -> u32 {
        match bytes.get(16..24) {
            Some(&[a, b, c, d, _, _, kind, _]) if self.header == 24 => {
                super::place(self.number([a, b, c, d]), u32::from(kind))
            }
            _ => 0,
        }
    }
}
