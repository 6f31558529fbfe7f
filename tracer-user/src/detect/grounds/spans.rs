//! Sets of moments: spans that overlap in no point, so that nothing is counted twice.

use std::time::Duration;

use crate::event::BootInstant;

/// From when until when.
pub(crate) type Span = (BootInstant, BootInstant);

/// Spans that neither overlap nor touch, oldest first; none of them is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// Every moment that is in one of `spans` at least.
    pub(crate) fn of(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut all: Vec<Span> = spans.into_iter().filter(|(from, to)| from < to).collect();
        all.sort_unstable();
        let mut union: Vec<Span> = Vec::new();
        for (from, until) in all {
            match union.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                _ => union.push((from, until)),
            }
        }
        Self(union)
    }

    /// Those also in `others`.
    pub(crate) fn within(&self, others: &Self) -> Self {
        let mut both = Vec::new();
        let mut rest = others.0.as_slice();
        for (from, until) in &self.0 {
            rest = rest
                .get(rest.partition_point(|other| other.1 <= *from)..)
                .unwrap_or_default();
            let meeting = rest.iter().take_while(|other| other.0 < *until);
            both.extend(meeting.map(|other| (other.0.max(*from), other.1.min(*until))));
        }
        Self(both)
    }

    /// Those not in `others`.
    pub(crate) fn without(&self, others: &Self) -> Self {
        let mut left = Vec::new();
        let mut rest = others.0.as_slice();
        for (from, until) in &self.0 {
            rest = rest
                .get(rest.partition_point(|other| other.1 <= *from)..)
                .unwrap_or_default();
            let mut at = *from;
            for other in rest.iter().take_while(|other| other.0 < *until) {
                if at < other.0 {
                    left.push((at, other.0));
                }
                at = other.1;
            }
            if at < *until {
                left.push((at, *until));
            }
        }
        Self(left)
    }

    /// Those of either.
    pub(crate) fn and(&self, others: &Self) -> Self {
        Self::of(self.iter().chain(others.iter()))
    }

    /// Only the spans of which `believed` is true.
    pub(crate) fn only(mut self, believed: impl Fn(Span) -> bool) -> Self {
        self.0.retain(|span| believed(*span));
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Span> {
        self.0.iter().copied()
    }

    /// How long they are together.
    pub(crate) fn total(&self) -> Duration {
        self.iter().map(|(from, until)| until.since(from)).sum()
    }
}

impl From<Span> for Spans {
    fn from(span: Span) -> Self {
        Self::of([span])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans() -> impl Strategy<Value = Spans> {
        let span =
            (0_u64..40, 0_u64..8).prop_map(|(at, long)| (BootInstant(at), BootInstant(at + long)));
        prop::collection::vec(span, 0..8).prop_map(Spans::of)
    }

    fn has(spans: &Spans, moment: u64) -> bool {
        spans
            .iter()
            .any(|(from, until)| (from.0..until.0).contains(&moment))
    }

    proptest! {
        #[test]
        fn sets_of_moments_obey_the_laws_of_sets(a in spans(), b in spans()) {
            for moment in 0..50 {
                let (a_has, b_has) = (has(&a, moment), has(&b, moment));
                prop_assert_eq!(has(&a.within(&b), moment), a_has && b_has);
                prop_assert_eq!(has(&a.without(&b), moment), a_has && !b_has);
                prop_assert_eq!(has(&a.and(&b), moment), a_has || b_has);
            }
            prop_assert_eq!(a.within(&b).total() + a.without(&b).total(), a.total());
        }
    }
}
