//! Which of the packets that listening sockets drop were handshakes that found the queue full.
//!
//! In: the listening sockets of a network namespace, look by look, and the namespace's count of overflows
//! (`ListenOverflows`). Out: for each address that is listened on, how many were its own.
//!
//! A socket's own count of drops (`sk_drops`) says too little by itself. Among others, `tcp_v4_rcv` counts
//! there whatever came for a handshake under way and did not finish it: a SYN sent again because its answer
//! was lost or is still on its way, a reset out of half a handshake, the bare ACK that `TCP_DEFER_ACCEPT` waits
//! behind, and a last ACK that found no room twice. `ListenOverflows` is counted where `sk_acceptq_is_full` says
//! so and nowhere else (`tcp_conn_request`, `tcp_v4_syn_recv_sock`), but for all listeners of a namespace
//! together. An overflow is therefore a listener's own if it alone dropped something meanwhile, or was seen full.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
};

use super::queues::Queue;

/// The overflows of one network namespace since the first look at it.
#[derive(Debug, Default)]
pub struct Overflows {
    /// `ListenOverflows` at the last look; `None` before the first.
    counted: Option<u64>,
    /// Those of the last look that were nobody's yet: the sockets were looked at before they were counted.
    early: u64,
    /// `sk_drops` of each listening socket, by inode.
    dropped: HashMap<u64, u64>,
    /// Addresses with a queue that was full at the last look.
    full: HashSet<SocketAddr>,
    by_address: HashMap<SocketAddr, u64>,
}

impl Overflows {
    /// Takes a look at all listening sockets, and what the namespace counted right after it.
    pub fn take(&mut self, queues: &[Queue], counted: u64) {
        let before = self.counted.replace(counted);
        let mut droppers: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for queue in queues {
            let known = self.dropped.get(&queue.inode).copied().unwrap_or_default();
            if queue.dropped > known {
                *droppers.entry(queue.address).or_default() += queue.dropped - known;
            }
        }
        self.dropped = queues.iter().map(|q| (q.inode, q.dropped)).collect();
        let full: HashSet<SocketAddr> = queues
            .iter()
            .filter(|queue| queue.is_full())
            .map(|queue| queue.address)
            .collect();
        let were_full = std::mem::replace(&mut self.full, full);
        let Some(before) = before else {
            return;
        };
        let late = counted.saturating_sub(before);
        let mut left = late + std::mem::take(&mut self.early);
        let alone = droppers.len() == 1;
        for (address, dropped) in droppers {
            if alone || self.full.contains(&address) || were_full.contains(&address) {
                let own = dropped.min(left);
                left -= own;
                *self.by_address.entry(address).or_default() += own;
            }
        }
        self.early = left.min(late);
    }

    /// Handshakes that found the queue full there.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> u64 {
        self.by_address.get(&address).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener by its port, which is its inode, too: how many are queued, and what it dropped.
    fn listener(port: u16, queued: u32, dropped: u64) -> Queue {
        Queue {
            inode: port.into(),
            address: at(port),
            queued,
            backlog: 4,
            dropped,
        }
    }

    fn at(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn a_syn_sent_again_while_its_answer_is_on_its_way_is_no_overflow() {
        let mut overflows = Overflows::default();
        overflows.take(&[listener(80, 0, 0)], 420);
        overflows.take(&[listener(80, 0, 3)], 420);
        assert_eq!(overflows.at(at(80)), 0);
    }

    #[test]
    fn an_overflow_between_two_looks_is_the_one_listeners_that_dropped() {
        let mut overflows = Overflows::default();
        overflows.take(&[listener(80, 0, 7), listener(81, 0, 9)], 420);
        overflows.take(&[listener(80, 0, 13), listener(81, 0, 9)], 423);
        // A last ACK counts twice among the drops.
        assert_eq!((overflows.at(at(80)), overflows.at(at(81))), (3, 0));
    }

    #[test]
    fn of_two_that_dropped_it_is_the_one_that_was_full() {
        for (earlier, later) in [(5, 0), (0, 5)] {
            let mut overflows = Overflows::default();
            overflows.take(&[listener(80, earlier, 0), listener(81, 0, 0)], 0);
            overflows.take(&[listener(80, later, 6), listener(81, 4, 1)], 6);
            assert_eq!((overflows.at(at(80)), overflows.at(at(81))), (6, 0));
        }
    }

    #[test]
    fn where_either_may_have_overflowed_neither_is_said_to() {
        let mut overflows = Overflows::default();
        overflows.take(&[listener(80, 0, 0), listener(81, 0, 0)], 0);
        overflows.take(&[listener(80, 0, 2), listener(81, 0, 2)], 2);
        assert_eq!((overflows.at(at(80)), overflows.at(at(81))), (0, 0));
    }

    #[test]
    fn sockets_that_share_an_address_overflow_together() {
        let shared = |inode, dropped| Queue {
            inode,
            ..listener(80, 0, dropped)
        };
        let mut overflows = Overflows::default();
        overflows.take(&[shared(1, 0), shared(2, 50)], 9);
        overflows.take(&[shared(1, 2), shared(2, 53)], 14);
        assert_eq!(overflows.at(at(80)), 5);
    }

    #[test]
    fn one_that_came_between_looking_and_counting_is_told_at_the_next_look() {
        let mut overflows = Overflows::default();
        overflows.take(&[listener(80, 5, 0)], 0);
        overflows.take(&[listener(80, 5, 0)], 1);
        overflows.take(&[listener(80, 5, 1)], 1);
        assert_eq!(overflows.at(at(80)), 1);
    }

    #[test]
    fn a_strangers_overflow_of_some_time_ago_is_nobodys() {
        let mut overflows = Overflows::default();
        overflows.take(&[listener(80, 0, 0)], 0);
        overflows.take(&[listener(80, 0, 0)], 8); // its listener is gone
        overflows.take(&[listener(80, 0, 0)], 8);
        overflows.take(&[listener(80, 0, 2)], 8);
        assert_eq!(overflows.at(at(80)), 0);
    }

    #[test]
    fn what_a_listener_dropped_in_its_first_moments_counts() {
        let mut overflows = Overflows::default();
        overflows.take(&[], 3);
        overflows.take(&[listener(80, 5, 4)], 7);
        assert_eq!(overflows.at(at(80)), 4);
    }
}
