//! Gaps in the middle of a message.
//!
//! Pure, so that it is tested where there is no kernel. A gap is told by the call that ends it, or, where
//! the process wanted to send and could not, at the socket's end. What was read and then stays silent
//! is no gap: whether more was to come, nobody here knows.

use crate::{FLAG_RESUMED, Header, KIND_STALL, PHASE_REQUEST, PHASE_RESPONSE, Read, Socket, Stall};

/// The shortest gap that is told, in nanoseconds.
pub const STALL: u64 = 200_000_000;
/// `-EAGAIN`: the socket's buffer is full.
pub const FULL: i64 = -11;
/// From this many bytes of a message on it is asked whether the peer's window holds it up. Less fits into
/// any window.
pub const BULK: u64 = 16 << 10;

impl Socket {
    /// Whether bytes sent (or else read) go on with the message of the last ones.
    #[inline(always)]
    fn goes_on(&self, sent: bool) -> bool {
        self.phase
            == if self.asks(sent) {
                PHASE_REQUEST
            } else {
                PHASE_RESPONSE
            }
    }

    /// Whether bytes sent (or else read) now would end a gap.
    #[inline(always)]
    pub fn ends_gap(&self, sent: bool, now: u64) -> bool {
        self.goes_on(sent) && now.saturating_sub(self.turn.last_byte) >= STALL
    }

    /// Whether the process has wanted to send more of a message, and could not until now.
    #[inline(always)]
    pub fn is_stuck(&self, now: u64) -> bool {
        self.buffer_full != 0 && self.ends_gap(true, now)
    }

    /// The bytes of the message that flowed last.
    #[inline(always)]
    pub fn message_bytes(&self) -> u64 {
        if self.phase == PHASE_REQUEST {
            self.turn.request_bytes
        } else {
            self.turn.response_bytes
        }
    }

    /// The process found no room for what it wanted to send.
    #[inline(always)]
    pub fn finds_full(&mut self, now: u64) {
        if self.buffer_full == 0 {
            self.buffer_full = now;
        }
    }

    /// The process has sent; `limited` as in [`Socket::limited`].
    #[inline(always)]
    pub fn has_sent(&mut self, limited: u32) {
        self.buffer_full = 0;
        self.retransmits = 0;
        self.limited = limited;
    }

    /// The gap that a read ends.
    #[inline(always)]
    pub fn receiving_gap(&self, now: u64, read: Read) -> Stall {
        Stall {
            // What the last read left lay there from then on.
            arrived: read.since,
            ..self.gap(now, FLAG_RESUMED)
        }
    }

    /// The gap that a send ends, or, without `FLAG_RESUMED`, nothing; `limited` as in
    /// [`Socket::limited`], now.
    #[inline(always)]
    pub fn sending_gap(&self, now: u64, limited: u32, flags: u32) -> Stall {
        let window_limited = if self.limited == 0 || limited == 0 {
            0
        } else {
            limited.wrapping_sub(self.limited)
        };
        Stall {
            buffer_full: self.buffer_full,
            window_limited,
            retransmits: self.retransmits.into(),
            ..self.gap(now, flags)
        }
    }

    #[inline(always)]
    fn gap(&self, now: u64, flags: u32) -> Stall {
        Stall {
            header: Header {
                kind: KIND_STALL,
                what: self.phase.into(),
                flags,
                at: now,
            },
            socket: self.id,
            from: self.turn.last_byte,
            until: now,
            bytes_before: self.message_bytes(),
            arrived: 0,
            buffer_full: 0,
            window_limited: 0,
            retransmits: 0,
            number: self.turn.number,
            _pad: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ROLE_CLIENT, ROLE_SERVER, tests::socket};

    #[test]
    fn silence_between_two_calls_of_one_message_is_a_gap() {
        let mut socket = socket(ROLE_SERVER);
        socket.asked(10, 100);
        assert!(!socket.ends_gap(false, 10 + STALL - 1));
        assert!(socket.ends_gap(false, 10 + STALL));
        let read = Read {
            since: 300,
            exact: true,
            unbroken: true,
        };
        let stall = socket.receiving_gap(10 + STALL, read);
        assert_eq!((stall.from, stall.until), (10, 10 + STALL));
        assert_eq!((stall.bytes_before, stall.arrived), (100, 300));
        assert_eq!(stall.header.what, u16::from(PHASE_REQUEST));
    }

    #[test]
    fn a_turn_of_direction_ends_no_gap() {
        let mut socket = socket(ROLE_CLIENT);
        assert!(!socket.ends_gap(true, STALL)); // nothing flowed yet
        socket.asked(10, 100);
        assert!(!socket.ends_gap(false, 10 + STALL)); // waiting for the response
        socket.answered(20, 100);
        assert!(!socket.ends_gap(true, 20 + STALL)); // idle
        assert!(socket.ends_gap(false, 20 + STALL)); // the response goes on
    }

    #[test]
    fn calls_that_cross_on_two_cpus_make_no_gap() {
        let mut socket = socket(ROLE_SERVER);
        socket.asked(101, 100);
        assert!(!socket.ends_gap(false, 100));
    }

    #[test]
    fn a_sender_that_found_room_again_tells_what_held_it_up() {
        let mut socket = socket(ROLE_SERVER);
        socket.asked(1, 10);
        socket.answered(5, 70_000);
        socket.has_sent(8);
        assert!(!socket.is_stuck(5 + STALL));
        socket.finds_full(6);
        socket.finds_full(7);
        socket.retransmits += 2;
        assert!(socket.is_stuck(5 + STALL));
        let stall = socket.sending_gap(5 + STALL, 58, FLAG_RESUMED);
        assert_eq!((stall.buffer_full, stall.window_limited), (6, 50));
        assert_eq!((stall.retransmits, stall.bytes_before), (2, 70_000));
        socket.answered(5 + STALL, 10);
        socket.has_sent(58);
        assert!(!socket.is_stuck(5 + 3 * STALL));
        assert_eq!(socket.retransmits, 0);
    }

    #[test]
    fn where_the_window_was_not_asked_for_nothing_is_said_of_it() {
        let mut socket = socket(ROLE_SERVER);
        socket.answered(5, 10);
        assert_eq!(socket.sending_gap(5 + STALL, 58, 0).window_limited, 0);
    }

    #[test]
    fn a_buffer_that_is_full_of_an_earlier_message_is_no_gap_of_the_next() {
        let mut socket = socket(ROLE_SERVER);
        socket.answered(5, 70_000);
        socket.asked(10, 10);
        socket.finds_full(11); // nothing of the answer was sent yet
        assert!(!socket.is_stuck(10 + STALL));
    }
}
