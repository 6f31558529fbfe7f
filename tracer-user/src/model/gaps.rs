//! When records about sockets were lost, and what is not concluded for that reason.
//!
//! What the kernel half tells of a socket holds whatever was lost before, since it keeps count itself. Only
//! that something was *not* told means nothing on a connection that was open in a gap: a request of which
//! no more than the head is known is not one without an answer, a connection without an end not one that
//! was kept, and an exchange without a head no more of the one before.

use std::time::Duration;

use crate::event::{BootInstant, Shed, SocketId};

use super::Model;

/// Gaps so far.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The one that is not over.
    open: Option<BootInstant>,
    /// How long those took that are.
    lasted: Duration,
    /// From then on heads of requests are not seen.
    headless: Option<BootInstant>,
}

/// Something that was not looked at any more, to keep within the budget of CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WentWithout {
    /// From when on.
    pub at: BootInstant,
    /// What.
    pub shed: Shed,
    /// What gopulse cost until then, in CPUs.
    pub spent: f64,
    /// What it may cost, in CPUs.
    pub budget: f64,
}

impl Model {
    pub(super) fn gap(&mut self, from: BootInstant, until: Option<BootInstant>) {
        if let Some(until) = until {
            self.gaps.open = None;
            self.gaps.lasted += until.since(from);
        } else {
            self.gaps.open = Some(from);
            for connection in self.connections.iter_mut() {
                if connection.closed.is_none_or(|(closed, _)| closed >= from) {
                    connection.lies_in_gap(from);
                }
            }
        }
    }

    pub(super) fn shed(&mut self, at: BootInstant, shed: Shed, (spent, budget): (f64, f64)) {
        match shed {
            Shed::Packets => {
                self.gaps.headless = Some(at);
                for connection in self.connections.iter_mut() {
                    connection.exchanges.lacks_heads_from(at);
                }
            }
            // Who has the CPUs from now on is not among those who were met before.
            Shed::Samples => self.surroundings.neighbours = None,
            Shed::Scheduler => {}
            // The last share is the one that holds.
            Shed::Connections { .. } => self
                .shed
                .retain(|before| !matches!(before.shed, Shed::Connections { .. })),
        }
        self.shed.push(WentWithout {
            at,
            shed,
            spent,
            budget,
        });
    }

    /// A connection is new: nothing is sure of it in a gap.
    pub(super) fn doubt(&mut self, socket: SocketId) {
        let (open, headless) = (self.gaps.open, self.gaps.headless);
        if open.is_none() && headless.is_none() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(socket) {
            if let Some(from) = open {
                connection.lies_in_gap(from);
            }
            if let Some(at) = headless {
                connection.exchanges.lacks_heads_from(at);
            }
        }
    }

    /// For how long of the window records about sockets may be missing.
    #[must_use]
    pub fn gaps(&self) -> Duration {
        let open = self.gaps.open.map(|from| self.now().since(from));
        self.gaps.lasted + open.unwrap_or_default()
    }

    /// What was not looked at any more from some time on, in the order of its shedding.
    #[must_use]
    pub fn went_without(&self) -> &[WentWithout] {
        &self.shed
    }
}
