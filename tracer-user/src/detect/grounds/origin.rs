//! Goroutines that one `go` statement started and that stand at one line, and how they grew in number.
//!
//! Growth alone is no leak: goroutines come and go with the requests, and a pool fills up. What is held
//! to be growth here came throughout the window and did not leave again.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    detect::own_code::own_frame,
    event::{BootInstant, Frame, Pid},
    model::{Attendance, Model, Muster},
};

use super::scene::Scene;

/// Fewer snapshots cannot tell growth in every part of a window.
const SNAPSHOTS: usize = 3;

/// Parts of a window that are compared; with few snapshots, fewer.
const PARTS: usize = 3;

/// In a shorter window nothing has had the time to end.
const SHORTEST: Duration = Duration::from_secs(2);

/// Of so many that stay, one may leave.
const STAYS: u64 = 20;

/// In each part of the window they come at least at this share of the average rate, if requests come.
const EVENLY: f64 = 0.375;

/// Goroutines of one process with the same state, the same line, and the same `go` statement.
pub(crate) struct Origin<'m> {
    pub(crate) state: &'m str,
    /// The whole stack of the most crowded place; innermost first.
    pub(crate) frames: &'m [Frame],
    /// The line they stand at: the innermost own one, or the innermost of all.
    pub(crate) at: &'m Frame,
    pub(crate) created_by: Option<&'m Frame>,
    pub(crate) wait_max: Option<Duration>,
    /// The ids of those of the last snapshot.
    pub(crate) present: Vec<u64>,
    /// How many there are now.
    pub(crate) count: u64,
    crowd: u64,
    course: BTreeMap<BootInstant, Muster>,
}

/// How goroutines of one origin grew in number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    pub(crate) from: BootInstant,
    pub(crate) until: BootInstant,
    /// How many there were at first.
    pub(crate) before: u64,
    /// How many came since, and are still there.
    pub(crate) stayed: u64,
    /// How many left.
    pub(crate) left: u64,
}

impl Growth {
    pub(crate) fn span(&self) -> Duration {
        self.until.since(self.from)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.stayed as f64 / self.span().as_secs_f64().max(0.001)
    }
}

impl<'m> Origin<'m> {
    /// All of `pid`'s that are there at last, the largest first.
    pub(crate) fn all(model: &'m Model, pid: Pid) -> Vec<Self> {
        let mut origins: BTreeMap<_, Self> = BTreeMap::new();
        let all = model.attendances(pid).into_iter();
        for attendance in all.filter(Attendance::is_there_still) {
            let Some(at) = own_frame(attendance.frames).or(attendance.frames.first()) else {
                continue;
            };
            let line =
                |frame: &'m Frame| (frame.function.as_str(), frame.file.as_deref(), frame.line);
            let key = (attendance.state, line(at), attendance.created_by.map(line));
            let origin = origins.entry(key).or_insert_with(|| Self {
                state: attendance.state,
                frames: attendance.frames,
                at,
                created_by: attendance.created_by,
                wait_max: None,
                present: Vec::new(),
                count: 0,
                crowd: 0,
                course: BTreeMap::new(),
            });
            origin.add(attendance);
        }
        let mut origins: Vec<Self> = origins.into_values().collect();
        origins.sort_by_key(|origin| std::cmp::Reverse(origin.count));
        origins
    }

    fn add(&mut self, attendance: Attendance<'m>) {
        let crowd = attendance.course.last().map_or(0, |muster| muster.count);
        if crowd > self.crowd {
            (self.frames, self.crowd) = (attendance.frames, crowd);
        }
        self.count += crowd;
        self.wait_max = self.wait_max.max(attendance.wait_max);
        self.present.extend(attendance.present);
        for told in attendance.course {
            let sum = self.course.entry(told.at).or_insert(Muster {
                count: 0,
                came: 0,
                left: 0,
                remain: 0,
                ..told
            });
            sum.count += told.count;
            sum.came += told.came;
            sum.left += told.left;
            sum.remain += told.remain;
        }
    }

    /// How many left in the window.
    pub(crate) fn left(&self) -> u64 {
        self.course.values().map(|muster| muster.left).sum()
    }

    /// How many there were in each snapshot since the first of them was seen.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (BootInstant, u64)> {
        self.course.values().map(|muster| (muster.at, muster.count))
    }

    /// Its growth, where it grew throughout the window and nearly nobody left.
    pub(crate) fn growth(&self, scene: &Scene<'_>, pid: Pid) -> Option<Growth> {
        let snapshots: Vec<_> = scene.model.snapshots().filter(|t| t.pid == pid).collect();
        let (first, last) = snapshots.first().zip(snapshots.last())?;
        let growth = Growth {
            from: first.at,
            until: last.at,
            before: self.course.get(&first.at).map_or(0, |muster| muster.count),
            stayed: self.remained(first.at, last.at),
            left: self.left(),
        };
        let followed = snapshots.len() >= SNAPSHOTS && snapshots.iter().all(|taken| taken.whole);
        let times: Vec<BootInstant> = snapshots.iter().map(|taken| taken.at).collect();
        let stays = growth.stayed > 0 && growth.left * STAYS <= growth.stayed;
        (followed && stays && growth.span() >= SHORTEST && self.evenly(scene, pid, &growth, &times))
            .then_some(growth)
    }

    /// Of those that came after `from`, until `until`, how many are still there.
    fn remained(&self, from: BootInstant, until: BootInstant) -> u64 {
        let came = self.course.values();
        came.filter(|muster| muster.at > from && muster.at <= until)
            .map(|muster| muster.remain)
            .sum()
    }

    /// It grew in each part of the window, but for those in which the process served nobody.
    fn evenly(&self, scene: &Scene<'_>, pid: Pid, growth: &Growth, taken: &[BootInstant]) -> bool {
        let mut grew = 0;
        for (from, until) in parts(growth, taken) {
            let stayed = self.remained(from, until) as f64;
            let long = until.since(from).as_secs_f64();
            if stayed >= growth.per_second() * long * EVENLY {
                grew += 1;
            } else if served_between(scene, pid, from, until) {
                return false;
            }
        }
        // One burst is no growth, whatever it left behind.
        grew >= 2
    }
}

/// About equal parts of the window, which begin and end with snapshots.
fn parts(growth: &Growth, taken: &[BootInstant]) -> Vec<(BootInstant, BootInstant)> {
    let parts = taken.len().saturating_sub(1).min(PARTS);
    let mut ends: Vec<BootInstant> = (0..=parts)
        .filter_map(|number| {
            let share = number as f64 / parts as f64;
            let wanted = growth.from.plus(growth.span().mul_f64(share));
            let apart = |at: &&BootInstant| at.since(wanted).max(wanted.since(**at));
            taken.iter().min_by_key(apart).copied()
        })
        .collect();
    ends.dedup();
    ends.windows(2)
        .filter_map(|ends| Some((*ends.first()?, *ends.last()?)))
        .collect()
}

/// A request to `pid` began between two moments.
fn served_between(scene: &Scene<'_>, pid: Pid, from: BootInstant, until: BootInstant) -> bool {
    let mut served = scene.servers().filter(|c| c.pid == pid).peekable();
    // Whatever makes it grow is not seen: then it does so all the time.
    served.peek().is_none()
        || served.any(|connection| {
            let exchanges = connection.exchanges();
            exchanges
                .iter()
                .any(|exchange| exchange.started > from && exchange.started <= until)
        })
}
