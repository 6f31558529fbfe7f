//! Goroutines told by groups: what `gopulse goroutines` says.
//!
//! In: the censuses of one process, and where they are from. Out: [`Goroutines`], which is the JSON
//! object `gopulse.goroutines/1`, and can be told as a [table].

pub mod table;

use std::{collections::BTreeMap, io};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    detect::rfc3339_nanoseconds,
    event::{Frame, SnapshotSource},
    golang::{
        census::{Census, Kind, UNTOLD},
        growth::{By, Change, compare},
    },
    plain::write_json,
};

/// The name and version of this form.
const SCHEMA: &str = "gopulse.goroutines/1";

/// All there is to say about the goroutines of a process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goroutines {
    /// `gopulse.goroutines/1`.
    pub schema: &'static str,
    /// What they were read from, oldest first.
    pub snapshots: Vec<SnapshotTold>,
    /// Seconds from the first snapshot to the last; `null` for one, and for files.
    pub duration_s: Option<f64>,
    /// Groups: of one snapshot the largest first, of several what grew most.
    pub groups: Vec<GroupTold>,
    /// How many groups are not in the list.
    pub groups_left_out: u64,
    /// How many goroutines of the last snapshot are in those.
    pub goroutines_left_out: u64,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotTold {
    /// The file, the URL, or the process.
    pub from: String,
    /// How it was read.
    pub source: SnapshotSource,
    /// When; `null` for files.
    #[serde(serialize_with = "time")]
    pub time: Option<Timestamp>,
    /// How many goroutines there were.
    pub total: u64,
    /// How many of them were told.
    pub told: u64,
    /// Whether they have ids.
    pub has_ids: bool,
    /// How many of those have no whole stack, because they never held still.
    pub unsettled: u64,
    /// How many carry pprof labels that could not be read.
    pub unread_labels: u64,
    /// Lines of a file that were not understood.
    pub unread_lines: u64,
    /// A file that ends in the middle of a goroutine.
    pub cut: bool,
}

/// Goroutines that do the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupTold {
    /// How many, in the last snapshot.
    pub count: u64,
    /// How many, in each snapshot.
    pub counts: Vec<u64>,
    /// How many more in the last than in the first; negative for fewer, `null` for one snapshot.
    pub growth: Option<i64>,
    /// The same for each second.
    pub growth_per_s: Option<f64>,
    /// How many began between the snapshots; `null` where ids are not known.
    pub born: Option<u64>,
    /// How many ended between them.
    pub ended: Option<u64>,
    /// What they wait for; `null` where the source does not tell.
    pub state: Option<String>,
    /// They are locked to their threads.
    pub locked: bool,
    /// How long the one has waited that waited longest.
    pub wait_max_s: Option<f64>,
    /// pprof labels.
    pub labels: BTreeMap<String, String>,
    /// Where they stand, innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started them.
    pub created_by: Option<Frame>,
    /// The ids of up to ten of them.
    pub goroutines: Vec<u64>,
}

/// What of the groups is told.
#[derive(Clone, Debug)]
pub struct Selection {
    /// By what they are told apart.
    pub by: Vec<By>,
    /// Texts that each must have in a function, a state or a label; in upper or lower case.
    pub filters: Vec<String>,
    /// So many of them.
    pub top: usize,
}

impl Goroutines {
    /// Brings together what the snapshots tell; those of one process, oldest first.
    #[must_use]
    pub fn new(snapshots: &[(SnapshotTold, Census)], selection: &Selection) -> Self {
        let censuses: Vec<Census> = snapshots.iter().map(|(_, census)| census.clone()).collect();
        let told: Vec<SnapshotTold> = snapshots.iter().map(|(told, _)| told.clone()).collect();
        let times = told
            .first()
            .and_then(|first| first.time)
            .zip(told.last().and_then(|last| last.time));
        let duration_s = times
            .map(|(first, last)| last.duration_since(first).as_secs_f64())
            .filter(|seconds| told.len() > 1 && *seconds > 0.0);
        let filters: Vec<String> = selection
            .filters
            .iter()
            .map(|text| text.to_lowercase())
            .collect();
        let mut groups: Vec<GroupTold> = compare(&censuses, &selection.by)
            .into_iter()
            .filter(|change| filters.iter().all(|text| mentions(&change.kind, text)))
            .map(|change| GroupTold::new(change, duration_s))
            .collect();
        let left_out = groups.split_off(selection.top.min(groups.len()));
        Self {
            schema: SCHEMA,
            snapshots: told,
            duration_s,
            groups,
            groups_left_out: left_out.len() as u64,
            goroutines_left_out: left_out.iter().map(|group| group.count).sum(),
        }
    }

    /// The JSON object, on lines of its own.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        write_json(&mut out, self)
    }
}

impl SnapshotTold {
    /// A snapshot of which nothing was lost.
    #[must_use]
    pub fn of(census: &Census, from: String, source: SnapshotSource) -> Self {
        Self {
            from,
            source,
            time: None,
            total: census.total,
            told: census.told(),
            has_ids: census.names(),
            unsettled: 0,
            unread_labels: 0,
            unread_lines: 0,
            cut: false,
        }
    }
}

impl GroupTold {
    fn new(change: Change, duration_s: Option<f64>) -> Self {
        let growth = (change.counts.len() > 1).then(|| change.growth());
        Self {
            count: change.count(),
            growth,
            growth_per_s: growth
                .zip(duration_s)
                .map(|(growth, time)| growth as f64 / time),
            born: change.turnover.map(|turnover| turnover.born),
            ended: change.turnover.map(|turnover| turnover.ended),
            state: Some(change.kind.state).filter(|state| state != UNTOLD),
            locked: change.kind.locked,
            wait_max_s: change.longest_wait.map(|wait| wait.as_secs_f64()),
            labels: change.kind.labels.iter().cloned().collect(),
            frames: change.kind.stack.frames.clone(),
            created_by: change.kind.stack.created_by.clone(),
            goroutines: change.examples,
            counts: change.counts,
        }
    }
}

/// Whether a group's functions, state or labels hold this text, which is in lower case.
fn mentions(kind: &Kind, text: &str) -> bool {
    let holds = |name: &str| name.to_lowercase().contains(text);
    let Kind {
        state,
        stack,
        labels,
        ..
    } = kind;
    let mut frames = stack.frames.iter().chain(&stack.created_by);
    holds(state)
        || frames.any(|frame| holds(&frame.function))
        || labels
            .iter()
            .any(|(key, value)| holds(&format!("{key}={value}")))
}

fn time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_nanoseconds(time, to),
        None => to.serialize_none(),
    }
}
