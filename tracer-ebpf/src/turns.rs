//! Exchanges are told apart by the turn of direction: bytes of a request after bytes of a response
//! begin the next exchange.
//!
//! Pure, so that it is tested where there is no kernel. Two tellers look at each socket and keep to
//! fields of their own: the process's calls (who, how many bytes, when) and its packets (the head of
//! each message). Both see the same turns in the same order, so the number of an exchange joins what
//! they tell, although the packets of a message come before the call that reads it returns.

use crate::{
    Exchange, Header, KIND_EXCHANGE, PHASE_NEW, PHASE_REQUEST, PHASE_RESPONSE, ROLE_CLIENT,
    SOCKET_INTERIM, Socket, Turn,
};

/// Exchanges of each connection that are told whatever they were.
const TOLD_AT_FIRST: u32 = 64;
/// An exchange that took this long is told, in nanoseconds.
const SLOW: u64 = 50_000_000;

impl Socket {
    /// Whether bytes sent (or else received) on this socket belong to requests.
    #[inline(always)]
    pub fn asks(&self, sent: bool) -> bool {
        sent == (self.role == ROLE_CLIENT)
    }

    /// Whether bytes of a request now would begin the next exchange, so that this one must be told.
    #[inline(always)]
    pub fn is_complete(&self) -> bool {
        self.phase == PHASE_RESPONSE
    }

    /// Whether the complete exchange is worth a record of its own. The first ones of a connection are, so
    /// that there is something to compare with, and whatever was slow or went wrong. The rest shows as
    /// a gap in the numbers, so that a connection under full load costs no record at all.
    #[inline(always)]
    pub fn is_remarkable(&self) -> bool {
        Self::is_told_at_first(self.turn.number) || self.is_unusual()
    }

    /// Whether the exchange so far was slow, went wrong or took an interim response.
    #[inline(always)]
    pub fn is_unusual(&self) -> bool {
        let status = self.status();
        let interim = status != 0 && status < 200;
        interim
            || status >= 400
            || self.flags & SOCKET_INTERIM != 0
            || self.turn.last_byte - self.turn.began(self.role) >= SLOW
    }

    /// Whether an exchange of this number is told whatever becomes of it.
    #[inline(always)]
    pub fn is_told_at_first(number: u32) -> bool {
        number < TOLD_AT_FIRST
    }

    /// Forgets the exchange that is over.
    #[inline(always)]
    pub fn begin_next(&mut self) {
        // What follows a `100 Continue` goes on with it, and is told with it.
        if matches!(self.status(), 100..200) {
            self.flags |= SOCKET_INTERIM;
        } else {
            self.flags &= !SOCKET_INTERIM;
        }
        (self.bytes_sent, self.bytes_received) = self.totals();
        self.turn.request_bytes = 0;
        self.turn.response_bytes = 0;
        self.turn.first_byte = 0;
        self.turn.arrived = 0;
        self.turn.number += 1;
    }

    /// The process sent or read bytes of a request. Whether they are its first.
    #[inline(always)]
    pub fn asked(&mut self, now: u64, bytes: u64) -> bool {
        let first = self.phase != PHASE_REQUEST;
        if first {
            self.phase = PHASE_REQUEST;
            self.turn.started = now;
        }
        self.turn.request_bytes += bytes;
        self.turn.request_ended = now;
        self.turn.last_byte = now;
        first
    }

    /// The process sent or read bytes of a response. Whether nothing was known of its request: the
    /// server speaks first, or we came in the middle.
    #[inline(always)]
    pub fn answered(&mut self, now: u64, bytes: u64) -> bool {
        let unasked = self.phase == PHASE_NEW;
        if unasked {
            self.turn.started = now;
            self.turn.request_ended = now;
        }
        if self.turn.first_byte == 0 {
            self.turn.first_byte = now;
        }
        self.phase = PHASE_RESPONSE;
        self.turn.response_bytes += bytes;
        self.turn.last_byte = now;
        unasked
    }

    /// The exchange as it stands, to be told; `None` where nothing went over the socket yet. `srtt_us` is
    /// the kernel's round-trip time, 0 where unknown, and `unread` says that bytes lie in the socket.
    #[inline(always)]
    pub fn exchange(&self, flags: u32, at: u64, srtt_us: u32, unread: bool) -> Option<Exchange> {
        if self.phase == PHASE_NEW {
            return None;
        }
        Some(Exchange {
            header: Header {
                kind: KIND_EXCHANGE,
                what: 0,
                flags,
                at,
            },
            socket: self.id,
            turn: Turn {
                arrived: self.arrival(unread),
                ..self.turn
            },
            owner: self.owner,
            srtt_us,
            status: self.status(),
            _pad: 0,
        })
    }

    /// Payload bytes that the process sent and read on the socket.
    #[inline(always)]
    pub fn totals(&self) -> (u64, u64) {
        let (sent, received) = if self.role == ROLE_CLIENT {
            (self.turn.request_bytes, self.turn.response_bytes)
        } else {
            (self.turn.response_bytes, self.turn.request_bytes)
        };
        (self.bytes_sent + sent, self.bytes_received + received)
    }

    /// The HTTP status of the exchange that the process is in, or 0.
    #[inline(always)]
    pub fn status(&self) -> u16 {
        if self.turn.number & 1 == 0 {
            self.status[0]
        } else {
            self.status[1]
        }
    }

    /// A segment with payload passes. Whether it begins a message; one that was sent again never does.
    #[inline(always)]
    pub fn begins_message(&mut self, outgoing: bool, sequence: u32, payload: u32) -> bool {
        let next = if outgoing {
            &mut self.next_sent
        } else {
            &mut self.next_received
        };
        let end = sequence.wrapping_add(payload);
        if *next != 0 && end.wrapping_sub(*next) as i32 <= 0 {
            return false;
        }
        *next = end;
        let phase = if self.asks(outgoing) {
            PHASE_REQUEST
        } else {
            PHASE_RESPONSE
        };
        let turned = self.wire_phase != phase;
        if turned && phase == PHASE_REQUEST && self.wire_phase == PHASE_RESPONSE {
            self.wire_number += 1;
        }
        if turned && phase == PHASE_REQUEST {
            self.set_status(0);
        }
        self.wire_phase = phase;
        turned
    }

    /// The response whose first packet passes has this HTTP status.
    #[inline(always)]
    pub fn set_status(&mut self, status: u16) {
        // Two places in turn: by packets, the next response may come before the process's call that
        // ends this exchange is told.
        if self.wire_number & 1 == 0 {
            self.status[0] = status;
        } else {
            self.status[1] = status;
        }
    }
}

impl Turn {
    /// Since when the exchange goes on: for who serves it, since its request lay there to be read.
    #[inline(always)]
    fn began(&self, role: u8) -> u64 {
        if role == ROLE_CLIENT || self.arrived == 0 {
            self.started
        } else {
            self.arrived
        }
    }
}

/// `HTTP/1.1 200` → 200; 0 where the line is not one.
#[inline(always)]
pub fn http_status(line: &[u8; 12]) -> u16 {
    if line[..7] != *b"HTTP/1." || line[8] != b' ' {
        return 0;
    }
    let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
    let status = digit(line[9]) * 100 + digit(line[10]) * 10 + digit(line[11]);
    if matches!(status, 100..1000) {
        status
    } else {
        0
    }
}

/// Whether these are the first bytes of an HTTP/1 request: a method is a word in capitals.
#[inline(always)]
pub fn begins_request(bytes: &[u8; 4]) -> bool {
    let capital = |byte: u8| byte.is_ascii_uppercase();
    capital(bytes[0])
        && capital(bytes[1])
        && capital(bytes[2])
        && (capital(bytes[3]) || bytes[3] == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ROLE_SERVER, tests::socket};

    /// Feeds the process's calls; what was told, as (request bytes, response bytes).
    fn play(socket: &mut Socket, calls: &[(bool, u64)]) -> std::vec::Vec<(u64, u64)> {
        let mut told = std::vec::Vec::new();
        for (now, (sent, bytes)) in (1..).zip(calls) {
            if socket.asks(*sent) {
                if socket.is_complete() {
                    told.push((socket.turn.request_bytes, socket.turn.response_bytes));
                    socket.begin_next();
                }
                socket.asked(now, *bytes);
            } else {
                socket.answered(now, *bytes);
            }
        }
        told
    }

    #[test]
    fn a_request_after_a_response_completes_the_exchange() {
        let mut socket = socket(ROLE_CLIENT);
        let told = play(
            &mut socket,
            &[(true, 10), (true, 5), (false, 7), (false, 8), (true, 1)],
        );
        assert_eq!(told, [(15, 15)]);
        assert_eq!(
            (
                socket.turn.number,
                socket.turn.request_bytes,
                socket.turn.first_byte
            ),
            (1, 1, 0)
        );
        assert_eq!(socket.totals(), (16, 15));
    }

    #[test]
    fn on_a_server_what_is_read_is_the_request() {
        let mut socket = socket(ROLE_SERVER);
        let told = play(&mut socket, &[(false, 100), (true, 20), (false, 3)]);
        assert_eq!(told, [(100, 20)]);
        assert_eq!(socket.totals(), (20, 103));
    }

    #[test]
    fn times_are_of_the_first_and_last_bytes() {
        let mut socket = socket(ROLE_CLIENT);
        assert!(socket.asked(10, 1));
        assert!(!socket.asked(20, 1));
        assert!(!socket.answered(30, 1));
        assert!(!socket.answered(40, 1));
        assert_eq!((socket.turn.started, socket.turn.request_ended), (10, 20));
        assert_eq!((socket.turn.first_byte, socket.turn.last_byte), (30, 40));
    }

    #[test]
    fn quick_exchanges_of_a_busy_connection_are_not_told_one_by_one() {
        let mut socket = socket(ROLE_SERVER);
        let turn = |socket: &mut Socket, status: u16, took: u64| {
            socket.begins_message(false, socket.next_received.max(1), 10);
            socket.asked(1, 10);
            socket.begins_message(true, socket.next_sent.max(1), 10);
            socket.set_status(status);
            socket.answered(1 + took, 10);
            let remarkable = socket.is_remarkable();
            socket.begin_next();
            remarkable
        };
        for _ in 0..TOLD_AT_FIRST {
            assert!(turn(&mut socket, 200, 5));
        }
        assert!(!turn(&mut socket, 200, 5));
        assert!(turn(&mut socket, 200, SLOW));
        assert!(turn(&mut socket, 404, 5));
        assert!(turn(&mut socket, 100, 5)); // and what goes on with it
        assert!(turn(&mut socket, 200, 5));
        assert!(!turn(&mut socket, 200, 5));
    }

    #[test]
    fn a_request_that_lay_unread_was_slow_however_quickly_it_was_served() {
        let lay = |role, arrived| {
            let mut socket = socket(role);
            socket.turn.number = TOLD_AT_FIRST;
            socket.asked(2 * SLOW, 10);
            socket.turn.arrived = arrived;
            socket.answered(2 * SLOW + 1, 10);
            socket.is_remarkable()
        };
        assert!(lay(ROLE_SERVER, SLOW));
        assert!(!lay(ROLE_SERVER, 2 * SLOW - 1));
        assert!(!lay(ROLE_SERVER, 0));
        // What arrives at who asks is the response.
        assert!(!lay(ROLE_CLIENT, 2 * SLOW + 1));
    }

    #[test]
    fn a_server_that_speaks_first_answers_nothing() {
        let mut socket = socket(ROLE_CLIENT);
        assert!(socket.answered(5, 30));
        assert_eq!(
            (
                socket.turn.request_bytes,
                socket.turn.response_bytes,
                socket.turn.number
            ),
            (0, 30, 0)
        );
        assert!(socket.is_complete());
    }

    #[test]
    fn packets_and_calls_count_the_same_exchanges() {
        let mut socket = socket(ROLE_SERVER);
        assert!(socket.begins_message(false, 1, 10)); // request 0
        socket.asked(1, 10);
        assert!(socket.begins_message(true, 1, 5)); // its response, before the call returns
        socket.set_status(200);
        assert!(socket.begins_message(false, 11, 10)); // request 1 before the response's call is told
        socket.answered(2, 5);
        assert_eq!((socket.turn.number, socket.wire_number), (0, 1));
        assert_eq!(socket.status(), 200);
        assert!(socket.is_complete());
        socket.begin_next();
        socket.asked(3, 10);
        assert_eq!((socket.turn.number, socket.status()), (1, 0));
    }

    #[test]
    fn a_segment_sent_again_begins_nothing() {
        let mut socket = socket(ROLE_CLIENT);
        assert!(socket.begins_message(true, 100, 10));
        assert!(socket.begins_message(false, 1, 10));
        assert!(!socket.begins_message(true, 100, 10));
        assert!(!socket.begins_message(true, 105, 5));
        assert!(socket.begins_message(true, 110, 10));
        assert_eq!(socket.wire_number, 1);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut socket = socket(ROLE_CLIENT);
        assert!(socket.begins_message(true, u32::MAX - 4, 10));
        assert!(socket.begins_message(false, 1, 1));
        assert!(socket.begins_message(true, 5, 10));
    }

    #[test]
    fn status_lines_and_methods_are_recognised() {
        assert_eq!(http_status(b"HTTP/1.1 502"), 502);
        assert_eq!(http_status(b"HTTP/2.0 502"), 0);
        assert_eq!(http_status(b"HTTP/1.1 abc"), 0);
        assert!(begins_request(b"GET ") && begins_request(b"POST") && begins_request(b"PUT "));
        assert!(!begins_request(b"HTT1") && !begins_request(b"\x16\x03\x01\x02"));
    }
}
