//! `fd-exhaustion`: calls fail because a process has no file descriptor left, or they soon will.
//!
//! Not accused: a process that sits quietly near its limit, and one that rose there and stays.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    event::{BootInstant, Descriptors, Role, SocketId},
    model::{Connection, Model, Service, Table},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Setting, Severity, Subject},
    grounds::{scene::Scene, telling::Timeline, workers},
    wording::{count, join},
};

/// A share of the limit from which on growth is worth a warning.
const NEAR: f64 = 0.9;

/// A share of the limit that is worth knowing although nothing grows.
const FULL: f64 = 0.95;

/// What ends later may well turn round before.
const SOON: Duration = Duration::from_secs(600);

/// Slower growth is the ordinary coming and going, however it is projected.
const GROWTH: u64 = 4;

/// Kinds of descriptors told.
const KINDS: usize = 5;

/// How far it has come with a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Calls failed, and it was full.
    Empty,
    /// Calls failed for another limit.
    Refused,
    /// It will be full before long, if it goes on like this.
    Soon,
    /// Few are left.
    Full,
}

impl Stage {
    /// `None` where there is enough.
    fn of(model: &Model, table: &Table) -> Option<Self> {
        let told = &table.last.1;
        if told.refused.is_some_and(|calls| calls > 0) {
            let near = share(&table.fullest.1).max(share(told)) >= NEAR;
            return Some(if near { Self::Empty } else { Self::Refused });
        }
        if share(told) >= NEAR && full_in(model, table).is_some() {
            Some(Self::Soon)
        } else {
            (share(told) >= FULL).then_some(Self::Full)
        }
    }
}

/// Adds a case for each process; where workers of a service have come as far, one for all of them.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<(Service, Stage), Vec<&Table>> = BTreeMap::new();
    for table in scene.model.tables() {
        if let Some(stage) = Stage::of(scene.model, table) {
            let service = scene.service(table.last.1.pid);
            groups.entry((service, stage)).or_default().push(table);
        }
    }
    for ((_, stage), tables) in groups {
        if let Some(case) = case(scene, docket, stage, &tables) {
            if let Some(cause) = case.cause {
                docket.raise(cause, case.finding.severity);
            }
            docket.add(case);
        }
    }
}

/// How fast the table fills: by its second half of the window, in which it never turned round.
fn growth_per_second(model: &Model, table: &Table) -> Option<f64> {
    let (began, now) = (table.first.0, model.now());
    let part = |quarters: u32| began.plus(now.since(began) * quarters / 4);
    let open = |at: BootInstant| table.open_at(at);
    let (half, later, last) = (open(part(2))?, open(part(3))?, open(now)?);
    let grown = last.checked_sub(half)?;
    let apart = now.since(part(2)).as_secs_f64();
    (half < later && later < last && grown >= GROWTH && apart > 0.0).then(|| grown as f64 / apart)
}

fn share(told: &Descriptors) -> f64 {
    told.open as f64 / told.limit.max(1) as f64
}

/// In how many seconds none is left, if that is soon.
fn full_in(model: &Model, table: &Table) -> Option<f64> {
    let told = &table.last.1;
    let growth = growth_per_second(model, table)?;
    let seconds = told.limit.saturating_sub(told.open) as f64 / growth;
    (seconds <= SOON.as_secs_f64()).then_some(seconds)
}

/// What holds the most was not given back: the case that says so, which may tell of other workers too.
fn leak(model: &Model, docket: &Docket, told: &Descriptors) -> Option<usize> {
    let place = docket.worst_of(Rule::CloseWaitLeak, told.pid)?;
    let leaked = docket.finding(place)?.measured.connections?;
    let left = |connection: &&Connection| {
        connection.pid == told.pid
            && connection.peer_closed.is_some()
            && connection.left().is_none()
    };
    let own = model.connections().filter(left).count() as u64;
    (leaked.min(own) * 2 >= told.open).then_some(place)
}

/// The case of these workers of one service, the worst of which stands for them.
fn case(scene: &Scene<'_>, docket: &Docket, stage: Stage, tables: &[&Table]) -> Option<Case> {
    let model = scene.model;
    let refused = |table: &Table| table.last.1.refused.unwrap_or(0);
    let worst = |table: &&&Table| {
        let told = &table.last.1;
        (refused(table), told.open * 1_000 / told.limit.max(1))
    };
    let table = tables.iter().rev().max_by_key(worst)?;
    let told = &table.last.1;
    let fullest = &table.fullest.1;
    let shown = if stage <= Stage::Refused {
        fullest
    } else {
        told
    };
    let name = model.name(told.pid);
    let who = workers::counted(name.clone(), tables.len());
    let mut finding = finding(scene, table, shown);
    let percent = (share(told) * 100.0).floor();
    let growth = growth_per_second(model, table);
    match stage {
        Stage::Empty | Stage::Refused => {
            let calls = tables.iter().map(|table| refused(table)).sum();
            finding.count = calls;
            finding.measured.calls_refused = Some(calls);
        }
        Stage::Soon | Stage::Full => finding.measured.growth_per_s = growth,
    }
    let calls = count(finding.count, "call", "calls");
    match stage {
        Stage::Empty => {
            finding.severity = Severity::Critical;
            finding.title = format!("{who} has no file descriptor left");
            finding.explanation = format!(
                "{calls} of {who} failed with \"too many open files\": it may have {} file descriptors and had {} open. {}",
                told.limit,
                fullest.open,
                held(fullest)
            );
        }
        Stage::Refused => {
            finding.title = format!("{who} had calls fail with \"too many open files\"");
            finding.explanation = format!(
                "{calls} of {who} failed with EMFILE or ENFILE, though only {} of its {} file descriptors were open. So another limit was met: the host's table (fs.file-max), or inotify instances (fs.inotify.max_user_instances); or the table emptied between two looks at it.",
                fullest.open, told.limit
            );
            finding.setting = None;
            finding.confidence = Confidence::SEEN.but(Doubt::SettingUnknown).number();
        }
        Stage::Soon => {
            let seconds = full_in(model, table)?;
            finding.measured.exhausted_in_s = Some(seconds);
            finding.severity = Severity::Warning;
            finding.title = format!(
                "{who} will run out of file descriptors in {}",
                about(seconds)
            );
            finding.explanation = format!(
                "{} of the {} file descriptors it may have are open ({percent}%), {:.1} more each second. When none is left, it can neither accept nor open anything. {}",
                told.open,
                told.limit,
                growth?,
                held(told)
            );
        }
        Stage::Full => {
            finding.title = format!("{who} has {percent}% of its file descriptors open");
            finding.explanation = format!(
                "{} of {} are open. They do not grow in number, so nothing fails now. {}",
                told.open,
                told.limit,
                held(told)
            );
        }
    }
    if tables.len() > 1 {
        finding
            .explanation
            .push_str(" Each process has a limit of its own; that is the worst of them.");
    }
    let cause = leak(model, docket, shown).filter(|_| matches!(stage, Stage::Empty | Stage::Soon));
    finding.advice = advice(&name, told, cause.is_some());
    Some(Case {
        explains: if stage == Stage::Empty {
            never_taken(scene, table)
        } else {
            HashSet::new()
        },
        finding,
        cause,
    })
}

/// The finding, but for title, explanation, advice and severity.
fn finding(scene: &Scene<'_>, table: &Table, shown: &Descriptors) -> Finding {
    let model = scene.model;
    Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::FdExhaustion,
        severity: Severity::Info,
        confidence: Confidence::SEEN.number(),
        count: 1,
        title: String::new(),
        explanation: String::new(),
        process: Subject::of(model, shown.pid),
        connection: None,
        related_connections: Vec::new(),
        setting: Some(Setting {
            name: "RLIMIT_NOFILE".into(),
            value_s: None,
        }),
        code: None,
        goroutines: Vec::new(),
        measured: Measured {
            descriptors: Some(shown.open),
            descriptors_limit: Some(shown.limit),
            held: shown.held.iter().take(KINDS).cloned().collect(),
            ..Measured::default()
        },
        evidence: evidence(model, table),
        advice: Vec::new(),
        wireshark_filter: None,
        incomplete: shown.held.is_empty().then(|| {
            format!(
                "What the descriptors are was not read; ls -l /proc/{}/fd shows it.",
                shown.pid
            )
        }),
    }
}

/// What they are, the most frequent first.
fn held(told: &Descriptors) -> String {
    let parts: Vec<String> = told
        .held
        .iter()
        .take(3)
        .map(|(kind, number)| format!("{number} times {kind}"))
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("Most of them are: {}.", join(&parts))
    }
}

/// `about 40 s`, `about 3 minutes`.
fn about(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("about {:.0} s", seconds.max(1.0))
    } else {
        format!("about {:.0} minutes", (seconds / 60.0).max(2.0))
    }
}

fn advice(who: &str, told: &Descriptors, leaks: bool) -> Vec<String> {
    let mut advice = Vec::new();
    let most = told.held.first().map(|(kind, _)| kind.as_str());
    if leaks {
        advice.push(
            "Close the connections whose peers have closed; a higher limit only puts the end off."
                .into(),
        );
    } else if let Some(most) = most {
        advice.push(format!(
            "See whether {who} gives back what it holds most of ({most}): Close in every path, response bodies included."
        ));
    }
    advice.push(format!(
        "If it needs so many, raise RLIMIT_NOFILE above {} (LimitNOFILE= of its unit, --ulimit nofile of its container). Go raises its soft limit to the hard one by itself, so it is the hard one that binds; prlimit --pid {} --nofile shows both and sets them while it runs.",
        told.limit, told.pid
    ));
    advice
}

/// Connections that the kernel finished and the process had no descriptor to accept with.
fn never_taken(scene: &Scene<'_>, table: &Table) -> HashSet<SocketId> {
    let Some(refused) = table.refused else {
        return HashSet::new();
    };
    // Whose they would have been is seen only when somebody reads them.
    let service = scene.service(table.last.1.pid);
    let untouched = |connection: &&Connection| {
        connection.role == Role::Server
            && scene.service(connection.pid) == service
            && connection
                .exchanges()
                .iter()
                .all(|e| e.request_bytes + e.response_bytes == 0)
            && connection.ended().is_none_or(|ended| ended >= refused)
    };
    scene
        .model
        .connections()
        .filter(untouched)
        .flat_map(|connection| [Some(connection.socket), connection.other_end])
        .flatten()
        .collect()
}

fn evidence(model: &Model, table: &Table) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let mut moments = vec![&table.first, &table.fullest, &table.last];
    moments.dedup_by_key(|(at, _)| *at);
    for (at, told) in moments {
        timeline.add(
            *at,
            "descriptors",
            format!("{} of {} open", told.open, told.limit),
        );
    }
    timeline.add_if(table.refused, "refused", || {
        "a call is known to have failed for want of one".into()
    });
    timeline.evidence()
}
