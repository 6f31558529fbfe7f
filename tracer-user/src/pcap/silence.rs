//! Why a direction is silent: its receiver has no room, its segments are lost, or it has nothing to say.

/// A gap in a message that is told, in nanoseconds.
const TOLD: u64 = 200_000_000;

/// What kept one direction from sending since its last new byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    /// Since when its receiver takes no more.
    full_since: Option<u64>,
    /// For how long it took none before that.
    full_for: u64,
    /// It asked whether there is room again, so it had more to send.
    probed: bool,
    /// Segments sent again.
    again: u32,
}

/// What a gap was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// For how long the receiver took no more, in nanoseconds.
    pub(super) window_limited: u64,
    /// Since when the sender is known to have had more to send.
    pub(super) held_back_since: Option<u64>,
    /// Segments sent again.
    pub(super) retransmits: u32,
}

impl Silence {
    /// So long a time without a new byte is a gap.
    #[inline]
    pub(super) fn is_gap(from: u64, until: u64) -> bool {
        until.saturating_sub(from) >= TOLD
    }

    /// The receiver takes no more.
    pub(super) fn filled(&mut self, at: u64) {
        self.full_since.get_or_insert(at);
    }

    /// The receiver may take more; `has_room` finds out.
    #[inline]
    pub(super) fn heard(&mut self, at: u64, has_room: impl FnOnce() -> bool) {
        if let Some(since) = self.full_since
            && has_room()
        {
            self.full_for = self.full_for.saturating_add(at.saturating_sub(since));
            self.full_since = None;
        }
    }

    pub(super) fn probes(&mut self) {
        self.probed = true;
    }

    pub(super) fn sends_again(&mut self) {
        self.again = self.again.saturating_add(1);
    }

    /// Since when the receiver takes no more.
    pub(super) fn full_since(&self) -> Option<u64> {
        self.full_since
    }

    /// What the silence up to `at` was made of.
    pub(super) fn gap(&self, at: u64) -> Gap {
        let now = self.full_since.map_or(0, |since| at.saturating_sub(since));
        Gap {
            window_limited: self.full_for.saturating_add(now),
            held_back_since: self.full_since.filter(|_| self.probed),
            retransmits: self.again,
        }
    }

    /// New bytes were sent.
    #[inline]
    pub(super) fn broken(&mut self) {
        *self = Self::default();
    }
}
