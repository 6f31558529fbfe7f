//! What each end of a connection knew when it left.

use std::time::Duration;

use super::{
    super::{
        segment::{Segment, flag},
        side::{Left, pair},
        turns::Wire,
    },
    Connection,
};
use crate::event::Message;

/// A reset within two round trips and this time of a request may have been under way before it.
const SOON: Duration = Duration::from_millis(1);

impl Connection {
    /// Keeps what the sender of a FIN or RST knows; of several, what it knew at the first.
    pub(super) fn leave(&mut self, segment: &Segment<'_>, client: usize) {
        let left = self.known_by(segment, client);
        let (own, _) = pair(&mut self.sides, segment.from_high);
        own.left.get_or_insert(left);
    }

    /// What the sender of a FIN or RST knows of the exchange under way.
    fn known_by(&self, segment: &Segment<'_>, client: usize) -> Left {
        let (Some(wire), Some(message)) = (self.turns.current(), self.turns.message()) else {
            return Left::Ignorant;
        };
        let asks = client == usize::from(segment.from_high);
        let reached = !segment.has(flag::ACK) || self.turns.reached(segment.ack);
        match (asks, message) {
            (true, Message::Response) if !reached => Left::Knowing(Box::new(wire.unanswered())),
            (_, Message::Response) => Left::Answered(wire.number),
            (false, Message::Request) if !reached => Left::Ignorant,
            // Reset at once on a connection used before: it may have been closing already, and the kernel
            // answers a request that nobody reads in the same way. A FIN says that all was read.
            (false, Message::Request)
                if segment.has(flag::RST)
                    && self.was_used(wire)
                    && self.is_soon(wire, segment.at) =>
            {
                Left::Ignorant
            }
            (_, Message::Request) => Left::Knowing(Box::new(*wire)),
        }
    }

    fn is_soon(&self, wire: &Wire, at: u64) -> bool {
        let soon = self.round_trip().unwrap_or_default() * 2 + SOON;
        Duration::from_nanos(at.saturating_sub(wire.started.at)) <= soon
    }

    fn was_used(&self, wire: &Wire) -> bool {
        wire.number > 0 || self.handshake == 0
    }
}
