//! Handlers that stand still since before the window: of their requests nothing was seen, but their own stacks
//! say that there are some.
//!
//! Told are several at one line where nothing can call them off, who all stood there in every look. Not
//! accused: whoever may wait for somebody that is at work as long (a worker, a child, another service); what
//! another finding tells of.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        docket::{Case, Docket},
        finding::{Finding, Measured, Rule, Severity, Subject},
        grounds::{
            scene::Scene,
            standing::{Standing, at_last, seen_at_requests, serves_http},
            telling::Timeline,
        },
        own_code::{brief, own_frame},
        wording::{count, seconds},
    },
    event::Pid,
    model::{Connection, Whereabouts},
};

/// Fewer may be what was asked for.
const SEVERAL: usize = 4;

/// Who waits for a colleague that is at work is seldom kept as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds a case for each line.
pub(in crate::detect) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let pids: Vec<Pid> = scene.model.processes().map(|p| p.about.pid).collect();
    for pid in pids {
        let told = [
            Rule::Deadlock,
            Rule::LockContention,
            Rule::GoroutineLeak,
            Rule::NoResponse,
        ];
        if told
            .into_iter()
            .any(|rule| docket.worst_of(rule, pid).is_some())
            || somebody_may_come(scene, pid)
        {
            continue;
        }
        for together in standing(scene, pid) {
            if let Some(case) = case(scene, pid, &together) {
                docket.add(case);
            }
        }
    }
}

type Stuck<'m> = Vec<(u64, Whereabouts<'m>)>;

/// Handlers that stand where nothing can call them off, by line.
fn standing<'m>(scene: &Scene<'m>, pid: Pid) -> Vec<Stuck<'m>> {
    let mut lines: BTreeMap<String, Stuck<'m>> = BTreeMap::new();
    let seen = seen_at_requests(scene.model, pid);
    for (id, found) in scene.model.everybody(pid) {
        if seen.contains(&id)
            || Standing::of(found.state) != Standing::Stuck
            || !serves_http(found.frames)
            || stood(&found) < PATIENCE
        {
            continue;
        }
        if let Some(own) = own_frame(found.frames) {
            lines.entry(brief(own)).or_default().push((id, found));
        }
    }
    let several = lines.into_values().filter(|stuck| stuck.len() >= SEVERAL);
    several.collect()
}

fn stood(found: &Whereabouts<'_>) -> Duration {
    found.at.since(found.since)
}

/// Somebody of the process's own code is at something for as long, or a service that it asked is.
fn somebody_may_come(scene: &Scene<'_>, pid: Pid) -> bool {
    let accepts = |found: &Whereabouts<'_>| {
        let mut frames = found.frames.iter();
        frames.any(|frame| frame.function.ends_with(".Accept"))
    };
    let mut all = scene.model.everybody(pid);
    let at_work = all.any(|(_, found)| {
        Standing::of(found.state) == Standing::Busy
            && own_frame(found.frames).is_some()
            && !accepts(&found)
            && stood(&found) >= PATIENCE
    });
    let unanswered = |upstream: &&Connection| {
        let asked = upstream.exchanges().pop();
        upstream.ended().is_none() && asked.is_some_and(|asked| !asked.answered())
    };
    at_work || scene.clients_of(pid).iter().any(unanswered)
}

fn case(scene: &Scene<'_>, pid: Pid, stuck: &Stuck<'_>) -> Option<Case> {
    let model = scene.model;
    let (first, found) = stuck.first()?;
    let at = own_frame(found.frames)?;
    let (who, place, state) = (model.name(pid), brief(at), found.state);
    let handlers = count(stuck.len() as u64, "handler", "handlers");
    let least = stuck.iter().map(|(_, found)| stood(found)).min()?;
    let mut timeline = Timeline::of(model);
    for moment in [found.since, found.at] {
        let stand = count(stuck.len() as u64, "handler stands", "handlers stand");
        timeline.add(
            moment,
            "goroutines",
            format!("{stand} at {place} ({state})"),
        );
    }
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::NoResponse,
        severity: Severity::Warning,
        confidence: Confidence::SEEN
            .but_all(&[
                Doubt::RequestInferred,
                Doubt::NothingToCompare,
                Doubt::NotOver,
            ])
            .number(),
        count: stuck.len() as u64,
        title: format!(
            "{who} has taken requests that it does not answer: {handlers} stand at {place} ({state})"
        ),
        explanation: format!(
            "{handlers} of {who} stood at {place} ({state}) in every look for {} or more, and none went on. Nothing can call them off there: somebody else of {who} has to let them go on, and nobody who might was seen at work.",
            seconds(least)
        ),
        process: Subject::of(model, pid),
        connection: None,
        related_connections: Vec::new(),
        setting: None,
        code: Some(at.clone()),
        goroutines: at_last(model, pid, *first).into_iter().collect(),
        measured: Measured {
            goroutines: Some(stuck.len() as u64),
            waited_s: Some(least.as_secs_f64()),
            ..Measured::default()
        },
        evidence: timeline.evidence(),
        advice: vec![format!(
            "See who should let them go on at {place}, and on which way out it forgets to (an error, a panic, a return in the middle): give back with defer what is taken there."
        )],
        wireshark_filter: None,
        incomplete: Some(
            "Their requests came before the window, so what became of their clients was not seen."
                .into(),
        ),
    };
    Some(Case {
        finding,
        cause: None,
        explains: HashSet::new(),
    })
}
