//! What was acknowledged and is not in the capture; and what looks so and is not.

use std::io::Cursor;

use super::{ASKING, BEGUN, MILLISECOND, Play, SERVING, Sent, pcap};
use crate::{
    event::{Event, Fact},
    pcap::{
        Capture,
        file::Reader,
        segment::{self, flag},
        tracker::Tracker,
    },
};

/// Where the data of [`conversation`] begin.
const DATA: usize = 3;

/// A request of two segments, its ACK, the response and its ACK; 20 ms later both ends finish.
fn conversation() -> Play {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, b"POST / HTTP/1.1\r\n")
        .data(1.1, ASKING, b"Content-Length: 0\r\n\r\n")
        .data(1.2, SERVING, b"")
        .data(2.0, SERVING, b"HTTP/1.1 200 OK\r\n\r\n")
        .data(2.1, ASKING, b"")
        .fin(22.0, ASKING)
        .fin(22.1, SERVING)
        .send(22.2, ASKING, flag::ACK, b"")
        .data(60.0, ASKING, b"");
    play
}

/// [`conversation`] without the packets at these places.
fn without(places: &[usize]) -> Vec<Sent> {
    let sent = conversation().sent.into_iter().enumerate();
    sent.filter(|(place, _)| !places.contains(place))
        .map(|(_, packet)| packet)
        .collect()
}

fn at(mut packet: Sent, ms: f64) -> Sent {
    packet.at = BEGUN + (ms * MILLISECOND as f64) as u64;
    packet
}

fn lacking(packets: &[Sent]) -> u64 {
    let file = pcap(packets);
    let mut reader = Reader::new(Cursor::new(&file)).unwrap();
    let mut tracker = Tracker::new();
    let mut ended = 0;
    while let Ok(Some(packet)) = reader.next_packet() {
        ended = packet.at.max(ended);
        tracker.take(&segment::decode(&packet).unwrap());
    }
    tracker.end(ended);
    tracker.lacking()
}

#[test]
fn a_whole_capture_lacks_nothing() {
    assert_eq!(lacking(&without(&[])), 0);
}

#[test]
fn any_one_packet_that_takes_numbers_is_missed() {
    let packets = conversation().sent;
    for (place, name) in [
        (DATA, "the first data"),
        (DATA + 1, "data before an ACK"),
        (DATA + 3, "the response"),
        (DATA + 5, "a FIN"),
        (DATA + 6, "the other's FIN"),
    ] {
        assert_eq!(lacking(&without(&[place])), 1, "{name}: {packets:?}");
    }
}

#[test]
fn packets_in_a_row_count_once_and_others_each() {
    assert_eq!(lacking(&without(&[DATA, DATA + 1])), 1);
    assert_eq!(lacking(&without(&[DATA, DATA + 3, DATA + 5])), 3);
}

#[test]
fn what_a_capture_lacks_is_told_as_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    for (places, expected) in [(&[][..], vec![]), (&[DATA, DATA + 3][..], vec![2])] {
        std::fs::write(&path, pcap(&without(places))).unwrap();
        let mut events: Vec<Event> = Vec::new();
        let capture = Capture::open(&path).unwrap();
        capture.read(&mut |told| events.append(told)).unwrap();
        let lost = events.into_iter().filter_map(|event| match event.fact {
            Fact::Lost { probe, count } => {
                assert_eq!(probe, "packets (acknowledged, but not in the capture)");
                Some(count)
            }
            _ => None,
        });
        assert_eq!(lost.collect::<Vec<u64>>(), expected);
    }
}

#[test]
fn bare_acks_are_not_missed() {
    assert_eq!(lacking(&without(&[2, DATA + 2, DATA + 4])), 0);
}

#[test]
fn what_the_network_lost_comes_again_before_it_is_acknowledged() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, SERVING, b"abc");
    let lost = play.sent.pop().unwrap();
    let acked = play.acked[ASKING];
    play.data(1.1, SERVING, b"def");
    // Nobody acknowledges the second before the first is there, however long that takes.
    play.acked[ASKING] = acked.wrapping_sub(3);
    play.data(1.2, ASKING, b"")
        .data(100.0, ASKING, b"")
        .data(101.0, SERVING, b"ghi");
    let unanswered = play.sent.clone();
    play.sent.push(at(lost, 300.0));
    play.acked[ASKING] = play.next[SERVING];
    play.data(300.1, ASKING, b"")
        .data(400.0, SERVING, b"jkl")
        .data(500.0, ASKING, b"");
    assert_eq!(lacking(&play.sent), 0);
    assert_eq!(lacking(&unanswered), 0, "the capture ends before");
}

#[test]
fn a_packet_that_comes_late_in_the_file_is_there() {
    for place in [DATA, DATA + 1, DATA + 3, DATA + 5, DATA + 6] {
        let mut packets = conversation().sent;
        let late = packets.remove(place);
        // Behind what answers it, a few milliseconds by the clock.
        let ms = (late.at - BEGUN) as f64 / MILLISECOND as f64;
        packets.insert(place + 2, at(late, ms + 5.0));
        assert_eq!(lacking(&packets), 0, "{place}: {packets:?}");
    }
}

#[test]
fn what_was_acknowledged_just_before_the_end_may_have_been_on_its_way() {
    let packets = without(&[DATA, DATA + 1]);
    let end = packets
        .iter()
        .position(|packet| packet.at > BEGUN + 20 * MILLISECOND)
        .unwrap();
    assert_eq!(lacking(&packets[..end]), 0);
    assert_eq!(lacking(&packets), 1);
}

#[test]
fn a_capture_of_one_direction_lacks_the_other_and_no_packets() {
    for (side, port) in [(ASKING, 40_000_u16), (SERVING, 80)] {
        let mut packets = conversation().sent;
        packets.retain(|packet| packet.bytes[20..22] == port.to_be_bytes());
        assert_eq!(lacking(&packets), 0, "{side}");
    }
}

#[test]
fn a_capture_that_begins_in_the_middle_lacks_nothing() {
    let packets = conversation().sent;
    for begin in 0..packets.len() {
        assert_eq!(lacking(&packets[begin..]), 0, "from {begin} on");
    }
}

#[test]
fn a_keep_alive_or_a_probe_leaves_no_hole() {
    // The first that is seen of a connection is a byte that was sent long ago.
    let mut play = Play::new();
    play.acked = play.next;
    play.next[ASKING] -= 1;
    play.send(0.0, ASKING, flag::ACK, b"");
    play.next[ASKING] += 1;
    play.acked[SERVING] = play.next[ASKING];
    play.data(0.1, SERVING, b"")
        .data(20.0, ASKING, b"abc")
        .data(20.1, SERVING, b"")
        .data(60.0, ASKING, b"def");
    assert_eq!(lacking(&play.sent), 0);

    // A byte sent into a closed window is taken after all, and what follows comes after it.
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, ASKING, b"abc");
    play.windows[SERVING] = 0;
    play.data(1.1, SERVING, b"").data(300.0, ASKING, b"d");
    play.windows[SERVING] = 60_000;
    play.data(300.1, SERVING, b"")
        .data(400.0, ASKING, b"ef")
        .data(400.1, SERVING, b"")
        .data(500.0, ASKING, b"");
    assert_eq!(lacking(&play.sent), 0);
}

#[test]
fn numbers_of_another_connection_are_no_hole() {
    // The server remembers a connection between the same ports, and says what it expects of that
    // (RFC 5961 section 4); the client resets that one and begins anew.
    let mut play = Play::new();
    play.next[ASKING] = 5_000_000;
    play.send(0.0, ASKING, flag::SYN, b"");
    let expected = play.next[ASKING];
    play.acked[SERVING] = 6_000_000;
    play.data(0.1, SERVING, b"");
    play.next[ASKING] = 6_000_000;
    play.send(0.2, ASKING, flag::RST, b"");
    play.next[ASKING] = expected - 1;
    play.next[SERVING] = 77;
    play.handshake(1_000.0)
        .data(1_001.0, ASKING, b"abc")
        .data(1_002.0, SERVING, b"def")
        .data(1_100.0, ASKING, b"");
    assert_eq!(lacking(&play.sent), 0);
}
