//! Which packet told what.
//!
//! Events carry times and no packet numbers. This table gives, for a time and a connection, the packet
//! that made an event, so that evidence can be looked up in Wireshark.

use super::turns::Moment;
use crate::event::BootInstant;

/// Packets remembered, 24 bytes each. The first ones of a capture; beyond, evidence has no numbers.
const REMEMBERED: usize = 1 << 20;

/// The packets that told something.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    noted: Vec<Note>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    at: u64,
    stream: u32,
    frame: u64,
}

impl Frames {
    pub(super) fn note(&mut self, stream: u32, moment: Moment) {
        let note = Note {
            at: moment.at,
            stream,
            frame: moment.frame,
        };
        if moment.frame > 0 && self.noted.len() < REMEMBERED && self.noted.last() != Some(&note) {
            self.noted.push(note);
        }
    }

    /// Puts them in order, once the capture is read; nothing is found before.
    pub fn settle(&mut self) {
        self.noted.sort_unstable();
        self.noted.dedup();
    }

    /// The packet that told something at that time of this connection (`tcp.stream`); `None` where it is
    /// not known.
    #[must_use]
    pub fn at(&self, at: BootInstant, stream: u64) -> Option<u64> {
        let key = |note: &Note| (note.at, u64::from(note.stream));
        let from = self
            .noted
            .partition_point(|note| key(note) < (at.0, stream));
        let note = self.noted.get(from)?;
        (key(note) == (at.0, stream)).then_some(note.frame)
    }
}
