//! `empty-response`: a connection that carried a request ended with no byte of a response.
//!
//! Seen from the server where it is traced, else from the client; from both ends it is one finding.
//! Not accused: a server whose client left first, a server that ends, a request that met a connection
//! which the server was closing, and protocols that promise no answer: only HTTP does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{
    event::{BootInstant, Frame, Origin, Pid, Role},
    model::{Connection, Exchange, Model, Traffic},
};

use super::{
    docket::{Case, Docket},
    finding::{Confidence, Doubt, Ends, Evidence, Finding, Measured, Rule, Severity, Subject},
    grounds::{
        harm::Fate,
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
    },
    own_code::{brief, is_standard, own_frame},
    wording::{count, seconds},
};

/// A share of empty responses from which on the harm is critical.
const CRITICAL_SHARE: f64 = 0.05;

/// For a connection whose round-trip time was never measured.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// One empty response.
struct Empty<'m> {
    connection: &'m Connection,
    exchange: Exchange,
    ended: BootInstant,
    /// The server reset the connection (else it closed it).
    reset: bool,
}

/// What empty responses are told together by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    cause: Option<usize>,
    pid: Pid,
    server: SocketAddr,
    reset: bool,
    closed_in: Option<String>,
}

/// Adds a case for each server, way of ending, and cause.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<Kind, Vec<Empty<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        let found = match connection.role {
            Role::Server => by_server(scene, connection),
            Role::Client => by_client(scene, connection),
        };
        if let Some(empty) = found {
            let kind = kind(scene, docket, &empty);
            groups.entry(kind).or_default().push(empty);
        }
    }
    for (kind, group) in groups {
        if let Some(case) = case(scene, &kind, group) {
            docket.add(case);
        }
    }
}

/// Our process closed a connection on which it had read a request.
fn by_server<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Empty<'m>> {
    let exchange = last_request(connection)?;
    let ended = connection.left()?;
    if Fate::of(connection, &exchange) != Fate::Empty || scene.exiting(connection.pid, ended) {
        return None;
    }
    Some(Empty {
        reset: connection.local_closed.is_none_or(|closed| closed.abort),
        connection,
        exchange,
        ended,
    })
}

/// The server closed a connection on which our process had sent a request, and its own side of it
/// is not known.
fn by_client<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Empty<'m>> {
    let exchange = last_request(connection)?;
    let ended = connection.peer_left()?;
    let we_left_first = connection.left().is_some_and(|left| left < ended);
    if exchange.answered()
        || connection.heard_unseen()
        || we_left_first
        || met_a_closing(connection, &exchange, ended)
    {
        return None;
    }
    if let Some(server) = scene.model.other_end(connection) {
        // Where the server did read the request, its own end tells the story, or that there is none.
        let read = server
            .exchanges()
            .iter()
            .any(|served| served.started.plus(ROUND_TRIP) >= exchange.started);
        if read || scene.exiting(server.pid, ended) {
            return None;
        }
    }
    Some(Empty {
        reset: connection.peer_closed.is_none(),
        connection,
        exchange,
        ended,
    })
}

fn last_request(connection: &Connection) -> Option<Exchange> {
    connection
        .exchanges()
        .pop()
        .filter(|exchange| exchange.head.is_some() && exchange.request_bytes > 0)
}

/// The request went out on a connection used before, and the end came so soon that the server must
/// have sent it before the request reached it, or had no connection left when it did.
fn met_a_closing(connection: &Connection, exchange: &Exchange, ended: BootInstant) -> bool {
    let used_before = exchange.number > 0 || connection.origin == Origin::Found;
    let round_trip = connection
        .closed
        .and_then(|(_, closed)| closed.srtt)
        .or(connection.connect_time())
        .unwrap_or(ROUND_TRIP);
    used_before && ended <= exchange.started.plus(round_trip * 2 + ROUND_TRIP)
}

fn kind(scene: &Scene<'_>, docket: &Docket, empty: &Empty<'_>) -> Kind {
    let connection = empty.connection;
    let cause = docket
        .explaining(connection.socket)
        .or_else(|| docket.explaining(connection.other_end?));
    let frames = closing_frames(scene.model, connection);
    Kind {
        cause,
        pid: connection.pid,
        server: SocketAddr::new(unspecific(connection), connection.server().port()),
        // How it was carried out tells nothing where the cause is known.
        reset: cause.is_none() && empty.reset,
        closed_in: telling_frame(frames)
            .filter(|_| cause.is_none())
            .map(|frame| frame.function.clone()),
    }
}

/// A server is one, whichever of its addresses a client chose.
fn unspecific(connection: &Connection) -> IpAddr {
    match connection.role {
        Role::Server => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Role::Client => connection.remote.ip(),
    }
}

fn closing_frames<'m>(model: &'m Model, connection: &Connection) -> &'m [Frame] {
    match connection.role {
        Role::Server => model.frames(connection.local_closed.and_then(|closed| closed.stack)),
        Role::Client => &[],
    }
}

/// The line that explains a close: where a panic was raised; else the own line nearest to it, or
/// net/http's.
fn telling_frame(frames: &[Frame]) -> Option<&Frame> {
    if let Some(after) = after_panic(frames) {
        return own_frame(after).or(after.first());
    }
    own_frame(frames).or_else(|| {
        frames
            .iter()
            .find(|frame| is_standard(frame) && frame.function.starts_with("net/http."))
    })
}

/// The frames that were running when the panic was raised.
fn after_panic(frames: &[Frame]) -> Option<&[Frame]> {
    let raised = frames
        .iter()
        .position(|frame| frame.function == "runtime.gopanic")?;
    frames.get(raised + 1..)
}

fn case(scene: &Scene<'_>, kind: &Kind, group: Vec<Empty<'_>>) -> Option<Case> {
    let model = scene.model;
    let example = group.first()?;
    let connection = example.connection;
    let number = group.len() as u64;
    let traffic = match connection.role {
        Role::Server => scene.served_at(connection.pid, connection.local),
        Role::Client => scene.asked(connection.pid, connection.remote),
    };
    let frames = closing_frames(model, connection);
    let mut measured = Measured {
        request_bytes: Some(example.exchange.request_bytes),
        response_bytes: Some(0),
        requests: Some(traffic.exchanges.exchanges),
        requests_fine: Some(traffic.exchanges.fine()),
        ..Measured::default()
    };
    if kind.cause.is_none() {
        measured.requests_harmed = Some(number);
    }
    let wait = |empty: &Empty<'_>| empty.ended.since(empty.exchange.request_ended);
    measured.waits(group.iter().map(wait).collect());
    let client_end = model.other_end(connection);
    let mut confidence = Confidence::SEEN;
    if connection.role == Role::Client {
        confidence = confidence.but(Doubt::OneEnd);
    }
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::EmptyResponse,
        severity: severity(number, &traffic),
        confidence: confidence.number(),
        count: number,
        title: title(model, &group, example),
        explanation: explanation(model, kind, example, number),
        process: Subject::of(model, connection.pid),
        connection: Some(Ends::from(connection)),
        related_connections: Vec::new(),
        setting: None,
        code: telling_frame(frames).cloned(),
        goroutines: Vec::new(),
        measured,
        evidence: evidence(model, example, client_end),
        advice: advice(model, kind, example),
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: (connection.role == Role::Client && connection.other_end.is_none()).then(
            || {
                format!(
                    "{} is not traced here, so why it closed is not known.",
                    connection.remote
                )
            },
        ),
    };
    Some(Case {
        finding,
        cause: kind.cause,
        explains: group.iter().map(|empty| empty.connection.socket).collect(),
    })
}

fn severity(number: u64, traffic: &Traffic) -> Severity {
    if number as f64 >= traffic.exchanges.exchanges as f64 * CRITICAL_SHARE && number > 2 {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

fn ender(model: &Model, empty: &Empty<'_>) -> String {
    match empty.connection.role {
        Role::Server => model.name(empty.connection.pid),
        Role::Client => empty.connection.remote.to_string(),
    }
}

/// Who asked: by name where it is traced.
fn asker(model: &Model, empty: &Empty<'_>) -> String {
    let connection = empty.connection;
    match connection.role {
        Role::Client => model.name(connection.pid),
        Role::Server => model.other_end(connection).map_or_else(
            || format!("client {}", connection.remote.ip()),
            |client| model.name(client.pid),
        ),
    }
}

fn title(model: &Model, group: &[Empty<'_>], example: &Empty<'_>) -> String {
    let one = asker(model, example);
    let who = if group.iter().all(|empty| asker(model, empty) == one) {
        one
    } else {
        "clients".into()
    };
    let whom = match example.connection.role {
        Role::Server => format!(
            "{} on port {}",
            ender(model, example),
            example.connection.local.port()
        ),
        Role::Client => ender(model, example),
    };
    format!("{who} got an empty reply from {whom}")
}

fn explanation(model: &Model, kind: &Kind, example: &Empty<'_>, number: u64) -> String {
    let ender = ender(model, example);
    let how = if example.reset { "reset" } else { "closed" };
    let after = seconds(example.ended.since(example.exchange.request_ended));
    let told = format!(
        "{ender} {how} {} with a request in flight and without sending a byte, {after} after the request's last byte.",
        count(number, "connection", "connections"),
    );
    if kind.cause.is_some() {
        return format!("{told} That is how its giving up reached the client.");
    }
    let frames = closing_frames(model, example.connection);
    let why = if after_panic(frames).is_some() {
        let at =
            telling_frame(frames).map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
        format!(" Its handler panicked{at}.")
    } else {
        telling_frame(frames).map_or_else(String::new, |frame| {
            format!(" It closed in {}.", brief(frame))
        })
    };
    told + &why
}

fn advice(model: &Model, kind: &Kind, example: &Empty<'_>) -> Vec<String> {
    if kind.cause.is_some() {
        return Vec::new();
    }
    let ender = ender(model, example);
    let frames = closing_frames(model, example.connection);
    vec![if after_panic(frames).is_some() {
        format!(
            "Look in {ender}'s log for \"http: panic serving {}\"; with http.ErrAbortHandler there is none, and the abort is on purpose.",
            example.connection.client()
        )
    } else if example.connection.role == Role::Server {
        format!(
            "See why {ender} ends the connection: a write or read time limit of its server, an abort of its handler, or a connection closed by hand."
        )
    } else {
        format!("Trace {ender} on its own host to see why it closed.")
    }]
}

fn evidence(model: &Model, example: &Empty<'_>, client: Option<&Connection>) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let connection = example.connection;
    match connection.role {
        Role::Server => {
            timeline.request_read(connection, &example.exchange);
            timeline.outcome(connection, &example.exchange);
            if let Some(client) = client {
                let who = model.name(client.pid);
                timeline.add_if(client.peer_left(), "end", || {
                    format!("{who} sees its connection end with nothing received")
                });
            }
        }
        Role::Client => {
            let who = model.name(connection.pid);
            let server = connection.remote;
            let sends = format!("{who} sends {} to {server}", what(&example.exchange));
            timeline.add(example.exchange.started, "request", sends);
            let how = if example.reset { "RST" } else { "FIN" };
            timeline.add(
                example.ended,
                "end",
                format!("{how} of {server} arrives, and no byte of a response before it"),
            );
        }
    }
    timeline.evidence()
}
