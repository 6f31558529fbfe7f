//! Who asked for the connections that a library's own goroutines open.
//!
//! Go's transport opens a connection in a goroutine of its own, so the stack of the opening names
//! nobody. The call for it is told by itself, just before: it belongs to the next connection that a
//! transport of the same process opens.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use crate::event::{BootInstant, Frame, Pid, StackId};

/// How long after the call the connection is opened: a name may have to be looked up before.
const CALL_TO_OPENING: Duration = Duration::from_millis(100);

/// Calls that wait for their opening.
const PENDING: usize = 1_024;

/// Addresses, and callers of each, that are counted.
const PEERS: usize = 4_096;
const CALLERS: usize = 16;

/// The function of the transport's goroutine.
const OPENS: &str = "net/http.(*Transport).dialConn";

#[derive(Debug, Default)]
pub(super) struct Dials {
    pending: VecDeque<(BootInstant, Pid, StackId)>,
    callers: BTreeMap<(Pid, SocketAddr), BTreeMap<StackId, u64>>,
}

impl Dials {
    /// `pid` asked for a connection at `stack`.
    pub(super) fn asked(&mut self, at: BootInstant, pid: Pid, stack: StackId) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((at, pid, stack));
    }

    /// `pid` opens a connection to `remote` at `frames`. Who asked for it, where a transport did.
    pub(super) fn opened(
        &mut self,
        at: BootInstant,
        pid: Pid,
        remote: SocketAddr,
        frames: &[Frame],
    ) -> Option<StackId> {
        if !frames.iter().any(|frame| frame.function.starts_with(OPENS)) {
            return None;
        }
        self.pending
            .retain(|(asked, _, _)| at.since(*asked) <= CALL_TO_OPENING);
        let place = self
            .pending
            .iter()
            .position(|(asked, of, _)| *of == pid && *asked <= at)?;
        let (_, _, stack) = self.pending.remove(place)?;
        let key = (pid, remote);
        if self.callers.len() < PEERS || self.callers.contains_key(&key) {
            let callers = self.callers.entry(key).or_default();
            if callers.len() < CALLERS || callers.contains_key(&stack) {
                *callers.entry(stack).or_default() += 1;
            }
        }
        Some(stack)
    }

    /// The stacks at which `pid` asked for connections to `remote`, and how often, as far as seen.
    pub(super) fn callers(
        &self,
        pid: Pid,
        remote: SocketAddr,
    ) -> impl Iterator<Item = (StackId, u64)> {
        self.callers
            .get(&(pid, remote))
            .into_iter()
            .flatten()
            .map(|(stack, number)| (*stack, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(at: u64) -> BootInstant {
        BootInstant(at * 1_000_000)
    }

    fn frame(function: &str) -> Frame {
        Frame {
            function: function.into(),
            ..Frame::default()
        }
    }

    #[test]
    fn the_call_for_a_connection_belongs_to_the_next_that_the_transport_opens() {
        let remote = "10.0.0.2:80".parse().unwrap();
        let transport = [frame("net/http.(*Transport).dialConnFor")];
        let own = [frame("net.(*Dialer).Dial"), frame("main.publish")];
        let mut dials = Dials::default();
        for (at, stack) in [(0, 1), (5, 2)] {
            dials.asked(ms(at), 7, StackId(stack));
        }
        assert_eq!(dials.opened(ms(6), 7, remote, &own), None);
        assert_eq!(dials.opened(ms(6), 8, remote, &transport), None);
        assert_eq!(dials.opened(ms(7), 7, remote, &transport), Some(StackId(1)));
        assert_eq!(
            dials.opened(ms(500), 7, remote, &transport),
            None,
            "too late"
        );
        assert_eq!(
            dials.callers(7, remote).collect::<Vec<_>>(),
            [(StackId(1), 1)]
        );
    }
}
