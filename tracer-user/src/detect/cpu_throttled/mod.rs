//! `cpu-throttled`: the quota of a cgroup stopped a process, and requests waited until the next period.
//!
//! Stands on the cgroup's own count of the periods in which its quota was used up, and on requests that were
//! late because nobody could go on with them meanwhile. Not accused: a quota that is never used up; one that
//! slows a job down whom nobody waits for, which is what quotas are for.

use std::collections::HashSet;

use crate::{
    event::Pid,
    model::{Connection, Model},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Setting, Severity, Subject},
    grounds::{
        breakdown::Breakdown,
        delays::{Delayed, Delays},
        hands,
        held_up::window,
        scene::Scene,
        spans::Spans,
        telling::{Timeline, wireshark_filter},
    },
    wording::{count, percent, seconds},
};

mod processors;
mod throttling;

use processors::Processors;
use throttling::Throttling;

/// A smaller share of requests held up is the price of any limit.
const ORDINARY: f64 = 0.01;

/// A quota that is used up in a smaller share of the periods, and harms nobody, is not worth a word.
const OFTEN: f64 = 0.1;

/// Stops told of one occurrence.
const STOPS: usize = 6;

/// Adds a case for each process that its quota stopped.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut quiet: Vec<Throttled<'_, '_>> = Vec::new();
    let mut told = HashSet::new();
    for process in scene.model.processes() {
        let pid = process.about.pid;
        let Some(throttling) = Throttling::of(scene.model, pid) else {
            continue;
        };
        let throttled = Throttled {
            scene,
            pid,
            processors: Processors::of(scene.model, pid, throttling.cpus()),
            delays: Delays::of(scene, pid, |held| held.throttled),
            throttling,
        };
        if throttled.delays.delayed.is_empty() {
            quiet.push(throttled);
        } else {
            docket.add(throttled.case());
            told.insert(throttled.throttling.cgroup);
        }
    }
    // Processes of one cgroup share its quota: that it is used up is told once.
    quiet.retain(|throttled| throttled.throttling.share() >= OFTEN);
    for throttled in quiet {
        if told.insert(throttled.throttling.cgroup.clone()) {
            docket.add(throttled.case());
        }
    }
}

/// A process that its quota stopped.
struct Throttled<'s, 'm> {
    scene: &'s Scene<'m>,
    pid: Pid,
    throttling: Throttling,
    processors: Option<Processors<'m>>,
    delays: Delays<'m>,
}

impl<'m> Throttled<'_, 'm> {
    fn model(&self) -> &'m Model {
        self.scene.model
    }

    fn case(&self) -> Case {
        let severity = if self.delays.are_many(ORDINARY) {
            Severity::Warning
        } else {
            Severity::Info
        };
        let mut doubts = Vec::new();
        if !self.delays.delayed.is_empty() && !self.delays.are_direct() {
            doubts.push(Doubt::RequestInferred);
        }
        let example = self.delays.example();
        let connection = example.map(|one| one.held.connection);
        let other_end = connection.and_then(|connection| self.model().other_end(connection));
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::CpuThrottled,
            severity,
            confidence: Confidence::SEEN.but_all(&doubts).number(),
            count: self.delays.number().max(1),
            title: self.title(),
            explanation: self.explanation(),
            process: Subject::of(self.model(), self.pid),
            connection: connection.map(Ends::from),
            related_connections: other_end.into_iter().map(Ends::from).collect(),
            setting: self.blames_processors().then(|| Setting {
                name: "GOMAXPROCS".into(),
                value_s: None,
            }),
            code: None,
            goroutines: example.map_or_else(Vec::new, |one| {
                hands::on(self.model(), one.held.connection, &one.held.exchange)
            }),
            measured: self.measured(),
            evidence: example.map_or_else(Vec::new, |one| self.evidence(one)),
            advice: self.advice(),
            wireshark_filter: connection
                .and_then(|connection| wireshark_filter([connection].into_iter())),
            incomplete: None,
        };
        Case {
            explains: match severity {
                Severity::Info => HashSet::new(),
                _ => self.delays.explained(),
            },
            cause: None,
            finding,
        }
    }

    /// More threads run at once than the quota keeps busy.
    fn blames_processors(&self) -> bool {
        self.processors.as_ref().is_some_and(Processors::too_many)
    }

    fn quota(&self) -> String {
        cpus(self.throttling.cpus())
    }

    fn title(&self) -> String {
        let (who, quota) = (self.model().name(self.pid), self.quota());
        match self.delays.delayed.last() {
            Some(longest) => format!(
                "{who} was stopped by its quota of {quota}: {} waited up to {} for it",
                count(self.delays.number(), "request", "requests"),
                seconds(longest.lost)
            ),
            None => {
                format!("{who} uses up its quota of {quota}; no request was seen to wait for it")
            }
        }
    }

    fn explanation(&self) -> String {
        let throttling = &self.throttling;
        let who = self.model().name(self.pid);
        let mut told = vec![format!(
            "The cgroup {} may use {} of CPU time in every {}, that is {}. It had used that up in {} of {} ({}); each time all of its threads stood still until the next period began.",
            throttling.cgroup,
            seconds(throttling.quota),
            seconds(throttling.period),
            self.quota(),
            throttling.throttled_periods,
            count(throttling.periods, "period", "periods"),
            percent(throttling.share()),
        )];
        told.extend(self.processors.as_ref().map(Processors::sentence));
        if let (Some(example), delays) = (self.delays.example(), &self.delays) {
            let held = &example.held;
            let parts = Breakdown::of_exchange(self.scene, held.connection, &held.exchange);
            told.push(format!(
                "{} of {} lost a good part of their time to that. One of them: {}",
                delays.number(),
                count(delays.requests, "request", "requests"),
                parts.sentence().replacen("Of ", "of ", 1)
            ));
        } else {
            told.push(format!("Nobody was seen to wait for {who} meanwhile."));
        }
        told.join(" ")
    }

    fn measured(&self) -> Measured {
        let throttling = &self.throttling;
        let mut measured = Measured {
            max_procs: self.processors.as_ref().map(|known| known.max),
            quota_cpus: Some(throttling.cpus()),
            throttled_s: Some(throttling.throttled.as_secs_f64()),
            throttled_periods: Some(throttling.throttled_periods),
            periods: Some(throttling.periods),
            requests: Some(self.delays.requests),
            requests_slow: Some(self.delays.number()),
            ..Measured::default()
        };
        if let Some(example) = self.delays.example() {
            let held = &example.held;
            let parts = Breakdown::of_exchange(self.scene, held.connection, &held.exchange);
            measured.parts_s = parts.measured();
            measured.usual_s = held.usual.map(|usual| usual.as_secs_f64());
            measured.waits(self.delays.delayed.iter().map(|one| one.lost).collect());
        }
        measured
    }

    fn advice(&self) -> Vec<String> {
        if self.delays.delayed.is_empty() {
            return vec![
                "Nothing, if it may take its time; if it may not, raise the quota.".into(),
            ];
        }
        let mut advice: Vec<String> = self
            .processors
            .iter()
            .filter_map(Processors::advice)
            .collect();
        advice.push(self.raise());
        advice
    }

    /// The quota that would stop nobody: as much as can run at once.
    fn raise(&self) -> String {
        let at_once = self.processors.as_ref().map(Processors::at_once);
        let host = self.model().host().map(|host| host.last().1.cpus);
        let most = at_once.or(host.filter(|cpus| *cpus > 0));
        match most.filter(|most| f64::from(*most) > self.throttling.cpus()) {
            Some(most) => format!(
                "Or raise the quota of {}: with {} it can never be used up (Kubernetes: resources.limits.cpu: {most}; systemd: CPUQuota={}%; cpu.max: {} {}).",
                self.throttling.cgroup,
                cpus(most.into()),
                u64::from(most) * 100,
                u128::from(most) * self.throttling.period.as_micros(),
                self.throttling.period.as_micros(),
            ),
            None => format!(
                "Or raise the quota of {}, which other processes share, or give this one a cgroup of its own.",
                self.throttling.cgroup
            ),
        }
    }

    fn evidence(&self, one: &Delayed<'_>) -> Vec<Evidence> {
        let (connection, exchange): (&Connection, _) = (one.held.connection, &one.held.exchange);
        let (model, who) = (self.model(), self.model().name(self.pid));
        let whole = window(self.scene, connection, exchange);
        let mut timeline = Timeline::of(model);
        let unread = exchange.arrived.filter(|at| *at < exchange.started);
        timeline.on(connection).add_if(unread, "arrived", || {
            format!("the request lies in {who}'s socket")
        });
        timeline.request_read(connection, exchange);
        let stopped = self.scene.schedule.stopped(self.pid);
        let stops = stopped.map(|stopped| stopped.within(&whole.into()));
        for (from, until) in stops.iter().flat_map(Spans::iter).take(STOPS) {
            let stopped = until.since(from);
            timeline.add(
                from,
                "stop",
                format!(
                    "the quota is used up: nothing of {who} runs for {}",
                    seconds(stopped)
                ),
            );
        }
        timeline.outcome(connection, exchange);
        timeline.evidence()
    }
}

/// `0.5 CPUs`, `1 CPU`.
fn cpus(number: f64) -> String {
    let rounded = (number * 100.0).round() / 100.0;
    if (rounded - 1.0).abs() < f64::EPSILON {
        "1 CPU".into()
    } else {
        format!("{rounded} CPUs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cpus_read_as_a_person_would_write_them() {
        for (number, told) in [(0.5, "0.5 CPUs"), (1.0, "1 CPU"), (2.0, "2 CPUs")] {
            assert_eq!(cpus(number), told);
        }
    }
}
