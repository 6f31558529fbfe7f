//! `run-queue-delay`: threads that could have run waited for a CPU, and requests were late for it.
//!
//! Named is who had the CPU meanwhile. Not accused: a service that waits for CPUs and answers in time; a job
//! that takes every CPU and serves nobody. That a service's own threads keep each other waiting is load, and
//! worth knowing only.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    event::Pid,
    model::{Load, Model},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Severity, Subject},
    grounds::{
        breakdown::Breakdown,
        delays::{Delayed, Delays},
        hands,
        held_up::window,
        scene::Scene,
        telling::{Timeline, wireshark_filter},
    },
    wording::{count, join, percent, seconds},
};

mod rivals;

use rivals::{Blame, Rival, Rivals};

/// Once or twice is nobody's fault.
const FEW: u64 = 3;

/// Every scheduler lets somebody wait now and then, most of all on a small host.
const ORDINARY: f64 = 0.1;

/// Names of others that are told.
const NAMED: usize = 3;

/// What a hypervisor may take without being worth a word.
const STOLEN: f64 = 0.05;

/// Waits told of one occurrence.
const WAITS: usize = 8;

/// Adds a case for each process whose requests waited for a CPU.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for process in scene.model.processes() {
        let pid = process.about.pid;
        let delays = Delays::of(scene, pid, |held| held.run_queue);
        if delays.number() < FEW {
            continue;
        }
        let load = scene.model.load();
        let delay = Delay {
            scene,
            pid,
            rivals: Rivals::of(scene, pid, &delays, load.as_ref()),
            load,
            delays,
        };
        if let Some(case) = delay.case() {
            docket.add(case);
        }
    }
}

/// A process whose requests waited for a CPU.
struct Delay<'s, 'm> {
    scene: &'s Scene<'m>,
    pid: Pid,
    delays: Delays<'m>,
    rivals: Rivals,
    load: Option<Load>,
}

impl<'m> Delay<'_, 'm> {
    fn model(&self) -> &'m Model {
        self.scene.model
    }

    fn case(&self) -> Option<Case> {
        let example = self.delays.example()?;
        let connection = example.held.connection;
        let others = self.rivals.blame() == Blame::Others && !self.rivals.takes_turns();
        let severity = if others && self.delays.are_many(ORDINARY) {
            Severity::Warning
        } else {
            Severity::Info
        };
        let mut doubts = Vec::new();
        if !self.delays.are_direct() {
            doubts.push(Doubt::RequestInferred);
        }
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::RunQueueDelay,
            severity,
            confidence: Confidence::SEEN.but_all(&doubts).number(),
            count: self.delays.number(),
            title: self.title(),
            explanation: self.explanation(example),
            process: Subject::of(self.model(), self.pid),
            connection: Some(connection.into()),
            related_connections: self
                .model()
                .other_end(connection)
                .into_iter()
                .map(Ends::from)
                .collect(),
            setting: None,
            code: None,
            goroutines: hands::on(self.model(), connection, &example.held.exchange),
            measured: self.measured(example),
            evidence: self.evidence(example),
            advice: match self.rivals.blame() {
                Blame::Others => self.against_others(),
                Blame::Own | Blame::Nobody => self.against_load(),
            },
            wireshark_filter: wireshark_filter([connection].into_iter()),
            incomplete: (self.rivals.blame() == Blame::Nobody)
                .then(|| "Who had the CPUs meanwhile was not seen well enough to name it.".into()),
        };
        Some(Case {
            explains: match severity {
                Severity::Info => HashSet::new(),
                _ => self.delays.explained(),
            },
            cause: None,
            finding,
        })
    }

    /// Those that are named.
    fn named(&self) -> impl Iterator<Item = &Rival> {
        self.rivals.named().take(NAMED)
    }

    fn title(&self) -> String {
        let who = self.model().name(self.pid);
        let longest = self.delays.delayed.last().map(|one| one.lost);
        let waited = format!(
            "{} of {who} waited up to {} for the CPUs",
            count(self.delays.number(), "request", "requests"),
            seconds(longest.unwrap_or_default())
        );
        let names: Vec<String> = self.named().map(|rival| rival.comm.clone()).collect();
        match self.rivals.blame() {
            Blame::Others => format!("{waited} while {} had them", join(&names)),
            Blame::Own => format!("{waited} while its own threads had them"),
            Blame::Nobody => waited,
        }
    }

    fn explanation(&self, example: &Delayed<'_>) -> String {
        let who = self.model().name(self.pid);
        let lost: Duration = self.delays.delayed.iter().map(|one| one.lost).sum();
        let mut told = vec![format!(
            "{} of {} to {who} lost a good part of their time, {} in all, because its threads could have run and no CPU was free.",
            self.delays.number(),
            count(self.delays.requests, "request", "requests"),
            seconds(lost),
        )];
        let whose: Vec<String> = self.named().map(|rival| self.whose(rival)).collect();
        if !whose.is_empty() {
            told.push(format!("Others ran: {}.", join(&whose)));
        }
        if self.rivals.blame() == Blame::Own {
            told.push(format!(
                "It was {who} itself that had them: it took {} of all CPU time, and has more to do at once than there are CPUs.",
                percent(self.rivals.own())
            ));
        }
        if let Some(load) = &self.load {
            told.push(format!(
                "On average {:.1} threads wanted the host's {}, which were busy {} of the time{}.",
                load.runnable,
                count(load.cpus.into(), "CPU", "CPUs"),
                percent(load.busy()),
                if load.steal >= STOLEN {
                    format!(
                        "; the hypervisor took {} of it for others",
                        percent(load.steal)
                    )
                } else {
                    String::new()
                }
            ));
        }
        let held = &example.held;
        let parts = Breakdown::of_exchange(self.scene, held.connection, &held.exchange);
        told.push(format!(
            "One of them: {}",
            parts.sentence().replacen("Of ", "of ", 1)
        ));
        told.join(" ")
    }

    /// `yes (pids 7, 8) took 9.800 s of CPU, 49% of all there was`.
    fn whose(&self, rival: &Rival) -> String {
        let ids: Vec<String> = rival.pids.iter().take(NAMED).map(Pid::to_string).collect();
        let ids = match rival.pids.len() {
            1 => format!("pid {}", ids.join("")),
            many if many <= NAMED => format!("pids {}", join(&ids)),
            many => format!("{many} processes, pids {} and others", ids.join(", ")),
        };
        let had = if rival.took.is_zero() {
            format!(
                "had the CPU at the end of {} of the waits",
                percent(self.rivals.met(rival))
            )
        } else {
            format!(
                "took {} of CPU time, {} of all there was",
                seconds(rival.took),
                percent(self.rivals.took(rival))
            )
        };
        format!("{} ({ids}) {had}", rival.comm)
    }

    fn measured(&self, example: &Delayed<'_>) -> Measured {
        let held = &example.held;
        let parts = Breakdown::of_exchange(self.scene, held.connection, &held.exchange);
        let mut taken_by: BTreeMap<String, f64> = self
            .rivals
            .others
            .iter()
            .filter(|rival| !rival.took.is_zero())
            .take(NAMED)
            .map(|rival| (rival.comm.clone(), self.rivals.took(rival)))
            .collect();
        *taken_by.entry(self.model().name(self.pid)).or_default() += self.rivals.own();
        let mut measured = Measured {
            requests: Some(self.delays.requests),
            requests_slow: Some(self.delays.number()),
            usual_s: held.usual.map(|usual| usual.as_secs_f64()),
            parts_s: parts.measured(),
            cpus: self.load.as_ref().map(|load| load.cpus),
            runnable_avg: self.load.as_ref().map(|load| load.runnable),
            taken_by,
            ..Measured::default()
        };
        measured.waits(self.delays.delayed.iter().map(|one| one.lost).collect());
        measured
    }

    fn against_others(&self) -> Vec<String> {
        let who = self.model().name(self.pid);
        let mut advice: Vec<String> = self
            .named()
            .take(1)
            .map(|rival| {
                let pids: Vec<String> = rival.pids.iter().map(Pid::to_string).collect();
                format!(
                    "Keep {} off {who}'s CPUs: a lower priority (renice -n 19 -p {}), a quota (systemd: CPUQuota=, Kubernetes: resources.limits.cpu), CPUs of its own (taskset -cp, cpuset.cpus), or another host.",
                    rival.comm,
                    pids.join(" ")
                )
            })
            .collect();
        advice.push(match &self.load {
            Some(load) if load.runnable > f64::from(load.cpus) => format!(
                "Or give the host more CPUs: {:.0} threads share {}.",
                load.runnable, load.cpus
            ),
            _ => format!("Or give {who} a larger share: CPUWeight= of its unit, cpu.weight of its cgroup, resources.requests.cpu."),
        });
        advice
    }

    fn against_load(&self) -> Vec<String> {
        let who = self.model().name(self.pid);
        vec![format!(
            "More CPUs or more instances of {who}, or fewer requests at once: it computes as much as its CPUs allow."
        )]
    }

    fn evidence(&self, one: &Delayed<'_>) -> Vec<Evidence> {
        let (connection, exchange) = (one.held.connection, &one.held.exchange);
        let (model, who) = (self.model(), self.model().name(self.pid));
        let mut timeline = Timeline::of(model);
        let unread = exchange.arrived.filter(|at| *at < exchange.started);
        timeline.on(connection).add_if(unread, "arrived", || {
            format!("the request lies in {who}'s socket")
        });
        timeline.request_read(connection, exchange);
        let goroutine = exchange.actor.and_then(|actor| actor.goroutine);
        let whole = window(self.scene, connection, exchange);
        let mut waits: Vec<_> = self.scene.schedule.waits(self.pid, whole).collect();
        if !one.held.own.is_zero() && goroutine.is_some() {
            waits.retain(|wait| wait.told.goroutine == goroutine);
        }
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.until.since(wait.told.from)));
        for wait in waits.into_iter().take(WAITS) {
            let by = wait.told.by.as_ref().map_or_else(
                || "a CPU that was idle".to_owned(),
                |by| format!("the CPU that {} (pid {}) had", by.comm, by.pid),
            );
            timeline.add(
                wait.told.from,
                "runnable",
                format!(
                    "thread {} waits {} for {by}",
                    wait.told.tid,
                    seconds(wait.until.since(wait.told.from)),
                ),
            );
        }
        timeline.outcome(connection, exchange);
        timeline.evidence()
    }
}
