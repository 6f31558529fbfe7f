//! What one segment means beside those before it: new data, the same again, a full window.
//!
//! The terms are Wireshark's (`tcp_analyze_sequence_number` in packet-tcp.c), and so are the rules, so
//! that its filters `tcp.analysis.*` show what is counted here. Where we differ on purpose: copies of one
//! packet that a capture caught twice are not looked at at all (Wireshark takes them for retransmissions).

use super::segment::{Segment, flag};

/// A gap in what was captured is counted as bytes up to this; beyond it the numbers are of another
/// connection, or nonsense. No window is larger (RFC 7323 section 2.3).
const WINDOW_LIMIT: u32 = 1 << 30;

/// Until the round trip is known, a segment that comes this soon after a later one was overtaken.
const REORDERING: u64 = 3_000_000;

/// A segment that comes this soon after the duplicate ACKs that ask for it is a fast retransmission.
const FAST: u64 = 20_000_000;

/// What was counted on one connection, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments.
    pub segments: u64,
    /// Copies of segments that the capture caught twice; in no other count.
    pub copies: u64,
    /// Segments sent again after a timeout, or for a reason not seen.
    pub retransmissions: u32,
    /// Segments sent again because duplicate ACKs asked for them.
    pub fast_retransmissions: u32,
    /// Segments sent again although they had been acknowledged.
    pub spurious_retransmissions: u32,
    /// Segments overtaken by later ones.
    pub out_of_order: u32,
    /// ACKs that say once more what the one before said.
    pub duplicate_acks: u32,
    /// Segments that close their sender's window.
    pub zero_windows: u32,
    /// Segments that fill the receiver's window.
    pub windows_full: u32,
    /// Empty segments that ask whether anybody is there.
    pub keep_alives: u32,
    /// Segments after which data lacks that came before.
    pub gaps: u32,
}

/// What one direction has come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Direction {
    /// The number before its first byte, once anything tells it.
    pub(super) base: Option<u32>,
    /// The number after its last byte so far; `None` until it sent anything.
    pub(super) next: Option<u32>,
    /// When that was sent.
    next_at: u64,
    /// What it acknowledged last, and when it sent that.
    pub(super) ack: u32,
    pub(super) acked: bool,
    ack_at: u64,
    /// The window it offered last, not scaled.
    pub(super) window: u16,
    /// How much its windows are to be shifted; `None` where its SYN was not seen.
    pub(super) scale: Option<u8>,
    duplicate_acks: u32,
    probed: Probe,
}

/// What the last segment of a direction asked for, beside data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probe {
    #[default]
    Nothing,
    KeepAlive,
    Window,
}

/// What a segment means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// It was sent again.
    pub(super) again: bool,
    /// It fills the window that its receiver offers.
    pub(super) fills_window: bool,
    /// It asks whether a closed window has opened.
    pub(super) probes_window: bool,
}

/// Whether `a` comes before `b`; sequence numbers wrap (RFC 9293 section 3.4).
#[inline]
pub(super) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b).cast_signed()) < 0
}

/// How far `to` lies after `from`; 0 where it does not, or absurdly far.
#[inline]
pub(super) fn ahead(from: u32, to: u32) -> u32 {
    match to.wrapping_sub(from) {
        ahead if ahead <= WINDOW_LIMIT => ahead,
        _ => 0,
    }
}

impl Direction {
    /// The segment tells nothing that this direction had not told: no new data, acknowledgement or window.
    #[inline]
    pub(super) fn knows(&self, segment: &Segment<'_>) -> bool {
        let Some(next) = self.next else {
            return false;
        };
        let end = segment.seq.wrapping_add(segment.span());
        let new_data = segment.span() > 0 && before(next, end);
        let new_ack = segment.has(flag::ACK) && (!self.acked || before(self.ack, segment.ack));
        !new_data && !new_ack && !segment.has(flag::RST)
    }

    /// How much of its own data the other side can still take; `None` where the scale is not known.
    pub(super) fn room(&self, other: &Self) -> Option<u32> {
        let offered = u32::from(other.window) << other.scale?;
        let edge = other.ack.wrapping_add(offered);
        Some(ahead(self.next?, edge))
    }

    /// Data that the other side has not acknowledged.
    pub(super) fn outstanding(&self, other: &Self) -> bool {
        other.acked && self.next.is_some_and(|next| before(other.ack, next))
    }
}

/// Looks at a segment of `own`, whose acknowledgements are of `other`, and takes it in.
/// `round_trip` is that of the handshake, in nanoseconds, 0 while it is not known.
#[inline]
pub(super) fn look(
    own: &mut Direction,
    other: &mut Direction,
    segment: &Segment<'_>,
    round_trip: u64,
    counts: &mut Counts,
) -> Meaning {
    let mut meaning = Meaning::default();
    counts.segments += 1;
    let control = segment.has(flag::SYN | flag::FIN | flag::RST);
    if segment.has(flag::SYN) {
        // Scaling needs both SYNs to offer it; where one does not, no window is scaled.
        own.scale = Some(segment.window_scale().unwrap_or(0));
        if segment.has(flag::ACK) && segment.window_scale().is_none() {
            other.scale = other.scale.map(|_| 0);
        }
    }
    if own.base.is_none() {
        let first = u32::from(!segment.has(flag::SYN));
        own.base = Some(segment.seq.wrapping_sub(first));
    }
    if other.base.is_none() && segment.has(flag::ACK) {
        other.base = Some(segment.ack.wrapping_sub(1));
    }
    let in_sequence = own.next == Some(segment.seq);
    let last_probe = other.probed;
    let mut probe = Probe::Nothing;
    let repeats_ack = in_sequence && own.acked && segment.ack == own.ack && !control;
    let mut duplicate_ack = false;
    if segment.length == 1 && in_sequence && other.acked && other.window == 0 {
        probe = Probe::Window;
        meaning.probes_window = true;
    } else {
        if segment.window == 0 && !control {
            counts.zero_windows += 1;
        }
        if own.next.is_some_and(|next| before(next, segment.seq)) && !segment.has(flag::RST) {
            counts.gaps += 1;
        }
        let just_before = own.next == Some(segment.seq.wrapping_add(1));
        if segment.length <= 1 && just_before && !control {
            probe = Probe::KeepAlive;
            counts.keep_alives += 1;
        }
        if segment.length > 0
            && !control
            && other.acked
            && let Some(scale) = other.scale
        {
            let edge = other.ack.wrapping_add(u32::from(other.window) << scale);
            if segment.seq.wrapping_add(segment.length) == edge {
                counts.windows_full += 1;
                meaning.fills_window = true;
            }
        }
        let answers_probe = match last_probe {
            Probe::KeepAlive => segment.window != 0,
            Probe::Window => segment.window == 0,
            Probe::Nothing => false,
        };
        if segment.length == 0 && repeats_ack && segment.window == own.window {
            duplicate_ack = !answers_probe && segment.window != 0;
        }
    }
    if duplicate_ack {
        own.duplicate_acks += 1;
        counts.duplicate_acks += 1;
    } else {
        own.duplicate_acks = 0;
    }
    let end = segment.seq.wrapping_add(segment.span());
    if let Some(next) = own.next
        && segment.span() > 0
        && before(segment.seq, next)
        && probe != Probe::KeepAlive
    {
        // A byte before may have been a probe of the window; what follows it is new.
        let new_after_probe = segment.length > 1 && segment.seq.wrapping_add(1) == next;
        let threshold = if round_trip == 0 {
            REORDERING
        } else {
            round_trip
        };
        let asked_for = other.duplicate_acks >= 2
            && other.ack == segment.seq
            && segment.at.saturating_sub(other.ack_at) < FAST;
        let acknowledged = segment.length > 0 && other.acked && !before(other.ack, end);
        if !new_after_probe && asked_for {
            counts.fast_retransmissions += 1;
            meaning.again = true;
        } else if !new_after_probe
            && segment.at.saturating_sub(own.next_at) < threshold
            && end != next
        {
            counts.out_of_order += 1;
        } else if acknowledged {
            counts.spurious_retransmissions += 1;
            meaning.again = true;
        } else if !new_after_probe {
            counts.retransmissions += 1;
            meaning.again = true;
        }
    }
    if probe != Probe::Window && own.next.is_none_or(|next| before(next, end)) {
        own.next = Some(end);
        own.next_at = segment.at;
    }
    if segment.has(flag::ACK) {
        own.ack = segment.ack;
        own.acked = true;
    }
    own.ack_at = segment.at;
    own.window = segment.window;
    own.probed = probe;
    meaning
}
