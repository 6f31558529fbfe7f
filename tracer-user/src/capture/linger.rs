//! Addresses of closed sockets, kept until their last packets have passed.
//!
//! The kernel half forgets a socket when it closes, but the peer's FIN and the last ACKs come after
//! that. A connection that reuses the addresses soon, as under a storm of short connections, keeps the
//! entry, so such a storm costs no system calls here.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use tracer_ebpf::{Address, Tuple};
use zerocopy::FromBytes as _;

use super::{live::Maps, seed::bytes};
use crate::event::SocketId;

/// Long enough for a peer that closes in its turn.
const LINGER: Duration = Duration::from_secs(3);

type Key = [u8; size_of::<Address>()];

/// Who lingers.
#[derive(Default)]
pub(super) struct Linger {
    last: HashMap<Key, (Instant, SocketId)>,
    queue: VecDeque<(Instant, Key)>,
}

impl Linger {
    /// A socket closed.
    pub(super) fn closed(&mut self, address: &Address, socket: SocketId) {
        let (now, key) = (Instant::now(), bytes(address));
        let waits = self.last.insert(key, (now, socket)).is_some();
        if !waits {
            self.queue.push_back((now, key));
        }
    }

    /// Removes the addresses whose time has come.
    pub(super) fn sweep(&mut self, maps: &mut Maps) {
        while let Some((queued, key)) = self.queue.front().copied() {
            if queued.elapsed() < LINGER {
                return;
            }
            self.queue.pop_front();
            let Some((closed, socket)) = self.last.get(&key).copied() else {
                continue;
            };
            if closed.elapsed() < LINGER {
                self.queue.push_back((Instant::now(), key)); // reused and closed again since
                continue;
            }
            self.last.remove(&key);
            let ours = maps
                .tuples
                .get(&key, 0)
                .ok()
                .and_then(|tuple| Tuple::read_from_bytes(&tuple).ok())
                .is_some_and(|tuple| tuple.socket == socket.0);
            if ours {
                let _ = maps.tuples.remove(&key);
            }
        }
    }
}
