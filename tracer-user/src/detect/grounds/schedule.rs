//! What the scheduler did to each process, put in order so that a request finds its part in it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    event::{BootInstant, Pid, Role, Waiting},
    model::{Model, Sampled, TICK, Wait},
};

use super::spans::{Span, Spans};

/// Ticks of the profiler's clock that do not pass without a sample while a process runs.
const ENOUGH: u32 = 10;

/// What runs a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Runner {
    /// A goroutine, on whichever thread.
    Goroutine(u64),
    /// A thread.
    Thread(u32),
}

/// Waits and samples of every process.
#[derive(Debug, Default)]
pub(crate) struct Schedule<'m>(HashMap<Pid, OfProcess<'m>>);

#[derive(Debug, Default)]
struct OfProcess<'m> {
    /// By their ends.
    waits: Vec<&'m Wait>,
    longest: Duration,
    /// Oldest first.
    samples: HashMap<Runner, Vec<&'m Sampled>>,
    all_samples: Vec<&'m Sampled>,
    stopped: Spans,
    loops: HashSet<u32>,
    /// The scheduler was watched; all its threads ran for so long.
    watched: bool,
    on_cpu: Duration,
}

impl<'m> Schedule<'m> {
    pub(crate) fn of(model: &'m Model) -> Self {
        let mut all: HashMap<Pid, OfProcess<'m>> = HashMap::new();
        for thread in model.threads().chain(model.threads_gone()) {
            let of = all.entry(thread.pid).or_default();
            of.watched = true;
            of.on_cpu += thread.on_cpu;
        }
        for sampled in model.samples() {
            let sample = &sampled.sample;
            let of = all.entry(sample.pid).or_default();
            let goroutine = sample.goroutine.map(Runner::Goroutine);
            for runner in [Some(Runner::Thread(sample.tid)), goroutine]
                .into_iter()
                .flatten()
            {
                of.samples.entry(runner).or_default().push(sampled);
            }
            of.all_samples.push(sampled);
        }
        for process in model.processes() {
            let pid = process.about.pid;
            let mut waits: Vec<&Wait> = model.waits(pid).collect();
            if waits.is_empty() && !all.contains_key(&pid) {
                continue;
            }
            waits.sort_by_key(|wait| wait.until);
            let of = all.entry(pid).or_default();
            of.longest = waits
                .iter()
                .map(|wait| length(wait))
                .max()
                .unwrap_or_default();
            let throttled = waits
                .iter()
                .filter(|wait| wait.told.why == Waiting::Throttled);
            let running = Spans::of(
                of.all_samples
                    .iter()
                    .map(|sampled| around(sampled.at, TICK / 2)),
            );
            of.stopped = Spans::of(throttled.map(|wait| span(wait))).without(&running);
            of.waits = waits;
            of.watched = true;
            if process.about.go_version.is_none() {
                of.loops = loops(model, pid);
            }
        }
        Self(all)
    }

    /// The scheduler was watched for this process.
    pub(crate) fn watched(&self, pid: Pid) -> bool {
        self.0.get(&pid).is_some_and(|of| of.watched)
    }

    /// Who ran was sampled for this process; or it ran too little for a sample.
    pub(crate) fn sampled(&self, pid: Pid) -> bool {
        self.0.get(&pid).is_some_and(|of| {
            of.watched && (!of.all_samples.is_empty() || of.on_cpu < TICK * ENOUGH)
        })
    }

    /// Waits of `pid`'s threads that overlap `window`, by their ends.
    pub(crate) fn waits(&self, pid: Pid, window: Span) -> impl Iterator<Item = &'m Wait> {
        let of = self.0.get(&pid);
        let longest = of.map_or(Duration::ZERO, |of| of.longest);
        let waits = of.map_or(&[][..], |of| of.waits.as_slice());
        let first = waits.partition_point(|wait| wait.until <= window.0);
        let latest = window.1.plus(longest);
        waits
            .iter()
            .skip(first)
            .take_while(move |wait| wait.until <= latest)
            .filter(move |wait| wait.told.from < window.1)
            .copied()
    }

    /// Samples of `runner` in `window`, oldest first.
    pub(crate) fn samples(
        &self,
        pid: Pid,
        runner: Runner,
        window: Span,
    ) -> impl Iterator<Item = &'m Sampled> {
        let of = self.0.get(&pid).and_then(|of| of.samples.get(&runner));
        during(of.map_or(&[], Vec::as_slice), window)
    }

    /// Samples of all of `pid` in `window`, oldest first.
    pub(crate) fn samples_of_all(
        &self,
        pid: Pid,
        window: Span,
    ) -> impl Iterator<Item = &'m Sampled> {
        during(
            self.0.get(&pid).map_or(&[], |of| of.all_samples.as_slice()),
            window,
        )
    }

    /// When the quota stopped threads of `pid`, and no sample shows that another one ran.
    pub(crate) fn stopped(&self, pid: Pid) -> Option<&Spans> {
        self.0.get(&pid).map(|of| &of.stopped)
    }

    /// This thread serves several requests at once: what it does says nothing of one of them.
    pub(crate) fn is_loop(&self, pid: Pid, tid: u32) -> bool {
        self.0.get(&pid).is_some_and(|of| of.loops.contains(&tid))
    }
}

fn during<'s, 'm>(
    samples: &'s [&'m Sampled],
    window: Span,
) -> impl Iterator<Item = &'m Sampled> + use<'s, 'm> {
    let first = samples.partition_point(|sampled| sampled.at < window.0);
    let rest = samples.iter().skip(first);
    rest.take_while(move |sampled| sampled.at <= window.1)
        .copied()
}

/// From when until when a thread waited.
pub(crate) fn span(wait: &Wait) -> Span {
    (wait.told.from, wait.until)
}

/// So long before and after a moment.
pub(crate) fn around(at: BootInstant, long: Duration) -> Span {
    (at.minus(long), at.plus(long))
}

fn length(wait: &Wait) -> Duration {
    wait.until.since(wait.told.from)
}

/// Threads of `pid` that had read a request, and not answered it, when they read another one.
fn loops(model: &Model, pid: Pid) -> HashSet<u32> {
    let mut served: Vec<(u32, BootInstant, BootInstant)> = model
        .connections()
        .filter(|connection| connection.pid == pid && connection.role == Role::Server)
        .flat_map(|connection| connection.exchanges())
        .filter_map(|exchange| {
            let until = exchange.first_byte.unwrap_or(exchange.last_byte);
            Some((exchange.actor?.tid, exchange.started, until))
        })
        .collect();
    served.sort_unstable();
    let mut loops = HashSet::new();
    let mut busy: Option<(u32, BootInstant)> = None;
    for (tid, started, until) in served {
        busy = match busy {
            Some((same, free)) if same == tid => {
                if started < free {
                    loops.insert(tid);
                }
                Some((tid, free.max(until)))
            }
            _ => Some((tid, until)),
        };
    }
    loops
}
