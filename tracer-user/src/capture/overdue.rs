//! A server's time to write is over: what does the handler do, now that nobody will read its answer?
//!
//! In: the socket whose deadline passed, which the scheduler's own thread tells, not the handler's. Out: a
//! look at the goroutine that last used the socket.

use std::time::{Duration, Instant};

use tracer_ebpf::Socket;
use zerocopy::FromBytes as _;

use super::{Sink, drain::is_past, live::Live};
use crate::event::{BootInstant, Event, Fact, SocketId};

/// Finding a socket by its name walks the map: not more often than this, and not further.
const PAUSE: Duration = Duration::from_millis(100);
const MOST: usize = 10_000;

/// When the map was walked last.
#[derive(Default)]
pub(super) struct Overdue(Option<Instant>);

impl Live {
    /// Looks at the goroutine that serves `socket`.
    pub(super) fn look_at_handler(
        &mut self,
        socket: SocketId,
        at: BootInstant,
        sink: &mut dyn Sink,
    ) {
        let last = self.overdue.0;
        if last.is_some_and(|last| last.elapsed() < PAUSE) || is_past(at) {
            return;
        }
        self.overdue.0 = Some(Instant::now());
        let values = self.maps.sockets.iter().take(MOST).flatten();
        let mut sockets = values.filter_map(|(_, value)| Socket::read_from_bytes(&value).ok());
        let Some(found) = sockets.find(|found| found.id == socket.0) else {
            return;
        };
        let owner = found.owner;
        let looked = self
            .processes
            .get(owner.tgid)
            .and_then(|known| known.program.as_deref())
            .and_then(|program| self.looks.one(program, owner.g, owner.goid));
        if let Some(goroutine) = looked {
            sink.event(Event {
                at,
                fact: Fact::Goroutine {
                    pid: owner.tgid,
                    socket: Some(socket),
                    goroutine,
                },
            });
        }
    }
}
