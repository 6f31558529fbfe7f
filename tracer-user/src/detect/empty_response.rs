//! `empty-response`: a connection that carried a request ended with no byte of a response.
//!
//! Seen from the server where it is traced, else from the client; from both ends it is one finding.
//! Not accused: a server whose client left first, a server that ends, a request that met a connection
//! which the server was closing, and protocols that promise no answer: only HTTP does.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    event::{BootInstant, Role, SocketId, is_host},
    model::{Connection, Exchange, Model, Service},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Subject},
    grounds::{
        broken,
        closing::{Raised, closing_frames, ending, telling_frame},
        crossing::{last_request, met_a_closing, was_read},
        hands,
        harm::{Fate, severity_of},
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
    },
    own_code::brief,
    wording::{count, seconds},
};

/// One empty response.
struct Empty<'m> {
    connection: &'m Connection,
    exchange: Exchange,
    ended: BootInstant,
    /// The server reset the connection (else it closed it).
    reset: bool,
    /// The connection of the request that its client was serving meanwhile, and that failed with it.
    beyond: Option<SocketId>,
}

/// What empty responses are told together by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    cause: Option<usize>,
    service: Service,
    server: SocketAddr,
    reset: bool,
    closed_in: Option<String>,
}

/// Adds a case for each server, way of ending, and cause. An empty response that a gateway got goes
/// before the one that it gave because of it.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut rest: Vec<Empty<'_>> = scene
        .model
        .connections()
        .filter_map(|connection| match connection.role {
            Role::Server => by_server(scene, connection),
            Role::Client => by_client(scene, connection),
        })
        .collect();
    let servers = server_ends(&rest);
    while !rest.is_empty() {
        let reached: HashSet<SocketId> = rest.iter().filter_map(|empty| empty.beyond).collect();
        let (mut causes, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|empty| !reached.contains(&empty.connection.socket));
        rest = others;
        if causes.is_empty() {
            causes.append(&mut rest);
        }
        add(scene, docket, &servers, causes);
    }
}

/// An end of a server that ended a connection so, by its address and whether it reset the connection.
type ServerEnds<'m> = HashMap<(SocketAddr, bool), &'m Connection>;

fn server_ends<'m>(empties: &[Empty<'m>]) -> ServerEnds<'m> {
    let by_servers = empties.iter().filter(|e| e.connection.role == Role::Server);
    by_servers
        .map(|empty| ((empty.connection.local, empty.reset), empty.connection))
        .collect()
}

fn add(scene: &Scene<'_>, docket: &mut Docket, servers: &ServerEnds<'_>, empties: Vec<Empty<'_>>) {
    let mut groups: BTreeMap<Kind, Vec<Empty<'_>>> = BTreeMap::new();
    for empty in empties {
        // A server that was found only after the window began is the same one: its own end of later
        // connections tells the story.
        let connection = empty.connection;
        let later = servers.get(&(connection.remote, empty.reset)).copied();
        let unseen = connection.role == Role::Client && connection.other_end.is_none();
        let teller = later.filter(|_| unseen).unwrap_or(connection);
        let kind = kind(scene, docket, teller, empty.reset);
        groups.entry(kind).or_default().push(empty);
    }
    for (kind, group) in groups {
        let cause = kind.cause.and_then(|place| docket.rule(place));
        if let Some(case) = case(scene, &kind, cause, group) {
            docket.add(case);
        }
    }
}

/// Our process closed a connection on which it had read a request.
fn by_server<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Empty<'m>> {
    let exchange = last_request(connection)?;
    let ended = connection.left()?;
    if Fate::of(connection, &exchange) != Fate::Empty || ending(scene, connection, ended) {
        return None;
    }
    Some(Empty {
        reset: connection.local_closed.is_none_or(|closed| closed.abort),
        beyond: beyond(scene, connection, ended),
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
        if was_read(server, &exchange) || ending(scene, server, ended) {
            return None;
        }
    }
    Some(Empty {
        reset: connection.peer_closed.is_none(),
        beyond: beyond(scene, connection, ended),
        connection,
        exchange,
        ended,
    })
}

fn beyond(scene: &Scene<'_>, connection: &Connection, ended: BootInstant) -> Option<SocketId> {
    let pairing = broken::serving(scene, connection, ended)?;
    broken::fate(scene, &pairing)?
        .is_harm()
        .then_some(pairing.socket)
}

fn kind(scene: &Scene<'_>, docket: &Docket, connection: &Connection, reset: bool) -> Kind {
    let cause = docket
        .explaining(connection.socket)
        .or_else(|| docket.explaining(connection.other_end?))
        .filter(|place| !docket.rule(*place).is_some_and(only_delays));
    let frames = closing_frames(scene.model, connection);
    Kind {
        cause,
        service: scene.service(connection.pid),
        server: SocketAddr::new(unspecific(connection), connection.server().port()),
        // How it was carried out tells nothing where the cause is known.
        reset: cause.is_none() && reset,
        closed_in: telling_frame(frames)
            .filter(|_| cause.is_none())
            .map(|frame| frame.function.clone()),
    }
}

/// What makes answers late ends no connection.
fn only_delays(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::LockContention
            | Rule::TimerAbuse
            | Rule::GcPressure
            | Rule::SchedulerThrash
            | Rule::RunQueueDelay
            | Rule::CpuThrottled
    )
}

/// A server is one, whichever of its addresses a client chose.
fn unspecific(connection: &Connection) -> IpAddr {
    match connection.role {
        Role::Server => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Role::Client => connection.remote.ip(),
    }
}

fn case(
    scene: &Scene<'_>,
    kind: &Kind,
    cause: Option<Rule>,
    group: Vec<Empty<'_>>,
) -> Option<Case> {
    let model = scene.model;
    let mut ends = group.iter();
    let example = ends
        .find(|empty| empty.connection.role == Role::Server)
        .or(group.first())?;
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
        severity: severity_of(number, traffic.exchanges.exchanges),
        confidence: confidence.number(),
        count: number,
        title: title(model, &group, example),
        explanation: explanation(model, cause, example, number),
        process: Subject::owner(model, connection),
        connection: Some(Ends::from(connection)),
        related_connections: Vec::new(),
        setting: None,
        code: telling_frame(frames).cloned(),
        goroutines: hands::on(model, connection, &example.exchange),
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
        explains: group
            .iter()
            .flat_map(|empty| [Some(empty.connection.socket), empty.beyond])
            .flatten()
            .collect(),
    })
}

fn ender(model: &Model, empty: &Empty<'_>) -> String {
    match empty.connection.role {
        Role::Server => model.owner(empty.connection),
        Role::Client => empty.connection.remote.to_string(),
    }
}

/// Who asked: by name where it is traced.
fn asker(model: &Model, empty: &Empty<'_>) -> String {
    let connection = empty.connection;
    match connection.role {
        Role::Client => model.owner(connection),
        Role::Server => model.other_end(connection).map_or_else(
            || format!("client {}", connection.remote.ip()),
            |client| model.owner(client),
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
        Role::Server if is_host(example.connection.pid) => ender(model, example),
        Role::Server => format!(
            "{} on port {}",
            ender(model, example),
            example.connection.local.port()
        ),
        Role::Client => ender(model, example),
    };
    format!("{who} got an empty reply from {whom}")
}

fn explanation(model: &Model, cause: Option<Rule>, example: &Empty<'_>, number: u64) -> String {
    let ender = ender(model, example);
    let how = if example.reset { "reset" } else { "closed" };
    let after = seconds(example.ended.since(example.exchange.request_ended));
    let told = format!(
        "{ender} {how} {} with a request in flight and without sending a byte, {after} after the request's last byte.",
        count(number, "connection", "connections"),
    );
    if let Some(cause) = cause {
        return format!("{told} {}", as_consequence(cause));
    }
    let frames = closing_frames(model, example.connection);
    let at =
        telling_frame(frames).map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
    let why = match Raised::of(frames) {
        Some(Raised::Runtime) => format!(" Its handler panicked{at}."),
        Some(Raised::Call) => format!(
            " Its handler panicked{at}, or aborted the response there on purpose: panic(http.ErrAbortHandler) leaves the same stack."
        ),
        Some(Raised::ReverseProxy) => format!(
            " Its httputil.ReverseProxy aborted the response (http.ErrAbortHandler){at}: the upstream's body had broken off."
        ),
        None if at.is_empty() => String::new(),
        None => format!(" It closed{at}."),
    };
    told + &why
}

/// What an empty response has to do with its cause.
fn as_consequence(cause: Rule) -> &'static str {
    match cause {
        Rule::ServerTimeout => "That is how the passing of the time limit reached the client.",
        Rule::ConnectionReset => "That is how the reset reached the client.",
        Rule::KeepaliveRace => {
            "That is how the request that its upstream never read reached the client."
        }
        Rule::EmptyResponse => "That is how the empty reply of its upstream reached the client.",
        _ => "That is how its giving up reached the client.",
    }
}

fn advice(model: &Model, kind: &Kind, example: &Empty<'_>) -> Vec<String> {
    if kind.cause.is_some() {
        return Vec::new();
    }
    let ender = ender(model, example);
    let client = example.connection.client();
    let raised = Raised::of(closing_frames(model, example.connection));
    vec![match raised {
        Some(Raised::Runtime) => {
            format!("Look in {ender}'s log for \"http: panic serving {client}\".")
        }
        Some(Raised::Call) => format!(
            "Look in {ender}'s log for \"http: panic serving {client}\"; with http.ErrAbortHandler there is none, and the abort is on purpose."
        ),
        Some(Raised::ReverseProxy) => format!(
            "See why the upstream of {ender} breaks its responses off: {ender}'s log says \"httputil: ReverseProxy read error during body copy\"."
        ),
        None if example.connection.role == Role::Server => format!(
            "See why {ender} ends the connection: a write or read time limit of its server, an abort of its handler, or a connection closed by hand."
        ),
        None => format!("Trace {ender} on its own host to see why it closed."),
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
                timeline.on(client).add_if(client.peer_left(), "end", || {
                    format!("{who} sees its connection end with nothing received")
                });
            }
        }
        Role::Client => {
            let who = model.owner(connection);
            let server = connection.remote;
            let sends = format!("{who} sends {} to {server}", what(&example.exchange));
            timeline
                .on(connection)
                .add(example.exchange.started, "request", sends);
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
