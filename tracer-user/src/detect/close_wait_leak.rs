//! `close-wait-leak`: the peers of several connections closed, and the process never did.
//!
//! Such a socket (`CLOSE_WAIT`) keeps its file descriptor until the process closes it or ends. Not
//! accused: a connection whose peer only closed its sending side and still listens; and a pool that
//! holds idle connections which its server closed, for it will notice when it next uses them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    event::{BootInstant, Origin, Pid, Role},
    model::{Connection, Model},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
    grounds::{
        opening::{Opener, opened_in},
        scene::Scene,
        standing::{at_last, crowds, place, serving},
        telling::{Timeline, wireshark_filter},
        workers,
    },
    own_code::brief,
    wording::{count, seconds},
};

/// Whoever means to close does it sooner.
const LONG: Duration = Duration::from_secs(3);

/// Fewer may be an accident.
const SEVERAL: usize = 5;

/// More are no pool, whoever opened them.
const MANY: usize = 100;

/// A connection that its server closes for being idle was idle for longer.
const IDLE: Duration = Duration::from_secs(1);

/// Closes this close together may be one act, such as the end of a server.
const ONE_ACT: Duration = Duration::from_millis(20);

/// Separate acts that make a habit.
const HABIT: usize = 3;

/// What is sent or read later than this after the peer's FIN was not on its way already.
const AFTERWARDS: Duration = Duration::from_millis(50);

/// One connection whose peer left, and that was kept.
struct Kept<'m> {
    connection: &'m Connection,
    /// Since when nothing happened on it.
    since: BootInstant,
}

/// Adds a case for each service and address. What a pool may keep is its process's own, so it is judged by
/// process, and told together.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<(Pid, bool, SocketAddr), Vec<Kept<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        if let Some(kept) = on(scene, connection) {
            let peer = connection.peer();
            // A server is one, whichever of its addresses a client chose.
            let address = if peer.serves {
                SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), peer.address.port())
            } else {
                peer.address
            };
            let key = (connection.pid, peer.serves, address);
            groups.entry(key).or_default().push(kept);
        }
    }
    let mut by_service: BTreeMap<_, (Severity, Vec<Kept<'_>>)> = BTreeMap::new();
    for ((pid, serves, address), group) in groups {
        if group.len() >= SEVERAL {
            let place = (scene.service(pid), serves, address);
            let severity = severity(scene, &group);
            let (worst, all) = by_service.entry(place).or_insert((severity, Vec::new()));
            *worst = severity.max(*worst);
            all.extend(group);
        }
    }
    for (severity, group) in by_service.into_values() {
        if let Some(case) = case(scene, docket, severity, &group) {
            docket.add(case);
        }
    }
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Kept<'m>> {
    let model = scene.model;
    let closed = connection.peer_closed?;
    let over =
        connection.left().is_some() || connection.is_over() || connection.reset_received.is_some();
    let ended = model
        .process(connection.pid)
        .is_some_and(|process| process.ended.is_some());
    // What was never accepted is nobody's yet.
    let untouched = connection.unread.is_some()
        && connection
            .exchanges()
            .iter()
            .all(|exchange| exchange.request_bytes + exchange.response_bytes == 0);
    let waits_to_be_accepted = connection.role == Role::Server && untouched;
    if over || ended || waits_to_be_accepted || still_listens(model, connection) {
        return None;
    }
    let moved = connection.exchanges().last().map(|last| last.last_byte);
    let since = moved.map_or(closed, |moved| moved.max(closed));
    (model.now().since(since) >= LONG).then_some(Kept { connection, since })
}

/// The peer shut down its sending side only: it is on this host, and its socket lives on. Or bytes
/// went to it long after, which somebody read.
fn still_listens(model: &Model, connection: &Connection) -> bool {
    let half_closed = model
        .other_end(connection)
        .is_some_and(|other| other.local_closed.is_some() && !other.is_over());
    let served_on = connection.peer_closed.is_some_and(|closed| {
        connection
            .exchanges()
            .last()
            .is_some_and(|last| last.last_byte > closed.plus(AFTERWARDS))
    });
    half_closed || served_on
}

fn case(
    scene: &Scene<'_>,
    docket: &Docket,
    severity: Severity,
    group: &[Kept<'_>],
) -> Option<Case> {
    let model = scene.model;
    let example = group
        .iter()
        .find(|kept| opened_in(model, kept.connection).is_some())
        .or(group.first())?;
    let connection = example.connection;
    let number = group.len() as u64;
    let who = model.owner(connection);
    let owners = owners(model, group);
    let opener = Opener::of(model, group.iter().map(|kept| kept.connection));
    let in_window = group
        .iter()
        .filter(|kept| !closed_before(kept.connection))
        .count();
    let growth = in_window as f64 / model.watched().as_secs_f64().max(0.001);
    let mut measured = Measured {
        connections: Some(number),
        growth_per_s: Some(growth),
        unread_bytes: Some(
            group
                .iter()
                .filter_map(|kept| kept.connection.unread?.1)
                .sum::<u64>(),
        )
        .filter(|bytes| *bytes > 0),
        ..Measured::default()
    };
    let age = |kept: &Kept<'_>| model.now().since(kept.since);
    measured.waits(group.iter().map(age).collect());
    let table = model
        .tables()
        .find(|table| table.last.1.pid == connection.pid);
    if let Some(table) = table {
        measured.descriptors = Some(table.last.1.open);
        measured.descriptors_limit = Some(table.last.1.limit);
    }
    let mut confidence = Confidence::SEEN;
    if connection.other_end.is_none() && connection.role == Role::Server {
        confidence = confidence.but(Doubt::OneEnd);
    }
    let whom = match connection.role {
        Role::Client => format!("to {}", connection.remote),
        Role::Server => format!("on port {}", connection.local.port()),
    };
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::CloseWaitLeak,
        severity,
        confidence: confidence.number(),
        count: number,
        title: format!(
            "{} keeps {number} connections {whom} that their peers have closed",
            workers::named(who.clone(), group.iter().map(|kept| kept.connection))
        ),
        explanation: explanation(model, group, &owners, opener.as_ref(), in_window),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: Vec::new(),
        setting: None,
        code: opener
            .as_ref()
            .map(|opener| opener.frame)
            .or_else(|| place(owners.first()?))
            .cloned(),
        goroutines: owners.into_iter().take(1).collect(),
        measured,
        evidence: evidence(model, example),
        advice: advice(&who, group),
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: group
            .iter()
            .all(|kept| closed_before(kept.connection))
            .then(|| {
                "Their peers closed before the window began, so where they were opened was not seen.".into()
            }),
    };
    let cause = group
        .iter()
        .find_map(|kept| docket.explaining(kept.connection.socket));
    Some(Case {
        finding,
        cause,
        // They explain no failed request: nobody waits for them any more.
        explains: Default::default(),
    })
}

/// The peer had closed when the connection was found.
fn closed_before(connection: &Connection) -> bool {
    connection.origin == Origin::Found && connection.peer_closed <= Some(connection.opened)
}

/// How much harm those of one process do. A server has no reason to keep them. A client may have a pool, which is held for innocent unless it
/// leaves responses unread, or goes on opening, or was closed on in mid-conversation again and again.
fn severity(scene: &Scene<'_>, group: &[Kept<'_>]) -> Severity {
    let serves = group
        .iter()
        .any(|kept| kept.connection.role == Role::Server);
    let unread = group
        .iter()
        .filter(|kept| kept.connection.unread.is_some())
        .count();
    if serves
        || group.len() >= MANY
        || unread >= SEVERAL
        || goes_on_opening(scene, group)
        || closed_in_conversation(scene.model, group)
    {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// A pool that takes from what it holds would have met the dead ones before it opened others.
fn goes_on_opening(scene: &Scene<'_>, group: &[Kept<'_>]) -> bool {
    let mut closes: Vec<BootInstant> = group
        .iter()
        .filter_map(|kept| kept.connection.peer_closed)
        .collect();
    closes.sort();
    let (Some(several), Some(first)) = (closes.get(SEVERAL - 1), group.first()) else {
        return false;
    };
    let opened = scene
        .clients_of(first.connection.pid)
        .iter()
        .filter(|other| other.remote == first.connection.remote && other.opened > *several)
        .count();
    opened >= SEVERAL
}

/// The peers closed soon after the last byte, each by itself, while the peer's process lives on: that
/// is how a conversation ends, not how an idle one is cleared away.
fn closed_in_conversation(model: &Model, group: &[Kept<'_>]) -> bool {
    let mut closes: Vec<BootInstant> = group
        .iter()
        .filter_map(|kept| {
            let connection = kept.connection;
            let closed = connection.peer_closed?;
            let moved = connection.exchanges().last().map(|last| last.last_byte);
            let soon = closed.since(moved.unwrap_or(connection.opened)) < IDLE;
            let ended = model
                .other_end(connection)
                .and_then(|other| model.process(other.pid))
                .is_some_and(|peer| peer.ended.is_some());
            (soon && !ended && !closed_before(connection)).then_some(closed)
        })
        .collect();
    closes.sort();
    let acts = closes
        .windows(2)
        .filter(|pair| matches!(pair, [one, next] if next.since(*one) > ONE_ACT))
        .count();
    closes.len() >= SEVERAL && acts + 1 >= HABIT
}

/// The goroutines that have their hands on them: who serves, or who opened, where it still is.
fn owners(model: &Model, group: &[Kept<'_>]) -> Vec<Witness> {
    let mut owners: Vec<Witness> = Vec::new();
    for kept in group {
        let connection = kept.connection;
        let owner = match connection.role {
            Role::Server => serving(model, connection),
            Role::Client => connection
                .opened_by
                .and_then(|actor| at_last(model, actor.pid, actor.goroutine?)),
        };
        if let Some(owner) = owner
            && (connection.role == Role::Server || owners.iter().all(|known| known.id != owner.id))
        {
            owners.push(owner);
        }
    }
    owners
}

fn explanation(
    model: &Model,
    group: &[Kept<'_>],
    owners: &[Witness],
    opener: Option<&Opener<'_>>,
    in_window: usize,
) -> String {
    let longest = group
        .iter()
        .map(|kept| model.now().since(kept.since))
        .max()
        .unwrap_or_default();
    let mut told = vec![format!(
        "The peers of {} sent FIN, up to {} ago, and {} has closed none of them: they stay in CLOSE_WAIT, each with its file descriptor.",
        count(group.len() as u64, "connection", "connections"),
        seconds(longest),
        group
            .first()
            .map_or_else(String::new, |kept| model.owner(kept.connection)),
    )];
    if in_window > 0 {
        told.push(format!(
            "{in_window} came to be so in this window, {:.1} each second.",
            in_window as f64 / model.watched().as_secs_f64().max(0.001)
        ));
    }
    if let Some(opener) = opener {
        told.push(format!(
            "{} opened {} of them.",
            brief(opener.frame),
            opener.number
        ));
    }
    if let Some(crowds) = crowds(owners) {
        told.push(format!(
            "Of the goroutines that have them in hand, {crowds}."
        ));
    }
    let unread = group
        .iter()
        .filter(|kept| kept.connection.unread.is_some())
        .count() as u64;
    if unread > 0 {
        told.push(format!(
            "In {unread} of them bytes of the peer lie unread, its FIN behind them."
        ));
    }
    told.join(" ")
}

fn advice(who: &str, group: &[Kept<'_>]) -> Vec<String> {
    let serves = group
        .iter()
        .any(|kept| kept.connection.role == Role::Server);
    vec![if serves {
        format!(
            "Let {who} close a connection in every path, also when reading from it gives io.EOF; in a handler, return when the request's Context() is done."
        )
    } else {
        format!(
            "Let {who} close what it opens in every path (defer conn.Close(), and for net/http read and close every response's Body); a read that gives io.EOF means that the peer is gone."
        )
    }]
}

fn evidence(model: &Model, example: &Kept<'_>) -> Vec<Evidence> {
    let connection = example.connection;
    let who = model.owner(connection);
    let mut timeline = Timeline::of(model);
    let opened = match (connection.origin, connection.role) {
        (Origin::Found, _) => "the window begins; the connection is there".to_owned(),
        (_, Role::Client) => format!("{who} connects to {}", connection.remote),
        (_, Role::Server) => format!("{} connects to {who}", connection.remote),
    };
    timeline.add(connection.opened, "open", opened);
    let last = connection.exchanges().pop();
    timeline.add_if(last.map(|exchange| exchange.last_byte), "last", || {
        "the last byte goes over it".into()
    });
    timeline.add_if(connection.peer_closed, "close", || {
        if closed_before(connection) {
            format!("{} had closed it before", connection.remote)
        } else {
            format!("{} closes it (FIN)", connection.remote)
        }
    });
    timeline.add(
        model.now(),
        "waiting",
        format!("{who} has not closed it by the end of the window"),
    );
    timeline.evidence()
}
