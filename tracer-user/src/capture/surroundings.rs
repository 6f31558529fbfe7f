//! What surrounds the targets, looked at once a second: the host's figures.
//!
//! In: `/proc`. Out: [`Fact::Host`], first, every second and last.

use std::time::{Duration, Instant};

use super::{
    Sink,
    live::{Live, tell},
};
use crate::{
    event::{Fact, Unseen},
    host::load::load,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// When the next look is due, and what was told.
#[derive(Default)]
pub(super) struct Surroundings {
    next: Option<Instant>,
    host_unseen: bool,
}

impl Surroundings {
    /// Whether it is time; the first time always.
    fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + PAUSE);
        }
        due
    }

    fn host(&mut self) -> Option<Fact> {
        match load() {
            Ok(host) => Some(Fact::Host(host)),
            Err(_) if self.host_unseen => None,
            Err(error) => {
                self.host_unseen = true;
                Some(Fact::Unseen(Unseen {
                    what: "the host's load, memory and context switches".to_owned(),
                    why: error.to_string(),
                    remedy: "mount /proc: mount -t proc proc /proc".to_owned(),
                }))
            }
        }
    }
}

impl Live {
    /// Looks around if it is time, or for the last time.
    pub(super) fn look_around(&mut self, last: bool, sink: &mut dyn Sink) {
        if !self.surroundings.due() && !last {
            return;
        }
        if let Some(fact) = self.surroundings.host() {
            tell(sink, fact);
        }
    }
}
