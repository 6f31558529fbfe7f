//! Files: both formats in all their forms, cut, broken, and no captures at all.

use std::io::Cursor;

use proptest::prelude::*;

use super::{ASKING, BEGUN, Play, Sent, pcap, read};
use crate::pcap::file::{Ending, ReadError, Reader};

fn some() -> Vec<Sent> {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, b"GET / HTTP/1.1\r\n\r\n");
    play.sent.clone()
}

fn times(file: &[u8]) -> Vec<u64> {
    let mut reader = Reader::new(Cursor::new(file)).unwrap_or_else(|error| panic!("{error:?}"));
    let mut times = Vec::new();
    while let Some(packet) = reader
        .next_packet()
        .unwrap_or_else(|error| panic!("{error:?}"))
    {
        times.push(packet.at);
    }
    times
}

fn classic(magic: u32, big_endian: bool, per_second: u64, header: usize) -> Vec<u8> {
    let put = |word: u32| {
        if big_endian {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    };
    let mut file: Vec<u8> = [magic, 0x0002_0004, 0, 0, 262_144, 101]
        .into_iter()
        .flat_map(put)
        .collect();
    for packet in some() {
        let fraction = packet.at % 1_000_000_000 / (1_000_000_000 / per_second);
        let length = packet.bytes.len() as u32;
        let words = [
            (packet.at / 1_000_000_000) as u32,
            fraction as u32,
            length,
            length,
        ];
        file.extend(words.into_iter().flat_map(put));
        file.extend(vec![0; header - 16]);
        file.extend(packet.bytes);
    }
    file
}

#[test]
fn every_form_of_the_classic_format_gives_the_same_times() {
    let wanted: Vec<u64> = some().iter().map(|packet| packet.at).collect();
    for big_endian in [false, true] {
        assert_eq!(
            times(&classic(0xa1b2_c3d4, big_endian, 1_000_000, 16)),
            wanted
        );
        assert_eq!(
            times(&classic(0xa1b2_3c4d, big_endian, 1_000_000_000, 16)),
            wanted
        );
        assert_eq!(
            times(&classic(0xa1b2_cd34, big_endian, 1_000_000, 24)),
            wanted
        );
    }
}

/// Builds a pcapng file, in either byte order.
struct Blocks {
    big_endian: bool,
    file: Vec<u8>,
}

impl Blocks {
    fn new(big_endian: bool) -> Self {
        let mut blocks = Self {
            big_endian,
            file: Vec::new(),
        };
        blocks.section();
        blocks
    }

    fn section(&mut self) {
        let magic = self.word(0x1a2b_3c4d);
        let version = self.word(if self.big_endian { 0x0001_0000 } else { 1 });
        self.block(0x0a0d_0d0a, &[&magic[..], &version, &[0xff; 8]].concat());
    }

    fn word(&self, word: u32) -> [u8; 4] {
        if self.big_endian {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    }

    fn half(&self, half: u16) -> [u8; 2] {
        if self.big_endian {
            half.to_be_bytes()
        } else {
            half.to_le_bytes()
        }
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let length = self.word(12 + padded as u32);
        self.file.extend(self.word(kind));
        self.file.extend(length);
        self.file.extend(body);
        self.file.extend(vec![0; padded - body.len()]);
        self.file.extend(length);
    }

    fn interface(&mut self, link: u16, resolution: Option<u8>, offset: Option<u64>) {
        let mut body = [&self.half(link)[..], &[0, 0], &self.word(0)].concat();
        if let Some(resolution) = resolution {
            body.extend([self.half(9), self.half(1)].concat());
            body.extend([resolution, 0, 0, 0]);
        }
        if let Some(offset) = offset {
            body.extend([self.half(14), self.half(8)].concat());
            body.extend(if self.big_endian {
                offset.to_be_bytes()
            } else {
                offset.to_le_bytes()
            });
        }
        body.extend([0; 4]);
        self.block(1, &body);
    }

    fn packet(&mut self, interface: u32, units: u64, bytes: &[u8]) {
        let length = self.word(bytes.len() as u32);
        let mut body = self.word(interface).to_vec();
        body.extend(self.word((units >> 32) as u32));
        body.extend(self.word(units as u32));
        body.extend(length);
        body.extend(length);
        body.extend(bytes);
        self.block(6, &body);
    }
}

#[test]
fn every_clock_of_an_interface_gives_the_same_times() {
    let packets = some();
    let wanted: Vec<u64> = packets.iter().map(|packet| packet.at).collect();
    for big_endian in [false, true] {
        let mut blocks = Blocks::new(big_endian);
        blocks.interface(101, None, None);
        blocks.interface(101, Some(9), None);
        blocks.interface(101, Some(6), Some(1_000));
        blocks.interface(101, Some(0x80 | 30), None);
        for (number, packet) in packets.iter().enumerate() {
            let units = match number {
                0 => packet.at / 1_000,
                1 => packet.at,
                2 => packet.at / 1_000 - 1_000_000_000,
                _ => (u128::from(packet.at) * (1 << 30) / 1_000_000_000) as u64,
            };
            blocks.packet(number as u32, units, &packet.bytes);
        }
        for (found, wanted) in times(&blocks.file).iter().zip(&wanted) {
            assert!(found.abs_diff(*wanted) <= 1, "{found} for {wanted}");
        }
    }
}

#[test]
fn sections_in_either_order_follow_each_other_and_unknown_blocks_are_passed_over() {
    let packets = some();
    let mut blocks = Blocks::new(false);
    blocks.interface(1, None, None);
    blocks.block(0x1234_5678, b"whatever");
    blocks.big_endian = true;
    blocks.section();
    blocks.interface(101, Some(9), None);
    blocks.packet(0, packets[0].at, &packets[0].bytes);
    blocks.block(9, b"a journal's line, which Wireshark numbers as a packet");
    // A simple packet has no time of its own.
    let length = blocks.word(packets[1].bytes.len() as u32);
    let simple = [&length[..], &packets[1].bytes].concat();
    blocks.block(3, &simple);
    let mut reader = Reader::new(Cursor::new(&blocks.file)).unwrap_or_else(|e| panic!("{e:?}"));
    let mut frames = Vec::new();
    while let Ok(Some(packet)) = reader.next_packet() {
        assert_eq!(packet.at, packets[0].at);
        assert_eq!(packet.link, 101);
        frames.push(packet.frame);
    }
    assert_eq!(frames, [1, 3]);
    assert_eq!(reader.ending(), Some(&Ending::Whole));
}

#[test]
fn what_an_interface_dropped_is_told() {
    let mut blocks = Blocks::new(false);
    blocks.interface(101, Some(9), None);
    blocks.packet(0, BEGUN, &some()[0].bytes);
    for dropped in [3_u64, 7] {
        let mut body = vec![0; 12];
        body.extend([5, 0, 8, 0]);
        body.extend(dropped.to_le_bytes());
        blocks.block(5, &body);
    }
    let mut reader = Reader::new(Cursor::new(&blocks.file)).unwrap_or_else(|e| panic!("{e:?}"));
    while let Ok(Some(_)) = reader.next_packet() {}
    assert_eq!(reader.dropped(), 7);
}

#[test]
fn a_cut_last_packet_is_told_with_its_place_and_the_others_are_read() {
    let whole = pcap(&some());
    let last = whole.len() - 16 - some().last().unwrap().bytes.len();
    for cut in [1, 10, 30] {
        let outcome = read(&whole[..whole.len() - cut]);
        assert_eq!(outcome.packets, 3);
        assert_eq!(
            outcome.ending,
            Some(Ending::Cut {
                offset: last as u64,
                bytes: (whole.len() - cut - last) as u64
            })
        );
    }
}

#[test]
fn absurd_lengths_are_told_with_their_place() {
    let mut file = pcap(&some());
    let at = file.len();
    file.extend([0; 8]);
    file.extend(0x7fff_ffff_u32.to_le_bytes());
    file.extend([0; 64]);
    let outcome = read(&file);
    assert_eq!(outcome.packets, 4);
    assert!(
        matches!(&outcome.ending, Some(Ending::Damaged { offset, found }) if *offset == at as u64 && found.contains("2147483647")),
        "{:?}",
        outcome.ending
    );
}

#[test]
fn what_is_no_capture_says_what_it_is() {
    let refused = |bytes: &[u8]| match Reader::new(Cursor::new(bytes.to_vec())) {
        Err(ReadError::NotACapture(found)) => found,
        other => panic!("{:?}", other.err()),
    };
    assert!(refused(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").contains("0x47455420"));
    assert!(refused(b"ab").contains("2 bytes"));
    assert!(refused(&pcap(&[])[..20]).contains("20 of 24"));
    assert!(matches!(
        Reader::new(Cursor::new(b"")),
        Err(ReadError::Empty)
    ));
}

#[test]
fn memory_does_not_grow_with_the_file() {
    // A hundred thousand connections, one after the other, each opened, used and closed.
    let mut sent = Vec::new();
    for number in 0..100_000_u32 {
        let client = (
            [10, 1, (number >> 12) as u8, 1],
            20_000 + (number & 0xfff) as u16,
        );
        let mut play = Play::between(client, super::SERVER);
        let ms = f64::from(number);
        play.handshake(ms)
            .data(ms + 0.3, ASKING, b"GET / HTTP/1.1\r\n\r\n")
            .data(ms + 0.4, super::SERVING, b"HTTP/1.1 200 OK\r\n\r\n")
            .fin(ms + 0.5, ASKING)
            .fin(ms + 0.6, super::SERVING)
            .data(ms + 0.7, ASKING, b"");
        sent.append(&mut play.sent);
    }
    let mut tracker = crate::pcap::tracker::Tracker::new();
    for packet in &sent {
        let segment = super::raw(&packet.bytes).unwrap();
        tracker.take(&segment);
        tracker.events().clear();
    }
    assert_eq!(tracker.streams(), 100_000);
    assert!(tracker.held() <= 40_000, "{} are held", tracker.held());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), kind in 0..3) {
        let mut file = match kind {
            0 => pcap(&some()),
            1 => {
                let mut blocks = Blocks::new(false);
                blocks.interface(1, Some(9), None);
                blocks.packet(0, BEGUN, &some()[0].bytes);
                blocks.file
            }
            _ => Vec::new(),
        };
        file.extend(bytes);
        read(&file);
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        ng in any::<bool>(),
    ) {
        let packets = some();
        let mut file = if ng {
            let mut blocks = Blocks::new(false);
            blocks.interface(101, None, Some(5));
            for packet in &packets {
                blocks.packet(0, packet.at / 1_000, &packet.bytes);
            }
            blocks.file
        } else {
            pcap(&packets)
        };
        for (place, byte) in changes {
            let length = file.len();
            file[place.index(length)] = byte;
        }
        read(&file);
    }

    #[test]
    fn no_segments_make_it_panic(
        segments in prop::collection::vec(
            (any::<bool>(), 0..20_u32, 0..20_u32, any::<u8>(), 0..3_u16, 0..30_usize, 0..2_000_u64),
            0..60,
        ),
    ) {
        let mut sent = Vec::new();
        let mut at = BEGUN;
        for (from_server, seq, ack, flags, window, length, later) in segments {
            at += later * super::MILLISECOND;
            let (from, to) = if from_server {
                (super::SERVER, super::CLIENT)
            } else {
                (super::CLIENT, super::SERVER)
            };
            let payload = b"GET /abc HTTP/1.1\r\nHost: abcdefgh\r\n";
            let numbers = (seq.wrapping_sub(5), ack.wrapping_sub(5), flags & 0x17, window);
            let bytes = super::ipv4(from, to, numbers, length as u16, &payload[..length]);
            sent.push(Sent { at, bytes });
        }
        read(&pcap(&sent));
    }
}
