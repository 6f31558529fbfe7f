//! Packets that a capture caught twice.
//!
//! `tcpdump -i any` sees a packet on every device it passes, and on the loopback device when it goes out
//! and when it comes in. To count the copies as retransmissions would accuse a network of losses it
//! never had, so they are told apart here and left out. Wireshark does not, and shows them as
//! retransmissions, duplicate ACKs and segments out of order.

use super::{
    segment::{Segment, flag},
    sequence::Direction,
};

/// Segments of each direction remembered to know a copy by.
const REMEMBERED: usize = 4;

/// A copy is caught this soon after the packet, in nanoseconds: as long as it may lie in the queues
/// between two devices of one host. No kernel sends a segment again under the same IP id.
const WITHIN: u64 = 100_000_000;

/// The same where there is no IP id to know it by: sooner than any sender repeats itself.
const WITHIN_WITHOUT_ID: u64 = 100_000;

/// What was caught last of one direction.
#[derive(Debug, Default)]
pub(super) struct Copies {
    last: [(u64, u64); REMEMBERED],
    turn: u8,
    /// Where its first packet was caught.
    home: Option<u32>,
}

impl Copies {
    /// Whether this segment is one that was seen. `direction` is what its sender had said before.
    #[inline]
    pub(super) fn is_copy(&mut self, segment: &Segment<'_>, direction: &Direction) -> bool {
        let print = print(segment);
        let home = *self.home.get_or_insert(segment.place);
        if direction.knows(segment) {
            let within = match (segment.id, segment.has(flag::SYN)) {
                // A lost SYN is repeated, and a lost answer as well, after the same second: each repetition
                // is answered, so two answers may go out within microseconds of each other.
                (0, true) => 0,
                (0, false) => WITHIN_WITHOUT_ID,
                _ => WITHIN,
            };
            let seen = self
                .last
                .iter()
                .any(|(known, at)| *known == print && segment.at.abs_diff(*at) < within);
            // Caught elsewhere, and nothing new in it: the packet itself was caught at home.
            if seen || segment.place != home {
                return true;
            }
        }
        if let Some(slot) = self.last.get_mut(usize::from(self.turn) % REMEMBERED) {
            *slot = (print, segment.at);
        }
        self.turn = self.turn.wrapping_add(1);
        false
    }
}

/// A number that two segments share only if they are one.
#[inline]
fn print(segment: &Segment<'_>) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let numbers = u64::from(segment.seq) << 32 | u64::from(segment.ack);
    let rest = u64::from(segment.id) << 48
        | u64::from(segment.window) << 32
        | u64::from(segment.length & 0xffff) << 8
        | u64::from(segment.flags);
    let mut print = (numbers ^ ODD).wrapping_mul(ODD).rotate_left(29) ^ rest.wrapping_mul(ODD);
    if segment.id == 0 {
        // Without an id, duplicate ACKs differ only in what they say of gaps (RFC 2018).
        for option in segment.options.chunks(8) {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(option) {
                *to = *from;
            }
            print = (print ^ u64::from_le_bytes(bytes))
                .wrapping_mul(ODD)
                .rotate_left(31);
        }
        print ^= u64::from(segment.checksum);
    }
    print
}
