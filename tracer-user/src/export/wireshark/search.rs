//! Which packet of a capture an event came with.
//!
//! In: what is wanted (between which ends, when, and what the packet does), then every packet in the order
//! of the capture. Out: for each want the packet that fits best, if one fits at all. Memory depends on the
//! wants alone.
//!
//! An event and its packet are timed by different hooks, some microseconds apart, and a process reads a
//! packet when it comes to it: what was received is looked for backwards without a bound, what was sent
//! around the event's time.

use std::{collections::HashMap, net::SocketAddr};

use crate::pcapng::Segment;

/// How far from its event a packet that was sent may be, in nanoseconds: the stack sends at once unless
/// the peer's window keeps it.
const AROUND: u64 = 50_000_000;

/// By how much clocks of two hooks may be taken in the other order.
const SLACK: u64 = 1_000_000;

/// How long a handshake may take before its connection counts as accepted.
const HANDSHAKE: u64 = 10_000_000_000;

/// Who asks, and who answers.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// One of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What a packet has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// To be the connection's first: its SYN, or whatever comes first.
    First,
    /// To open one direction.
    Opening,
    /// To begin a message of this side, that was sent at the time.
    Sent(Side),
    /// To begin a message of this side, that was read at the time.
    Read(Side),
    /// To carry payload of this side, or of either.
    Payload(Option<Side>),
    /// To end the connection for this side, or for either.
    Leaving(Option<Side>),
    /// To break it off.
    Reset,
    /// Nothing but to be near.
    Any,
}

/// A packet that is looked for. Times are nanoseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Want {
    /// Between these ends; several where it is not known which.
    pub(super) ends: Vec<Ends>,
    /// When the event happened.
    pub(super) at: u64,
    /// While these ends were this connection.
    pub(super) during: (u64, u64),
    pub(super) sought: Sought,
}

/// How well a packet fits; the least is the best.
type Distance = (bool, u64);

pub(super) struct Search<'w> {
    wants: &'w [Want],
    connections: HashMap<Ends, Seen>,
    best: Vec<Option<(Distance, u64)>>,
}

#[derive(Default)]
struct Seen {
    wants: Vec<usize>,
    /// Who sent the last payload.
    speaking: Option<Side>,
}

/// What a packet does, as far as wants ask.
struct Deed {
    by: Side,
    at: u64,
    segment: Segment,
    /// It carries payload, and the payload before it was the other side's.
    turn: bool,
}

impl<'w> Search<'w> {
    pub(super) fn new(wants: &'w [Want]) -> Self {
        let mut connections = HashMap::<Ends, Seen>::new();
        for (index, want) in wants.iter().enumerate() {
            for ends in &want.ends {
                connections.entry(*ends).or_default().wants.push(index);
            }
        }
        Self {
            wants,
            connections,
            best: vec![None; wants.len()],
        }
    }

    /// The next packet, by the number it is to be told by.
    pub(super) fn see(&mut self, number: u64, at: u64, segment: Segment) {
        let (from, to) = (segment.source, segment.destination);
        let (by, ends) = if self.connections.contains_key(&(from, to)) {
            (Side::Client, (from, to))
        } else {
            (Side::Server, (to, from))
        };
        let Some(seen) = self.connections.get_mut(&ends) else {
            return;
        };
        if segment.opens() {
            seen.speaking = None;
        }
        let deed = Deed {
            by,
            at,
            segment,
            turn: segment.payload > 0 && seen.speaking != Some(by),
        };
        if segment.payload > 0 {
            seen.speaking = Some(by);
        }
        for index in &seen.wants {
            let (Some(want), Some(best)) = (self.wants.get(*index), self.best.get_mut(*index))
            else {
                continue;
            };
            let distance = want.distance(&deed);
            if let Some(distance) = distance
                && best.is_none_or(|(least, _)| distance < least)
            {
                *best = Some((distance, number));
            }
        }
    }

    /// The number of the packet found for each want.
    pub(super) fn found(&self) -> impl Iterator<Item = Option<u64>> {
        self.best.iter().map(|best| best.map(|(_, number)| number))
    }
}

impl Want {
    /// `None` where the packet does not fit.
    fn distance(&self, deed: &Deed) -> Option<Distance> {
        if !(self.during.0..=self.during.1).contains(&deed.at) {
            return None;
        }
        let segment = &deed.segment;
        let apart = self.at.abs_diff(deed.at);
        let fits = match self.sought {
            Sought::First => return self.first(deed),
            Sought::Read(side) => {
                let before = (self.at + SLACK).checked_sub(deed.at)?;
                return (deed.turn && deed.by == side).then_some((false, before));
            }
            Sought::Sent(side) => deed.turn && deed.by == side,
            Sought::Payload(side) => segment.payload > 0 && side.is_none_or(|side| side == deed.by),
            Sought::Opening => segment.opens(),
            Sought::Leaving(side) => segment.leaves() && side.is_none_or(|side| side == deed.by),
            Sought::Reset => segment.resets(),
            Sought::Any => true,
        };
        (fits && apart <= AROUND).then_some((false, apart))
    }

    fn first(&self, deed: &Deed) -> Option<Distance> {
        let apart = self.at.abs_diff(deed.at);
        if deed.segment.opens() && deed.by == Side::Client && apart <= HANDSHAKE {
            return Some((false, apart));
        }
        (deed.at + SLACK >= self.at).then_some((true, deed.at))
    }
}
