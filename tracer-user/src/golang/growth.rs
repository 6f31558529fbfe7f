//! What became of each group of goroutines from one [`Census`] to the next.
//!
//! In: censuses of one process, oldest first. Out: for each group how many there were each time, and by
//! their ids how many began and ended in between: goroutines that come and go are no growth, even
//! where there are as many every time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::census::{Census, Group, Kind, Stack, UNTOLD};

/// Goroutines told of each group by their ids.
const EXAMPLES: usize = 10;

/// By what goroutines are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The frames they stand on.
    Stack,
    /// What they wait for, and whether their thread is theirs alone.
    State,
    /// The `go` statement that started them.
    Creator,
    /// Their pprof labels.
    Label,
}

impl By {
    /// All there is.
    pub const ALL: [Self; 4] = [Self::Stack, Self::State, Self::Creator, Self::Label];
}

/// A group over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What its goroutines do.
    pub kind: Kind,
    /// How many there were in each census.
    pub counts: Vec<u64>,
    /// Who came and went; `None` where ids are not known.
    pub turnover: Option<Turnover>,
    /// How long the one has waited, at last, that waited longest.
    pub longest_wait: Option<Duration>,
    /// The ids of a few of them at last, lowest first.
    pub examples: Vec<u64>,
}

/// Goroutines that began and ended between the censuses, by the groups they were in when seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Seen in one census, and not in the one before.
    pub born: u64,
    /// Seen in one census, and not in the one after.
    pub ended: u64,
}

impl Change {
    /// How many there were at last.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.last().copied().unwrap_or_default()
    }

    /// How many more than at first; negative for fewer.
    #[must_use]
    pub fn growth(&self) -> i64 {
        let first = self.counts.first().copied().unwrap_or_default();
        self.count().wrapping_sub(first).cast_signed()
    }
}

/// The groups of all censuses: of one the largest first, of several what grew most.
#[must_use]
pub fn compare(censuses: &[Census], by: &[By]) -> Vec<Change> {
    let named = censuses.len() > 1 && censuses.iter().all(Census::names);
    let ids: Vec<Vec<u64>> = censuses
        .iter()
        .map(|census| if named { census.ids() } else { Vec::new() })
        .collect();
    let absent = |number: Option<usize>, id: u64| {
        let known = number.and_then(|number| ids.get(number));
        known.is_some_and(|ids| ids.binary_search(&id).is_err())
    };
    let mut changes: HashMap<Kind, Change> = HashMap::new();
    for (number, census) in censuses.iter().enumerate() {
        for group in project(census, by).groups {
            let change = changes.entry(group.kind).or_insert_with_key(|kind| Change {
                kind: kind.clone(),
                counts: vec![0; censuses.len()],
                turnover: named.then(Turnover::default),
                longest_wait: None,
                examples: Vec::new(),
            });
            if let Some(count) = change.counts.get_mut(number) {
                *count = group.members.count();
            }
            if let Some(turnover) = &mut change.turnover {
                for member in group.members.iter() {
                    turnover.born += u64::from(absent(number.checked_sub(1), member.id));
                    turnover.ended += u64::from(absent(Some(number + 1), member.id));
                }
            }
            if number + 1 == censuses.len() {
                change.longest_wait = group.members.longest_wait();
                let mut ids: Vec<u64> = group.members.iter().map(|member| member.id).collect();
                ids.sort_unstable();
                ids.truncate(EXAMPLES);
                change.examples = ids;
            }
        }
    }
    let mut changes: Vec<Change> = changes.into_values().collect();
    changes.sort_by(|a, b| {
        let by_growth = b.growth().cmp(&a.growth());
        let by_growth = if censuses.len() > 1 {
            by_growth
        } else {
            std::cmp::Ordering::Equal
        };
        by_growth
            .then_with(|| b.count().cmp(&a.count()))
            .then_with(|| a.kind.cmp(&b.kind))
    });
    changes
}

/// The same goroutines, told apart by less.
fn project(census: &Census, by: &[By]) -> Census {
    let groups = census.groups.iter().map(|group| {
        let Kind {
            state,
            locked,
            stack,
            labels,
        } = &group.kind;
        let (whole, creator) = (by.contains(&By::Stack), by.contains(&By::Creator));
        let stack = if whole && creator {
            Arc::clone(stack)
        } else {
            Arc::new(Stack {
                frames: if whole {
                    stack.frames.clone()
                } else {
                    Vec::new()
                },
                created_by: stack.created_by.clone().filter(|_| creator),
            })
        };
        let by_state = by.contains(&By::State);
        Group {
            kind: Kind {
                state: if by_state {
                    state.clone()
                } else {
                    UNTOLD.to_owned()
                },
                locked: by_state && *locked,
                stack,
                labels: if by.contains(&By::Label) {
                    Arc::clone(labels)
                } else {
                    Arc::default()
                },
            },
            members: group.members.clone(),
        }
    });
    Census::gather(groups, Some(census.total))
}

#[cfg(test)]
mod tests {
    use super::{super::dump, *};

    fn census(goroutines: &[(u64, &str)]) -> Census {
        let text: String = goroutines
            .iter()
            .map(|(id, function)| {
                format!("goroutine {id} [select]:\nmain.{function}()\n\t/a.go:1 +0x1\n\n")
            })
            .collect();
        dump::parse(text.as_bytes()).census
    }

    #[test]
    fn what_grows_comes_first_and_what_comes_and_goes_does_not_grow() {
        let changes = compare(
            &[
                census(&[(1, "serve"), (2, "poll"), (3, "poll"), (4, "leak")]),
                census(&[
                    (1, "serve"),
                    (5, "poll"),
                    (3, "poll"),
                    (4, "leak"),
                    (6, "leak"),
                ]),
                census(&[
                    (1, "serve"),
                    (7, "poll"),
                    (8, "poll"),
                    (4, "leak"),
                    (6, "leak"),
                    (9, "leak"),
                ]),
            ],
            &By::ALL,
        );
        let told: Vec<_> = changes
            .iter()
            .map(|change| {
                let Turnover { born, ended } = change.turnover.unwrap();
                let function = change.kind.stack.frames[0].function.as_str();
                (
                    function,
                    change.counts.clone(),
                    change.growth(),
                    born,
                    ended,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("main.leak", vec![1, 2, 3], 2, 2, 0),
                ("main.poll", vec![2, 2, 2], 0, 3, 3),
                ("main.serve", vec![1, 1, 1], 0, 0, 0),
            ]
        );
        assert_eq!(changes[0].examples, [4, 6, 9]);
    }

    #[test]
    fn a_goroutine_that_changes_its_group_is_neither_born_nor_ended() {
        let changes = compare(&[census(&[(1, "a")]), census(&[(1, "b")])], &By::ALL);
        assert_eq!(changes.len(), 2);
        assert!(
            changes
                .iter()
                .all(|change| change.turnover == Some(Turnover::default()))
        );
        let alone = compare(&[census(&[(1, "a")]), census(&[(1, "b")])], &[By::State]);
        assert_eq!(alone.len(), 1);
    }

    #[test]
    fn one_census_tells_no_turnover() {
        let changes = compare(&[census(&[(1, "a"), (2, "b"), (3, "b")])], &By::ALL);
        assert_eq!((changes[0].count(), changes[0].turnover), (2, None));
    }
}
