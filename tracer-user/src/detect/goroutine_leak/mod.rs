//! `goroutine-leak`: goroutines of one origin grow in number and do not end.
//!
//! Told by their ids from those that come and go: throughout the window more of them came to one line,
//! and nearly none that was seen there in one snapshot was gone in a later one. Not accused: idle
//! goroutines however many, a pool that fills up, whoever came with a connection that is open as long,
//! handlers that wait for news, goroutines at a lock (see `lock-contention`), and whoever waits for a
//! child that is at work.

use std::{collections::HashSet, time::Duration};

use crate::{
    event::{Attribution, Frame, Pid, Role, SocketId},
    model::{Model, Whereabouts},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Severity, Starter, Subject, Witness},
    grounds::{
        origin::{Growth, Origin},
        scene::Scene,
        standing::serves_http,
        telling::Timeline,
    },
    own_code::{brief, own_frame},
    wording::{bytes, count, seconds},
};

use ahead::{Ahead, STACK};
use innocence::Innocence;
use kind::Kind;

mod ahead;
mod innocence;
mod kind;

/// Fewer may be an accident.
const SEVERAL: u64 = 20;

/// So many that stand still for so long are worth knowing although none comes: they leaked before.
const MANY: u64 = 1_000;
const LONG: Duration = Duration::from_secs(60);

/// Snapshots told as evidence, about.
const MOMENTS: usize = 6;

/// Adds a case for each origin.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let pids: Vec<Pid> = scene.model.processes().map(|p| p.about.pid).collect();
    for pid in pids {
        for origin in Origin::all(scene.model, pid) {
            let Some(kind) = Kind::of(&origin) else {
                continue;
            };
            let leak = Leak {
                scene,
                pid,
                kind,
                origin: &origin,
            };
            if let Some(case) = leak.case() {
                docket.add(case);
            }
        }
    }
}

/// Goroutines of one origin that may leak.
struct Leak<'s, 'm> {
    scene: &'s Scene<'m>,
    pid: Pid,
    kind: Kind,
    origin: &'s Origin<'m>,
}

impl<'m> Leak<'_, 'm> {
    fn case(&self) -> Option<Case> {
        let growth = self.origin.growth(self.scene, self.pid);
        match growth.filter(|growth| growth.stayed >= SEVERAL) {
            Some(growth) => self.growing(&growth),
            None => self.standing(),
        }
    }

    fn model(&self) -> &'m Model {
        self.scene.model
    }

    fn who(&self) -> String {
        self.model().name(self.pid)
    }

    fn growing(&self, growth: &Growth) -> Option<Case> {
        let innocence = Innocence::of(self.scene, self.pid, self.kind, self.origin, growth);
        if innocence == Some(Innocence::Plain) {
            return None;
        }
        let mut measured = self.measured();
        measured.growth_per_s = Some(growth.per_second());
        let ahead = Ahead::of(self.model(), self.pid, self.origin.count, growth);
        if let Some(ahead) = &ahead {
            ahead.measure(&mut measured);
        }
        let soon = ahead.as_ref().is_some_and(Ahead::is_soon);
        let severity = match innocence {
            Some(_) => Severity::Info,
            None if soon => Severity::Critical,
            None => Severity::Warning,
        };
        // Who waits for news cannot be told for certain from who waits for nothing.
        let mut doubts = Vec::new();
        // Few limits of time are longer than what the oldest have waited.
        if self.origin.wait_max.is_none_or(|wait| wait < LONG) {
            doubts.push(Doubt::NotOver);
        }
        if !self.kind.needs_somebody() {
            doubts.push(Doubt::Ambiguous);
        }
        if innocence.is_some() {
            doubts.push(Doubt::NothingToCompare);
        }
        let code = self.code();
        let at = code
            .as_ref()
            .map_or_else(|| "an unknown place".into(), brief);
        let mut finding = self.finding(measured);
        finding.severity = severity;
        finding.confidence = Confidence::SEEN.but_all(&doubts).number();
        finding.count = growth.stayed;
        finding.title = match self.kind {
            Kind::Body => format!(
                "{} leaks connections and their goroutines at {at}, {} a second",
                self.who(),
                rate(growth)
            ),
            _ => format!(
                "{} leaks goroutines at {at} ({}), {} a second",
                self.who(),
                self.origin.state,
                rate(growth)
            ),
        };
        if innocence.is_some() {
            finding.title = format!(
                "{} has more and more goroutines at {at} ({}), {} a second",
                self.who(),
                self.origin.state,
                rate(growth)
            );
        }
        if innocence == Some(Innocence::Timed) {
            finding.advice = vec![format!(
                "End the loop at {at} when its owner is done: select on ctx.Done() beside the timer, and stop a ticker (its channel is never closed)."
            )];
        }
        finding.explanation = self.explanation(growth, innocence);
        if let Some(ahead) = ahead.filter(|_| innocence.is_none()) {
            finding.explanation.push_str(&ahead.sentence());
        }
        finding.evidence = self.evidence(Some(growth));
        finding.incomplete = innocence
            .map(|innocence| innocence.sentence().to_owned())
            .or_else(|| {
                (!self.kind.needs_somebody()).then(|| {
                    "A limit of time longer than the window may still end them; a longer window shows it.".into()
                })
            });
        finding.code = code;
        Some(self.filed(finding))
    }

    /// They do not grow now, but it can be seen that they did before.
    fn standing(&self) -> Option<Case> {
        let long = self.origin.wait_max.filter(|wait| *wait >= LONG)?;
        let snapshots = self.model().snapshots().filter(|t| t.pid == self.pid);
        if !self.kind.needs_somebody()
            || self.origin.count < MANY
            || self.origin.left() > 0
            || snapshots.count() < 2
        {
            return None;
        }
        let code = self.code();
        let at = code
            .as_ref()
            .map_or_else(|| "an unknown place".into(), brief);
        let mut finding = self.finding(self.measured());
        finding.confidence = Confidence::SEEN.but(Doubt::Ambiguous).number();
        finding.count = self.origin.count;
        finding.title = format!(
            "{} has {} goroutines standing still at {at} ({})",
            self.who(),
            self.origin.count,
            self.origin.state
        );
        finding.explanation = format!(
            "None of them went on in the window, and none came; one has waited for about {} already. So many at one line look like a leak that grew before.{}",
            seconds(long),
            self.starter()
                .map_or_else(String::new, |starter| format!(" {starter}"))
        );
        finding.evidence = self.evidence(None);
        finding.incomplete = Some(
            "They did not grow in this window; one with the requests that start them shows whether they do.".into(),
        );
        finding.code = code;
        Some(self.filed(finding))
    }

    fn filed(&self, finding: Finding) -> Case {
        Case {
            explains: if finding.severity >= Severity::Warning {
                self.requests()
            } else {
                HashSet::new()
            },
            finding,
            cause: None,
        }
    }

    /// The line to change: where they stand; of a body that nobody closes, who asked for it.
    fn code(&self) -> Option<Frame> {
        if self.kind != Kind::Body {
            return Some(self.origin.at.clone());
        }
        let mut askers: Vec<(u64, &Frame)> = Vec::new();
        let remotes: HashSet<_> = self
            .scene
            .clients_of(self.pid)
            .iter()
            .filter(|connection| connection.ended().is_none())
            .map(|connection| connection.remote)
            .collect();
        for remote in remotes {
            for (frames, number) in self.model().callers(self.pid, remote) {
                askers.extend(own_frame(frames).map(|frame| (number, frame)));
            }
        }
        askers.sort_by_key(|(number, frame)| (*number, brief(frame)));
        let (_, frame) = askers.pop()?;
        Some(frame.clone())
    }

    fn measured(&self) -> Measured {
        Measured {
            goroutines: Some(self.origin.count),
            stacks_at_least_bytes: Some(self.origin.count * STACK),
            waited_max_s: self.origin.wait_max.map(|wait| wait.as_secs_f64()),
            ..Measured::default()
        }
    }

    /// Connections whose requests they were to answer.
    fn requests(&self) -> HashSet<SocketId> {
        if !serves_http(self.origin.frames) {
            return HashSet::new();
        }
        let stuck: HashSet<u64> = self.origin.present.iter().copied().collect();
        let served = self.model().connections().filter(|connection| {
            let asked = connection.exchanges().pop();
            let by = asked.and_then(|asked| asked.actor?.goroutine);
            connection.pid == self.pid
                && connection.role == Role::Server
                && by.is_some_and(|id| stuck.contains(&id))
        });
        served
            .flat_map(|connection| [Some(connection.socket), connection.other_end])
            .flatten()
            .collect()
    }

    /// The finding, but for what it says.
    fn finding(&self, measured: Measured) -> Finding {
        Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::GoroutineLeak,
            severity: Severity::Info,
            confidence: 0.0,
            count: 0,
            title: String::new(),
            explanation: String::new(),
            process: Subject::of(self.model(), self.pid),
            connection: None,
            related_connections: Vec::new(),
            setting: None,
            code: None,
            goroutines: self.witnesses(),
            measured,
            evidence: Vec::new(),
            advice: self.advice(),
            wireshark_filter: None,
            incomplete: None,
        }
    }

    /// The first and the last that came.
    fn witnesses(&self) -> Vec<Witness> {
        let ends = [self.origin.present.first(), self.origin.present.last()];
        let mut ids: Vec<u64> = ends.into_iter().flatten().copied().collect();
        ids.dedup();
        ids.into_iter()
            .filter_map(|id| Some(self.witness(id, &self.model().whereabouts(self.pid, id)?)))
            .collect()
    }

    fn witness(&self, id: u64, found: &Whereabouts<'_>) -> Witness {
        Witness {
            process: Subject::of(self.model(), self.pid),
            id,
            state: found.state.into(),
            wait_s: found.wait.map(|wait| wait.as_secs_f64()),
            attribution: Attribution::Direct,
            frames: found.frames.to_vec(),
            created_by: found.created_by.map(|frame| Starter {
                frame: frame.clone(),
                goroutine: found.parent,
            }),
        }
    }

    fn starter(&self) -> Option<String> {
        if serves_http(self.origin.frames) {
            return Some(
                "They are handlers of requests, each in the goroutine of its connection.".into(),
            );
        }
        let frame = self.origin.created_by?;
        Some(format!("They are started at {}.", brief(frame)))
    }

    fn explanation(&self, growth: &Growth, innocence: Option<Innocence>) -> String {
        let mut told = vec![format!(
            "In {} {} came to this line and stayed, {} a second; {}.",
            seconds(growth.span()),
            count(growth.stayed, "goroutine", "goroutines"),
            rate(growth),
            match growth.left {
                0 => "none that was seen there went on".to_owned(),
                left => format!("{left} went on"),
            }
        )];
        told.push(format!(
            "There are {} now, {} when the window began.",
            self.origin.count, growth.before
        ));
        told.extend(self.starter().filter(|_| self.kind != Kind::Body));
        if self.kind == Kind::Body {
            told.push("Each is a connection of net/http's transport that waits for its response's body to be read or closed, and keeps two goroutines and a socket.".into());
        }
        if growth.before > 0
            && let Some(wait) = self.origin.wait_max
        {
            told.push(format!(
                "The oldest has waited for about {}.",
                seconds(wait)
            ));
        }
        if innocence.is_none() {
            told.push(format!(
                "Their stacks alone take {} or more.",
                bytes(self.origin.count * STACK)
            ));
        }
        told.join(" ")
    }

    fn advice(&self) -> Vec<String> {
        let at = self
            .code()
            .as_ref()
            .map_or_else(|| "its line".into(), brief);
        vec![self.kind.advice(&at)]
    }

    fn evidence(&self, growth: Option<&Growth>) -> Vec<Evidence> {
        let mut timeline = Timeline::of(self.model());
        let counts: Vec<_> = self.origin.counts().collect();
        let last = counts.len().saturating_sub(1);
        let step = counts.len().div_ceil(MOMENTS).max(1);
        for (place, (at, number)) in counts.into_iter().enumerate() {
            if place % step != 0 && place != last {
                continue;
            }
            timeline.add(
                at,
                "goroutines",
                format!(
                    "{number} at {} ({})",
                    brief(self.origin.at),
                    self.origin.state
                ),
            );
        }
        let first = growth.filter(|growth| self.origin.counts().all(|(at, _)| at > growth.from));
        timeline.add_if(first.map(|growth| growth.from), "goroutines", || {
            format!("none at {}", brief(self.origin.at))
        });
        timeline.evidence()
    }
}

/// `12.5`, `0.4`, `300`.
fn rate(growth: &Growth) -> String {
    let rate = growth.per_second();
    if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}
