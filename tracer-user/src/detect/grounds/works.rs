//! What a process's CPU time went for, by its samples, and at which of its own lines.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    detect::own_code::own_frame,
    event::{Frame, Pid, Sample},
    model::{Model, Place, TICK},
};

use super::runtime_work::Work;

/// The share of all CPUs that marking in the background is given while the process has other things to do
/// (`gcBackgroundUtilization` in `runtime/mgcpacer.go`); what is more is done by idle processors.
const MARKING: f64 = 0.25;

/// What each place of a process stands for.
pub(crate) struct Works {
    by_place: HashMap<Place, Work>,
    by_work: [u64; Work::KINDS],
    /// Some marking was said to be done by idle processors: so the rest was not.
    names_idle: bool,
}

impl Works {
    pub(crate) fn of(model: &Model, pid: Pid) -> Self {
        let mut works = Self {
            by_place: HashMap::new(),
            by_work: [0; Work::KINDS],
            names_idle: false,
        };
        for (place @ (stack, kernel), number) in model.places(pid) {
            let frames = model.frames(stack);
            let work = Work::at(frames, model.frames(kernel));
            works.by_place.insert(place, work);
            if let Some(sum) = works.by_work.get_mut(work as usize) {
                *sum += number;
            }
            works.names_idle |= frames
                .iter()
                .any(|frame| frame.function.starts_with("runtime.gcDrainMarkWorker"));
        }
        works
    }

    /// What this one was caught in.
    pub(crate) fn at(&self, sample: &Sample) -> Work {
        let place = (sample.stack, sample.kernel);
        self.by_place.get(&place).copied().unwrap_or(Work::Program)
    }

    /// Samples of the whole window in the work that `counts`.
    pub(crate) fn number(&self, counts: impl Fn(Work) -> bool) -> u64 {
        Work::ALL
            .iter()
            .zip(self.by_work)
            .filter(|(work, _)| counts(**work))
            .map(|(_, number)| number)
            .sum()
    }

    /// The share of the process's CPU time that went for the work that `counts`.
    pub(crate) fn share(&self, counts: impl Fn(Work) -> bool) -> f64 {
        self.number(counts) as f64 / self.number(|_| true).max(1) as f64
    }

    /// Go 1.21 marks on idle processors under the same names. Of its marking in the background nobody
    /// pays for more than the share that it is given.
    pub(crate) fn marking_beyond_its_share(&self, watched: Duration, capacity: Option<f64>) -> u64 {
        let (false, Some(capacity)) = (self.names_idle, capacity) else {
            return 0;
        };
        let given = capacity * MARKING * watched.as_secs_f64() / TICK.as_secs_f64();
        self.number(|work| work == Work::Marking)
            .saturating_sub(given as u64)
    }
}

/// CPUs that `pid` may use: those of the host, `GOMAXPROCS`, or what its quota comes to.
pub(crate) fn capacity(model: &Model, pid: Pid) -> Option<f64> {
    let cpus = model
        .host()
        .map(|course| course.last().1.cpus)
        .filter(|n| *n > 0);
    let procs = model
        .runtime(pid)
        .and_then(|course| course.last().1.max_procs);
    let quota = model.quota(pid).and_then(|course| {
        let quota = &course.last().1;
        Some(quota.quota?.as_secs_f64() / quota.period.as_secs_f64())
    });
    let all = [cpus.map(f64::from), procs.map(f64::from), quota];
    all.into_iter()
        .flatten()
        .filter(|n| *n > 0.0)
        .reduce(f64::min)
}

/// The CPU time that so many samples stand for.
pub(crate) fn time(samples: u64) -> Duration {
    TICK * u32::try_from(samples).unwrap_or(u32::MAX)
}

/// The program's own lines under which samples were caught, with how many; the most frequent first.
pub(crate) fn own_lines(
    model: &Model,
    pid: Pid,
    counts: impl Fn(Work, &[Frame]) -> bool,
) -> Vec<(Frame, u64)> {
    let mut lines: BTreeMap<(String, Option<String>, Option<u32>), u64> = BTreeMap::new();
    for ((stack, kernel), number) in model.places(pid) {
        let frames = model.frames(stack);
        if counts(Work::at(frames, model.frames(kernel)), frames)
            && let Some(own) = own_frame(frames)
        {
            let key = (own.function.clone(), own.file.clone(), own.line);
            *lines.entry(key).or_default() += number;
        }
    }
    let mut lines: Vec<(Frame, u64)> = lines
        .into_iter()
        .map(|((function, file, line), number)| {
            let frame = Frame {
                function,
                file,
                line,
            };
            (frame, number)
        })
        .collect();
    lines.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    lines
}
