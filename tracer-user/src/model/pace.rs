//! How soon requests of one kind are answered, counted.
//!
//! "Usually it takes 3 ms" needs the usual ones, of which most are no longer kept one by one. They are
//! counted here by their kind: method, route, and the order of magnitude of their size.

use std::{collections::BTreeMap, time::Duration};

use super::exchange::Exchange;

/// Kinds counted apart on each connection, and of each peer; those that come later are not counted.
pub(super) const KINDS: usize = 16;
pub(super) const KINDS_OF_PEER: usize = 64;

/// Requests smaller than this are of one size; above it, each factor of 16 is another.
const SMALL_BITS: u32 = 12;

/// Places for waits, by the number of significant bits of their microseconds; the last holds all that
/// took longer (half an hour).
const PLACES: usize = 32;

/// Segments of a path that are this long and hold a digit are taken for ids.
const LONG_ID: usize = 16;

/// Requests that can be compared with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Method and path, ids replaced: `GET /orders/{id}`.
    pub route: String,
    size: u32,
}

impl Kind {
    /// The kind of an exchange; `None` where its head is not known.
    #[must_use]
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let head = exchange.head.as_ref()?;
        let bits = u64::BITS - exchange.request_bytes.leading_zeros();
        Some(Self {
            route: format!("{} {}", head.method, route(&head.path)),
            size: bits.saturating_sub(SMALL_BITS).div_ceil(4),
        })
    }
}

/// The path with its ids replaced: what is asked for, not of which one.
fn route(path: &str) -> String {
    path.split('/')
        .map(|segment| if is_id(segment) { "{id}" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let number = digits == segment.len();
    let hexadecimal = segment.len() >= 8 && segment.bytes().all(hex);
    digits > 0 && (number || hexadecimal || segment.len() >= LONG_ID)
}

/// The waits of some requests, each to within a factor of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    by_bits: [u32; PLACES],
}

impl Pace {
    fn count(&mut self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let bits = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(slot) = self.by_bits.get_mut(bits.min(PLACES - 1)) {
            *slot = slot.saturating_add(1);
        }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.by_bits.iter_mut().zip(&other.by_bits) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many they are.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.by_bits.iter().map(|count| u64::from(*count)).sum()
    }

    /// Half of them took surely no longer than this; `None` where there is none.
    #[must_use]
    pub fn median_at_most(&self) -> Option<Duration> {
        let half = self.number().div_ceil(2);
        let mut below = 0;
        for (bits, count) in self.by_bits.iter().enumerate() {
            below += u64::from(*count);
            if below >= half && half > 0 {
                return Some(Duration::from_micros(1_u64 << bits));
            }
        }
        None
    }
}

/// Paces by kind.
#[derive(Clone, Debug, Default)]
pub struct Paces(BTreeMap<Kind, Pace>);

impl Paces {
    /// Counts an exchange that was answered without failure. Its kind is told apart where fewer than
    /// `most` are.
    pub(super) fn count(&mut self, exchange: &Exchange, most: usize) {
        if let (Some(wait), Some(kind)) = (exchange.answer_time(), Kind::of(exchange))
            && let Some(pace) = self.of_mut(kind, most)
        {
            pace.count(wait);
        }
    }

    /// Adds `other` to these counts.
    pub fn add(&mut self, other: &Self) {
        for (kind, theirs) in &other.0 {
            if let Some(mine) = self.of_mut(kind.clone(), KINDS_OF_PEER) {
                mine.add(theirs);
            }
        }
    }

    fn of_mut(&mut self, kind: Kind, most: usize) -> Option<&mut Pace> {
        let room = self.0.len() < most || self.0.contains_key(&kind);
        room.then(|| self.0.entry(kind).or_default())
    }

    /// The pace of one kind; `None` where none of it was counted.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> Option<&Pace> {
        self.0.get(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_make_no_route_of_their_own() {
        for (path, expected) in [
            ("/orders/17/items", "/orders/{id}/items"),
            (
                "/v1/users/3fa85f64-5717-4562-b3fc-2c963f66afa6",
                "/v1/users/{id}",
            ),
            ("/blobs/Zm9vYmFyMTIzNDU2Nzg5", "/blobs/{id}"),
            ("/api/v2/facade", "/api/v2/facade"),
            ("/", "/"),
        ] {
            assert_eq!(route(path), expected);
        }
    }

    #[test]
    fn the_median_is_never_told_too_short() {
        let mut pace = Pace::default();
        assert_eq!(pace.median_at_most(), None);
        for ms in [1, 3, 3, 3, 4_000] {
            pace.count(Duration::from_millis(ms));
        }
        let median = pace.median_at_most().unwrap();
        assert!(median >= Duration::from_millis(3) && median < Duration::from_millis(6));
        assert_eq!(pace.number(), 5);
    }
}
