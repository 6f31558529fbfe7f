//! `slow-response`: the first byte of a response came late.
//!
//! A wait is no fault: a long poll waits on purpose, and is not accused. Blamed is what was measured
//! beside the handler's own doing (the request lay unread in the socket, or another service kept it
//! waiting), and a handler that answers its kind of request in a small part of that time otherwise.
//! Of services that wait for each other only the innermost is told. Not accused: websockets, tunnels,
//! profiles, a proxy that passes a long poll on, and requests that another finding tells of already.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    event::{Frame, SocketId},
    model::Model,
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Subject},
    grounds::{
        breakdown::Breakdown,
        lateness::{self, Late},
        scene::Scene,
        slowness::{Believed, Culprit},
        telling::{Timeline, what, wireshark_filter},
        upstreams::Wait,
        work::{at_work, waiting_for_io},
    },
    own_code::{brief, own_frame},
    wording::{count, join, seconds},
};

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
        let group = groups.entry(Culprit::of(inner)).or_default();
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

fn told_already(docket: &Docket, late: &Late<'_>) -> bool {
    let ends = [Some(late.connection.socket), late.connection.other_end];
    ends.into_iter()
        .flatten()
        .any(|socket| docket.explaining(socket).is_some())
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
    let parts = Breakdown::of_exchange(scene, connection, exchange);
    let wait = match culprit {
        Culprit::Upstream(_) => lateness::longest(waits),
        _ => None,
    };
    let served = scene.served_at(connection.pid, connection.local).exchanges;
    let mut measured = Measured {
        requests: Some(served.exchanges),
        requests_slow: Some(believed.late.len() as u64),
        usual_s: example.usual.map(|usual| usual.as_secs_f64()),
        parts_s: parts.measured(),
        request_bytes: Some(exchange.request_bytes),
        ..Measured::default()
    };
    measured.waits(believed.late.iter().map(|late| late.wait).collect());
    let witness = at_work(
        model,
        connection,
        exchange,
        exchange.started,
        exchange.last_byte,
    );
    let mut doubts = wait.map_or_else(Vec::new, |wait| wait.doubts());
    if example.usual.is_none() && !matches!(culprit, Culprit::Unread(..)) {
        doubts.push(Doubt::NothingToCompare);
    }
    let asked = wait.map(|wait| wait.connection);
    let seen = witness
        .as_ref()
        .and_then(|witness| own_frame(&witness.frames).cloned());
    let waiting = wait.and_then(|_| waiting_for_io(model, connection.pid));
    let code = seen.or_else(|| waiting.clone().map(|(frame, _)| frame));
    let advice = vec![advice(model, culprit, example, code.as_ref())];
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::SlowResponse,
        severity: believed.severity,
        confidence: Confidence::SEEN.but_all(&doubts).number(),
        count: believed.late.len() as u64,
        title: title(model, culprit, &believed, &measured),
        explanation: explanation(scene, culprit, group, &believed, &parts, waiting),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: asked.into_iter().map(Ends::from).collect(),
        setting: None,
        code,
        goroutines: witness.into_iter().collect(),
        measured,
        evidence: evidence(model, example, wait),
        advice,
        wireshark_filter: wireshark_filter([connection].into_iter().chain(asked)),
        incomplete: incomplete(model, culprit, asked.is_some_and(|c| c.other_end.is_some())),
    };
    let all = believed.late.iter().chain(&group.outer);
    Some(Case {
        finding,
        cause: None,
        explains: all.map(|late| late.connection.socket).collect(),
    })
}

fn whose(model: &Model, culprit: &Culprit, late: &[&Late<'_>]) -> String {
    let mut names: Vec<String> = late
        .iter()
        .map(|late| model.owner(late.connection))
        .collect();
    names.sort();
    names.dedup();
    match culprit {
        Culprit::Upstream(_) => join(&names),
        Culprit::Unread(pid, _) | Culprit::Handler(pid, ..) => model.name(*pid),
    }
}

/// Who is at an upstream address: its name too, where it is traced.
fn at(model: &Model, address: SocketAddr) -> String {
    model
        .connections()
        .find(|c| c.remote == address && c.other_end.is_some())
        .and_then(|connection| model.other_end(connection))
        .map_or_else(
            || address.to_string(),
            |server| format!("{} ({address})", model.owner(server)),
        )
}

fn title(model: &Model, culprit: &Culprit, believed: &Believed<'_, '_>, m: &Measured) -> String {
    let who = whose(model, culprit, &believed.late);
    let waited = seconds(Duration::from_secs_f64(m.waited_s.unwrap_or_default()));
    match culprit {
        Culprit::Upstream(address) => {
            format!(
                "{who} answered late: it waited for {} ({waited})",
                at(model, *address)
            )
        }
        Culprit::Unread(_, port) => {
            format!("requests to {who} on port {port} lay unread in its socket for {waited}")
        }
        Culprit::Handler(_, port, route) => {
            format!("{who} on port {port} answered {route} late, after {waited}")
        }
    }
}

fn explanation(
    scene: &Scene<'_>,
    culprit: &Culprit,
    group: &Group<'_, '_>,
    believed: &Believed<'_, '_>,
    parts: &Breakdown,
    waiting: Option<(Frame, u64)>,
) -> String {
    let model = scene.model;
    let who = whose(model, culprit, &believed.late);
    let number = count(believed.late.len() as u64, "request", "requests");
    let longest = believed.late.iter().map(|late| late.wait).max();
    let longest = seconds(longest.unwrap_or_default());
    let mut told = vec![match culprit {
        Culprit::Upstream(address) => format!(
            "{number} to {who} waited up to {longest} for the first byte, most of that for {}.",
            at(model, *address)
        ),
        Culprit::Unread(..) => format!(
            "{number} waited up to {longest} for the first byte; most of that the request lay in {who}'s socket, and nobody read it."
        ),
        Culprit::Handler(..) => format!(
            "{number} waited up to {longest} for the first byte, and nothing but {who} itself was waited for."
        ),
    }];
    match believed.late.iter().find_map(|late| late.usual) {
        Some(usual) => told.push(format!(
            "Half of the requests of the same kind are answered within {}.",
            seconds(usual)
        )),
        None if matches!(culprit, Culprit::Upstream(_)) => {
            told.push("No quick request of the same kind was seen to compare with.".into())
        }
        None => {}
    }
    told.push(format!("One of them: {}", lower_first(&parts.sentence())));
    let outer: Vec<&Late<'_>> = group.outer.clone();
    if !outer.is_empty() {
        told.push(format!(
            "{} of {} waited for these in turn.",
            count(outer.len() as u64, "request", "requests"),
            whose(model, &Culprit::Upstream(([0, 0, 0, 0], 0).into()), &outer)
        ));
    }
    if let Some((frame, number)) = waiting {
        told.push(format!(
            "When last looked at, {} {} for the network in {}.",
            count(number, "goroutine", "goroutines"),
            if number == 1 {
                "waited"
            } else {
                "were waiting"
            },
            brief(&frame)
        ));
    }
    told.join(" ")
}

fn lower_first(sentence: &str) -> String {
    sentence.replacen("Of ", "of ", 1)
}

fn advice(model: &Model, culprit: &Culprit, example: &Late<'_>, code: Option<&Frame>) -> String {
    let who = model.owner(example.connection);
    match culprit {
        Culprit::Upstream(address) => format!(
            "Look at {}: its load, its slow queries, its locks. {who} only waits for it; a time limit of its own would fail sooner, not answer sooner.",
            at(model, *address)
        ),
        Culprit::Unread(_, port) => format!(
            "See what keeps {who} from reading: no worker or thread free, its loop blocked, the process stopped or without CPU (ss -tnp 'sport = :{port}' shows Recv-Q)."
        ),
        Culprit::Handler(..) => {
            let at = code.map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
            format!(
                "Look at what the handler of {} does{at} in the slow case: a lock, a large result, work that other requests do not have.",
                example.kind.route
            )
        }
    }
}

fn incomplete(model: &Model, culprit: &Culprit, traced: bool) -> Option<String> {
    match culprit {
        Culprit::Upstream(address) if !traced => Some(format!(
            "{} is not traced here, so what it did meanwhile, and how long the way to it is, is not known.",
            at(model, *address)
        )),
        Culprit::Handler(..) => {
            Some("Whether it computed, or waited for a CPU or a lock, is not measured.".into())
        }
        _ => None,
    }
}

fn evidence(model: &Model, late: &Late<'_>, wait: Option<&Wait<'_>>) -> Vec<Evidence> {
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
    timeline.outcome(connection, exchange);
    timeline.evidence()
}
