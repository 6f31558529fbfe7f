//! Exchanges on the wire: bytes of a request after bytes of a response begin the next exchange.
//!
//! What an acknowledgement covers has been sent, even where the capture lacks it or tells it later: a
//! capture is not in strict order of time, and one that dropped packets still tells by the other side's
//! ACK that there was a request. So bytes count when anything tells of them, once, and a segment that
//! comes late only adds what it alone knows: the head, the status, an earlier time.

use tracer_ebpf::{begins_request, http_status};

use super::{
    segment::{Segment, flag},
    sequence::{ahead, before},
};
use crate::{
    event::{Message, RequestHead},
    http,
};

/// Exchanges of each connection that are told whatever they were.
const TOLD_AT_FIRST: u32 = 64;
/// An exchange that took this long is told, in nanoseconds.
const SLOW: u64 = 50_000_000;
/// Bytes kept of the head of a request that will probably not be told.
const HEAD: usize = 1_024;

/// When something happened, and the number of the packet that told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: u64,
    pub(super) frame: u64,
}

impl Moment {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        Self {
            at: segment.at,
            frame: segment.frame,
        }
    }

    fn no_later_than(&mut self, other: Self) {
        if other.at < self.at {
            *self = other;
        }
    }
}

/// One exchange as the wire saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) number: u32,
    pub(super) started: Moment,
    pub(super) request_ended: Moment,
    pub(super) first_byte: Option<Moment>,
    pub(super) last_byte: Moment,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) status: u16,
}

impl Wire {
    /// Bytes of a message so far.
    pub(super) fn bytes(&self, message: Message) -> u64 {
        match message {
            Message::Request => self.request_bytes,
            Message::Response => self.response_bytes,
        }
    }

    /// As it was before anything was answered.
    pub(super) fn unanswered(self) -> Self {
        Self {
            first_byte: None,
            last_byte: self.request_ended,
            response_bytes: 0,
            status: 0,
            ..self
        }
    }

    fn is_interim(&self) -> bool {
        matches!(self.status, 100..200)
    }
}

/// The head of the request under way.
#[derive(Debug, Default)]
struct Head {
    parsed: Option<RequestHead>,
    /// Its first bytes, where it is parsed only if it is told after all.
    kept: Vec<u8>,
}

/// The exchanges of one connection; it is in the last of them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    wire: Wire,
    message: Option<Message>,
    /// Where the next byte of each direction is due.
    next: [Option<u32>; 2],
    /// Where the request and the response of this exchange began, each in its direction.
    asked_from: u32,
    answered_from: u32,
    head: Head,
    /// The first bytes of its request were not kept by the capture.
    cut: bool,
    /// The exchange before was an interim response to this one's request.
    continues: bool,
}

/// What a segment did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// New bytes of its own.
    pub(super) new_bytes: u32,
    /// When the byte before these was seen, where they go on with a message.
    pub(super) goes_on_after: Option<Moment>,
}

impl Turns {
    /// Whether this segment begins the next exchange, so that the one before is to be told first.
    #[inline]
    pub(super) fn ends_with(&self, segment: &Segment<'_>, direction: usize, asks: bool) -> bool {
        asks && self.message == Some(Message::Response) && self.new_bytes(segment, direction) > 0
    }

    /// The same for what the segment acknowledges.
    #[inline]
    pub(super) fn ends_with_acked(&self, segment: &Segment<'_>, other: usize, asks: bool) -> bool {
        asks && self.message == Some(Message::Response) && self.acked_unseen(segment, other) > 0
    }

    #[inline]
    fn new_bytes(&self, segment: &Segment<'_>, direction: usize) -> u32 {
        let end = segment.seq.wrapping_add(segment.length);
        match self.next.get(direction).copied().flatten() {
            Some(next) => ahead(next, end),
            None => segment.length,
        }
    }

    /// Bytes of the other side that only the acknowledgement tells of. A single one is its FIN.
    #[inline]
    fn acked_unseen(&self, segment: &Segment<'_>, other: usize) -> u32 {
        if !segment.has(flag::ACK) || segment.has(flag::SYN | flag::RST) {
            return 0;
        }
        match self.next.get(other).copied().flatten() {
            Some(next) => match ahead(next, segment.ack) {
                1 => 0,
                unseen => unseen,
            },
            None => 0,
        }
    }

    /// Takes in what a segment acknowledges; `asks` tells whether the other side is the client.
    #[inline]
    pub(super) fn acknowledged(&mut self, segment: &Segment<'_>, other: usize, asks: bool) {
        let unseen = self.acked_unseen(segment, other);
        if unseen > 0 {
            let from = segment.ack.wrapping_sub(unseen);
            self.count(Moment::of(segment), unseen, from, asks);
        }
        if let Some(next) = self.next.get_mut(other)
            && segment.has(flag::ACK)
            && !segment.has(flag::RST)
            && (unseen > 0 || next.is_none())
        {
            *next = Some(segment.ack);
        }
    }

    /// Takes in a segment's own payload.
    #[inline]
    pub(super) fn carried(&mut self, segment: &Segment<'_>, direction: usize, asks: bool) -> Step {
        let mut step = Step::default();
        if segment.length > 0 {
            let next = self.next.get(direction).copied().flatten();
            let due = next.unwrap_or(segment.seq);
            step.new_bytes = self.new_bytes(segment, direction);
            if step.new_bytes > 0 {
                let last = self.wire.last_byte;
                let begins = self.count(Moment::of(segment), step.new_bytes, due, asks);
                step.goes_on_after = (!begins).then_some(last);
                // Where the first bytes lack, they may come late.
                if begins && !before(due, segment.seq) {
                    // A probe of a closed window may have carried the first byte before.
                    let known = ahead(segment.seq, due) as usize;
                    self.read_start(segment, known, asks);
                }
            } else {
                self.came_late(segment, asks);
            }
        }
        let end = segment.seq.wrapping_add(segment.span());
        if let Some(next) = self.next.get_mut(direction)
            && !segment.has(flag::RST)
            && next.is_none_or(|next| before(next, end))
        {
            *next = Some(end);
        }
        step
    }

    /// Counts bytes of one side from `from` on; whether they begin a message.
    #[inline]
    fn count(&mut self, now: Moment, bytes: u32, from: u32, asks: bool) -> bool {
        let begins = self.message != Some(message(asks));
        if begins {
            if asks {
                self.asked_from = from;
            } else {
                self.answered_from = from;
            }
        }
        let wire = &mut self.wire;
        if asks {
            if begins {
                wire.started = now;
            }
            wire.request_ended = now;
            wire.request_bytes += u64::from(bytes);
        } else {
            if self.message.is_none() {
                // The server speaks first, or the capture began in the middle.
                wire.started = now;
                wire.request_ended = now;
            }
            wire.first_byte.get_or_insert(now);
            wire.response_bytes += u64::from(bytes);
        }
        wire.last_byte = now;
        self.message = Some(message(asks));
        begins
    }

    /// A segment whose bytes are counted already: the same again, or told late.
    fn came_late(&mut self, segment: &Segment<'_>, asks: bool) {
        let at = Moment::of(segment);
        let wire = &mut self.wire;
        let (from, first, unread) = if asks {
            let unread = self.head.parsed.is_none() && self.head.kept.is_empty();
            let first = (wire.request_bytes > 0).then_some(&mut wire.started);
            (self.asked_from, first, unread)
        } else {
            let unread = wire.status == 0;
            (self.answered_from, wire.first_byte.as_mut(), unread)
        };
        // What came before belongs to an exchange that is over.
        let Some(first) = first.filter(|_| !before(segment.seq, from)) else {
            return;
        };
        first.no_later_than(at);
        if unread && segment.seq == from {
            self.read_start(segment, 0, asks);
        }
    }

    /// Reads the first bytes of a message, which lie behind `known` others.
    fn read_start(&mut self, segment: &Segment<'_>, known: usize, asks: bool) {
        let payload = segment.payload.get(known..).unwrap_or_default();
        let is_cut = segment.payload.len() < segment.length as usize;
        if !asks {
            if let Some(line) = payload.first_chunk() {
                self.wire.status = http_status(line);
            }
            return;
        }
        let Some(first) = payload.first_chunk() else {
            self.cut = is_cut;
            return;
        };
        if !begins_request(first) {
            return;
        }
        if self.wire.number < TOLD_AT_FIRST {
            self.head.parsed = http::parse(payload);
            self.cut = is_cut && self.head.parsed.is_none();
        } else {
            let kept = payload.get(..HEAD).unwrap_or(payload);
            self.head.kept.extend_from_slice(kept);
        }
    }

    /// The exchange it is in; `None` where nothing was said since the last one was told.
    pub(super) fn current(&self) -> Option<&Wire> {
        self.message.is_some().then_some(&self.wire)
    }

    /// Whether whoever acknowledges up to `ack` has got the first byte of the message under way.
    pub(super) fn reached(&self, ack: u32) -> bool {
        match self.message {
            Some(Message::Request) => before(self.asked_from, ack),
            Some(Message::Response) => before(self.answered_from, ack),
            None => true,
        }
    }

    /// The first bytes of the current exchange's request were not kept by the capture.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// The message under way.
    pub(super) fn message(&self) -> Option<Message> {
        self.message
    }

    /// The head of the current exchange's request.
    pub(super) fn head(&mut self) -> Option<RequestHead> {
        if self.head.parsed.is_none() && !self.head.kept.is_empty() {
            self.head.parsed = http::parse(&self.head.kept);
        }
        self.head.parsed.clone()
    }

    /// Whether the current exchange is worth telling: the first ones of a connection are, so that there
    /// is something to compare with, and what was slow or went wrong. The others show as a gap in the
    /// exchanges' numbers.
    pub(super) fn is_remarkable(&self) -> bool {
        let wire = &self.wire;
        wire.number < TOLD_AT_FIRST
            || self.continues
            || wire.is_interim()
            || wire.status >= 400
            || wire.first_byte.is_none()
            || wire.last_byte.at.saturating_sub(wire.started.at) >= SLOW
    }

    /// The current exchange is over; the next one has the next number.
    pub(super) fn begin_next(&mut self) {
        self.continues = self.wire.is_interim();
        self.wire = Wire {
            number: self.wire.number.wrapping_add(1),
            ..Wire::default()
        };
        self.message = None;
        self.head.parsed = None;
        self.head.kept.clear();
        self.cut = false;
    }
}

fn message(asks: bool) -> Message {
    if asks {
        Message::Request
    } else {
        Message::Response
    }
}
