//! Goroutines counted by what they do: each distinct stack once, however many stand on it.
//!
//! In: what a [dump](super::dump), a [profile](super::profile) or a [`Snapshot`] tells. Out: groups,
//! largest first, and the ids in each. Always holds: memory goes with the distinct groups; a goroutine
//! of its own takes a few bytes, of a dump of some hundred.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::evenly;
use crate::event::{Creation, Frame, Goroutine, Labels, Pid, Snapshot, SnapshotSource};

/// The state of goroutines whose source does not tell it, as in a profile.
pub const UNTOLD: &str = "unknown";

/// All goroutines of one process at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Largest first; of the same size, in the order of what they do.
    pub groups: Vec<Group>,
    /// How many goroutines there were, by the source's own word where it has one; those beyond the
    /// groups were not told.
    pub total: u64,
}

/// Goroutines that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What.
    pub kind: Kind,
    /// Who.
    pub members: Members,
}

/// What a goroutine does: what must be the same for two to be of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// As [`Goroutine::state`].
    pub state: String,
    /// It is locked to its thread (`runtime.LockOSThread`).
    pub locked: bool,
    /// As [`Goroutine::frames`].
    pub stack: Arc<Stack>,
    /// Its pprof labels, in the order of their keys.
    pub labels: Arc<Vec<(String, String)>>,
}

/// Where a goroutine stands and where it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stack {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement.
    pub created_by: Option<Frame>,
}

/// One goroutine of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// How long it has waited, where known; to the millisecond.
    pub wait: Option<Duration>,
    /// The goroutine that started it, where known.
    pub creator: Option<u64>,
}

/// The goroutines of a group, packed: each as its difference to the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    count: u64,
    longest_wait: Option<Duration>,
    packed: Vec<u8>,
    last: (u64, u64),
}

impl Members {
    /// So many, of whom no more is known.
    #[must_use]
    pub fn unnamed(count: u64) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long the one has waited that waited longest, where any is known.
    #[must_use]
    pub fn longest_wait(&self) -> Option<Duration> {
        self.longest_wait
    }

    /// One by one; none where the source gives no ids.
    pub fn iter(&self) -> impl Iterator<Item = Member> + '_ {
        let mut bytes = self.packed.iter();
        let mut last = (0_u64, 0_u64);
        std::iter::from_fn(move || {
            let id = last.0.wrapping_add_signed(unzigzag(varint(&mut bytes)?));
            let creator = last.1.wrapping_add_signed(unzigzag(varint(&mut bytes)?));
            let wait = varint(&mut bytes)?.checked_sub(1);
            last = (id, creator);
            Some(Member {
                id,
                wait: wait.map(Duration::from_millis),
                creator: (creator > 0).then_some(creator),
            })
        })
    }

    pub(super) fn push(&mut self, member: Member) {
        let creator = member.creator.unwrap_or(0);
        let (last_id, last_creator) = self.last;
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX - 1);
        let wait = member.wait.map_or(0, |wait| millis(wait).saturating_add(1));
        pack(&mut self.packed, zigzag(member.id, last_id));
        pack(&mut self.packed, zigzag(creator, last_creator));
        pack(&mut self.packed, wait);
        self.last = (member.id, creator);
        self.longest_wait = self.longest_wait.max(member.wait);
        self.count += 1;
    }

    fn append(&mut self, other: &Self) {
        if other.packed.is_empty() {
            self.count = self.count.saturating_add(other.count);
        } else {
            other.iter().for_each(|member| self.push(member));
        }
    }
}

impl Census {
    /// Brings together what belongs together; `total` as far as the source tells it.
    pub(super) fn gather(groups: impl IntoIterator<Item = Group>, total: Option<u64>) -> Self {
        let mut gathered: HashMap<Kind, Members> = HashMap::new();
        for group in groups {
            gathered
                .entry(group.kind)
                .or_default()
                .append(&group.members);
        }
        let mut groups: Vec<Group> = gathered
            .into_iter()
            .map(|(kind, members)| Group { kind, members })
            .collect();
        groups.sort_by(|a, b| {
            let by_count = b.members.count.cmp(&a.members.count);
            by_count.then_with(|| a.kind.cmp(&b.kind))
        });
        let mut census = Self { groups, total: 0 };
        census.total = total.unwrap_or_default().max(census.told());
        census
    }

    /// The goroutines of a snapshot, with their labels.
    #[must_use]
    pub fn of(snapshot: &Snapshot, labels: &Labels) -> Self {
        let mut carried: HashMap<u64, Arc<Vec<(String, String)>>> = HashMap::new();
        for set in &labels.sets {
            let labels = Arc::new(set.labels.clone());
            let ids = set.goroutines.iter();
            carried.extend(ids.map(|id| (*id, Arc::clone(&labels))));
        }
        let mut stacks: HashMap<Stack, Arc<Stack>> = HashMap::new();
        let mut gathered: HashMap<Kind, Members> = HashMap::new();
        for goroutine in &snapshot.goroutines {
            let created_by = goroutine.created_by.as_ref();
            let stack = Stack {
                frames: goroutine.frames.clone(),
                created_by: created_by.map(|creation| creation.frame.clone()),
            };
            let stack = match stacks.get(&stack) {
                Some(known) => Arc::clone(known),
                None => Arc::clone(stacks.entry(stack.clone()).or_insert(Arc::new(stack))),
            };
            let kind = Kind {
                state: goroutine.state.clone(),
                stack,
                labels: carried.get(&goroutine.id).cloned().unwrap_or_default(),
                ..Kind::default()
            };
            let members = gathered.entry(kind).or_default();
            if goroutine.id == 0 {
                members.append(&Members::unnamed(1));
            } else {
                members.push(Member {
                    id: goroutine.id,
                    wait: goroutine.wait,
                    creator: created_by.and_then(|creation| creation.goroutine),
                });
            }
        }
        let groups = gathered
            .into_iter()
            .map(|(kind, members)| Group { kind, members });
        Self::gather(groups, Some(snapshot.total))
    }

    /// How many goroutines the groups hold.
    #[must_use]
    pub fn told(&self) -> u64 {
        let counts = self.groups.iter().map(|group| group.members.count);
        counts.fold(0, u64::saturating_add)
    }

    /// Whether goroutines have ids here.
    #[must_use]
    pub fn names(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| !group.members.packed.is_empty())
    }

    /// The ids of all, in their order, each as often as it was told.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        let members = self.groups.iter().flat_map(|group| group.members.iter());
        let mut ids: Vec<u64> = members.map(|member| member.id).collect();
        ids.sort_unstable();
        ids
    }

    /// How many goroutines were told more than once, as where one file holds several dumps.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        let ids = self.ids();
        let pairs = ids.iter().zip(ids.iter().skip(1));
        pairs.filter(|(one, next)| one == next).count() as u64
    }

    /// The goroutines one by one, as those of `pid`. At most `limit`: spread evenly over the ids, or by
    /// the share of each stack where there are none.
    #[must_use]
    pub fn snapshot(&self, pid: Pid, source: SnapshotSource, limit: usize) -> Snapshot {
        let goroutines = if self.names() {
            self.named(limit)
        } else {
            self.unnamed(limit)
        };
        Snapshot {
            pid,
            source,
            goroutines,
            total: self.total,
        }
    }

    fn named(&self, limit: usize) -> Vec<Goroutine> {
        let mut all: Vec<(Member, &Kind)> = self
            .groups
            .iter()
            .flat_map(|group| group.members.iter().map(|member| (member, &group.kind)))
            .collect();
        all.sort_by_key(|(member, _)| member.id);
        evenly(all.into_iter(), limit)
            .map(|(member, kind)| goroutine(kind, Some(member)))
            .collect()
    }

    /// Where they are more than `limit`, each group keeps its share and at least one.
    fn unnamed(&self, limit: usize) -> Vec<Goroutine> {
        let told = u128::from(self.told().max(1));
        self.groups
            .iter()
            .flat_map(|group| {
                let count = u128::from(group.members.count);
                let share = (count * (limit as u128) / told).clamp(1, count.max(1));
                let share = usize::try_from(share).unwrap_or(limit);
                std::iter::repeat_with(|| goroutine(&group.kind, None)).take(share)
            })
            .take(limit)
            .collect()
    }
}

fn goroutine(kind: &Kind, member: Option<Member>) -> Goroutine {
    Goroutine {
        id: member.map_or(0, |member| member.id),
        state: kind.state.clone(),
        wait: member.and_then(|member| member.wait),
        frames: kind.stack.frames.clone(),
        created_by: kind.stack.created_by.clone().map(|frame| Creation {
            frame,
            goroutine: member.and_then(|member| member.creator),
        }),
    }
}

/// `to - from`, small for small differences of either sign.
fn zigzag(to: u64, from: u64) -> u64 {
    let difference = to.wrapping_sub(from).cast_signed();
    ((difference << 1) ^ (difference >> 63)).cast_unsigned()
}

fn unzigzag(packed: u64) -> i64 {
    (packed >> 1).cast_signed() ^ -(packed & 1).cast_signed()
}

/// LEB128.
fn pack(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Labelled;

    fn kind(function: &str) -> Kind {
        Kind {
            state: UNTOLD.to_owned(),
            stack: Arc::new(Stack {
                frames: vec![Frame {
                    function: function.to_owned(),
                    ..Frame::default()
                }],
                created_by: None,
            }),
            ..Kind::default()
        }
    }

    #[test]
    fn without_ids_the_stacks_keep_their_proportion() {
        let group = |count, function| Group {
            kind: kind(function),
            members: Members::unnamed(count),
        };
        let groups = [group(75_000, "a"), group(25_000, "b"), group(1, "c")];
        let census = Census::gather(groups, Some(100_001));
        let told = |limit| census.snapshot(7, SnapshotSource::Pprof, limit).goroutines;
        let few = told(1_000);
        let count = |name: &str| {
            few.iter()
                .filter(|goroutine| goroutine.frames[0].function == name)
                .count()
        };
        assert_eq!((count("a"), count("b"), count("c")), (749, 249, 1));
        assert_eq!(told(usize::MAX).len(), 100_001);
        assert!(told(0).is_empty());
    }

    #[test]
    fn a_snapshot_comes_back_as_it_went_in() {
        let goroutine = |id, state: &str, creator| Goroutine {
            id,
            state: state.to_owned(),
            wait: Some(Duration::from_millis(id)),
            frames: kind("main.work").stack.frames.clone(),
            created_by: Some(Creation {
                frame: Frame::default(),
                goroutine: creator,
            }),
        };
        let snapshot = Snapshot {
            pid: 7,
            source: SnapshotSource::Memory,
            goroutines: vec![
                goroutine(3, "sleep", None),
                goroutine(19, "select", Some(3)),
                goroutine(u64::MAX, "sleep", Some(1)),
            ],
            total: 4,
        };
        let labels = Labels {
            pid: 7,
            sets: vec![Labelled {
                labels: vec![("tenant".to_owned(), "a".to_owned())],
                goroutines: vec![3],
            }],
            unread: 0,
        };
        let census = Census::of(&snapshot, &labels);
        assert_eq!(census.groups.len(), 3);
        assert_eq!(census.told(), 3);
        let labelled = census
            .groups
            .iter()
            .find(|group| !group.kind.labels.is_empty());
        let members = &labelled.unwrap().members;
        assert_eq!(
            members.iter().map(|member| member.id).collect::<Vec<_>>(),
            [3]
        );
        let again = census.snapshot(7, SnapshotSource::Memory, usize::MAX);
        assert_eq!(again.total, 4);
        assert_eq!(again.goroutines[..2], snapshot.goroutines[..2]);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(members: Vec<(u64, Option<u64>, Option<u32>)>) {
            let members: Vec<Member> = members
                .into_iter()
                .map(|(id, creator, wait)| Member {
                    id,
                    creator: creator.filter(|creator| *creator > 0),
                    wait: wait.map(|millis| Duration::from_millis(millis.into())),
                })
                .collect();
            let mut packed = Members::default();
            members.iter().for_each(|member| packed.push(*member));
            prop_assert_eq!(packed.count(), members.len() as u64);
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), members);
        }
    }
}
