//! `slow-response`: the first byte of a response came late.
//!
//! A wait is no fault: a long poll waits on purpose, and is not accused. Blamed is what was measured
//! beside the handler's own doing (the request lay unread in the socket, or another service kept it
//! waiting), a handler that was on the CPU instead of waiting, and one that answers its kind of request
//! in a small part of that time otherwise.
//! Of services that wait for each other only the innermost is told. Not accused: websockets, tunnels,
//! profiles, a proxy that passes a long poll on, and requests that another finding tells of already.

use std::collections::{BTreeMap, HashMap};

use crate::{event::SocketId, model::Model};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Subject, Witness},
    grounds::{
        breakdown::Breakdown,
        held_up,
        hot::{self, Hot},
        lateness::{self, Late, Reason},
        scene::Scene,
        slowness::{Because, Believed, Culprit},
        telling::{Timeline, what, wireshark_filter},
        upstreams::Wait,
        work::{at_work, waiting_for_io},
    },
    own_code::{brief, own_frame},
    wording::times,
};

pub(super) mod pool;
mod words;

use words::Told;

/// Adds a case for each service that kept others waiting, and each that was late by itself.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let late: Vec<Late<'_>> = lateness::all(scene)
        .into_iter()
        .filter(|late| !told_already(docket, late))
        .collect();
    let by_request: HashMap<(SocketId, u32), &Late<'_>> = late
        .iter()
        .map(|late| ((late.connection.socket, late.exchange.number), late))
        .collect();
    let mut groups: BTreeMap<Culprit, Group<'_, '_>> = BTreeMap::new();
    for one in &late {
        let Some(inner) = lateness::innermost(&by_request, one) else {
            continue;
        };
        let group = groups.entry(Culprit::of(scene, inner)).or_default();
        if std::ptr::eq(inner, one) {
            group.late.push(one);
        } else {
            group.outer.push(one);
        }
    }
    for (culprit, group) in groups {
        if let Some(case) = case(scene, &culprit, &group) {
            docket.add(case);
        }
    }
}

/// Another finding tells of it. That it had to wait for a CPU as well does not tell of what it did when
/// it had one.
fn told_already(docket: &Docket, late: &Late<'_>) -> bool {
    let ends = [Some(late.connection.socket), late.connection.other_end];
    ends.into_iter()
        .flatten()
        .filter_map(|socket| docket.rule(docket.explaining(socket)?))
        .any(|rule| {
            let waits = matches!(rule, Rule::RunQueueDelay | Rule::CpuThrottled);
            !waits || late.reason != Reason::Computed
        })
}

/// Late answers of one culprit.
#[derive(Default)]
struct Group<'l, 'm> {
    late: Vec<&'l Late<'m>>,
    /// Those of other services that waited for these.
    outer: Vec<&'l Late<'m>>,
}

fn case(scene: &Scene<'_>, culprit: &Culprit, group: &Group<'_, '_>) -> Option<Case> {
    let believed = Believed::of(scene, culprit, &group.late)?;
    let example = believed.example(scene)?;
    let (connection, exchange) = (example.connection, &example.exchange);
    let model = scene.model;
    let waits = scene.upstreams.during(connection.socket, exchange.number);
    let wait = match culprit {
        Culprit::Upstream(_) => lateness::longest(waits),
        _ => None,
    };
    let hot = hot(scene, &believed);
    let seen = at_work(
        model,
        connection,
        exchange,
        exchange.started,
        exchange.last_byte,
    );
    let witness = seen.or_else(|| hot.as_ref().and_then(|hot| running(model, example, hot)));
    let own = witness.as_ref().and_then(|w| own_frame(&w.frames).cloned());
    let waiting = wait.and_then(|_| waiting_for_io(model, connection.pid));
    let code = match &hot {
        Some(hot) => Some(hot.frame.clone()),
        None => own.or_else(|| waiting.clone().map(|(frame, _)| frame)),
    };
    let asked = wait.map(|wait| wait.connection);
    let story = Told {
        scene,
        culprit,
        late: &group.late,
        outer: &group.outer,
        believed: &believed,
        example,
        parts: Breakdown::of_exchange(scene, connection, exchange),
        waiting,
        hot: hot.as_ref(),
        code: code.as_ref(),
        looked: witness.is_some(),
        traced: asked.is_some_and(|asked| asked.other_end.is_some()),
    };
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::SlowResponse,
        severity: believed.severity,
        confidence: Confidence::SEEN
            .but_all(&doubts(culprit, &believed, example, wait))
            .number(),
        count: believed.late.len() as u64,
        title: story.title(),
        explanation: story.explanation(),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: asked.into_iter().map(Ends::from).collect(),
        setting: None,
        measured: measured(scene, &believed, example, &story.parts),
        evidence: evidence(scene, example, wait, hot.as_ref()),
        advice: vec![story.advice()],
        wireshark_filter: wireshark_filter([connection].into_iter().chain(asked)),
        incomplete: story.incomplete(),
        goroutines: witness.into_iter().collect(),
        code,
    };
    let all = group.late.iter().chain(&group.outer);
    Some(Case {
        finding,
        cause: None,
        explains: all.map(|late| late.connection.socket).collect(),
    })
}

/// What those who computed, or who were queued for, were computing.
fn hot(scene: &Scene<'_>, believed: &Believed<'_, '_>) -> Option<Hot> {
    let late = || believed.late.iter().copied();
    match believed.because {
        Because::Computed => hot::of(scene, late().map(|late| (late.connection, &late.exchange))),
        Because::Queued => {
            hot::meanwhile(scene, late().map(|late| (late.connection, &late.exchange)))
        }
        Because::Other => None,
    }
}

/// The goroutine of `late`, as samples saw it.
fn running(model: &Model, late: &Late<'_>, hot: &Hot) -> Option<Witness> {
    Witness::acting(model, late.exchange.actor?, &hot.frames)
        .filter(|_| late.reason == Reason::Computed)
}

fn doubts(
    culprit: &Culprit,
    believed: &Believed<'_, '_>,
    example: &Late<'_>,
    wait: Option<&Wait<'_>>,
) -> Vec<Doubt> {
    let mut doubts = wait.map_or_else(Vec::new, |wait| wait.doubts());
    match believed.because {
        Because::Computed => {}
        Because::Queued => doubts.push(Doubt::QueueInferred),
        Because::Other => {
            if example.usual.is_none() && !matches!(culprit, Culprit::Unread(..)) {
                doubts.push(Doubt::NothingToCompare);
            }
        }
    }
    doubts
}

fn measured(
    scene: &Scene<'_>,
    believed: &Believed<'_, '_>,
    example: &Late<'_>,
    parts: &Breakdown,
) -> Measured {
    let place = example.connection;
    let served = scene.served_at(place.pid, place.local).exchanges;
    let mut measured = Measured {
        requests: Some(served.exchanges),
        requests_slow: Some(believed.late.len() as u64),
        usual_s: example.usual.map(|usual| usual.as_secs_f64()),
        parts_s: parts.measured(),
        request_bytes: Some(example.exchange.request_bytes),
        ..Measured::default()
    };
    measured.waits(believed.late.iter().map(|late| late.wait).collect());
    measured
}

fn evidence(
    scene: &Scene<'_>,
    late: &Late<'_>,
    wait: Option<&Wait<'_>>,
    hot: Option<&Hot>,
) -> Vec<Evidence> {
    let model = scene.model;
    let (connection, exchange) = (late.connection, &late.exchange);
    let who = model.owner(connection);
    let mut timeline = Timeline::of(model);
    let unread = exchange.arrived.filter(|at| *at < exchange.started);
    timeline.add_if(unread, "arrived", || {
        format!("the request lies in {who}'s socket")
    });
    timeline.request_read(connection, exchange);
    if let Some(wait) = wait {
        let remote = wait.connection.remote;
        timeline.add(
            wait.exchange.started,
            "ask",
            format!("{who} sends {} to {remote}", what(&wait.exchange)),
        );
        timeline.add_if(wait.exchange.first_byte, "answer", || {
            format!("the answer of {remote} begins")
        });
    }
    if let Some(hot) = hot.filter(|_| late.reason == Reason::Computed) {
        let samples = held_up::samples(scene, connection, exchange);
        timeline.add_if(samples.first().map(|sampled| sampled.at), "run", || {
            format!(
                "the profiler sees it run, from now on {}, most often in {}",
                times(samples.len() as u64),
                brief(&hot.frame)
            )
        });
    }
    timeline.outcome(connection, exchange);
    timeline.evidence()
}
