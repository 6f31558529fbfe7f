//! Snapshots of a process's goroutines, grouped by where they are.
//!
//! A snapshot may hold a hundred thousand goroutines, most of them at the same few places. Kept are
//! the groups of each process's first and last snapshot, so that growth can be told; of the last one
//! also who stood where, so that the goroutine of a request can be found; and of all snapshots when
//! and how many.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::event::{BootInstant, Creation, Frame, Goroutine, Pid, Snapshot, SnapshotSource};

/// Groups kept of one snapshot; goroutines at further places are counted together.
const GROUPS: usize = 4_096;

/// Snapshots listed of one process; of those in between only the last counts.
const LISTED: usize = 1_024;

/// A snapshot, without its goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When.
    pub at: BootInstant,
    /// Of which process.
    pub pid: Pid,
    /// How it was read.
    pub source: SnapshotSource,
    /// How many goroutines there were.
    pub total: u64,
}

/// Goroutines of one process at the same place.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The process.
    pub pid: Pid,
    /// What they are doing, as the runtime's dumps word it.
    pub state: String,
    /// Innermost first; empty for the goroutines at places too many to keep apart.
    pub frames: Vec<Frame>,
    /// The `go` statement that started them.
    pub created_by: Option<Frame>,
    /// How many in the last snapshot.
    pub count: u64,
    /// The longest wait among them.
    pub wait_max: Option<Duration>,
    /// By how many they grew per second from the first snapshot to the last; `None` with one alone.
    pub growth_per_second: Option<f64>,
}

/// Where one goroutine was when its process's last snapshot was taken.
#[derive(Clone, Copy, Debug)]
pub struct Whereabouts<'m> {
    /// When that was.
    pub at: BootInstant,
    /// What it was doing, as the runtime's dumps word it.
    pub state: &'m str,
    /// How long it had waited, where known.
    pub wait: Option<Duration>,
    /// Innermost first.
    pub frames: &'m [Frame],
    /// The `go` statement that started it.
    pub created_by: Option<&'m Frame>,
}

#[derive(Debug, Default)]
pub(super) struct Goroutines {
    processes: BTreeMap<Pid, Snapshots>,
}

#[derive(Debug)]
struct Snapshots {
    taken: Vec<Taken>,
    first: Places,
    last: Option<Places>,
}

#[derive(Debug)]
struct Places {
    at: BootInstant,
    groups: HashMap<Arc<Place>, Crowd>,
    /// By id; those at places too many to keep apart, and those without an id, are not in it.
    whereabouts: HashMap<u64, (Arc<Place>, Option<Duration>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    state: String,
    frames: Vec<Frame>,
    created_by: Option<Frame>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    count: u64,
    wait_max: Option<Duration>,
}

impl Goroutines {
    pub(super) fn take(&mut self, at: BootInstant, snapshot: Snapshot) {
        let taken = Taken {
            at,
            pid: snapshot.pid,
            source: snapshot.source,
            total: snapshot.total,
        };
        let places = Places::of(at, snapshot.goroutines);
        match self.processes.get_mut(&snapshot.pid) {
            Some(known) => {
                if known.taken.len() == LISTED {
                    known.taken.pop();
                }
                known.taken.push(taken);
                known.first.whereabouts = HashMap::new();
                known.last = Some(places);
            }
            None => {
                self.processes.insert(
                    snapshot.pid,
                    Snapshots {
                        taken: vec![taken],
                        first: places,
                        last: None,
                    },
                );
            }
        }
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = &Taken> {
        self.processes.values().flat_map(|known| &known.taken)
    }

    /// Where goroutine `id` of `pid` was in the last snapshot.
    pub(super) fn whereabouts(&self, pid: Pid, id: u64) -> Option<Whereabouts<'_>> {
        let known = self.processes.get(&pid)?;
        let last = known.last.as_ref().unwrap_or(&known.first);
        let (place, wait) = last.whereabouts.get(&id)?;
        Some(Whereabouts {
            at: last.at,
            state: &place.state,
            wait: *wait,
            frames: &place.frames,
            created_by: place.created_by.as_ref(),
        })
    }

    /// The groups of each process's last snapshot, the largest first.
    pub(super) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = self
            .processes
            .iter()
            .flat_map(|(pid, known)| known.groups(*pid))
            .collect();
        groups.sort_by(|a, b| {
            (b.count, a.pid, &a.state, place(a)).cmp(&(a.count, b.pid, &b.state, place(b)))
        });
        groups
    }
}

/// All that tells one place from another, so that equally large groups have an order.
fn place(group: &Group) -> Vec<(&str, Option<&str>, Option<u32>)> {
    let frames = group.frames.iter().chain(&group.created_by);
    frames
        .map(|frame| (frame.function.as_str(), frame.file.as_deref(), frame.line))
        .collect()
}

impl Snapshots {
    fn groups(&self, pid: Pid) -> impl Iterator<Item = Group> {
        let last = self.last.as_ref().unwrap_or(&self.first);
        let apart = last.at.since(self.first.at).as_secs_f64();
        last.groups.iter().map(move |(place, crowd)| {
            let before = self.first.groups.get(place).map_or(0, |crowd| crowd.count);
            let growth = crowd.count as f64 - before as f64;
            Group {
                pid,
                state: place.state.clone(),
                frames: place.frames.clone(),
                created_by: place.created_by.clone(),
                count: crowd.count,
                wait_max: crowd.wait_max,
                growth_per_second: (self.last.is_some() && apart > 0.0).then(|| growth / apart),
            }
        })
    }
}

impl Places {
    fn of(at: BootInstant, goroutines: Vec<Goroutine>) -> Self {
        let mut groups: HashMap<Arc<Place>, Crowd> = HashMap::new();
        let mut whereabouts = HashMap::new();
        for goroutine in goroutines {
            let place = Place {
                state: goroutine.state,
                frames: goroutine.frames,
                created_by: goroutine.created_by.map(|Creation { frame, .. }| frame),
            };
            let known = groups
                .get_key_value(&place)
                .map(|(known, _)| Arc::clone(known));
            let place = match known {
                Some(known) => known,
                None if groups.len() >= GROUPS => Arc::new(Place::default()),
                None => Arc::new(place),
            };
            if goroutine.id != 0 && *place != Place::default() {
                whereabouts.insert(goroutine.id, (Arc::clone(&place), goroutine.wait));
            }
            let crowd = groups.entry(place).or_default();
            crowd.count += 1;
            crowd.wait_max = crowd.wait_max.max(goroutine.wait);
        }
        Self {
            at,
            groups,
            whereabouts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(state: &str, function: &str) -> Goroutine {
        Goroutine {
            id: 0,
            state: state.into(),
            wait: Some(Duration::from_secs(3)),
            frames: vec![Frame {
                function: function.into(),
                ..Frame::default()
            }],
            created_by: None,
        }
    }

    fn snapshot(goroutines: Vec<Goroutine>) -> Snapshot {
        Snapshot {
            pid: 7,
            source: SnapshotSource::Memory,
            total: goroutines.len() as u64,
            goroutines,
        }
    }

    #[test]
    fn growth_is_told_from_the_first_snapshot_to_the_last() {
        let mut goroutines = Goroutines::default();
        for (second, count) in [(0, 10), (5, 12), (10, 30)] {
            let leaking = vec![blocked("chan send", "main.leak"); count];
            goroutines.take(BootInstant(second * 1_000_000_000), snapshot(leaking));
        }
        let groups = goroutines.groups();
        assert_eq!(groups[0].count, 30);
        assert_eq!(groups[0].growth_per_second, Some(2.0));
        assert_eq!(groups[0].wait_max, Some(Duration::from_secs(3)));
        assert_eq!(goroutines.taken().count(), 3);
    }

    #[test]
    fn one_goroutine_is_found_where_it_was_last() {
        let mut goroutines = Goroutines::default();
        let at = |id, function| Goroutine {
            id,
            ..blocked("chan send", function)
        };
        let both = vec![at(1, "main.a"), at(2, "main.a")];
        goroutines.take(BootInstant(0), snapshot(both));
        assert!(goroutines.whereabouts(7, 2).is_some());
        goroutines.take(BootInstant(5), snapshot(vec![at(1, "main.b")]));
        let found = goroutines.whereabouts(7, 1).unwrap();
        assert_eq!(found.frames[0].function, "main.b");
        assert_eq!(found.at, BootInstant(5));
        assert!(goroutines.whereabouts(7, 2).is_none(), "it ended");
    }

    #[test]
    fn equally_large_groups_have_the_same_order_every_time() {
        let listed = || {
            let mut goroutines = Goroutines::default();
            let stacks = ["main.a", "main.b", "main.c", "main.d"].map(|caller| {
                let mut goroutine = blocked("select", "main.wait");
                goroutine.frames.extend(blocked("", caller).frames);
                goroutine
            });
            goroutines.take(BootInstant(0), snapshot(stacks.to_vec()));
            goroutines.groups()
        };
        let first = listed();
        for _ in 0..20 {
            assert_eq!(listed(), first);
        }
    }

    #[test]
    fn one_snapshot_tells_no_growth() {
        let mut goroutines = Goroutines::default();
        goroutines.take(
            BootInstant(0),
            snapshot(vec![blocked("select", "main.loop")]),
        );
        assert_eq!(goroutines.groups()[0].growth_per_second, None);
    }

    #[test]
    fn places_too_many_to_keep_are_counted_together() {
        let crowd = (0..GROUPS + 100)
            .map(|n| blocked("select", &format!("main.f{n}")))
            .collect();
        let mut goroutines = Goroutines::default();
        goroutines.take(BootInstant(0), snapshot(crowd));
        let groups = goroutines.groups();
        assert_eq!(groups[0].count, 100);
        assert!(groups[0].frames.is_empty());
        assert_eq!(
            groups.iter().map(|g| g.count).sum::<u64>(),
            GROUPS as u64 + 100
        );
    }
}
