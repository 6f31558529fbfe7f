//! Time limits of Go programs: their names, and what they are set to by what they did.

use std::{ops::Range, time::Duration};

use crate::event::BootInstant;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Limit {
    /// `net/http.Transport.ResponseHeaderTimeout`: from the last byte of the request on.
    ResponseHeader,
    /// `net/http.Client.Timeout`: the whole exchange, connecting included.
    Client,
    /// The deadline of the request's context.
    Context,
    /// `net.Dialer.Timeout`: looking up the name, and connecting.
    Dialer,
    /// Connecting took too long for the dialer or for a context; which, was not to be seen.
    Connecting,
    /// Something; no decision was seen.
    Unknown,
}

impl Limit {
    /// The name of the setting; `None` where several are possible.
    pub(crate) fn setting(self) -> Option<&'static str> {
        match self {
            Self::ResponseHeader => Some("net/http.Transport.ResponseHeaderTimeout"),
            Self::Client => Some("net/http.Client.Timeout"),
            Self::Context => Some("context deadline"),
            Self::Dialer => Some("net.Dialer.Timeout"),
            Self::Connecting | Self::Unknown => None,
        }
    }

    /// The timer may have been started a little before what we can measure from: it covers the
    /// choice of a connection or the look-up of a name, of which there are no packets.
    fn may_start_early(self) -> bool {
        self != Self::ResponseHeader
    }
}

/// Settings are round numbers: multiples of this.
const ROUND: Duration = Duration::from_millis(50);

/// How late after a round number the shortest wait may end, or how early where the timer may have
/// been started before, to be taken for it.
const NEAR: Duration = Duration::from_millis(3);

/// Waits this much apart, or a fiftieth of their length where that is more, were not ended by the
/// same timer.
const SAME: Duration = Duration::from_millis(20);

/// The waits are so much alike that one timer ended them all.
pub(crate) fn alike(shortest: Duration, longest: Duration) -> bool {
    longest.saturating_sub(shortest) <= SAME.max(shortest / 50)
}

/// Waits of the same length, ended by separate acts, that make a limit of which nothing else is known.
pub(crate) const ENOUGH: usize = 3;

/// Ends this close together may be one act: a load generator that stops, a pool that is emptied.
const ONE_ACT: Duration = Duration::from_millis(20);

/// The largest run of alike waits among these, which are in order.
pub(crate) fn crowd(sorted: &[Duration]) -> Range<usize> {
    let mut best = 0..0;
    let mut from = 0;
    for (to, longest) in sorted.iter().enumerate() {
        while sorted
            .get(from)
            .is_some_and(|shortest| !alike(*shortest, *longest))
        {
            from += 1;
        }
        if to + 1 - from > best.len() {
            best = from..to + 1;
        }
    }
    best
}

/// How many acts ended things at these times.
pub(crate) fn separate_acts(times: impl Iterator<Item = BootInstant>) -> usize {
    let mut times: Vec<BootInstant> = times.collect();
    times.sort();
    let gaps = times
        .windows(2)
        .filter(|pair| matches!(pair, [one, next] if next.since(*one) > ONE_ACT));
    gaps.count() + usize::from(!times.is_empty())
}

/// What the timer was set to, in seconds, by waits and their ends; `None` where they differ too much to tell.
///
/// A timer never fires early and often fires a little late, so the shortest wait says most. It is
/// rounded down to the millisecond, or taken for the round number just below it.
pub(crate) fn value(limit: Limit, waits: &[(Duration, BootInstant)]) -> Option<f64> {
    let told = match limit {
        Limit::ResponseHeader | Limit::Client | Limit::Dialer => in_time(waits)?,
        Limit::Unknown => again(waits).unwrap_or_else(|| lengths(waits)),
        // A context's deadline may differ from request to request.
        Limit::Context | Limit::Connecting => lengths(waits),
    };
    set_to(&told, limit.may_start_early())
}

/// The waits that one setting ended in time: those alike the shortest. On a busy host its timer is late by
/// now this much and now that; two that end equally late, each by itself, are another setting's, and then
/// it is not to be told whose the shortest is.
fn in_time(waits: &[(Duration, BootInstant)]) -> Option<Vec<Duration>> {
    let mut waits = waits.to_vec();
    waits.sort();
    let (shortest, _) = waits.first().copied()?;
    let (in_time, late) = waits.split_at(waits.partition_point(|(wait, _)| alike(shortest, *wait)));
    let another = late.windows(2).any(|pair| match pair {
        [(one, ended), (next, later)] => {
            *next - *one <= NEAR && separate_acts([*ended, *later].into_iter()) == 2
        }
        _ => false,
    });
    (!another).then(|| lengths(in_time))
}

/// The largest run of alike waits, where it is what an unknown limit is concluded from.
fn again(waits: &[(Duration, BootInstant)]) -> Option<Vec<Duration>> {
    let mut waits = waits.to_vec();
    waits.sort();
    let alike = waits.get(crowd(&lengths(&waits)))?;
    (separate_acts(alike.iter().map(|(_, at)| *at)) >= ENOUGH).then(|| lengths(alike))
}

fn lengths(waits: &[(Duration, BootInstant)]) -> Vec<Duration> {
    waits.iter().map(|(wait, _)| *wait).collect()
}

/// The same for a timer that is started no later than where we measure from, or, if `may_start_early`,
/// a little before.
pub(crate) fn set_to(waits: &[Duration], may_start_early: bool) -> Option<f64> {
    let shortest = waits.iter().min().copied()?;
    let longest = waits.iter().max().copied()?;
    if !alike(shortest, longest) {
        return None;
    }
    let early = if may_start_early {
        NEAR
    } else {
        Duration::ZERO
    };
    let round = (shortest + early).as_nanos() / ROUND.as_nanos() * ROUND.as_nanos();
    let round = Duration::from_nanos(u64::try_from(round).ok()?);
    let value = if !round.is_zero() && shortest <= round + NEAR {
        round
    } else {
        Duration::from_millis(u64::try_from(shortest.as_millis()).ok()?)
    };
    Some(value.as_secs_f64())
}

/// Splits what ended after a `wait` into runs that one timer may have ended, the shortest first: two
/// transports of one process may have different settings. Within a run the order stays.
pub(crate) fn by_setting<T>(all: Vec<T>, wait: impl Fn(&T) -> Duration) -> Vec<Vec<T>> {
    let mut waits: Vec<Duration> = all.iter().map(&wait).collect();
    waits.sort_unstable();
    let apart = |pair: &[Duration]| match pair {
        [before, next] => (*next > *before + *before / 8 + SAME).then_some(*before),
        _ => None,
    };
    // The longest wait of each run but the last.
    let ends: Vec<Duration> = waits.windows(2).filter_map(apart).collect();
    let mut runs: Vec<Vec<T>> = (0..=ends.len()).map(|_| Vec::new()).collect();
    for one in all {
        let run = ends.partition_point(|end| *end < wait(&one));
        if let Some(run) = runs.get_mut(run) {
            run.push(one);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(ms: &[f64]) -> Vec<Duration> {
        ms.iter()
            .map(|ms| Duration::from_secs_f64(ms / 1e3))
            .collect()
    }

    /// The same, each ended by itself.
    fn ended(ms: &[f64]) -> Vec<(Duration, BootInstant)> {
        let ends = (1..).map(|nth| BootInstant(nth * 1_000_000_000));
        waits(ms).into_iter().zip(ends).collect()
    }

    #[test]
    fn a_timer_that_fires_a_little_late_is_taken_for_the_round_number() {
        let set = ended(&[1000.9, 1000.3, 1004.0]);
        assert_eq!(value(Limit::ResponseHeader, &set), Some(1.0));
    }

    #[test]
    fn a_number_that_is_not_round_is_rounded_down_to_the_millisecond() {
        assert_eq!(value(Limit::ResponseHeader, &ended(&[873.4])), Some(0.873));
        assert_eq!(value(Limit::Client, &ended(&[1237.9])), Some(1.237));
    }

    #[test]
    fn a_timer_never_fires_early() {
        let just_below = ended(&[999.6]);
        assert_eq!(value(Limit::ResponseHeader, &just_below), Some(0.999));
    }

    #[test]
    fn a_timer_that_began_before_the_first_packet_seems_to_fire_early() {
        assert_eq!(value(Limit::Client, &ended(&[499.8])), Some(0.5));
        assert_eq!(value(Limit::Dialer, &ended(&[299.95])), Some(0.3));
    }

    #[test]
    fn waits_far_apart_tell_no_value() {
        assert_eq!(value(Limit::Context, &ended(&[200.0, 800.0])), None);
        assert_eq!(value(Limit::Context, &[]), None);
    }

    #[test]
    fn a_busy_host_fires_late_and_the_shortest_wait_tells_the_setting() {
        let late = ended(&[1061.0, 1000.4, 1034.0, 1002.0]);
        assert_eq!(value(Limit::ResponseHeader, &late), Some(1.0));
        let mut together = ended(&[1000.4, 1060.0, 1061.0]);
        together[2].1 = together[1].1;
        assert_eq!(value(Limit::ResponseHeader, &together), Some(1.0));
    }

    #[test]
    fn of_an_unknown_limit_the_waits_that_came_again_tell_the_time() {
        let late = ended(&[1022.0, 1116.0, 1027.0, 1028.0]);
        assert_eq!(value(Limit::Unknown, &late), Some(1.022));
        assert_eq!(
            value(Limit::Unknown, &ended(&[1022.0, 1116.0, 1027.0])),
            None
        );
    }

    #[test]
    fn two_settings_close_together_are_not_one_that_is_late() {
        let two = ended(&[1000.4, 1100.3, 1000.9, 1101.0]);
        assert_eq!(value(Limit::ResponseHeader, &two), None);
    }

    #[test]
    fn two_settings_make_two_runs() {
        let mixed = waits(&[3000.4, 1000.2, 1040.0, 3001.0]);
        let runs = [waits(&[1000.2, 1040.0]), waits(&[3000.4, 3001.0])];
        assert_eq!(by_setting(mixed, |wait| *wait), runs);
    }
}
