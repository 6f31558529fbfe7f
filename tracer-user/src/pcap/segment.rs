//! A TCP segment from the bytes of a packet.
//!
//! In: a packet as the link gave it, maybe cut by the capture's snap length. Out: what of its headers
//! the tracker needs, and as much of the payload as was kept. Lengths come from the IP header, so a cut
//! packet counts in full. Of a fragmented packet only the first fragment has a TCP header, and counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::file::Packet;

/// TCP's flags (RFC 9293 section 3.1).
pub mod flag {
    /// The sender has nothing more to send.
    pub const FIN: u8 = 0x01;
    /// The sender's first sequence number.
    pub const SYN: u8 = 0x02;
    /// The connection is over at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Link types (<https://www.tcpdump.org/linktypes.html>).
mod link {
    pub(super) const NULL: u16 = 0;
    pub(super) const ETHERNET: u16 = 1;
    /// Raw IP, under the numbers that BSDs gave it (`DLT_RAW`) and its official one.
    pub(super) const RAW: [u16; 3] = [12, 14, 101];
    pub(super) const LOOP: u16 = 108;
    pub(super) const COOKED: u16 = 113;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    pub(super) const COOKED_2: u16 = 276;
}

/// Tags of VLANs (802.1Q, 802.1ad, and two that came before it) looked through for what they carry.
const TAGS: usize = 4;

/// IPv6 extension headers looked through for TCP.
const EXTENSIONS: usize = 8;

const TCP: u8 = 6;

/// Both ends of a connection, in an order that is the same for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Addresses; IPv4 ones as IPv4-mapped.
    low: (u128, u16),
    high: (u128, u16),
}

impl Key {
    /// All of it, for hashing. Only the lower halves of IPv4 addresses differ.
    #[inline]
    pub(super) fn words(&self) -> [u64; 5] {
        let (low, high) = (self.low.0, self.high.0);
        [
            low as u64,
            (low >> 64) as u64,
            high as u64,
            (high >> 64) as u64,
            u64::from(self.low.1) << 16 | u64::from(self.high.1),
        ]
    }

    /// The two ends, the one of direction 0 first.
    #[must_use]
    pub fn ends(&self) -> [SocketAddr; 2] {
        [self.low, self.high].map(|(address, port)| {
            let address = IpAddr::V6(Ipv6Addr::from_bits(address)).to_canonical();
            SocketAddr::new(address, port)
        })
    }
}

/// One TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'b> {
    /// When, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Its number in the file, from 1.
    pub frame: u64,
    /// Where it was caught.
    pub place: u32,
    /// Its connection.
    pub key: Key,
    /// Which of the key's ends sent it.
    pub from_high: bool,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`flag`]s.
    pub flags: u8,
    /// The window as the header has it, not scaled.
    pub window: u16,
    /// TCP's checksum.
    pub checksum: u16,
    /// Payload bytes that it carried.
    pub length: u32,
    /// As many of these as the capture kept.
    pub payload: &'b [u8],
    /// IPv4's identification; 0 for IPv6.
    pub id: u16,
    /// TCP's options, as many as were kept.
    pub options: &'b [u8],
}

impl Segment<'_> {
    /// Whether any of these flags is set.
    #[inline]
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// How much of the sequence it takes: its payload, and one for SYN and FIN each.
    #[inline]
    #[must_use]
    pub fn span(&self) -> u32 {
        self.length + u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN))
    }

    /// The window's scale that a SYN offers (RFC 7323 section 2).
    #[must_use]
    pub fn window_scale(&self) -> Option<u8> {
        let mut options = self.options;
        loop {
            match options {
                [3, 3, scale, ..] => return Some((*scale).min(14)),
                [] | [0, ..] => return None,
                [1, rest @ ..] => options = rest,
                [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
                [_] => return None,
            }
        }
    }
}

/// Why a packet gave no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its link type is not known here.
    Link(u16),
    /// It is not TCP over IP.
    OtherProtocol,
    /// A fragment without a TCP header.
    Fragment,
    /// The capture kept too little of it.
    Cut,
    /// Its headers contradict each other.
    Malformed,
}

/// The TCP segment that `packet` carries.
///
/// # Errors
///
/// It carries none, or too little of one.
#[inline]
pub fn decode<'b>(packet: &Packet<'b>) -> Result<Segment<'b>, Skip> {
    let (ip, place) = network(packet)?;
    let headers = packet.bytes.len() - ip.len();
    let on_wire = (packet.length as usize).saturating_sub(headers);
    let first = *ip.first().ok_or(Skip::Cut)?;
    let (source, destination, id, carried) = match first >> 4 {
        4 => version_4(ip, on_wire)?,
        6 => version_6(ip, on_wire)?,
        _ => return Err(Skip::OtherProtocol),
    };
    let header = carried.bytes.first_chunk::<20>().ok_or(Skip::Cut)?;
    let [
        s1,
        s2,
        d1,
        d2,
        q1,
        q2,
        q3,
        q4,
        a1,
        a2,
        a3,
        a4,
        offset,
        flags,
        w1,
        w2,
        c1,
        c2,
        _,
        _,
    ] = *header;
    let data = usize::from(offset >> 4) * 4;
    if data < 20 || data > carried.length {
        return Err(Skip::Malformed);
    }
    let length = carried.length - data;
    let rest = carried.bytes.get(data..).unwrap_or_default();
    let one = (source, u16::from_be_bytes([s1, s2]));
    let other = (destination, u16::from_be_bytes([d1, d2]));
    let from_high = one > other;
    Ok(Segment {
        at: packet.at,
        frame: packet.frame,
        place,
        key: if from_high {
            Key {
                low: other,
                high: one,
            }
        } else {
            Key {
                low: one,
                high: other,
            }
        },
        from_high,
        seq: u32::from_be_bytes([q1, q2, q3, q4]),
        ack: u32::from_be_bytes([a1, a2, a3, a4]),
        flags,
        window: u16::from_be_bytes([w1, w2]),
        checksum: u16::from_be_bytes([c1, c2]),
        length: length as u32,
        payload: rest.get(..length.min(rest.len())).unwrap_or_default(),
        id,
        options: carried
            .bytes
            .get(20..data.min(carried.bytes.len()))
            .unwrap_or_default(),
    })
}

/// What lies behind the link's header, and the place of the packet, which cooked links tell.
#[inline]
fn network<'b>(packet: &Packet<'b>) -> Result<(&'b [u8], u32), Skip> {
    let bytes = packet.bytes;
    let from = |place: usize| bytes.get(place..).ok_or(Skip::Cut);
    match packet.link {
        link::ETHERNET => {
            let kind = half(bytes, 12).ok_or(Skip::Cut)?;
            Ok((ether(kind, from(14)?)?, packet.place))
        }
        link::COOKED => {
            let direction = half(bytes, 0).ok_or(Skip::Cut)?;
            let kind = half(bytes, 14).ok_or(Skip::Cut)?;
            let place = packet.place.rotate_left(8) ^ (u32::from(direction) << 1 | 1);
            Ok((ether(kind, from(16)?)?, place))
        }
        link::COOKED_2 => {
            let header = bytes.first_chunk::<20>().ok_or(Skip::Cut)?;
            let [k1, k2, _, _, i1, i2, i3, i4, _, _, direction, ..] = *header;
            let interface = u32::from_be_bytes([i1, i2, i3, i4]);
            let place = interface.rotate_left(8) ^ (u32::from(direction) << 1 | 1);
            Ok((ether(u16::from_be_bytes([k1, k2]), from(20)?)?, place))
        }
        // An address family comes first, whose number differs between systems; the IP version says it too.
        link::NULL | link::LOOP => Ok((from(4)?, packet.place)),
        raw if link::RAW.contains(&raw) || raw == link::IPV4 || raw == link::IPV6 => {
            Ok((bytes, packet.place))
        }
        other => Err(Skip::Link(other)),
    }
}

/// What an Ethernet type of IP carries, behind whatever VLAN tags.
#[inline]
fn ether(mut kind: u16, mut bytes: &[u8]) -> Result<&[u8], Skip> {
    for _ in 0..=TAGS {
        match kind {
            0x0800 | 0x86dd => return Ok(bytes),
            0x8100 | 0x88a8 | 0x9100 | 0x9200 => {
                kind = half(bytes, 2).ok_or(Skip::Cut)?;
                bytes = bytes.get(4..).ok_or(Skip::Cut)?;
            }
            _ => return Err(Skip::OtherProtocol),
        }
    }
    Err(Skip::OtherProtocol)
}

/// What an IP header carries.
#[derive(Clone, Copy)]
struct Carried<'b> {
    /// As much of it as was kept.
    bytes: &'b [u8],
    /// How long it was.
    length: usize,
}

type Headers<'b> = (u128, u128, u16, Carried<'b>);

#[inline]
fn version_4(ip: &[u8], on_wire: usize) -> Result<Headers<'_>, Skip> {
    let header = ip.first_chunk::<20>().ok_or(Skip::Cut)?;
    let [
        version,
        _,
        l1,
        l2,
        i1,
        i2,
        f1,
        f2,
        _,
        protocol,
        _,
        _,
        s1,
        s2,
        s3,
        s4,
        d1,
        d2,
        d3,
        d4,
    ] = *header;
    if protocol != TCP {
        return Err(Skip::OtherProtocol);
    }
    if u16::from_be_bytes([f1, f2]) & 0x1fff != 0 {
        return Err(Skip::Fragment);
    }
    let own = usize::from(version & 0x0f) * 4;
    let total = match usize::from(u16::from_be_bytes([l1, l2])) {
        // Left for the network card to fill in, which splits the packet (TSO).
        0 => on_wire,
        total => total,
    };
    if own < 20 || total < own {
        return Err(Skip::Malformed);
    }
    let bytes = ip.get(own..total.min(ip.len())).ok_or(Skip::Cut)?;
    let mapped = |a, b, c, d| Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().to_bits();
    Ok((
        mapped(s1, s2, s3, s4),
        mapped(d1, d2, d3, d4),
        u16::from_be_bytes([i1, i2]),
        Carried {
            bytes,
            length: total - own,
        },
    ))
}

fn version_6(ip: &[u8], on_wire: usize) -> Result<Headers<'_>, Skip> {
    const OWN: usize = 40;
    let header = ip.first_chunk::<OWN>().ok_or(Skip::Cut)?;
    let [_, _, _, _, l1, l2, next, _, addresses @ ..] = *header;
    let (source, destination) = addresses.split_at(16);
    let address = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u128::from_be_bytes(*bytes));
    let (Some(source), Some(destination)) = (address(source), address(destination)) else {
        return Err(Skip::Malformed);
    };
    let total = match usize::from(u16::from_be_bytes([l1, l2])) {
        // A packet beyond 64 KiB (BIG TCP), or left for the network card to fill in.
        0 => on_wire,
        payload => OWN + payload,
    };
    let (mut next, mut at) = (next, OWN);
    for _ in 0..=EXTENSIONS {
        if next == TCP {
            if total < at {
                return Err(Skip::Malformed);
            }
            let bytes = ip.get(at..total.min(ip.len())).ok_or(Skip::Cut)?;
            let carried = Carried {
                bytes,
                length: total - at,
            };
            return Ok((source, destination, 0, carried));
        }
        let extension = ip.get(at..).and_then(<[u8]>::first_chunk::<4>);
        let Some([following, length, high, low]) = extension else {
            return Err(Skip::Cut);
        };
        at += match next {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => (usize::from(*length) + 1) * 8,
            44 if u16::from_be_bytes([*high, *low]) & !0b111 != 0 => return Err(Skip::Fragment),
            44 => 8,
            // Authentication.
            51 => (usize::from(*length) + 2) * 4,
            _ => return Err(Skip::OtherProtocol),
        };
        next = *following;
    }
    Err(Skip::OtherProtocol)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
