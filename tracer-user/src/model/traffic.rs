//! Counts of what is no longer, or never was, kept one by one.
//!
//! A rule that says "one request in twenty was harmed" needs the nineteen; they are counted here,
//! with the sizes of their requests, in a few hundred bytes however many there are.

use std::net::SocketAddr;

use crate::event::{Pid, Role};

use super::{
    exchange::Exchange,
    pace::{KINDS, KINDS_OF_PEER, Paces},
};

/// What connections are counted by: a process and whom it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The process.
    pub pid: Pid,
    /// It serves here (else it asks there).
    pub serves: bool,
    /// Its own listening address where it serves; the peer's where it asks.
    pub address: SocketAddr,
}

impl Peer {
    /// The address that tells connections of `role` between `local` and `remote` apart from others:
    /// never the ephemeral one.
    #[must_use]
    pub fn of(pid: Pid, role: Role, local: SocketAddr, remote: SocketAddr) -> Self {
        let serves = role == Role::Server;
        Self {
            pid,
            serves,
            address: if serves { local } else { remote },
        }
    }
}

/// Connections and what went over them.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Sockets, whether or not they were ever established.
    pub connections: u64,
    /// Of these, those whose handshake was done, or that were found established.
    pub established: u64,
    /// Of these, those answered by RST in place of a handshake.
    pub refused: u64,
    /// Their exchanges.
    pub exchanges: Tally,
}

impl Traffic {
    /// Adds `other` to these counts.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.established += other.established;
        self.refused += other.refused;
        self.exchanges.add(&other.exchanges);
    }
}

/// Exchanges, counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All of them, those in flight included.
    pub exchanges: u64,
    /// With no response byte.
    pub unanswered: u64,
    /// Answered with a status of 500 and above.
    pub failed: u64,
    /// Bytes of all requests.
    pub request_bytes: u64,
    /// Bytes of all responses, interim ones included.
    pub response_bytes: u64,
    /// Sizes of the requests that were answered without failure, in bytes.
    pub fine_sizes: Sizes,
    /// How soon they were answered, by kind; those with a head that were told one by one.
    pub paces: Paces,
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, exchange: &Exchange) {
        self.count_with(exchange, KINDS);
    }

    /// Counts one more of all that went to one peer.
    pub fn count_of_peer(&mut self, exchange: &Exchange) {
        self.count_with(exchange, KINDS_OF_PEER);
    }

    fn count_with(&mut self, exchange: &Exchange, kinds: usize) {
        self.exchanges += 1;
        self.request_bytes += exchange.request_bytes;
        self.response_bytes += exchange.response_bytes + exchange.interim_bytes;
        if exchange.fine() {
            self.fine_sizes.count(exchange.request_bytes);
            self.paces.count(exchange, kinds);
        } else if exchange.answered() {
            self.failed += 1;
        } else {
            self.unanswered += 1;
        }
    }

    /// Counts exchanges that went well and were not told one by one; their sizes are not known.
    pub fn count_quiet(&mut self, number: u64) {
        self.exchanges += number;
        self.fine_sizes.number += number;
    }

    /// Adds `other` to these counts.
    pub fn add(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.unanswered += other.unanswered;
        self.failed += other.failed;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.fine_sizes.add(&other.fine_sizes);
        self.paces.add(&other.paces);
    }

    /// Those answered without failure.
    #[must_use]
    pub fn fine(&self) -> u64 {
        self.fine_sizes.number
    }
}

/// How sizes are distributed, to within a factor of two.
#[derive(Clone, Debug)]
pub struct Sizes {
    number: u64,
    largest: u64,
    /// How many sizes have this many significant bits.
    by_bits: [u64; 65],
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            number: 0,
            largest: 0,
            by_bits: [0; 65],
        }
    }
}

impl Sizes {
    fn count(&mut self, bytes: u64) {
        self.number += 1;
        self.largest = self.largest.max(bytes);
        let bits = (u64::BITS - bytes.leading_zeros()) as usize;
        if let Some(slot) = self.by_bits.get_mut(bits) {
            *slot += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.number += other.number;
        self.largest = self.largest.max(other.largest);
        for (mine, theirs) in self.by_bits.iter_mut().zip(&other.by_bits) {
            *mine += theirs;
        }
    }

    /// The largest of all; `None` where there is none.
    #[must_use]
    pub fn largest(&self) -> Option<u64> {
        (self.number > 0).then_some(self.largest)
    }

    /// The share (0 to 1) of sizes that are surely below `bytes`; `None` where there is none.
    #[must_use]
    pub fn share_below(&self, bytes: u64) -> Option<f64> {
        let bits = (u64::BITS - bytes.leading_zeros()) as usize;
        let below: u64 = if self.largest < bytes {
            self.number
        } else {
            self.by_bits.iter().take(bits).sum()
        };
        (self.number > 0).then(|| below as f64 / self.number as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(of: impl IntoIterator<Item = u64>) -> Sizes {
        let mut sizes = Sizes::default();
        for size in of {
            sizes.count(size);
        }
        sizes
    }

    #[test]
    fn no_sizes_say_nothing() {
        assert_eq!(Sizes::default().largest(), None);
        assert_eq!(Sizes::default().share_below(10), None);
    }

    #[test]
    fn sizes_below_are_counted_to_the_power_of_two() {
        let sizes = sizes([0, 1, 100, 120, 200_000]);
        assert_eq!(sizes.share_below(200_000), Some(0.8));
        assert_eq!(sizes.share_below(200_001), Some(1.0));
        assert_eq!(sizes.share_below(110), Some(0.4), "100 may not be below");
        assert_eq!(sizes.largest(), Some(200_000));
    }

    #[test]
    fn sums_of_counts_are_counts_of_sums() {
        let mut left = sizes([10, 20]);
        left.add(&sizes([3_000]));
        assert_eq!(left.share_below(2_048), Some(2.0 / 3.0));
        assert_eq!(left.largest(), Some(3_000));
    }
}
