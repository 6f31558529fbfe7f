//! `packet-loss`: packets were lost, and requests or responses waited until they were sent again.
//!
//! Not accused: segments sent again that nobody waited for, probes of a closed window, a SYN sent again
//! (a full accept queue drops SYNs too; that is `connect-timeout`'s to tell), and one client among
//! many whose path is bad.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use crate::{
    event::{Message, Role},
    model::{Connection, Model, Peer, Tally},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Severity, Subject},
    grounds::{
        breakdown::Breakdown,
        drops::{dropper, drops},
        hands,
        lateness::is_plain,
        loss::{self, Held},
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
    },
    wording::{count, join, seconds},
};

/// A smaller share of messages held up is what the internet does.
const ORDINARY: f64 = 0.01;

/// Who waits this long for lost packets notices.
const LONG: Duration = Duration::from_secs(1);

/// What is told together: a process and whom it talks to, or the port that it serves, on whichever of
/// its addresses.
fn place(connection: &Connection) -> Peer {
    let mut place = connection.peer();
    if place.serves {
        place.address.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    place
}

/// Adds a case for each place at which messages were held up.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut by_place: BTreeMap<_, (Peer, Vec<Held<'_>>)> = BTreeMap::new();
    for held in loss::all(scene.model) {
        // Both ends on this host are one path, told by the end that serves.
        let end = match held.connection.role {
            Role::Client => scene
                .model
                .other_end(held.connection)
                .unwrap_or(held.connection),
            Role::Server => held.connection,
        };
        let place = place(end);
        let key = (scene.service(place.pid), place.serves, place.address);
        let (_, all) = by_place.entry(key).or_insert((place, Vec::new()));
        all.push(held);
    }
    for (place, held) in by_place.into_values() {
        if let Some(case) = case(scene, place, &held) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, place: Peer, held: &[Held<'_>]) -> Option<Case> {
    let model = scene.model;
    let all = exchanges(scene, place);
    let longest = held.iter().max_by_key(|held| held.delay())?;
    let (connection, exchange) = (longest.connection, &longest.exchange);
    let number = held.len() as u64;
    let share = number as f64 / all.exchanges.max(number) as f64;
    let noticed = held.iter().filter(|held| held.delay() >= LONG).count() as f64;
    let few = noticed < all.exchanges as f64 * ORDINARY && share < ORDINARY;
    let ends = both_ends(model, held);
    let again: u64 = ends.iter().map(|c| u64::from(c.retransmits)).sum();
    let dropped = drops(ends.iter().copied());
    let mut measured = Measured {
        requests: Some(all.exchanges),
        requests_slow: Some(number),
        retransmits: Some(again),
        drops: dropped.clone(),
        parts_s: Breakdown::of_exchange(scene, connection, exchange).measured(),
        ..Measured::default()
    };
    measured.waits(held.iter().map(Held::delay).collect());
    let mut doubts = Vec::new();
    if !held.iter().any(|held| held.both_ends) {
        doubts.push(Doubt::OneEnd);
    }
    let path = path(model, place, held);
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::PacketLoss,
        severity: if few {
            Severity::Info
        } else {
            Severity::Warning
        },
        confidence: Confidence::SEEN.but_all(&doubts).number(),
        count: number,
        title: format!(
            "packets were lost between {path}: {} waited up to {} for them",
            count(number, "message", "messages"),
            seconds(longest.delay())
        ),
        explanation: explanation(held, all.exchanges, again, &dropped, &path),
        process: Subject::of(model, place.pid),
        connection: Some(connection.into()),
        related_connections: model
            .other_end(connection)
            .into_iter()
            .map(Ends::from)
            .collect(),
        setting: None,
        code: None,
        goroutines: hands::on(model, connection, exchange),
        measured,
        evidence: evidence(model, longest),
        advice: vec![advice(&dropped, longest.connection)],
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: dropped.is_empty().then(|| {
            "This kernel did not drop them where it would say so; where they were lost is not to be seen from here.".into()
        }),
    };
    Some(Case {
        finding,
        cause: None,
        explains: ends.iter().map(|end| end.socket).collect(),
    })
}

/// The connections, and their other ends.
fn both_ends<'m>(model: &'m Model, held: &[Held<'m>]) -> Vec<&'m Connection> {
    let mut known = BTreeSet::new();
    held.iter()
        .flat_map(|held| [Some(held.connection), model.other_end(held.connection)])
        .flatten()
        .filter(|end| known.insert(end.socket))
        .collect()
}

fn exchanges(scene: &Scene<'_>, place: Peer) -> Tally {
    let traffic = if place.serves {
        scene.served_at(place.pid, place.address)
    } else {
        scene.asked(place.pid, place.address)
    };
    traffic.exchanges
}

/// From where to where.
fn path(model: &Model, place: Peer, held: &[Held<'_>]) -> String {
    let who = model.name(place.pid);
    let mut peers: Vec<IpAddr> = held
        .iter()
        .map(|held| held.connection.client().ip())
        .collect();
    peers.sort_unstable();
    peers.dedup();
    let port = place.address.port();
    match peers.as_slice() {
        _ if !place.serves => format!("{who} and {}", place.address),
        [one] => format!("{one} and {who} on port {port}"),
        many => format!("{} addresses and {who} on port {port}", many.len()),
    }
}

fn explanation(
    held: &[Held<'_>],
    all: u64,
    again: u64,
    dropped: &BTreeMap<String, u64>,
    path: &str,
) -> String {
    let of = |message| held.iter().filter(|held| held.message == message).count() as u64;
    let parts: Vec<String> = [
        (Message::Request, "request", "requests"),
        (Message::Response, "response", "responses"),
    ]
    .into_iter()
    .filter(|(message, ..)| of(*message) > 0)
    .map(|(message, one, many)| count(of(message), one, many))
    .collect();
    let sum: Duration = held.iter().map(Held::delay).sum();
    let mut told = vec![format!(
        "Between {path} {} of {} stood still until a retransmission timer sent lost packets again, {} in all; {} again on these connections.",
        join(&parts),
        count(all.max(held.len() as u64), "exchange", "exchanges"),
        seconds(sum),
        count(again, "segment was sent", "segments were sent"),
    )];
    let vain = held.iter().filter(|held| held.in_vain).count() as u64;
    if vain > 0 {
        told.push(format!(
            "{} never got through.",
            count(vain, "message", "messages")
        ));
    }
    if !dropped.is_empty() {
        let by: Vec<String> = dropped.keys().map(|reason| dropper(reason)).collect();
        told.push(format!("Packets were dropped on this host {}.", join(&by)));
    }
    told.join(" ")
}

fn advice(dropped: &BTreeMap<String, u64>, connection: &Connection) -> String {
    let (peer, port) = (connection.remote.ip(), connection.server().port());
    if dropped.contains_key("NETFILTER_DROP") {
        format!(
            "Find the rule that drops packets between {} and {peer}, port {port}: nft list ruleset, or iptables-save.",
            connection.local.ip()
        )
    } else {
        format!(
            "Look for loss on the path to {peer}: ip -s link (errors, drops), ethtool -S, the switch's and the peer's counters; mtr -T -P {port} {peer} shows where."
        )
    }
}

fn evidence(model: &Model, held: &Held<'_>) -> Vec<Evidence> {
    let connection = held.connection;
    let who = model.owner(connection);
    let mut timeline = Timeline::of(model);
    let head = if is_plain(&held.exchange) || held.exchange.head.is_none() {
        what(&held.exchange)
    } else {
        "an exchange".into()
    };
    timeline.add(held.exchange.started, "begin", format!("{head} begins"));
    timeline.add(held.from, "stop", "the last byte before the gap".into());
    let ends = [Some(connection), model.other_end(connection)];
    for end in ends.into_iter().flatten() {
        let name = model.owner(end);
        let during = end
            .retransmitted
            .iter()
            .filter(|at| (held.from..=held.until).contains(at));
        for at in during.take(8) {
            timeline.add(
                *at,
                "again",
                format!("{name}'s kernel sends a segment again to {}", end.remote),
            );
        }
    }
    let until = if held.in_vain {
        format!("no more came of it, as far as {who} could see")
    } else {
        "bytes flow again".into()
    };
    timeline.add(held.until, "go on", until);
    timeline.evidence()
}
