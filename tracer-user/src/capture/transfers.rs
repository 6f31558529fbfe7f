//! The kernel's records of what flowed, and of what did not, as events.
//!
//! In: exchanges, gaps and unread bytes in the wire's types, from a ring or made of a socket that is
//! still in the kernel's map. Out: the same in the types of [`crate::event`].

use std::{sync::LazyLock, time::Duration};

use nix::time::{ClockId, clock_getres};
use tracer_ebpf as wire;

use super::decode::actor;
use crate::event::{BootInstant, Event, Exchange, Fact, Message, SocketId, Stall};

/// A jiffy of this kernel: its coarse clocks go by it. 4 ms where that cannot be asked, as most kernels
/// are built with `HZ=250`.
static JIFFY: LazyLock<Duration> = LazyLock::new(|| {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::from_millis(4), Duration::from)
});

/// 0 stands for a time that is not known.
fn known(at: u64) -> Option<BootInstant> {
    (at != 0).then_some(BootInstant(at))
}

/// An exchange is told.
pub(super) fn exchange(from: &wire::Exchange) -> Event {
    let turn = &from.turn;
    let exchange = Exchange {
        socket: SocketId(from.socket),
        number: turn.number,
        started: BootInstant(turn.started),
        request_ended: BootInstant(turn.request_ended),
        first_byte: known(turn.first_byte),
        last_byte: BootInstant(turn.last_byte),
        request_bytes: turn.request_bytes,
        response_bytes: turn.response_bytes,
        status: (from.status != 0).then_some(from.status),
        actor: actor(&from.owner, 0),
        complete: from.header.flags & wire::FLAG_COMPLETE != 0,
        arrived: known(turn.arrived),
        round_trip: (from.srtt_us != 0).then(|| Duration::from_micros(from.srtt_us.into())),
    };
    Event {
        at: BootInstant(from.header.at),
        fact: Fact::Exchange(exchange),
    }
}

/// A message stopped.
pub(super) fn stall(from: &wire::Stall) -> Event {
    let (began, until) = (BootInstant(from.from), BootInstant(from.until));
    let message = if from.header.what == u16::from(wire::PHASE_REQUEST) {
        Message::Request
    } else {
        Message::Response
    };
    let stall = Stall {
        socket: SocketId(from.socket),
        number: from.number,
        message,
        from: began,
        until,
        resumed: from.header.flags & wire::FLAG_RESUMED != 0,
        bytes_before: from.bytes_before,
        arrived: known(from.arrived),
        buffer_full: known(from.buffer_full),
        // Counted in jiffies from call to call, it can come out a little longer than the gap.
        window_limited: (*JIFFY * from.window_limited).min(until.since(began)),
        retransmits: from.retransmits,
    };
    Event {
        at: until,
        fact: Fact::Stalled(stall),
    }
}

/// A socket ended with bytes in it.
pub(super) fn unread(from: &wire::Unread) -> Event {
    Event {
        at: BootInstant(from.header.at),
        fact: Fact::Unread {
            socket: SocketId(from.socket),
            since: BootInstant(from.since),
            bytes: Some(from.bytes),
        },
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn a_gap_is_told_in_times_and_not_limited_for_longer_than_it_lasted() {
        let mut from = wire::Stall::new_zeroed();
        from.header.what = wire::PHASE_RESPONSE.into();
        from.header.flags = wire::FLAG_RESUMED;
        (from.from, from.until) = (1_000_000_000, 1_500_000_000);
        (from.buffer_full, from.bytes_before) = (1_000_001_000, 70_000);
        from.window_limited = 1_000_000;
        let Fact::Stalled(stall) = stall(&from).fact else {
            panic!("no stall");
        };
        assert!(stall.resumed);
        assert_eq!(stall.message, Message::Response);
        assert_eq!(stall.window_limited, Duration::from_millis(500));
        assert_eq!(stall.buffer_full, Some(BootInstant(1_000_001_000)));
        assert_eq!(stall.arrived, None);
    }

    #[test]
    fn an_arrival_that_is_not_known_is_none() {
        let mut from = wire::Exchange::new_zeroed();
        let Fact::Exchange(unknown) = exchange(&from).fact else {
            panic!("no exchange");
        };
        assert_eq!((unknown.arrived, unknown.round_trip), (None, None));
        (from.turn.arrived, from.srtt_us) = (7, 1500);
        let Fact::Exchange(told) = exchange(&from).fact else {
            panic!("no exchange");
        };
        assert_eq!(told.arrived, Some(BootInstant(7)));
        assert_eq!(told.round_trip, Some(Duration::from_micros(1500)));
    }
}
