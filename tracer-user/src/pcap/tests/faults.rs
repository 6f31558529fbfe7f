//! Losses, copies and reordering made on purpose.

use super::{ASKING, Play, SERVING, Sent, pcap, read};
use crate::{
    event::Fact,
    pcap::{segment::flag, sequence::Counts},
};

fn counted(play: &Play) -> Counts {
    read(&pcap(&play.sent)).counts[0]
}

fn retransmitted(play: &Play) -> usize {
    let again = |fact: &&Fact| matches!(fact, Fact::Retransmitted { .. });
    play.told().iter().filter(again).count()
}

#[test]
fn a_segment_sent_again_after_a_while_is_a_retransmission() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, SERVING, b"abc").again(250.0);
    assert_eq!(counted(&play).retransmissions, 1);
    assert_eq!(retransmitted(&play), 1);
}

#[test]
fn one_that_was_acknowledged_is_a_spurious_one() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, SERVING, b"abc").again(250.0);
    let again = play.sent.pop().unwrap();
    play.data(1.1, ASKING, b"");
    play.sent.push(again);
    assert_eq!(counted(&play).spurious_retransmissions, 1);
}

#[test]
fn an_overtaken_segment_is_out_of_order_and_not_sent_again() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, SERVING, b"abc")
        .data(1.01, SERVING, b"def")
        .data(1.02, SERVING, b"ghi");
    play.sent.swap(3, 4);
    play.sent.swap(4, 5);
    let counts = counted(&play);
    assert_eq!((counts.out_of_order, counts.retransmissions), (1, 0));
    assert_eq!(counts.gaps, 1);
    assert_eq!(retransmitted(&play), 0);
}

#[test]
fn three_duplicate_acks_ask_for_a_fast_retransmission() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, SERVING, b"abc");
    let lost = play.sent.pop().unwrap();
    let acked = play.acked[ASKING];
    play.acked[ASKING] = acked.wrapping_sub(3);
    for n in 0..4 {
        let ms = 1.0 + f64::from(n) * 0.3;
        let behind = play.acked[ASKING];
        play.data(ms + 0.1, SERVING, b"def");
        play.acked[ASKING] = behind;
        play.data(ms + 0.2, ASKING, b"");
    }
    play.sent.push(Sent {
        at: lost.at + 2_000_000,
        bytes: lost.bytes,
    });
    let counts = counted(&play);
    assert!(counts.duplicate_acks >= 3, "{counts:?}");
    assert_eq!(counts.fast_retransmissions, 1, "{counts:?}");
}

#[test]
fn a_packet_caught_twice_counts_once() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, b"GET / HTTP/1.1\r\n\r\n")
        .data(2.0, SERVING, b"HTTP/1.1 200 OK\r\n\r\n")
        .data(3.0, ASKING, b"")
        .fin(4.0, ASKING)
        .fin(5.0, SERVING);
    let doubled = play.sent.iter().flat_map(|packet| {
        let mut copy = packet.clone();
        copy.at += 20_000;
        [packet.clone(), copy]
    });
    let doubled: Vec<Sent> = doubled.collect();
    let once = read(&pcap(&play.sent));
    let twice = read(&pcap(&doubled));
    assert_eq!(twice.counts[0].copies as usize, play.sent.len());
    assert_eq!(
        Counts {
            copies: 0,
            ..twice.counts[0]
        },
        once.counts[0]
    );
    assert_eq!(twice.events, once.events);
}

#[test]
fn what_interfaces_saw_in_bursts_counts_once() {
    // Three segments go out, then the same three come in: the copies lie far apart.
    let mut play = Play::new();
    play.handshake(0.0);
    for n in 0..6 {
        play.data(1.0 + f64::from(n) / 100.0, SERVING, &[b'x'; 1_000]);
    }
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 276] {
        file.extend(word.to_le_bytes());
    }
    let mut put = |packet: &Sent, direction: u8| {
        let header = [
            8, 0, 0, 0, 0, 0, 0, 1, 0, 1, direction, 6, 2, 2, 2, 2, 2, 2, 0, 0,
        ];
        let length = (header.len() + packet.bytes.len()) as u32;
        let (seconds, rest) = (packet.at / 1_000_000_000, packet.at % 1_000_000_000);
        for word in [seconds as u32, rest as u32, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(header);
        file.extend(&packet.bytes);
    };
    for burst in play.sent.chunks(9) {
        for direction in [4, 0] {
            burst.iter().for_each(|packet| put(packet, direction));
        }
    }
    let counts = read(&file).counts[0];
    assert_eq!(counts.copies as usize, play.sent.len());
    assert_eq!(counts.retransmissions + counts.spurious_retransmissions, 0);
    assert_eq!(counts.out_of_order + counts.duplicate_acks, 0);
}

#[test]
fn a_keep_alive_is_neither_data_nor_a_retransmission() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, SERVING, b"abc");
    play.data(2.0, ASKING, b"");
    play.next[ASKING] -= 1;
    play.send(60_000.0, ASKING, flag::ACK, b"");
    play.next[ASKING] += 1;
    play.acked[SERVING] = play.next[ASKING];
    play.data(60_000.1, SERVING, b"");
    let counts = counted(&play);
    assert_eq!(counts.keep_alives, 1);
    assert_eq!(
        counts.duplicate_acks + counts.retransmissions,
        0,
        "{counts:?}"
    );
}
