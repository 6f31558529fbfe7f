//! Who had the CPUs that requests waited for.
//!
//! Two witnesses: each wait tells who had the CPU right before it ended, which need not be who had it for
//! long; and the profiler counts the CPU time that everybody took, whether or not a request waited then. So
//! named is who was met at the end of waits, in the order of the CPU time taken.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    detect::grounds::{delays::Delays, held_up::window, scene::Scene},
    event::{Pid, Waiting},
    model::{Load, Model},
};

/// A process that takes this share of the host's CPU time needs no other to be short of it.
const ENOUGH: f64 = 0.7;

/// Others that take this share of it are in the way of whoever needs the rest.
const MUCH: f64 = 0.2;

/// On one CPU of many they may be so with less: if they had it at the end of such a part of the waits.
const MET: f64 = 0.3;

/// Whoever took less than this of one CPU is not named, however often it was met: it does not run for long.
const NOTABLE: f64 = 0.25;

/// Processes of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rival {
    /// Their name.
    pub(super) comm: String,
    /// Their ids; more than one of a pool of workers.
    pub(super) pids: BTreeSet<Pid>,
    /// CPU time that they took in the window; none where they are not among the busiest.
    pub(super) took: Duration,
    /// Waits of requests at whose end the CPU had been theirs.
    pub(super) waited: Duration,
}

/// Whose doing the waits were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Other processes'.
    Others,
    /// The process's own threads'.
    Own,
    /// Nobody's who was seen.
    Nobody,
}

/// Everybody who had them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// Other processes, who took most first.
    pub(super) others: Vec<Rival>,
    /// CPU time of the process itself.
    own_took: Duration,
    /// Waits at whose end it was its own threads that had had the CPU.
    own_waited: Duration,
    /// All waits for which somebody is known.
    waited: Duration,
    /// The CPU time that there was, and that of one CPU.
    capacity: Duration,
    one_cpu: Duration,
    /// It is known who took how much.
    sampled: bool,
}

impl Rivals {
    /// For the requests of `pid` that were late for it.
    pub(super) fn of(
        scene: &Scene<'_>,
        pid: Pid,
        delays: &Delays<'_>,
        load: Option<&Load>,
    ) -> Self {
        let model = scene.model;
        let took = taken(model);
        let mut rivals = Self {
            own_took: took.get(&pid).map(|(_, took)| *took).unwrap_or_default(),
            capacity: load.map(Load::capacity).unwrap_or_default(),
            one_cpu: load.map(|load| load.over).unwrap_or_default(),
            sampled: load.is_some() && model.neighbours().is_some(),
            ..Self::default()
        };
        let mut by_name: BTreeMap<String, Rival> = BTreeMap::new();
        for (whose, comm, waited) in met(scene, pid, delays) {
            rivals.waited += waited;
            if whose == pid {
                rivals.own_waited += waited;
                continue;
            }
            let known = took.get(&whose);
            // The process's name rather than the thread's, which a process that is gone has left us.
            let comm = known
                .map(|(comm, _)| *comm)
                .filter(|comm| !comm.is_empty())
                .unwrap_or(comm);
            let rival = by_name.entry(comm.to_owned()).or_default();
            rival.waited += waited;
            if rival.pids.insert(whose) {
                rival.took += known.map(|(_, took)| *took).unwrap_or_default();
            }
        }
        for (comm, rival) in &mut by_name {
            rival.comm.clone_from(comm);
        }
        rivals.others = by_name.into_values().collect();
        rivals
            .others
            .sort_by_key(|rival| std::cmp::Reverse((rival.took, rival.waited)));
        rivals
    }

    /// The part of the waits, from 0 to 1, at whose end `rival` had had the CPU.
    pub(super) fn met(&self, rival: &Rival) -> f64 {
        share(rival.waited, self.waited)
    }

    /// Its part of the CPU time that there was.
    pub(super) fn took(&self, rival: &Rival) -> f64 {
        share(rival.took, self.capacity)
    }

    /// The process's own part of it.
    pub(super) fn own(&self) -> f64 {
        share(self.own_took, self.capacity)
    }

    /// Those who took enough; where nobody counted, those who were met often enough.
    pub(super) fn named(&self) -> impl Iterator<Item = &Rival> {
        self.others.iter().filter(|rival| {
            if self.sampled {
                share(rival.took, self.one_cpu) >= NOTABLE
            } else {
                self.met(rival) >= MET
            }
        })
    }

    /// Most of the waits ended when one of its own threads left the CPU.
    pub(super) fn takes_turns(&self) -> bool {
        self.own_waited * 2 > self.waited
    }

    pub(super) fn blame(&self) -> Blame {
        let took: Duration = self.named().map(|rival| rival.took).sum();
        let met: Duration = self.named().map(|rival| rival.waited).sum();
        // Its threads take turns also on what others leave them.
        if self.own() >= ENOUGH || (self.takes_turns() && took <= self.own_took) {
            Blame::Own
        } else if share(took, self.capacity) >= MUCH || share(met, self.waited) >= MET {
            Blame::Others
        } else {
            Blame::Nobody
        }
    }
}

/// Who had the CPU right before each wait of these requests ended: process, name and the wait.
fn met<'m>(
    scene: &Scene<'m>,
    pid: Pid,
    delays: &Delays<'_>,
) -> impl Iterator<Item = (Pid, &'m str, Duration)> {
    let mut waits = BTreeMap::new();
    for one in &delays.delayed {
        let whole = window(scene, one.held.connection, &one.held.exchange);
        let for_a_cpu = scene
            .schedule
            .waits(pid, whole)
            .filter(|wait| wait.told.why != Waiting::Throttled);
        waits.extend(for_a_cpu.map(|wait| ((wait.told.tid, wait.until), wait)));
    }
    waits.into_values().filter_map(|wait| {
        let by = wait.told.by.as_ref()?;
        Some((by.pid, by.comm.as_str(), wait.until.since(wait.told.from)))
    })
}

/// Name and CPU time of everybody of whom it is known: the targets by their threads' sums, their neighbours
/// by samples.
fn taken(model: &Model) -> HashMap<Pid, (&str, Duration)> {
    let mut taken: HashMap<Pid, (&str, Duration)> = HashMap::new();
    for thread in model.threads().chain(model.threads_gone()) {
        let process = model.process(thread.pid);
        let comm = process.map_or(&thread.comm, |process| &process.about.comm);
        taken.entry(thread.pid).or_insert((comm, Duration::ZERO)).1 += thread.on_cpu;
    }
    let busiest = model.neighbours().map(|told| told.busiest.as_slice());
    for (pid, comm, took) in busiest.unwrap_or_default() {
        taken.entry(*pid).or_insert((comm, *took));
    }
    taken
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        0.0
    } else {
        part.as_secs_f64() / whole.as_secs_f64()
    }
}
