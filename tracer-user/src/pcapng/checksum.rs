//! Whether the kernel left a packet's TCP checksum to the network card.
//!
//! In: a packet from its IP header on. Out: yes or no; no for whatever is not plain TCP.
//!
//! An outgoing packet with `CHECKSUM_PARTIAL` carries only the folded, not complemented sum of the
//! pseudo-header (`tcp_v4_send_check` in `net/ipv4/tcp_ipv4.c`), which the headers alone are enough to
//! compute. On loopback nobody ever completes it. A finished checksum looks the same by chance once in
//! 65,536 packets; the flag then only tells Wireshark not to judge it.

use super::segment::{Place, TCP};

/// Whether the checksum field of the TCP segment in `packet` holds the pseudo-header's sum only;
/// `wire_length` is that of the whole IP packet, in bytes.
///
/// The length is taken from the kernel's count and not from the header, which has no room for it in
/// packets of 64 KiB and more (BIG TCP).
pub(super) fn is_unfinished(packet: &[u8], wire_length: u32) -> bool {
    unfinished(packet, wire_length).unwrap_or(false)
}

fn unfinished(packet: &[u8], wire_length: u32) -> Option<bool> {
    let place = Place::of(packet)?;
    let length = wire_length.checked_sub(u32::try_from(place.offset).ok()?)?;
    let found = packet.get(place.offset + 16..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*found) == pseudo_header_sum(place.addresses, length))
}

/// The ones' complement sum of addresses, protocol and length (RFC 9293, section 3.1; RFC 8200, section 8.1).
fn pseudo_header_sum(addresses: &[u8], length: u32) -> u16 {
    let words = addresses.as_chunks::<2>().0.iter();
    let mut sum = words
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum::<u32>();
    sum += u32::from(TCP) + (length >> 16) + (length & 0xffff);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::segment::HOP_BY_HOP, *};

    /// A SYN and three bytes of data as loopback carried them (Linux 6.18); nobody completed their checksums.
    const SYN_V4: &str = "4500003c45bd40004006f6fc7f0000017f000001929cbac3b59dba0200000000\
        a002ffd7fe3000000204ffd70402080a95e40e89000000000103030a";
    const DATA_V4: &str = "4500003745bf40004006f6ff7f0000017f000001929cbac3b59dba0367961ffc\
        80180040fe2b00000101080a95e40e8963694eac68690a";
    const SYN_V6: &str = "600f37c1002806400000000000000000000000000000000100000000000000000000000000000001\
        dc8abac3b6429e2b00000000a002ffc4003000000204ffc40402080ace6d38e2000000000103030a";
    const DATA_V6: &str = "600f37c1002306400000000000000000000000000000000100000000000000000000000000000001\
        dc8abac3b6429e2c6b3850cf80180040002b00000101080ace6d38e3195792c668690a";

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn length(packet: &[u8]) -> u32 {
        packet.len().try_into().unwrap()
    }

    /// What a network card does: adds the segment to the sum that the kernel left, and complements it.
    fn finished(mut packet: Vec<u8>, offset: usize) -> Vec<u8> {
        let mut segment = packet[offset..].to_vec();
        segment.resize(segment.len().next_multiple_of(2), 0);
        let mut sum: u32 = segment
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        let checksum = !u16::try_from(sum).unwrap();
        packet[offset + 16..offset + 18].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    #[test]
    fn a_packet_of_loopback_has_no_finished_checksum() {
        for packet in [SYN_V4, DATA_V4, SYN_V6, DATA_V6].map(bytes) {
            assert!(is_unfinished(&packet, length(&packet)), "{packet:02x?}");
        }
    }

    #[test]
    fn headers_alone_are_enough_when_the_length_on_the_wire_is_known() {
        let packet = bytes(DATA_V4);
        assert!(is_unfinished(&packet[..40], length(&packet)));
        assert!(
            !is_unfinished(&packet[..40], 40),
            "another length sums differently"
        );
    }

    #[test]
    fn a_checksum_that_the_card_completed_is_finished() {
        for (packet, offset) in [(SYN_V4, 20), (DATA_V4, 20), (SYN_V6, 40), (DATA_V6, 40)] {
            let packet = finished(bytes(packet), offset);
            assert!(!is_unfinished(&packet, length(&packet)), "{packet:02x?}");
        }
    }

    #[test]
    fn an_extension_header_before_tcp_is_skipped() {
        let mut packet = bytes(SYN_V6);
        packet[6] = HOP_BY_HOP;
        packet.splice(40..40, [TCP, 0, 1, 4, 0, 0, 0, 0]);
        assert!(is_unfinished(&packet, length(&packet)));
    }

    #[test]
    fn a_segment_longer_than_its_header_can_tell_is_summed_over_its_true_length() {
        let mut packet = bytes(SYN_V4)[..40].to_vec();
        packet[2..4].fill(0);
        let length = 20 + 0x1_2345;
        // 127.0.0.1 twice, TCP, and both halves of the length.
        let sum: u32 = 0xfe02 + 6 + 1 + 0x2345;
        let folded = u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
        packet[36..38].copy_from_slice(&folded.to_be_bytes());
        assert!(is_unfinished(&packet, length));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_get_an_answer(packet: Vec<u8>, wire_length: u32) {
            is_unfinished(&packet, wire_length);
        }
    }
}
