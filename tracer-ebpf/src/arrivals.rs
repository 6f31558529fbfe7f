//! Since when the bytes that the process reads, or does not read, lie in the socket.
//!
//! Pure, so that it is tested where there is no kernel. In come the segments with payload as they pass,
//! and the process's reads, each with the place up to which the kernel has handed bytes out
//! (`tcp_sock.copied_seq`). What always holds: a time is told as exact only where the first byte in
//! question came at that time, in its turn, and nothing was read unseen (`splice`) since; any other
//! time is one from which on the bytes certainly lay there. Where a segment and a read race on two
//! CPUs, a time is forgotten or told too late, never too early.

use crate::{
    LYING_HOLE, LYING_KNOWN, LYING_LONGER, PHASE_NEW, PHASE_REQUEST, PHASE_RESPONSE, ROLE_CLIENT,
    Socket,
};

/// What a read of the process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Since when its first byte lay in the socket; 0 where that is not known.
    pub since: u64,
    /// It came right then; else it may have lain there longer.
    pub exact: bool,
    /// No byte was read unseen between the last read and this one.
    pub unbroken: bool,
}

impl Socket {
    /// A segment with payload comes in, before the kernel queues it. `kernel` reads `copied_seq` and
    /// `rcv_nxt`; it is asked where packets alone do not say whether the segment comes in its turn.
    #[inline(always)]
    pub fn arrives(
        &mut self,
        sequence: u32,
        payload: u32,
        now: impl FnOnce() -> u64,
        kernel: impl FnOnce() -> Option<(u32, u32)>,
    ) {
        let end = sequence.wrapping_add(payload);
        if self.next_received != 0 && self.lying & LYING_HOLE == 0 {
            if is_before(self.next_received, sequence) {
                self.lying |= LYING_HOLE;
            } else if self.arrived == 0 && is_before(self.next_received, end) {
                self.arrived = now();
            }
            return;
        }
        if self.arrived != 0 {
            return;
        }
        let Some((copied, expected)) = kernel() else {
            return;
        };
        if is_before(expected, sequence) {
            self.lying |= LYING_HOLE;
        } else if is_before(expected, end) {
            self.arrived = now();
            self.copied = copied;
            self.lying |= LYING_KNOWN;
            if copied != expected {
                self.lying |= LYING_LONGER; // behind bytes from before the socket was known
            }
        }
    }

    /// The process has read `bytes`, and the kernel has handed out all up to `copied`. `expected` reads
    /// `rcv_nxt`, which is asked where segments came out of turn.
    #[inline(always)]
    pub fn reads(
        &mut self,
        now: u64,
        bytes: u64,
        copied: u32,
        expected: impl FnOnce() -> Option<u32>,
    ) -> Read {
        let known = self.lying & LYING_KNOWN != 0;
        let peeked = known && copied == self.copied;
        let unbroken = !known || peeked || copied.wrapping_sub(bytes as u32) == self.copied;
        let read = Read {
            since: if known && unbroken { self.arrived } else { 0 },
            exact: self.lying & LYING_LONGER == 0,
            unbroken,
        };
        if peeked {
            return read; // the bytes lie there still
        }
        self.copied = copied;
        self.lying |= LYING_KNOWN;
        let left = if copied == self.next_received {
            self.lying &= !LYING_HOLE;
            false
        } else if self.lying & LYING_HOLE != 0 {
            expected() != Some(copied)
        } else {
            self.next_received != 0
        };
        if left {
            self.arrived = now;
            self.lying |= LYING_LONGER;
        } else {
            self.arrived = 0;
            self.lying &= !LYING_LONGER;
        }
        read
    }

    /// Packets are not seen any more: what they said last must not be taken for what is.
    #[inline(always)]
    pub fn forget_packets(&mut self) {
        self.wire_phase = PHASE_NEW;
        self.status = [0; 2];
        (self.next_sent, self.next_received) = (0, 0);
        self.arrived = 0;
        self.lying &= !(LYING_HOLE | LYING_LONGER);
    }

    /// A read begins the message that we receive in this exchange, or goes on with it. To be called when
    /// the exchange before it is over, and before this one counts the bytes.
    #[inline(always)]
    pub fn notes_arrival(&mut self, read: Read) {
        let client = self.role == ROLE_CLIENT;
        let begins = if client {
            self.turn.first_byte == 0
        } else {
            self.phase != PHASE_REQUEST
        };
        // What came before the request was sent is no answer to it.
        let answers = !client || self.phase != PHASE_REQUEST || read.since >= self.turn.started;
        if begins {
            self.turn.arrived = if read.exact && answers { read.since } else { 0 };
        }
    }

    /// When the first byte of what we receive in this exchange lay in the socket, or 0. `unread` says that
    /// bytes certainly lie there now: they may be the beginning of a response that nobody reads.
    #[inline(always)]
    pub fn arrival(&self, unread: bool) -> u64 {
        let waits = self.role == ROLE_CLIENT && self.phase == PHASE_REQUEST;
        if waits && unread && self.lying & LYING_LONGER == 0 && self.arrived >= self.turn.started {
            self.arrived
        } else {
            self.turn.arrived
        }
    }

    /// Bytes that lie in the socket by what its packets said; `None` where they do not say it.
    #[must_use]
    pub fn lying_bytes(&self) -> Option<u64> {
        let told = self.lying & LYING_KNOWN != 0 && self.lying & LYING_HOLE == 0;
        (told && self.next_received != 0)
            .then(|| u64::from(self.next_received.wrapping_sub(self.copied)))
    }

    /// Whether the process has never sent or read a byte on it.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        !matches!(self.phase, PHASE_REQUEST | PHASE_RESPONSE)
    }
}

/// Whether sequence number `a` comes before `b`; they wrap.
#[inline(always)]
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ROLE_SERVER, tests::socket};

    /// The kernel's side of a socket, enough of it to play segments and reads.
    struct Kernel {
        socket: Socket,
        copied: u32,
        expected: u32,
    }

    impl Kernel {
        fn new(role: u8) -> Self {
            Self {
                socket: socket(role),
                copied: 1000,
                expected: 1000,
            }
        }

        fn segment(&mut self, now: u64, sequence: u32, payload: u32) {
            let (copied, expected) = (self.copied, self.expected);
            self.socket
                .arrives(sequence, payload, || now, || Some((copied, expected)));
            let _ = self.socket.begins_message(false, sequence, payload);
            if sequence == expected {
                self.expected += payload;
            }
        }

        fn read(&mut self, now: u64, bytes: u32) -> Read {
            self.copied += bytes;
            let expected = self.expected;
            self.socket
                .reads(now, bytes.into(), self.copied, || Some(expected))
        }

        fn splice(&mut self, bytes: u32) {
            self.copied += bytes;
        }
    }

    const fn exact(since: u64) -> Read {
        Read {
            since,
            exact: true,
            unbroken: true,
        }
    }

    #[test]
    fn where_packets_are_not_seen_any_more_nothing_is_said_to_lie_unread() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        assert_eq!(kernel.read(50, 100), exact(10));
        kernel.expected += 300; // unseen
        kernel.socket.forget_packets();
        assert_eq!(kernel.read(60, 100).since, 0);
        assert_eq!(kernel.socket.arrived, 0);
    }

    #[test]
    fn a_read_knows_when_its_first_byte_came() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        kernel.segment(11, 1100, 100);
        assert_eq!(kernel.read(50, 200), exact(10));
        kernel.segment(60, 1200, 5);
        assert_eq!(kernel.read(61, 5), exact(60));
        assert_eq!(kernel.socket.arrived, 0);
    }

    #[test]
    fn what_a_read_leaves_lies_there_since_that_read_at_the_latest() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        assert_eq!(kernel.read(20, 40), exact(10));
        let rest = kernel.read(30, 60);
        assert_eq!((rest.since, rest.exact), (20, false));
    }

    #[test]
    fn bytes_from_before_the_socket_was_known_came_at_no_known_time() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.expected = 1300; // 300 bytes lay there already
        kernel.segment(10, 1300, 50);
        let read = kernel.read(20, 350);
        assert_eq!((read.since, read.exact), (10, false));
        kernel.socket.notes_arrival(read);
        assert_eq!(kernel.socket.turn.arrived, 0);
    }

    #[test]
    fn behind_a_hole_nothing_is_readable_until_it_is_filled() {
        let mut kernel = Kernel::new(ROLE_CLIENT);
        kernel.segment(10, 1000, 100);
        assert_eq!(kernel.read(11, 100), exact(10));
        kernel.segment(20, 1200, 100); // 1100 is lost
        kernel.segment(21, 1300, 100);
        assert_eq!(kernel.socket.arrived, 0);
        kernel.segment(300, 1100, 100); // sent again
        assert_eq!(kernel.socket.arrived, 300);
        kernel.expected = 1400;
        assert_eq!(kernel.read(301, 300), exact(300));
        assert_eq!(kernel.socket.lying & LYING_HOLE, 0);
    }

    #[test]
    fn a_read_before_a_hole_leaves_nothing_that_could_be_read() {
        let mut kernel = Kernel::new(ROLE_CLIENT);
        kernel.segment(10, 1000, 100);
        kernel.segment(20, 1200, 100); // 1100 is lost
        assert_eq!(kernel.read(30, 100), exact(10));
        assert_eq!(kernel.socket.arrived, 0);
        kernel.segment(300, 1100, 100);
        kernel.expected = 1300;
        assert_eq!(kernel.read(310, 200), exact(300));
    }

    #[test]
    fn a_hole_at_the_very_beginning_is_one_too() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1100, 100);
        assert_eq!(kernel.socket.arrived, 0);
        kernel.segment(250, 1000, 100);
        assert_eq!(kernel.socket.arrived, 250);
    }

    #[test]
    fn a_segment_sent_again_arrives_no_more() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        kernel.read(11, 100);
        kernel.segment(90, 1000, 100);
        assert_eq!(kernel.socket.arrived, 0);
    }

    #[test]
    fn a_read_after_an_unseen_one_knows_nothing_and_the_next_one_does() {
        let mut kernel = Kernel::new(ROLE_CLIENT);
        kernel.segment(10, 1000, 100);
        kernel.splice(100);
        kernel.segment(500, 1100, 100);
        let read = kernel.read(510, 100);
        assert!(!read.unbroken);
        assert_eq!(read.since, 0);
        kernel.segment(600, 1200, 10);
        assert_eq!(kernel.read(610, 10), exact(600));
    }

    #[test]
    fn a_peek_leaves_the_bytes_where_they_are() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        let copied = kernel.copied;
        assert_eq!(kernel.socket.reads(20, 4, copied, || Some(1100)), exact(10));
        assert_eq!(kernel.read(30, 100), exact(10));
    }

    #[test]
    fn a_server_notes_the_request_and_a_client_the_response() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        kernel.segment(10, 1000, 100);
        let read = kernel.read(50, 100);
        kernel.socket.notes_arrival(read);
        kernel.socket.asked(50, 100);
        kernel.segment(60, 1100, 100);
        let read = kernel.read(70, 100);
        kernel.socket.notes_arrival(read); // goes on with the request
        assert_eq!(kernel.socket.turn.arrived, 10);
        kernel.socket.answered(80, 100);
        kernel.segment(90, 1200, 100);
        let read = kernel.read(95, 100);
        assert_eq!(kernel.socket.arrival(false), 10); // what is told when the next one begins
        kernel.socket.begin_next();
        kernel.socket.notes_arrival(read);
        assert_eq!(kernel.socket.turn.arrived, 90);

        let mut kernel = Kernel::new(ROLE_CLIENT);
        kernel.socket.asked(5, 100);
        assert_eq!(kernel.socket.arrival(false), 0);
        kernel.segment(10, 1000, 100);
        assert_eq!(kernel.socket.arrival(true), 10);
        let read = kernel.read(50, 100);
        kernel.socket.notes_arrival(read);
        kernel.socket.answered(50, 100);
        assert_eq!(kernel.socket.arrival(false), 10);
    }

    #[test]
    fn what_came_before_the_request_is_no_answer_to_it() {
        let mut kernel = Kernel::new(ROLE_CLIENT);
        kernel.segment(10, 1000, 100);
        kernel.socket.asked(20, 100);
        assert_eq!(kernel.socket.arrival(true), 0);
        let read = kernel.read(30, 100);
        kernel.socket.notes_arrival(read);
        assert_eq!(kernel.socket.turn.arrived, 0);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        let start = u32::MAX - 49;
        (kernel.copied, kernel.expected) = (start, start);
        kernel
            .socket
            .arrives(start, 100, || 10, || Some((start, start)));
        let _ = kernel.socket.begins_message(false, start, 100);
        let read = kernel.socket.reads(20, 100, 50, || None);
        assert_eq!(read, exact(10));
        assert_eq!(kernel.socket.arrived, 0);
    }

    #[test]
    fn bytes_that_lie_unread_are_counted_by_their_packets() {
        let mut kernel = Kernel::new(ROLE_SERVER);
        assert_eq!(kernel.socket.lying_bytes(), None);
        kernel.segment(10, 1000, 100);
        kernel.segment(11, 1100, 20);
        assert_eq!(kernel.socket.lying_bytes(), Some(120));
        assert!(kernel.socket.is_unused());
    }
}
