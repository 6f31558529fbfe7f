//! When the memory is full, if goroutines go on to leak as they do.
//!
//! A goroutine takes a stack of 2 KiB at least, and what it holds on the heap, of which nobody keeps account.
//! What the memory grew by for each that came is more than one alone takes where the process does other
//! things meanwhile, so it is an estimate, and said to be one.

use std::time::Duration;

use crate::{
    detect::{finding::Measured, grounds::origin::Growth, wording::bytes},
    event::Pid,
    model::Model,
};

/// The smallest stack of a goroutine, in bytes (`stackMin`, `src/runtime/stack.go`).
pub(super) const STACK: u64 = 2_048;

/// What one of them brings along is seldom more; memory that grew by more did so for other reasons.
const PLAUSIBLE: u64 = 1 << 20;

/// Memory that is full sooner than this is worth an alarm of its own.
const SOON: Duration = Duration::from_secs(600);

/// Nobody plans for longer.
const FAR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The limit that is met first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ahead {
    /// `GOMEMLIMIT`, or a cgroup's.
    name: String,
    limit: u64,
    /// Bytes for each goroutine that comes.
    each: u64,
    /// The memory was seen to grow by that; else it is the least there is.
    seen: bool,
    left: Duration,
}

impl Ahead {
    /// For `count` goroutines of `pid` that grow like this; `None` where no limit is known.
    pub(super) fn of(model: &Model, pid: Pid, count: u64, growth: &Growth) -> Option<Self> {
        let by_runtime = model.runtime(pid).and_then(|course| {
            let (first, last) = (&course.first().1, &course.last().1);
            let live = |at| course.at(at).unwrap_or(first).live_bytes;
            let each = live(growth.from)
                .zip(live(growth.until))
                .map(|(from, to)| STACK + to.saturating_sub(from) / growth.stayed.max(1));
            let used = last.live_bytes.unwrap_or(0) + count * STACK;
            let limit = ("GOMEMLIMIT".to_owned(), last.memory_limit?, used);
            Some(Self::until(limit, each, growth))
        });
        let by_cgroup = model.memory_limit(pid).map(|course| {
            let (first, last) = (&course.first().1, &course.last().1);
            // The numbers of another cgroup are others.
            let used = |at| {
                let then = course.at(at).unwrap_or(first);
                (then.cgroup == last.cgroup).then_some(then.used)
            };
            let each = used(growth.from)
                .zip(used(growth.until))
                .map(|(from, to)| to.saturating_sub(from) / growth.stayed.max(1));
            let name = format!("the memory limit of its cgroup {}", last.cgroup);
            Self::until((name, last.limit, last.used), each, growth)
        });
        let both = by_runtime.into_iter().chain(by_cgroup);
        both.min_by_key(|ahead| ahead.left)
    }

    fn until((name, limit, used): (String, u64, u64), each: Option<u64>, growth: &Growth) -> Self {
        let each = each.filter(|each| (STACK..=PLAUSIBLE).contains(each));
        let rate = growth.per_second() * each.unwrap_or(STACK) as f64;
        let left = limit.saturating_sub(used) as f64 / rate.max(1.0);
        Self {
            name,
            limit,
            each: each.unwrap_or(STACK),
            seen: each.is_some(),
            left: Duration::try_from_secs_f64(left).unwrap_or(FAR).min(FAR),
        }
    }

    /// So soon that it is an alarm.
    pub(super) fn is_soon(&self) -> bool {
        self.left <= SOON
    }

    pub(super) fn measure(&self, measured: &mut Measured) {
        measured.memory_limit_bytes = Some(self.limit);
        measured.exhausted_in_s = Some(self.left.as_secs_f64());
        measured.memory_each_bytes = Some(self.each);
    }

    /// ` At this rate …`.
    pub(super) fn sentence(&self) -> String {
        if self.left >= FAR {
            return String::new();
        }
        let how = if self.seen {
            format!(
                "its memory grew by {} for each that came, an estimate",
                bytes(self.each)
            )
        } else {
            format!("by their stacks alone, {} each at least", bytes(self.each))
        };
        format!(
            " At this rate {} ({}) is met in {}: {how}.",
            self.name,
            bytes(self.limit),
            about(self.left)
        )
    }
}

/// `50 s`, `12 minutes`, `3 hours`, `2 days`.
fn about(time: Duration) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let whole = time.as_secs();
    let unit = units.into_iter().find(|(unit, _)| whole >= unit * 2);
    let (unit, name) = unit.unwrap_or((1, "s"));
    format!("{} {name}", whole / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ahead_are_as_coarse_as_what_is_known_of_them() {
        for (seconds, told) in [
            (50, "50 s"),
            (119, "119 s"),
            (720, "12 minutes"),
            (11_000, "3 hours"),
            (200_000, "2 days"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), told);
        }
    }
}
