//! What stands when the window ends: exchanges that are not over, messages that cannot go on, and bytes
//! that nobody reads.
//!
//! In: the kernel's map of sockets, and the iterator's look at those that the targets hold. Out: their
//! events. What certainly lies unread is told: the iterator says so, or the socket still waits to be
//! accepted, so that nobody can have read from it.

use std::collections::HashMap;

use tracer_ebpf::{FoundSocket, Socket, Stall};
use zerocopy::FromBytes as _;

use super::{Sink, decode::Record, live::Live, looks::now, seed, transfers};
use crate::event::{BootInstant, Event, Fact, SocketId};

impl Live {
    /// Tells what stands.
    pub(super) fn tell_standing(&mut self, sink: &mut dyn Sink) {
        let held: HashMap<u64, FoundSocket> = seed::read(&mut self.probes.ebpf)
            .unwrap_or_default()
            .into_iter()
            .map(|found| (found.sock, found))
            .collect();
        let at = now();
        for entry in self.maps.sockets.iter() {
            let Ok((sock, value)) = entry else { break };
            let Ok(socket) = Socket::read_from_bytes(&value) else {
                continue;
            };
            let held = held.get(&sock).filter(|held| is_of(&socket, held));
            let unread = unread(&socket, held);
            self.tell_exchange(sock, &socket, held, unread.is_some(), at, sink);
            if let Some(stall) = stuck(&socket, held, at) {
                sink.event(transfers::stall(&stall));
            }
            if let Some(bytes) = unread {
                sink.event(Event {
                    at,
                    fact: Fact::Unread {
                        socket: SocketId(socket.id),
                        since: BootInstant(socket.arrived),
                        bytes,
                    },
                });
            }
        }
    }

    fn tell_exchange(
        &self,
        sock: u64,
        socket: &Socket,
        held: Option<&FoundSocket>,
        unread: bool,
        at: BootInstant,
        sink: &mut dyn Sink,
    ) {
        let srtt_us = held.map_or(0, |held| held.srtt_us);
        if let Some(exchange) = socket.exchange(0, at.0, srtt_us, unread) {
            if let Some(request) = self.head_of(sock, socket) {
                sink.event(request);
            }
            sink.event(transfers::exchange(&exchange));
        }
    }

    /// The request of an exchange that is not over: it waits beside the socket.
    fn head_of(&self, sock: u64, of: &Socket) -> Option<Event> {
        let place = [sock, u64::from(of.turn.number & 1)];
        let head = self.maps.heads.get(&place, 0).ok()?;
        let Record::Event(event) = self.decoder.record(&head)? else {
            return None;
        };
        let of_this = matches!(&event.fact, Fact::Request { socket, number, .. }
            if socket.0 == of.id && *number == of.turn.number);
        of_this.then_some(event)
    }
}

/// Whether the iterator saw this very socket, and not a later one at its place in memory.
fn is_of(socket: &Socket, held: &FoundSocket) -> bool {
    let (ours, theirs) = (&socket.address, &held.address);
    (ours.local_port, ours.remote_port) == (theirs.local_port, theirs.remote_port)
        && ours.remote == theirs.remote
}

/// Whether bytes lie in the socket that nobody has read, and how many.
fn unread(socket: &Socket, held: Option<&FoundSocket>) -> Option<Option<u64>> {
    if socket.arrived == 0 {
        return None;
    }
    match held {
        Some(held) => (held.unread != 0).then(|| Some(held.unread.into())),
        // Not accepted yet. A socket that was used and is in no target's hands may be in another's.
        None => (socket.is_unused() && socket.owner.tid == 0).then(|| socket.lying_bytes()),
    }
}

/// A message that the process wants to go on with, and cannot.
fn stuck(socket: &Socket, held: Option<&FoundSocket>, at: BootInstant) -> Option<Stall> {
    let limited = held.map_or(0, |held| held.limited);
    socket
        .is_stuck(at.0)
        .then(|| socket.sending_gap(at.0, limited, 0))
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::{LYING_KNOWN, PHASE_REQUEST, PHASE_RESPONSE, ROLE_SERVER, STALL};
    use zerocopy::FromZeros as _;

    use super::*;

    fn lying() -> Socket {
        let mut socket = Socket::new_zeroed();
        socket.role = ROLE_SERVER;
        (socket.arrived, socket.lying) = (10, LYING_KNOWN);
        (socket.copied, socket.next_received) = (100, 150);
        socket
    }

    fn held(unread: u32) -> FoundSocket {
        let mut held = FoundSocket::new_zeroed();
        held.unread = unread;
        held
    }

    #[test]
    fn what_lies_in_a_socket_that_is_not_accepted_is_known_by_its_packets() {
        let mut socket = lying();
        socket.owner.tgid = 7; // whoever listens
        assert_eq!(unread(&socket, None), Some(Some(50)));
    }

    #[test]
    fn what_was_read_unseen_does_not_lie_there() {
        assert_eq!(unread(&lying(), Some(&held(0))), None);
        assert_eq!(unread(&lying(), Some(&held(50))), Some(Some(50)));
    }

    #[test]
    fn a_socket_that_went_out_of_sight_is_not_said_to_be_unread() {
        let mut socket = lying();
        (socket.owner.tid, socket.phase) = (8, PHASE_REQUEST);
        assert_eq!(unread(&socket, None), None);
    }

    #[test]
    fn only_who_wants_to_send_and_cannot_is_stuck() {
        let mut socket = lying();
        socket.phase = PHASE_RESPONSE;
        socket.turn.last_byte = 20;
        let at = BootInstant(20 + STALL);
        assert!(stuck(&socket, None, at).is_none()); // it has answered
        socket.buffer_full = 21;
        (socket.limited, socket.turn.response_bytes) = (5, 70_000);
        let mut held = held(0);
        held.limited = 45;
        let stall = stuck(&socket, Some(&held), at).unwrap();
        assert_eq!((stall.window_limited, stall.bytes_before), (40, 70_000));
        assert_eq!(stall.header.flags, 0);
    }
}
