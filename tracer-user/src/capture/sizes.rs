//! How large maps are made on this host, where they need less than the kernel half has room for.
//!
//! The kernel clears and links the places of a map before anything can be seen: at the object's sizes that takes
//! 25 ms of a start, more than half of it for the maps here. In: the host's CPUs and sockets. Out: entries. What
//! always holds: a map that fills up all the same loses what is counted, or nothing.

use aya::util::nr_cpus;

use crate::plain;

/// A sample whose stack finds its place taken has the stack beside it, so that fewer places lose nothing.
const STACKS: u32 = 4096;

/// Places for each CPU in the maps from which old entries are pushed out: a CPU has 128 in hand that the others
/// do not get.
const PUSHED_OUT: u32 = 256;

/// Heads of requests, at least and at most: two for each busy connection, of 1 KiB each as they are used.
const HEADS: (u32, u32) = (131_072, 524_288);
/// Places for heads for each TCP socket of the host; twice as many as if all were busy.
const HEADS_EACH: u32 = 4;

/// Maps by name, with their entries.
pub(super) fn sizes() -> [(&'static str, u32); 4] {
    let by_cpus = nr_cpus().map_or(4096, |cpus| {
        (cpus as u32).saturating_mul(PUSHED_OUT).clamp(1024, 4096)
    });
    let sockets = plain::read("/proc/net/sockstat").and_then(|told| tcp_sockets(&told));
    // Where that is not told there may be any number.
    let heads = sockets.map_or(HEADS.1, heads);
    [
        ("STACKS", STACKS),
        ("NEIGHBOURS", by_cpus),
        ("REFUSED", by_cpus),
        ("HEADS", heads),
    ]
}

fn heads(sockets: u32) -> u32 {
    let wanted = sockets.saturating_mul(HEADS_EACH).clamp(HEADS.0, HEADS.1);
    wanted.next_power_of_two()
}

/// The TCP sockets of all network namespaces (`alloc`), from `/proc/net/sockstat`.
fn tcp_sockets(told: &str) -> Option<u32> {
    let line = told.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let mut words = line.split(' ');
    words.find(|word| *word == "alloc")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_room_for_four_times_the_sockets_that_there_are() {
        let told =
            "sockets: used 99\nTCP: inuse 5 orphan 0 tw 2 alloc 60000 mem 3\nUDP: inuse 1 mem 1\n";
        assert_eq!(tcp_sockets(told), Some(60_000));
        assert_eq!(heads(60_000), 262_144);
        assert_eq!(heads(7), HEADS.0);
        assert_eq!(heads(u32::MAX), HEADS.1);
        assert_eq!(tcp_sockets("TCP: inuse 5\n"), None);
    }
}
