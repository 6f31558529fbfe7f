//! Who came to a place and who left it, from one snapshot of a process's goroutines to the next.
//!
//! A count that grows may be a hundred that came and ninety that went, again and again, or ten that
//! came and stayed. Ids tell them apart. What happens between two snapshots is not seen: who came and
//! left again in between was never there.

use std::{sync::Arc, time::Duration};

use crate::event::{BootInstant, Frame, Pid};

/// Snapshots kept apart in a course; of a longer one the oldest are put together, but for the first.
const COURSE: usize = 64;

/// Where goroutines stand: those with the same one are a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) state: String,
    pub(super) frames: Vec<Frame>,
    pub(super) created_by: Option<Frame>,
}

/// The goroutines of one process at one place, over the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Attendance<'m> {
    /// The process.
    pub pid: Pid,
    /// What they are doing, as the runtime's dumps word it.
    pub state: &'m str,
    /// Innermost first; empty for the goroutines at places too many to keep apart.
    pub frames: &'m [Frame],
    /// The `go` statement that started them.
    pub created_by: Option<&'m Frame>,
    /// The longest wait among those of the last snapshot.
    pub wait_max: Option<Duration>,
    /// By snapshot, oldest first; from the first on in which somebody was here.
    pub course: Vec<Muster>,
    /// The ids of those of the last snapshot, in order.
    pub present: Vec<u64>,
}

impl Attendance<'_> {
    /// Somebody was here in the last snapshot.
    #[must_use]
    pub fn is_there_still(&self) -> bool {
        self.course.last().is_some_and(|muster| muster.count > 0)
    }
}

/// One snapshot, as one place saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Muster {
    /// When.
    pub at: BootInstant,
    /// How many were here.
    pub count: u64,
    /// Of these, not here in the snapshot before; in a place's first one all of them.
    pub came: u64,
    /// Here in the snapshot before, and no more: they ended, or went on.
    pub left: u64,
    /// Of those that came, still here in the last snapshot, and in all between.
    pub remain: u64,
}

/// What is kept of a place.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// With the number of each snapshot. `remain` is worked out when it is asked for.
    course: Vec<(u32, Muster)>,
    pub(super) wait_max: Option<Duration>,
}

impl Kept {
    pub(super) fn count(&self) -> u64 {
        self.course.last().map_or(0, |(_, muster)| muster.count)
    }

    /// How many were here in all snapshots of the course together.
    pub(super) fn seen(&self) -> u64 {
        self.course.iter().map(|(_, muster)| muster.count).sum()
    }

    /// How many were here in snapshot `number`.
    pub(super) fn count_in(&self, number: u32) -> u64 {
        let told = self.course.iter().find(|(of, _)| *of == number);
        told.map_or(0, |(_, muster)| muster.count)
    }

    pub(super) fn tell(&mut self, number: u32, muster: Muster) {
        self.course.push((number, muster));
        if self.course.len() > COURSE {
            let (_, earlier) = self.course.remove(1);
            if let Some((_, next)) = self.course.get_mut(1) {
                next.came += earlier.came;
                next.left += earlier.left;
            }
        }
    }

    /// The course, of which those who are here now came in the snapshots `since`.
    pub(super) fn course(&self, since: impl Iterator<Item = u32>) -> Vec<Muster> {
        let mut course: Vec<Muster> = self.course.iter().map(|(_, muster)| *muster).collect();
        for came in since {
            let place = self.course.partition_point(|(number, _)| *number < came);
            if let Some(muster) = course.get_mut(place) {
                muster.remain += 1;
            }
        }
        course
    }
}

/// Where one goroutine was in the last snapshot.
#[derive(Clone, Debug)]
pub(super) struct Here {
    pub(super) place: Arc<Place>,
    /// The number of the snapshot since which it was found there each time.
    pub(super) since: u32,
    pub(super) wait: Option<Duration>,
    /// The goroutine that started it.
    pub(super) parent: Option<u64>,
}
