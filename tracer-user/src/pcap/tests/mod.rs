//! Captures built in memory, and what is made of them.

mod faults;
mod files;
mod holes;
mod links;
mod stories;

use std::io::Cursor;

use super::{
    file::{Ending, Packet, Reader},
    segment::{self, Segment, flag},
    sequence::Counts,
    tracker::Tracker,
};
use crate::event::{Event, Fact};

const MILLISECOND: u64 = 1_000_000;
/// An ordinary time, in nanoseconds since the Unix epoch.
const BEGUN: u64 = 1_800_000_000_000_000_000;

pub(super) const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
pub(super) const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 80);

/// One packet from its IP header on.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// A TCP segment in an IPv4 packet.
pub(super) fn ipv4(
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    (seq, ack, flags, window): (u32, u32, u8, u16),
    id: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total = (40 + payload.len()) as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x40, 0, 64, 6, 0, 0]);
    bytes.extend(from.0);
    bytes.extend(to.0);
    bytes.extend(tcp(from.1, to.1, (seq, ack, flags, window)));
    bytes.extend(payload);
    bytes
}

/// A TCP header without options.
pub(super) fn tcp(from: u16, to: u16, (seq, ack, flags, window): (u32, u32, u8, u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags]);
    bytes.extend(window.to_be_bytes());
    bytes.extend([0, 0, 0, 0]);
    bytes
}

/// One connection being played: who has sent how much.
pub(super) struct Play {
    pub(super) sent: Vec<Sent>,
    ends: [([u8; 4], u16); 2],
    next: [u32; 2],
    acked: [u32; 2],
    pub(super) windows: [u16; 2],
    id: u16,
}

/// A side of a [`Play`].
pub(super) const ASKING: usize = 0;
pub(super) const SERVING: usize = 1;

impl Play {
    pub(super) fn new() -> Self {
        Self::between(CLIENT, SERVER)
    }

    pub(super) fn between(client: ([u8; 4], u16), server: ([u8; 4], u16)) -> Self {
        Self {
            sent: Vec::new(),
            ends: [client, server],
            next: [1_000, u32::MAX - 100],
            acked: [0, 0],
            windows: [60_000; 2],
            id: 1,
        }
    }

    /// Any segment; `ms` after the beginning.
    pub(super) fn send(&mut self, ms: f64, side: usize, flags: u8, payload: &[u8]) -> &mut Self {
        let at = BEGUN + (ms * MILLISECOND as f64) as u64;
        let numbers = (self.next[side], self.acked[side], flags, self.windows[side]);
        self.id += 1;
        let bytes = ipv4(
            self.ends[side],
            self.ends[1 - side],
            numbers,
            self.id,
            payload,
        );
        self.sent.push(Sent { at, bytes });
        let control = u32::from(flags & (flag::SYN | flag::FIN) != 0);
        self.next[side] = self.next[side].wrapping_add(payload.len() as u32 + control);
        self.acked[1 - side] = self.next[side];
        self
    }

    pub(super) fn handshake(&mut self, ms: f64) -> &mut Self {
        self.send(ms, ASKING, flag::SYN, b"")
            .send(ms + 0.1, SERVING, flag::SYN | flag::ACK, b"")
            .send(ms + 0.2, ASKING, flag::ACK, b"")
    }

    pub(super) fn data(&mut self, ms: f64, side: usize, payload: &[u8]) -> &mut Self {
        self.send(ms, side, flag::ACK, payload)
    }

    pub(super) fn fin(&mut self, ms: f64, side: usize) -> &mut Self {
        self.send(ms, side, flag::FIN | flag::ACK, b"")
    }

    pub(super) fn rst(&mut self, ms: f64, side: usize) -> &mut Self {
        self.send(ms, side, flag::RST | flag::ACK, b"")
    }

    /// The last packet once more.
    pub(super) fn again(&mut self, ms: f64) -> &mut Self {
        let mut last = self.sent.last().unwrap().clone();
        last.at = BEGUN + (ms * MILLISECOND as f64) as u64;
        self.id += 1;
        last.bytes[4..6].copy_from_slice(&self.id.to_be_bytes());
        self.sent.push(last);
        self
    }

    pub(super) fn told(&self) -> Vec<Fact> {
        follow(&self.sent)
            .into_iter()
            .map(|event| event.fact)
            .collect()
    }
}

/// A capture in the classic format, of packets that begin at their IP header.
pub(super) fn pcap(packets: &[Sent]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 101] {
        file.extend(word.to_le_bytes());
    }
    for packet in packets {
        let (seconds, rest) = (packet.at / 1_000_000_000, packet.at % 1_000_000_000);
        let length = packet.bytes.len() as u32;
        for word in [seconds as u32, rest as u32, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&packet.bytes);
    }
    file
}

/// What any bytes come to.
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) counts: Vec<Counts>,
    pub(super) ending: Option<Ending>,
    pub(super) packets: u64,
}

/// Reads, decodes and follows any bytes.
pub(super) fn read(bytes: &[u8]) -> Outcome {
    let counts = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut outcome = Outcome {
        events: Vec::new(),
        counts: Vec::new(),
        ending: None,
        packets: 0,
    };
    let Ok(mut reader) = Reader::new(Cursor::new(bytes)) else {
        return outcome;
    };
    let mut tracker = Tracker::new();
    let each = std::rc::Rc::clone(&counts);
    tracker.each_stream(move |stream| each.borrow_mut().push(stream.counts));
    let mut ended = 0;
    while let Ok(Some(packet)) = reader.next_packet() {
        outcome.packets += 1;
        ended = packet.at.max(ended);
        if let Ok(segment) = segment::decode(&packet) {
            tracker.take(&segment);
        }
    }
    tracker.end(ended);
    outcome.events = std::mem::take(tracker.events());
    outcome.ending = reader.ending().cloned();
    outcome.counts = counts.take();
    outcome
}

pub(super) fn follow(packets: &[Sent]) -> Vec<Event> {
    read(&pcap(packets)).events
}

/// The segment of a packet that begins at its IP header.
pub(super) fn raw(bytes: &[u8]) -> Result<Segment<'_>, segment::Skip> {
    linked(101, bytes)
}

pub(super) fn linked(link: u16, bytes: &[u8]) -> Result<Segment<'_>, segment::Skip> {
    segment::decode(&Packet {
        at: BEGUN,
        frame: 1,
        link,
        place: 0,
        length: bytes.len() as u32,
        bytes,
    })
}
