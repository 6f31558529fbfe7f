//! Snapshots of a process's goroutines, grouped by where they are.
//!
//! A snapshot may hold a hundred thousand goroutines, most of them at the same few places. Kept are,
//! for each place, how many came and left from snapshot to snapshot; of the last snapshot who stood
//! where, so that the goroutine of a request can be found; and of all snapshots when and how many.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::event::{BootInstant, Frame, Pid, Snapshot, SnapshotSource};

use super::attendance::{Attendance, Here, Kept, Muster, Place};

/// Places kept of one process; goroutines at further ones are counted together.
const PLACES: usize = 4_096;

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
    /// All that did not end meanwhile were told, with their ids: so each can be found again in the next one.
    pub whole: bool,
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
    /// The goroutine that ran it.
    pub parent: Option<u64>,
    /// Since when it was found at this place in each snapshot.
    pub since: BootInstant,
}

#[derive(Debug, Default)]
pub(super) struct Goroutines {
    processes: BTreeMap<Pid, Snapshots>,
}

#[derive(Debug, Default)]
struct Snapshots {
    taken: Vec<Taken>,
    /// When each was taken, by its number.
    times: Vec<BootInstant>,
    places: HashMap<Arc<Place>, Kept>,
    /// By id, as of the last snapshot; those at places too many to keep apart, and those without an
    /// id, are not in it.
    here: HashMap<u64, Here>,
}

/// What tells one place from another, as a snapshot has it.
type Borrowed<'s> = (&'s str, &'s [Frame], Option<&'s Frame>);

/// What a snapshot says of one place.
#[derive(Default)]
struct Crowd {
    count: u64,
    came: u64,
    wait_max: Option<Duration>,
}

impl Goroutines {
    pub(super) fn take(&mut self, at: BootInstant, snapshot: &Snapshot) {
        self.processes
            .entry(snapshot.pid)
            .or_default()
            .take(at, snapshot);
    }

    pub(super) fn taken(&self) -> impl Iterator<Item = &Taken> {
        self.processes.values().flat_map(|known| &known.taken)
    }

    /// Where goroutine `id` of `pid` was in the last snapshot.
    pub(super) fn whereabouts(&self, pid: Pid, id: u64) -> Option<Whereabouts<'_>> {
        let known = self.processes.get(&pid)?;
        known.whereabouts(known.here.get(&id)?)
    }

    /// Where each goroutine of `pid` that has an id was in the last snapshot; in no order.
    pub(super) fn everybody(&self, pid: Pid) -> impl Iterator<Item = (u64, Whereabouts<'_>)> {
        let known = self.processes.get(&pid);
        known.into_iter().flat_map(|known| {
            let here = known.here.iter();
            here.filter_map(|(id, here)| Some((*id, known.whereabouts(here)?)))
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

    /// Every place of `pid` that is kept, with how many stood there in all its snapshots together: state and
    /// frames; in no order.
    pub(super) fn seen(&self, pid: Pid) -> impl Iterator<Item = (&str, &[Frame], u64)> {
        let known = self.processes.get(&pid);
        known.into_iter().flat_map(|known| {
            known.places.iter().map(|(place, kept)| {
                let (state, frames) = (place.state.as_str(), place.frames.as_slice());
                (state, frames, kept.seen())
            })
        })
    }

    /// Who came and left at each place where somebody was; in no order.
    pub(super) fn attendances(&self, pid: Pid) -> Vec<Attendance<'_>> {
        let known = self.processes.get(&pid);
        known.map_or_else(Vec::new, |known| known.attendances(pid))
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
    fn take(&mut self, at: BootInstant, snapshot: &Snapshot) {
        let number = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        let told = &snapshot.goroutines;
        // Some end while they are read.
        let most = told.len() as u64 * 10 >= snapshot.total * 9;
        let whole = most && told.iter().all(|goroutine| goroutine.id != 0);
        self.list(Taken {
            at,
            pid: snapshot.pid,
            source: snapshot.source,
            total: snapshot.total,
            whole,
        });
        self.times.push(at);
        if self.places.len() >= PLACES {
            self.places.retain(|_, kept| kept.count() > 0);
        }
        let before = std::mem::take(&mut self.here);
        // A place is looked up once for each snapshot, not once for each goroutine at it.
        let mut crowds: HashMap<Borrowed<'_>, (Arc<Place>, Crowd)> = HashMap::new();
        for goroutine in told {
            let created_by = goroutine.created_by.as_ref();
            let key: Borrowed<'_> = (
                &goroutine.state,
                &goroutine.frames,
                created_by.map(|creation| &creation.frame),
            );
            let (place, crowd) = crowds
                .entry(key)
                .or_insert_with_key(|key| (self.place(key), Crowd::default()));
            crowd.count += 1;
            crowd.wait_max = crowd.wait_max.max(goroutine.wait);
            let since = before
                .get(&goroutine.id)
                .filter(|known| Arc::ptr_eq(&known.place, place))
                .map_or(number, |known| known.since);
            crowd.came += u64::from(since == number);
            if goroutine.id != 0 && **place != Place::default() {
                let here = Here {
                    place: Arc::clone(place),
                    since,
                    wait: goroutine.wait,
                    parent: created_by.and_then(|creation| creation.goroutine),
                };
                self.here.insert(goroutine.id, here);
            }
        }
        let mut left: HashMap<*const Place, u64> = HashMap::new();
        for (id, known) in &before {
            let now = self.here.get(id);
            if now.is_none_or(|now| !Arc::ptr_eq(&now.place, &known.place)) {
                *left.entry(Arc::as_ptr(&known.place)).or_default() += 1;
            }
        }
        let mut told: HashMap<*const Place, Crowd> = HashMap::new();
        for (place, crowd) in crowds.into_values() {
            let sum = told.entry(Arc::as_ptr(&place)).or_default();
            sum.count += crowd.count;
            sum.came += crowd.came;
            sum.wait_max = sum.wait_max.max(crowd.wait_max);
        }
        for (place, kept) in &mut self.places {
            let place = Arc::as_ptr(place);
            let crowd = told.remove(&place).unwrap_or_default();
            kept.wait_max = crowd.wait_max;
            let muster = Muster {
                at,
                count: crowd.count,
                came: crowd.came,
                left: left.get(&place).copied().unwrap_or(0),
                remain: 0,
            };
            kept.tell(number, muster);
        }
    }

    fn list(&mut self, taken: Taken) {
        if self.taken.len() == LISTED {
            self.taken.pop();
        }
        self.taken.push(taken);
    }

    /// The place as it is known, or from now on.
    fn place(&mut self, (state, frames, created_by): &Borrowed<'_>) -> Arc<Place> {
        let place = Place {
            state: (*state).to_owned(),
            frames: frames.to_vec(),
            created_by: created_by.cloned(),
        };
        if let Some((known, _)) = self.places.get_key_value(&place) {
            return Arc::clone(known);
        }
        let place = if self.places.len() < PLACES {
            place
        } else {
            Place::default()
        };
        let place = match self.places.get_key_value(&place) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(place),
        };
        self.places.entry(Arc::clone(&place)).or_default();
        place
    }

    fn whereabouts<'m>(&'m self, here: &'m Here) -> Option<Whereabouts<'m>> {
        Some(Whereabouts {
            at: *self.times.last()?,
            state: &here.place.state,
            wait: here.wait,
            frames: &here.place.frames,
            created_by: here.place.created_by.as_ref(),
            parent: here.parent,
            since: *self.times.get(here.since as usize)?,
        })
    }

    fn present(&self) -> impl Iterator<Item = (&Arc<Place>, &Kept)> {
        self.places.iter().filter(|(_, kept)| kept.count() > 0)
    }

    fn groups(&self, pid: Pid) -> impl Iterator<Item = Group> {
        let ends = self.times.first().zip(self.times.last());
        let apart = ends.map_or(0.0, |(first, last)| last.since(*first).as_secs_f64());
        self.present().map(move |(place, kept)| {
            let growth = kept.count() as f64 - kept.count_in(0) as f64;
            Group {
                pid,
                state: place.state.clone(),
                frames: place.frames.clone(),
                created_by: place.created_by.clone(),
                count: kept.count(),
                wait_max: kept.wait_max,
                growth_per_second: (self.times.len() > 1 && apart > 0.0).then(|| growth / apart),
            }
        })
    }

    fn attendances(&self, pid: Pid) -> Vec<Attendance<'_>> {
        let mut present: HashMap<*const Place, Vec<(u64, u32)>> = HashMap::new();
        for (id, here) in &self.here {
            let of_place = present.entry(Arc::as_ptr(&here.place)).or_default();
            of_place.push((*id, here.since));
        }
        self.places
            .iter()
            .map(|(place, kept)| {
                let mut present = present.remove(&Arc::as_ptr(place)).unwrap_or_default();
                present.sort_unstable();
                Attendance {
                    pid,
                    state: &place.state,
                    frames: &place.frames,
                    created_by: place.created_by.as_ref(),
                    wait_max: kept.wait_max,
                    course: kept.course(present.iter().map(|(_, since)| *since)),
                    present: present.into_iter().map(|(id, _)| id).collect(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Goroutine;

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
            goroutines.take(BootInstant(second * 1_000_000_000), &snapshot(leaking));
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
        goroutines.take(BootInstant(0), &snapshot(both));
        assert!(goroutines.whereabouts(7, 2).is_some());
        goroutines.take(BootInstant(5), &snapshot(vec![at(1, "main.b")]));
        let found = goroutines.whereabouts(7, 1).unwrap();
        assert_eq!(found.frames[0].function, "main.b");
        assert_eq!(found.at, BootInstant(5));
        assert!(goroutines.whereabouts(7, 2).is_none(), "it ended");
    }

    #[test]
    fn who_comes_and_goes_is_told_from_who_comes_and_stays() {
        let mut goroutines = Goroutines::default();
        let at = |id| Goroutine {
            id,
            ..blocked("chan send", "main.a")
        };
        for (second, ids) in [(0, 1..3), (1, 2..5), (2, 2..9)] {
            let all = snapshot(ids.map(at).collect());
            goroutines.take(BootInstant(second), &all);
        }
        let attendances = goroutines.attendances(7);
        let course: Vec<_> = attendances[0]
            .course
            .iter()
            .map(|muster| (muster.count, muster.came, muster.left, muster.remain))
            .collect();
        assert_eq!(course, [(2, 2, 0, 1), (3, 2, 1, 2), (7, 4, 0, 4)]);
        assert_eq!(attendances[0].present, [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(goroutines.whereabouts(7, 2).unwrap().since, BootInstant(0));
        assert_eq!(goroutines.whereabouts(7, 4).unwrap().since, BootInstant(1));
        assert!(goroutines.taken().all(|taken| taken.whole));
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
            goroutines.take(BootInstant(0), &snapshot(stacks.to_vec()));
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
            &snapshot(vec![blocked("select", "main.loop")]),
        );
        assert_eq!(goroutines.groups()[0].growth_per_second, None);
    }

    #[test]
    fn places_too_many_to_keep_are_counted_together() {
        let crowd = (0..PLACES + 100)
            .map(|n| blocked("select", &format!("main.f{n}")))
            .collect();
        let mut goroutines = Goroutines::default();
        goroutines.take(BootInstant(0), &snapshot(crowd));
        let groups = goroutines.groups();
        assert_eq!(groups[0].count, 100);
        assert!(groups[0].frames.is_empty());
        assert_eq!(
            groups.iter().map(|g| g.count).sum::<u64>(),
            PLACES as u64 + 100
        );
    }
}
