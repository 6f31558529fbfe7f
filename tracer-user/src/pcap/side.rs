//! One of the two ends of a connection.

use super::{
    copies::Copies,
    holes::Holes,
    sequence::{Direction, before},
    silence::Silence,
    turns::Wire,
};

/// One of the two ends, and what it sends.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) direction: Direction,
    pub(super) holes: Holes,
    pub(super) silence: Silence,
    pub(super) copies: Copies,
    pub(super) trip: Trip,
    pub(super) bytes: u64,
    pub(super) retransmits: u32,
    /// It sent its FIN.
    pub(super) finished: bool,
    /// It left, and what it knew then of the exchange under way.
    pub(super) left: Option<Left>,
}

/// What an end knew of the exchange under way when it left: bytes that crossed its FIN or RST did not
/// reach it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// All there was of the exchange with this number; and nothing of any later one.
    Answered(u32),
    /// This much.
    Knowing(Box<Wire>),
    /// Nothing.
    Ignorant,
}

/// A round trip between where the capture was made and the receiver of a direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trip {
    /// What is timed: the end of a segment, and when it passed.
    pub(super) timed: Option<(u32, u64)>,
    pub(super) smoothed: Option<u64>,
}

impl Trip {
    #[inline]
    pub(super) fn acknowledged(&mut self, ack: u32, at: u64) {
        if let Some((end, sent)) = self.timed
            && !before(ack, end)
        {
            let took = at.saturating_sub(sent);
            // RFC 6298 section 2.
            let smooth = |old: u64| old - old / 8 + took / 8;
            self.smoothed = Some(self.smoothed.map_or(took, smooth));
            self.timed = None;
        }
    }
}

#[inline]
pub(super) fn pair(sides: &mut [Side; 2], from_high: bool) -> (&mut Side, &mut Side) {
    let [low, high] = sides;
    if from_high { (high, low) } else { (low, high) }
}
