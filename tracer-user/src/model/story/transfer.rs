//! What happens to bytes on their way, told to a story.

use std::time::Duration;

use super::{Asked, Story, ms};
use crate::event::{Fact, Message, SocketId, Stall};

impl Asked {
    /// The answer's last byte goes later than its first, and it has so many.
    pub(crate) fn through(mut self, last: f64, bytes: u64) -> Self {
        self.last = Some(last);
        if let Some((_, _, size)) = &mut self.answer {
            *size = bytes;
        }
        self
    }
}

/// A gap as one end saw it: nothing is known of it but its time.
pub(crate) fn silence(message: Message, from: f64, until: f64) -> Stall {
    Stall {
        socket: SocketId(0),
        number: 0,
        message,
        from: ms(from),
        until: ms(until),
        resumed: true,
        bytes_before: 65_536,
        arrived: None,
        buffer_full: None,
        window_limited: Duration::ZERO,
        retransmits: 0,
    }
}

impl Story {
    /// `socket` saw this gap in exchange `number`.
    pub(crate) fn stalled(&mut self, socket: SocketId, number: u32, stall: Stall) -> &mut Self {
        let told = Stall {
            socket,
            number,
            ..stall
        };
        self.tell_at(stall.until, Fact::Stalled(told))
    }

    /// A segment is sent again.
    pub(crate) fn sent_again(&mut self, at: f64, socket: SocketId) -> &mut Self {
        self.tell(at, Fact::Retransmitted { socket, syn: false })
    }
}
