//! How the time that requests lost to some work is told: in numbers, in words, by one of them.

use std::time::Duration;

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        finding::{Ends, Evidence, Finding, Measured, Rule, Severity, Subject},
        own_code::brief,
        wording::{count, join, percent, seconds},
    },
    event::{Frame, Pid, Role},
    model::Model,
};

use super::{
    cost::{Cost, Hit},
    hands,
    telling::{Timeline, what, wireshark_filter},
    usual::median,
};

/// Lines that are named; the rest is many small things.
const LINES: usize = 3;

/// So many goroutines that wait for their turn are a queue.
const QUEUE: u64 = 50;

/// What a rule of the runtime adds to what all of them say.
pub(crate) struct Told {
    pub(crate) rule: Rule,
    /// `timers`, `garbage collection`: what takes the CPU.
    pub(crate) what: &'static str,
    /// Beside what is said of requests.
    pub(crate) sentences: Vec<String>,
    pub(crate) measured: Measured,
    pub(crate) code: Option<Frame>,
    pub(crate) advice: Vec<String>,
    pub(crate) incomplete: Option<String>,
}

impl Cost<'_> {
    /// The finding.
    pub(crate) fn finding(&self, model: &Model, pid: Pid, told: Told) -> Finding {
        let worst = self.hit.first();
        let mut measured = Measured {
            cpu_share: Some(round(self.share())),
            cpus_used: Some(round(self.cpus)),
            ..told.measured
        };
        self.measure(&mut measured);
        let mut sentences = told.sentences;
        sentences.extend(ready(model, pid));
        sentences.push(self.sentence());
        let end = worst.map(|hit| hit.connection);
        Finding {
            id: String::new(),
            caused_by: None,
            rule: told.rule,
            severity: self.severity(),
            confidence: Confidence::SEEN.but_all(&self.doubts()).number(),
            count: (self.hit.len() as u64).max(1),
            title: self.title(&model.name(pid), told.what),
            explanation: sentences.join(" "),
            process: Subject::of(model, pid),
            connection: end.map(Ends::from),
            related_connections: Vec::new(),
            setting: None,
            code: told.code,
            goroutines: worst.map_or_else(Vec::new, |hit| {
                hands::on(model, hit.connection, &hit.exchange)
            }),
            measured,
            evidence: worst.map_or_else(Vec::new, |hit| evidence(model, hit, told.what)),
            advice: told.advice,
            wireshark_filter: wireshark_filter(end.into_iter()),
            incomplete: told.incomplete,
        }
    }

    fn title(&self, who: &str, what: &str) -> String {
        let share = percent(self.share());
        let longest = self.hit.iter().map(|hit| hit.wait).max();
        match longest {
            Some(longest) if self.severity() > Severity::Info => format!(
                "{what} took {share} of {who}'s CPU time: {} late, up to {}",
                count(self.hit.len() as u64, "answer came", "answers came"),
                seconds(longest)
            ),
            _ => format!("{what} took {share} of {who}'s CPU time"),
        }
    }

    fn measure(&self, measured: &mut Measured) {
        if self.hit.is_empty() {
            return;
        }
        measured.requests = Some(self.served.max(self.hit.len() as u64));
        measured.requests_slow = Some(self.hit.len() as u64);
        measured.usual_s = self
            .hit
            .iter()
            .find_map(|hit| hit.usual)
            .map(|usual| usual.as_secs_f64());
        measured.waits(self.hit.iter().map(|hit| hit.wait).collect());
        measured.lost_s = Some(
            median(self.hit.iter().map(|hit| hit.lost))
                .unwrap_or_default()
                .as_secs_f64(),
        );
        if self.refused() > 0 {
            measured.requests_harmed = Some(self.refused());
        }
    }

    /// Which requests were slower for it, and by how much.
    fn sentence(&self) -> String {
        if self.hit.is_empty() {
            return "No request was seen to be late for it.".into();
        }
        let number = self.hit.len() as u64;
        let all = self.served.max(number);
        let mut told = format!(
            "Of {} {number} waited for it: {} lost {} and the worst {} of {}.",
            count(all, "request", "requests"),
            if number > 1 { "half of them" } else { "it" },
            seconds(median(self.hit.iter().map(|hit| hit.lost)).unwrap_or_default()),
            seconds(
                self.hit
                    .iter()
                    .map(|hit| hit.lost)
                    .max()
                    .unwrap_or_default()
            ),
            seconds(self.hit.first().map(|hit| hit.wait).unwrap_or_default()),
        );
        if let Some(usual) = self.hit.iter().find_map(|hit| hit.usual) {
            told.push_str(&format!(
                " Half of the same kind are answered within {}.",
                seconds(usual)
            ));
        }
        if self.refused() > 0 {
            told.push_str(&format!(
                " {} turned away (503 or 504).",
                count(self.refused(), "was", "were")
            ));
        }
        told
    }

    /// `1.3 of 2 CPUs`, or `1.3 CPUs`.
    pub(crate) fn of_cpus(&self) -> String {
        match self.capacity {
            Some(most) if most.fract() == 0.0 => format!("{:.1} of {most:.0} CPUs", self.cpus),
            Some(most) => format!("{:.1} of {most:.1} CPUs", self.cpus),
            None => format!("{:.1} CPUs", self.cpus),
        }
    }

    fn doubts(&self) -> Vec<Doubt> {
        let sum = |of: fn(&Hit<'_>) -> Duration| self.hit.iter().map(of).sum::<Duration>();
        let inferred = sum(|hit| hit.own) * 2 < sum(|hit| hit.lost);
        let compared = self.hit.iter().any(|hit| hit.usual.is_some());
        let alone = !self.hit.is_empty() && !compared;
        let inferred = inferred.then_some(Doubt::RequestInferred);
        let alone = alone.then_some(Doubt::NothingToCompare);
        inferred.into_iter().chain(alone).collect()
    }
}

/// How many goroutines had something to do and no processor to do it on, where they are many.
fn ready(model: &Model, pid: Pid) -> Option<String> {
    let groups = model.goroutine_groups();
    let ready = groups
        .iter()
        .filter(|group| group.pid == pid && group.state == "runnable");
    let number: u64 = ready.map(|group| group.count).sum();
    (number >= QUEUE).then(|| {
        format!(
            "When last looked at, {number} goroutines were ready to run and waited for their turn."
        )
    })
}

/// One request, with what it lost.
fn evidence(model: &Model, hit: &Hit<'_>, to: &str) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let (connection, exchange) = (hit.connection, &hit.exchange);
    let who = model.owner(connection);
    timeline.add_if(
        exchange.arrived.filter(|at| *at < exchange.started),
        "arrived",
        || format!("{} lies in {who}'s socket", what(exchange)),
    );
    timeline.request_read(connection, exchange);
    let answered = exchange.first_byte.unwrap_or(model.now());
    timeline.add(
        answered,
        "lost",
        format!(
            "of {} it lost {} to {to}",
            seconds(hit.wait),
            seconds(hit.lost)
        ),
    );
    if exchange.answered() || connection.role == Role::Server && connection.left().is_some() {
        timeline.outcome(connection, exchange);
    }
    timeline.evidence()
}

/// `at main.load (load.go:31), 62%, and main.save (save.go:12), 20%`: the lines of most samples, with
/// their share of all that have one.
pub(crate) fn lines(all: &[(Frame, u64)]) -> Option<String> {
    let sum: u64 = all.iter().map(|(_, number)| number).sum();
    let told: Vec<String> = all
        .iter()
        .take(LINES)
        .filter(|(_, number)| number * 20 >= sum)
        .map(|(frame, number)| {
            format!(
                "{} ({})",
                brief(frame),
                percent(*number as f64 / sum as f64)
            )
        })
        .collect();
    (!told.is_empty()).then(|| join(&told))
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
