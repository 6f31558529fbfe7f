//! Link types, IP headers, and packets that were cut.

use super::{CLIENT, SERVER, ipv4, linked, raw, tcp};
use crate::pcap::{
    file::Packet,
    segment::{Skip, decode, flag},
};

const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

fn packet() -> Vec<u8> {
    ipv4(CLIENT, SERVER, (7, 9, flag::ACK, 500), 3, PAYLOAD)
}

#[test]
fn every_link_type_leads_to_the_same_segment() {
    let ip = packet();
    let wanted = raw(&ip).unwrap();
    assert_eq!((wanted.seq, wanted.ack, wanted.window), (7, 9, 500));
    assert_eq!(wanted.payload, PAYLOAD);
    let macs = [2; 12];
    let cooked = [
        [0, 4, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0].as_slice(),
        &[8, 0],
    ]
    .concat();
    let cooked_2 = [[8, 0, 0, 0, 0, 0, 0, 5, 0, 1, 4, 6].as_slice(), &[2; 8]].concat();
    for (link, header) in [
        (12, vec![]),
        (101, vec![]),
        (228, vec![]),
        (1, [&macs[..], &[8, 0]].concat()),
        (1, [&macs[..], &[0x81, 0, 0, 7, 8, 0]].concat()),
        (
            1,
            [&macs[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 0]].concat(),
        ),
        (0, vec![2, 0, 0, 0]),
        (108, vec![0, 0, 0, 2]),
        (113, cooked),
        (276, cooked_2),
    ] {
        let bytes = [&header[..], &ip].concat();
        let found = linked(link, &bytes).unwrap();
        assert_eq!(found.key, wanted.key, "link type {link}");
        assert_eq!(found.payload, PAYLOAD, "link type {link}");
    }
    assert_eq!(linked(127, &ip), Err(Skip::Link(127)));
    let arp = [&macs[..], &[8, 6], &[0; 28]].concat();
    assert_eq!(linked(1, &arp), Err(Skip::OtherProtocol));
}

#[test]
fn cooked_links_tell_where_a_packet_was_caught() {
    let place = |interface: u8, direction: u8| {
        let header = [
            8, 0, 0, 0, 0, 0, 0, interface, 0, 1, direction, 6, 2, 2, 2, 2, 2, 2, 0, 0,
        ];
        let bytes = [&header[..], &packet()].concat();
        linked(276, &bytes).unwrap().place
    };
    let places = [place(1, 0), place(1, 4), place(2, 0), place(2, 4)];
    for (number, one) in places.iter().enumerate() {
        assert!(!places[..number].contains(one), "{places:?}");
    }
}

#[test]
fn lengths_come_from_the_header_and_not_from_what_was_kept() {
    let ip = packet();
    let cut = Packet {
        at: 0,
        frame: 1,
        link: 101,
        place: 0,
        length: ip.len() as u32,
        bytes: &ip[..44],
    };
    let segment = decode(&cut).unwrap();
    assert_eq!(segment.length as usize, PAYLOAD.len());
    assert_eq!(segment.payload, &PAYLOAD[..4]);
    let less = Packet {
        bytes: &ip[..39],
        ..cut
    };
    assert_eq!(decode(&less), Err(Skip::Cut));
}

#[test]
fn padding_behind_a_short_packet_is_no_payload() {
    let mut ip = ipv4(CLIENT, SERVER, (7, 9, flag::ACK, 500), 3, b"");
    ip.extend([0; 6]);
    assert_eq!(raw(&ip).unwrap().length, 0);
}

#[test]
fn a_length_left_to_the_network_card_is_that_of_the_packet() {
    let mut ip = packet();
    ip[2..4].fill(0);
    assert_eq!(raw(&ip).unwrap().payload, PAYLOAD);
}

#[test]
fn only_the_first_fragment_has_a_header() {
    let mut first = packet();
    first[6] = 0x20;
    assert!(raw(&first).is_ok());
    let mut second = packet();
    second[7] = 5;
    assert_eq!(raw(&second), Err(Skip::Fragment));
}

#[test]
fn ip_options_and_ipv6_extensions_are_passed_over() {
    let mut options = packet();
    options[0] = 0x46;
    let total = (options.len() + 4) as u16;
    options[2..4].copy_from_slice(&total.to_be_bytes());
    options.splice(20..20, [1, 1, 1, 0]);
    assert_eq!(raw(&options).unwrap().payload, PAYLOAD);

    let mut ipv6 = vec![0x60, 0, 0, 0];
    ipv6.extend((8 + 8 + 20 + PAYLOAD.len() as u16).to_be_bytes());
    ipv6.extend([0, 64]);
    ipv6.extend([1; 16]);
    ipv6.extend([2; 16]);
    ipv6.extend([60, 0, 0, 0, 0, 0, 0, 0]); // hop by hop, then destination options
    ipv6.extend([6, 0, 0, 0, 0, 0, 0, 0]);
    ipv6.extend(tcp(40_000, 80, (7, 9, flag::ACK, 500)));
    ipv6.extend(PAYLOAD);
    let segment = raw(&ipv6).unwrap();
    assert_eq!(segment.payload, PAYLOAD);
    assert!(segment.key.ends()[0].is_ipv6());

    let mut fragment = ipv6.clone();
    fragment[40] = 44;
    fragment[48..56].copy_from_slice(&[6, 0, 0, 8, 0, 0, 0, 1]);
    assert_eq!(raw(&fragment), Err(Skip::Fragment));
}

#[test]
fn headers_that_contradict_each_other_are_malformed() {
    let mut short = packet();
    short[32] = 0x40;
    assert_eq!(raw(&short), Err(Skip::Malformed));
    let mut long = packet();
    long[2..4].copy_from_slice(&30_u16.to_be_bytes());
    assert!(raw(&long).is_err());
}

#[test]
fn the_scale_of_a_window_is_found_among_other_options() {
    let mut ip = ipv4(CLIENT, SERVER, (7, 0, flag::SYN, 500), 3, b"");
    ip[32] = 0xa0;
    let total = 60_u16;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip.extend([
        2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ]);
    assert_eq!(raw(&ip).unwrap().window_scale(), Some(7));
}
