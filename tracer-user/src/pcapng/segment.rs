//! The TCP segment in a packet that begins at its IP header.
//!
//! In: bytes, of which there may be too few. Out: whose segment it is and what it does to the connection;
//! nothing for whatever is not plain TCP.

use std::net::{IpAddr, SocketAddr};

pub(super) const TCP: u8 = 6;
pub(super) const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;

/// Bits of the flags (RFC 9293, section 3.1).
mod bit {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
}

/// What of a segment tells one packet of a connection from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Bytes of payload that it carried.
    pub payload: u32,
    flags: u8,
}

impl Segment {
    /// Reads the headers in `packet`; `wire_length` is that of the whole IP packet, in bytes.
    #[must_use]
    pub fn of(packet: &[u8], wire_length: u32) -> Option<Self> {
        let place = Place::of(packet)?;
        let tcp = packet.get(place.offset..)?.first_chunk::<14>()?;
        let [s0, s1, d0, d1, .., offset, flags] = *tcp;
        let (source, destination) = place
            .addresses
            .split_at_checked(place.addresses.len() / 2)?;
        let headers = place.offset + usize::from(offset >> 4) * 4;
        Some(Self {
            source: SocketAddr::new(address(source)?, u16::from_be_bytes([s0, s1])),
            destination: SocketAddr::new(address(destination)?, u16::from_be_bytes([d0, d1])),
            payload: wire_length.saturating_sub(u32::try_from(headers).ok()?),
            flags,
        })
    }

    /// It opens one direction of a connection.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.flags & bit::SYN != 0
    }

    /// Its sender leaves: FIN or RST.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.flags & (bit::FIN | bit::RST) != 0
    }

    /// It breaks the connection off.
    #[must_use]
    pub fn resets(&self) -> bool {
        self.flags & bit::RST != 0
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(sixteen).to_canonical())
}

/// Where TCP begins in a packet, and the addresses its pseudo-header is made of.
pub(super) struct Place<'a> {
    /// Source and destination.
    pub(super) addresses: &'a [u8],
    pub(super) offset: usize,
}

impl<'a> Place<'a> {
    pub(super) fn of(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::in_ipv4(packet),
            6 => Self::in_ipv6(packet),
            _ => None,
        }
    }

    fn in_ipv4(packet: &'a [u8]) -> Option<Self> {
        /// Fragment offset and "more fragments".
        const FRAGMENT: u16 = 0x3fff;
        let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?);
        if *packet.get(9)? != TCP || fragment & FRAGMENT != 0 {
            return None;
        }
        Some(Self {
            addresses: packet.get(12..20)?,
            offset: usize::from(packet.first()? & 0x0f) * 4,
        })
    }

    /// A routing header is not followed: the final destination, which the sum is made of, stands in it.
    fn in_ipv6(packet: &'a [u8]) -> Option<Self> {
        let mut next = *packet.get(6)?;
        let mut offset = 40;
        while next == HOP_BY_HOP || next == DESTINATION_OPTIONS {
            let &[following, eights] = packet.get(offset..)?.first_chunk::<2>()?;
            next = following;
            offset += (usize::from(eights) + 1) * 8;
        }
        (next == TCP).then_some(Self {
            addresses: packet.get(8..40)?,
            offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three bytes of data as loopback carried them (Linux 6.18).
    const DATA: &str = "4500003745bf40004006f6ff7f0000017f000001929cbac3b59dba0367961ffc\
        80180040fe2b00000101080a95e40e8963694eac68690a";

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn headers_alone_tell_the_ends_and_how_much_was_carried() {
        let packet = bytes(DATA);
        let segment = Segment::of(&packet[..52], 55).unwrap();
        assert_eq!(segment.source.to_string(), "127.0.0.1:37532");
        assert_eq!(segment.destination.to_string(), "127.0.0.1:47811");
        assert_eq!(segment.payload, 3);
        assert!(!segment.opens() && !segment.leaves() && !segment.resets());
    }

    #[test]
    fn a_mapped_address_is_told_as_ipv4_as_the_sockets_are() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
        for _ in 0..2 {
            packet.extend(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        }
        packet.extend([0, 80, 0, 90, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x04, 0, 0]);
        let segment = Segment::of(&packet, 60).unwrap();
        assert_eq!(segment.source.to_string(), "127.0.0.1:80");
        assert!(segment.resets() && segment.leaves());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_get_an_answer(packet: Vec<u8>, wire_length: u32) {
            let _ = Segment::of(&packet, wire_length);
        }
    }
}
