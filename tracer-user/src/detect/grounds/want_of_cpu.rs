//! Whether somebody who was waited for could have gone on, and had no CPU.
//!
//! In: a wait, and who was to end it. Out: how much of the wait the quota of a cgroup, or others on the CPUs,
//! took. What it waited for otherwise (a lock, a timer, a service) is no want of a CPU, however busy its
//! process was meanwhile.

use std::{cmp::Reverse, time::Duration};

use crate::{
    detect::{
        docket::Docket,
        finding::Rule,
        wording::{join, seconds},
    },
    event::{Pid, Waiting},
    model::{Model, TICK},
};

use super::{
    breakdown::{Breakdown, Part},
    give_up::GiveUp,
    scene::Scene,
    schedule::{around, span},
    spans::{Span, Spans},
};

/// A smaller part of a wait is not worth a word.
const WORTH_TELLING: u32 = 5;

/// Where it was so much of the wait, the answer would have come.
const DECISIVE: u32 = 2;

/// A process that lacked a CPU.
#[derive(Clone, Debug)]
pub(crate) struct WantOfCpu {
    /// Which.
    pub(crate) pid: Pid,
    /// How long somebody waited for it.
    pub(crate) waited: Duration,
    /// For so long of it the quota of its cgroup stopped it.
    pub(crate) throttled: Duration,
    /// For so long of it others had the CPUs.
    pub(crate) run_queue: Duration,
    /// For so long of it others had Go's processors.
    pub(crate) queued: Duration,
}

impl WantOfCpu {
    /// Of the one on whom was given up, for the request it was to answer; with where all of the wait went.
    /// `None` where that is not seen, or it lacked nothing to speak of.
    pub(crate) fn behind(scene: &Scene<'_>, give_up: &GiveUp<'_>) -> Option<(Self, Breakdown)> {
        let exchange = give_up.exchange.as_ref()?;
        let other = scene.model.other_end(give_up.connection)?;
        let parts = Breakdown::of_wait(scene, give_up.connection, exchange, give_up.at);
        let want = Self {
            pid: other.pid,
            waited: parts.whole(),
            throttled: parts.of(Part::Throttled),
            run_queue: parts.of(Part::RunQueue),
            queued: parts.of(Part::Queued),
        };
        want.is_worth_telling().then_some((want, parts))
    }

    /// Of a whole process, for which somebody waited in `wait` and of which nothing is known but its
    /// threads: the moments in which some of them wanted to run, and none did.
    pub(crate) fn of_process(scene: &Scene<'_>, pid: Pid, wait: Span) -> Option<Self> {
        let during = Spans::from(wait);
        let stopped = scene.schedule.stopped(pid)?.within(&during);
        let ran = scene.schedule.samples_of_all(pid, wait);
        let ran = Spans::of(ran.map(|sampled| around(sampled.at, TICK / 2)));
        let waits = scene.schedule.waits(pid, wait);
        let wanted = waits.filter(|wait| wait.told.why != Waiting::Throttled);
        let wanted = Spans::of(wanted.map(span)).within(&during);
        let want = Self {
            pid,
            waited: during.total(),
            run_queue: wanted.without(&ran).without(&stopped).total(),
            throttled: stopped.total(),
            queued: Duration::ZERO,
        };
        want.is_worth_telling().then_some(want)
    }

    fn lacked(&self) -> Duration {
        self.throttled + self.run_queue + self.queued
    }

    fn is_worth_telling(&self) -> bool {
        !self.lacked().is_zero() && self.lacked() * WORTH_TELLING >= self.waited
    }

    /// It took so much of the wait that it is why it was too long.
    pub(crate) fn is_decisive(&self) -> bool {
        self.lacked() * DECISIVE >= self.waited
    }

    /// What the scheduler's own rules say of it, where it decided the wait: of those the one that says most.
    pub(crate) fn cause(&self, docket: &Docket) -> Option<usize> {
        let mut rules = [
            (self.throttled, Rule::CpuThrottled),
            (self.run_queue, Rule::RunQueueDelay),
        ];
        rules.sort_by_key(|(time, _)| Reverse(*time));
        let own = self.throttled + self.run_queue;
        let told = rules
            .iter()
            .filter(|(time, _)| *time * WORTH_TELLING >= self.waited)
            .find_map(|(_, rule)| docket.worst_of(*rule, self.pid));
        told.filter(|_| own * DECISIVE >= self.waited)
    }

    /// `of the 1.003 s the quota of its cgroup stopped shop for 0.843 s, and …`.
    pub(crate) fn numbers(&self, model: &Model) -> String {
        let who = model.name(self.pid);
        let worth = |time: &Duration| *time * WORTH_TELLING * 4 >= self.waited;
        let told: Vec<String> = [
            (
                self.throttled,
                format!("the quota of its cgroup stopped {who} for"),
            ),
            (
                self.run_queue,
                format!("{who} could have run, and no CPU was free, for"),
            ),
            (
                self.queued,
                "its goroutine was ready, and others had Go's processors, for".to_owned(),
            ),
        ]
        .into_iter()
        .filter(|(time, _)| worth(time))
        .map(|(time, what)| format!("{what} {}", seconds(time)))
        .collect();
        format!("of the {} {}", seconds(self.waited), join(&told))
    }
}
