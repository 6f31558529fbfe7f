//! One connection from its first segment to its last, both ends of it.
//!
//! In come its segments; out go facts about the sockets at its two ends, as far as packets tell them.

mod leaving;

use std::time::Duration;

use super::{
    segment::{Key, Segment, flag},
    sequence::{self, Counts, Meaning},
    side::{Left, Side, pair},
    silence::{Gap, Silence},
    telling::{Break, Teller, Totals, Who},
    turns::{Moment, Turns},
};
use crate::event::{ConnectFailure, Message};

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    key: Key,
    stream: u32,
    /// The side that asks, once that is known.
    client: Option<usize>,
    opened: Moment,
    /// Its last SYN: the one that was answered.
    syn_at: u64,
    last: Moment,
    stage: Stage,
    /// The answer to the SYN was seen.
    answered: bool,
    /// From the last SYN to the ACK of its answer, in nanoseconds; 0 where that was not seen.
    handshake: u64,
    /// The client reset it, so it wanted nothing more, not even what came after its FIN.
    abandoned: bool,
    sides: [Side; 2],
    turns: Turns,
    counts: Counts,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing was told of it yet: it was open when the capture began, or this is its first SYN.
    New,
    /// A SYN was told.
    Connecting,
    /// Both ends were told.
    Open,
    /// It is over.
    Closed,
}

impl Connection {
    pub(super) fn new(segment: &Segment<'_>, stream: u32) -> Self {
        Self {
            key: segment.key,
            stream,
            client: None,
            opened: Moment::of(segment),
            syn_at: segment.at,
            last: Moment::of(segment),
            stage: Stage::New,
            answered: false,
            handshake: 0,
            abandoned: false,
            sides: Default::default(),
            turns: Turns::default(),
            counts: Counts::default(),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Its number as `tcp.stream` has it.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// The time of its last segment.
    pub(super) fn last_at(&self) -> u64 {
        self.last.at
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From the last SYN to the ACK of its answer, in nanoseconds; 0 where that was not seen.
    pub(super) fn handshake(&self) -> u64 {
        self.handshake
    }

    /// Packets of it that the capture lacks, at least, as known at `at`, in nanoseconds.
    pub(super) fn lacking(&mut self, at: u64) -> u64 {
        let lacking = |side: &mut Side| u64::from(side.holes.lacking(at));
        self.sides.iter_mut().map(lacking).sum()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Nobody was seen to answer on it.
    pub(super) fn is_unanswered(&self) -> bool {
        self.stage == Stage::Connecting && !self.answered
    }

    /// This SYN begins another connection between the same ports: its number is another one, or this
    /// connection was over. So Wireshark tells them apart, too.
    pub(super) fn is_over_for(&self, segment: &Segment<'_>) -> bool {
        if segment.flags & (flag::SYN | flag::ACK) != flag::SYN {
            return false;
        }
        let [low, high] = &self.sides;
        let own = if segment.from_high { high } else { low };
        let over = self.stage == Stage::Closed || low.finished || high.finished;
        own.direction
            .base
            .is_some_and(|base| base != segment.seq || over)
    }

    fn who(&self, client: usize) -> Who {
        Who {
            stream: self.stream,
            ends: self.key.ends(),
            client,
        }
    }

    /// Smoothed round trip: both halves, or the handshake's.
    fn round_trip(&self) -> Option<Duration> {
        let [low, high] = &self.sides;
        let nanoseconds = match (low.trip.smoothed, high.trip.smoothed) {
            (Some(one), Some(other)) => one.saturating_add(other),
            _ if self.handshake > 0 => self.handshake,
            _ => return None,
        };
        Some(Duration::from_nanos(nanoseconds))
    }

    /// Takes the next segment. Whether the connection ended with it.
    #[inline]
    pub(super) fn take(&mut self, segment: &Segment<'_>, tell: &mut Teller) -> bool {
        let (own, other) = pair(&mut self.sides, segment.from_high);
        // A copy is as good as the packet where the capture lacks that.
        own.holes.sent(segment);
        other.holes.acknowledged(segment);
        if own.copies.is_copy(segment, &own.direction) {
            self.counts.copies += 1;
            return false;
        }
        let meaning = sequence::look(
            &mut own.direction,
            &mut other.direction,
            segment,
            self.handshake,
            &mut self.counts,
        );
        if self.stage == Stage::Closed {
            return false;
        }
        if segment.at >= self.last.at {
            self.last = Moment::of(segment);
        }
        self.time(segment, meaning);
        if self.stage < Stage::Open {
            self.begin(segment, meaning, tell);
        }
        if self.stage == Stage::Open
            && let Some(client) = self.client
        {
            self.exchange(segment, client, meaning, tell);
        }
        self.end(segment, tell)
    }

    #[inline]
    fn time(&mut self, segment: &Segment<'_>, meaning: Meaning) {
        let (own, other) = pair(&mut self.sides, segment.from_high);
        if meaning.again {
            // Which of both an ACK answers is not known (Karn's algorithm, RFC 6298 section 3).
            own.trip.timed = None;
        } else if segment.span() > 0 && own.trip.timed.is_none() {
            let end = segment.seq.wrapping_add(segment.span());
            own.trip.timed = Some((end, segment.at));
        }
        if segment.has(flag::ACK) {
            other.trip.acknowledged(segment.ack, segment.at);
        }
    }

    /// Before anything is exchanged: who asks, and when was the handshake done?
    fn begin(&mut self, segment: &Segment<'_>, meaning: Meaning, tell: &mut Teller) {
        let sender = usize::from(segment.from_high);
        let now = Moment::of(segment);
        match (segment.has(flag::SYN), segment.has(flag::ACK)) {
            (true, answer) => {
                let client = if answer { 1 - sender } else { sender };
                self.answered |= answer;
                if !answer {
                    self.syn_at = segment.at;
                }
                if self.stage == Stage::New {
                    self.client = Some(client);
                    self.opened = now;
                    self.stage = Stage::Connecting;
                    tell.connects(&self.who(client), now);
                } else if meaning.again && !answer {
                    tell.sent_again(&self.who(client), client, now, true);
                }
            }
            (false, _) if segment.has(flag::RST) => {}
            (false, _) if self.stage == Stage::Connecting => {
                let Some(client) = self.client else {
                    return;
                };
                self.answered = true;
                // Only the client's ACK comes a round trip after its SYN, wherever the capture is made.
                if client == sender {
                    self.handshake = segment.at.saturating_sub(self.syn_at);
                }
                self.stage = Stage::Open;
                tell.established(&self.who(client), now);
            }
            (false, _) if segment.length > 0 || segment.has(flag::FIN) => {
                let client = tell.who_asks(self.key.ends(), sender, segment.payload);
                self.client = Some(client);
                self.stage = Stage::Open;
                tell.found(&self.who(client), self.opened);
            }
            (false, _) => {}
        }
    }

    #[inline]
    fn exchange(
        &mut self,
        segment: &Segment<'_>,
        client: usize,
        meaning: Meaning,
        tell: &mut Teller,
    ) {
        let sender = usize::from(segment.from_high);
        let asks = client == sender;
        if self.turns.ends_with_acked(segment, 1 - sender, !asks) {
            self.turn(client, tell);
        }
        self.turns.acknowledged(segment, 1 - sender, !asks);
        if self.turns.ends_with(segment, sender, asks) {
            self.turn(client, tell);
        }
        let step = self.turns.carried(segment, sender, asks);
        if let Some(last) = step.goes_on_after
            && Silence::is_gap(last.at, segment.at)
        {
            self.tell_gap(
                client,
                sender,
                last,
                Moment::of(segment),
                step.new_bytes,
                tell,
            );
        }
        let (own, other) = pair(&mut self.sides, segment.from_high);
        if step.new_bytes > 0 {
            own.bytes += u64::from(step.new_bytes);
            own.silence.broken();
        }
        if meaning.fills_window {
            own.silence.filled(segment.at);
        }
        if meaning.probes_window {
            own.silence.probes();
        }
        if segment.window == 0 && !segment.has(flag::RST | flag::FIN) {
            other.silence.filled(segment.at);
        } else {
            other
                .silence
                .heard(segment.at, || match other.direction.room(&own.direction) {
                    Some(room) => room > 0,
                    None => segment.window > 0,
                });
        }
        if meaning.again {
            own.retransmits += 1;
            own.silence.sends_again();
            tell.sent_again(&self.who(client), sender, Moment::of(segment), false);
        }
    }

    /// A request follows a response.
    fn turn(&mut self, client: usize, tell: &mut Teller) {
        if self.turns.is_remarkable() {
            self.tell_exchange(client, true, tell);
        }
        self.turns.begin_next();
    }

    fn tell_exchange(&mut self, client: usize, complete: bool, tell: &mut Teller) {
        tell.cut_requests += u64::from(self.turns.is_cut());
        let head = self.turns.head();
        let (who, round_trip) = (self.who(client), self.round_trip());
        let known = self.sides.each_ref().map(|side| side.left.as_ref());
        for (side, left) in known.into_iter().enumerate() {
            // A client may close its half only, and still wait for the response; a server never does.
            let is_gone = side != client || self.abandoned;
            let current = self.turns.current();
            let wire = match left {
                Some(Left::Answered(number)) if is_gone => {
                    current.filter(|wire| wire.number == *number)
                }
                Some(Left::Knowing(wire)) if is_gone => Some(wire.as_ref()),
                Some(Left::Ignorant) if is_gone => None,
                _ => current,
            };
            if let Some(wire) = wire {
                tell.exchange(&who, side, wire, head.clone(), complete, round_trip);
            }
        }
    }

    /// A gap between `last` and `now`, with which `new_bytes` came; 0 where none did.
    fn tell_gap(
        &self,
        client: usize,
        sender: usize,
        last: Moment,
        now: Moment,
        new_bytes: u32,
        tell: &mut Teller,
    ) {
        let (Some(wire), Some(message)) = (self.turns.current(), self.turns.message()) else {
            return;
        };
        let gap = self.gap(sender, now.at);
        tell.gap(
            &self.who(client),
            &Break {
                sender,
                number: wire.number,
                message,
                from: last,
                until: now,
                resumed: new_bytes > 0,
                bytes_before: wire.bytes(message).saturating_sub(u64::from(new_bytes)),
                gap,
            },
        );
    }

    fn gap(&self, sender: usize, at: u64) -> Gap {
        let side = self.sides.get(sender);
        side.map_or_else(Gap::default, |side| side.silence.gap(at))
    }

    /// FIN and RST.
    #[inline]
    fn end(&mut self, segment: &Segment<'_>, tell: &mut Teller) -> bool {
        if segment.has(flag::RST) {
            self.reset(segment, tell);
            return true;
        }
        let (own, other) = pair(&mut self.sides, segment.from_high);
        if segment.has(flag::FIN) && !own.finished {
            own.finished = true;
            if self.stage == Stage::Open
                && let Some(client) = self.client
            {
                let sender = usize::from(segment.from_high);
                self.leave(segment, client);
                tell.finished(&self.who(client), sender, Moment::of(segment));
            }
            return false;
        }
        let over = own.finished
            && other.finished
            && !own.direction.outstanding(&other.direction)
            && !other.direction.outstanding(&own.direction);
        if over {
            self.close(Moment::of(segment), tell);
        }
        over
    }

    fn reset(&mut self, segment: &Segment<'_>, tell: &mut Teller) {
        let sender = usize::from(segment.from_high);
        let now = Moment::of(segment);
        if let Some(client) = self.client {
            let who = self.who(client);
            match self.stage {
                Stage::Connecting if sender != client => {
                    tell.connect_failed(&who, ConnectFailure::Refused, now);
                }
                // It gave up, or only wanted to know whether somebody listens.
                Stage::Connecting if !self.answered => {
                    tell.connect_failed(&who, ConnectFailure::Abandoned, now);
                }
                Stage::Open => {
                    self.leave(segment, client);
                    self.abandoned |= sender == client;
                    let (own, _) = pair(&mut self.sides, segment.from_high);
                    tell.reset(&who, sender, now, !own.finished);
                }
                Stage::New | Stage::Connecting | Stage::Closed => {}
            }
        }
        self.close(now, tell);
    }

    /// Nothing follows: it ended, was given up, or another one took its place.
    pub(super) fn close(&mut self, now: Moment, tell: &mut Teller) {
        self.tell_rest(now, tell);
        if let Some(client) = self.client
            && self.stage != Stage::Closed
            && self.stage != Stage::New
        {
            let totals = self.sides.each_ref().map(|side| Totals {
                bytes: side.bytes,
                retransmits: side.retransmits,
            });
            tell.closed(&self.who(client), totals, self.round_trip(), now);
        }
        self.stage = Stage::Closed;
        self.turns = Turns::default();
    }

    /// Nobody answered for as long as any kernel waits.
    pub(super) fn time_out(&mut self, tell: &mut Teller) {
        if let (Some(client), true) = (self.client, self.is_unanswered()) {
            tell.connect_failed(&self.who(client), ConnectFailure::TimedOut, self.last);
        }
        self.close(self.last, tell);
    }

    /// The capture is over; what is under way is told as it stands.
    pub(super) fn tell_rest(&mut self, now: Moment, tell: &mut Teller) {
        if self.stage == Stage::New && self.counts.segments > 1 {
            // Only acknowledgements passed: an idle connection, which is worth knowing of.
            let client = tell.who_asks(self.key.ends(), 0, &[]);
            self.client = Some(client);
            self.stage = Stage::Open;
            tell.found(&self.who(client), self.opened);
        }
        let (Some(client), Stage::Open) = (self.client, self.stage) else {
            return;
        };
        if let (Some(wire), Some(message)) = (self.turns.current(), self.turns.message()) {
            let sender = match message {
                Message::Request => client,
                Message::Response => 1 - client,
            };
            let last = wire.last_byte;
            let gap = self.gap(sender, now.at);
            // Whether a message that stopped is whole cannot be told; but whoever is held back, or
            // repeats itself, had more to say.
            let unfinished = gap.window_limited > 0 || gap.retransmits > 0;
            if unfinished && Silence::is_gap(last.at, now.at) {
                self.tell_gap(client, sender, last, now, 0, tell);
            }
        }
        self.tell_exchange(client, false, tell);
        let who = self.who(client);
        for (sender, side) in self.sides.iter().enumerate() {
            if let Some(since) = side.silence.full_since()
                && Silence::is_gap(since, now.at)
            {
                tell.unread(&who, 1 - sender, since, now);
            }
        }
    }
}
