//! What one direction sent and the capture does not hold.
//!
//! In come the numbers of its segments and what the other end acknowledges of them; out goes how many
//! packets must have passed unseen. A network that loses a segment leaves a hole, too, but nobody
//! acknowledges it before it is filled: what was acknowledged had arrived, so only the capture can lack it.
//! The count is a lower bound: of packets in a row, only one is counted, and none where any doubt is left.

use super::{
    segment::{Segment, flag},
    sequence::{ahead, before},
};

/// A capture is not in strict order: one CPU may hand over an ACK before another the segment it answers.
/// So much later, in nanoseconds, nothing is on its way any more.
const LATE: u64 = 10_000_000;

/// The holes of one direction.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// The number after its last byte that was seen or acknowledged; `None` until it sent anything.
    reach: Option<u32>,
    /// An acknowledgement was seen since its first segment, or since its last SYN: from here on, what lies
    /// beyond its reach is a hole, and not a connection whose beginning was not captured.
    anchored: bool,
    /// Packets that were acknowledged and never came.
    lacking: u32,
    /// Holes that may still be filled. Most directions never have any.
    pending: Option<Box<Pending>>,
}

/// Holes that may still be filled.
#[derive(Debug, Default)]
struct Pending {
    /// Those that nobody acknowledged: the network may have lost it.
    open: Stretch,
    /// Those that were acknowledged: it passed, and may yet come late.
    acknowledged: Stretch,
    /// The last of these acknowledgements.
    acknowledged_at: u64,
}

/// All numbers between the first hole and the last.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    from: u32,
    until: u32,
    /// How many holes it has.
    holes: u32,
}

impl Stretch {
    fn one(from: u32, until: u32) -> Self {
        Self {
            from,
            until,
            holes: 1,
        }
    }

    fn is_empty(&self) -> bool {
        self.holes == 0
    }

    /// Takes in a later one. Where they touch, the last hole of this is the first of that.
    fn append(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
        } else if !later.is_empty() {
            let touching = u32::from(self.until == later.from);
            self.holes = self.holes.saturating_add(later.holes - touching);
            self.until = later.until;
        }
    }

    /// Forgets all holes where data from `from` until `until` came for any of them.
    fn fill(&mut self, from: u32, until: u32) {
        if !self.is_empty() && before(from, self.until) && before(self.from, until) {
            *self = Self::default();
        }
    }
}

impl Holes {
    /// A segment of this direction.
    #[inline]
    pub(super) fn sent(&mut self, segment: &Segment<'_>) {
        let follows = self.reach == Some(segment.seq) && self.pending.is_none();
        if follows && !segment.has(flag::SYN | flag::RST) {
            self.reach = Some(segment.seq.wrapping_add(segment.span()));
        } else {
            self.sent_elsewhere(segment);
        }
    }

    /// The other end has everything up to what this segment of it acknowledges.
    #[inline]
    pub(super) fn acknowledged(&mut self, segment: &Segment<'_>) {
        let Some(reach) = self.reach else {
            return;
        };
        if segment.flags & (flag::ACK | flag::RST) != flag::ACK {
            return;
        }
        if before(reach, segment.ack) || self.pending.is_some() {
            self.acknowledged_more(segment, reach);
        }
        self.anchored = true;
    }

    /// A segment that does not follow what was seen, or comes while there are holes.
    #[cold]
    fn sent_elsewhere(&mut self, segment: &Segment<'_>) {
        // The numbers of a RST are what its receiver expects, not what its sender had sent.
        if segment.has(flag::RST) {
            return;
        }
        let end = segment.seq.wrapping_add(segment.span());
        let Some(reach) = self.reach.filter(|_| !segment.has(flag::SYN)) else {
            return self.begin(end, segment.at);
        };
        if let Some(pending) = &mut self.pending {
            pending.open.fill(segment.seq, end);
            pending.acknowledged.fill(segment.seq, end);
            self.judge(segment.at);
        }
        if self.anchored && ahead(reach, segment.seq) > 0 {
            let pending = self.pending.get_or_insert_default();
            pending.open.append(Stretch::one(reach, segment.seq));
        }
        if before(reach, end) {
            self.reach = Some(end);
        }
    }

    /// An acknowledgement beyond what was seen, or while there are holes.
    #[cold]
    fn acknowledged_more(&mut self, segment: &Segment<'_>, reach: u32) {
        let mut passed = match &mut self.pending {
            Some(pending) if !before(segment.ack, pending.open.until) => {
                std::mem::take(&mut pending.open)
            }
            _ => Stretch::default(),
        };
        if self.anchored && ahead(reach, segment.ack) > 0 {
            passed.append(Stretch::one(reach, segment.ack));
        }
        if !passed.is_empty() {
            let pending = self.pending.get_or_insert_default();
            pending.acknowledged.append(passed);
            pending.acknowledged_at = segment.at;
        }
        if before(reach, segment.ack) {
            self.reach = Some(segment.ack);
        }
    }

    /// Packets that were acknowledged and never came, as known at `at`, in nanoseconds.
    pub(super) fn lacking(&mut self, at: u64) -> u32 {
        self.judge(at);
        self.lacking
    }

    /// Its first segment, or a SYN: whatever was, this is another stream of numbers.
    fn begin(&mut self, end: u32, at: u64) {
        *self = Self {
            reach: Some(end),
            lacking: self.lacking(at),
            ..Self::default()
        };
    }

    fn judge(&mut self, at: u64) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        if at.saturating_sub(pending.acknowledged_at) > LATE {
            let lacking = std::mem::take(&mut pending.acknowledged);
            self.lacking = self.lacking.saturating_add(lacking.holes);
        }
        if pending.open.is_empty() && pending.acknowledged.is_empty() {
            self.pending = None;
        }
    }
}
