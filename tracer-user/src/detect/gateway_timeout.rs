//! `proxy-timeout`, told by the proxy itself: it answers 504.
//!
//! Status 504 says that an upstream did not answer in time (RFC 9110, 15.6.5). Where the giving up was seen,
//! [`super::proxy_timeout`] tells of it. It is not where the client is none that we know (gRPC, drivers of
//! databases, streams that share a connection), so the answer alone says what happened. Not accused: one
//! that answers 504 at once, without having asked, and one that passes on what its upstream answered, or may:
//! under TLS a status is not seen, nor is anything of an upstream behind a Unix socket.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    event::{BootInstant, Frame, Pid},
    model::{Connection, Exchange},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Finding, Measured, Rule, Subject},
    grounds::{
        hands,
        harm::{severity_of, were_harmed},
        limit::{alike, separate_acts, set_to},
        scene::Scene,
        standing::serves_http,
        telling::{Timeline, wireshark_filter},
    },
    own_code::{brief, own_frame},
    wording::seconds,
};

const GATEWAY_TIMEOUT: u16 = 504;

/// Fewer tell no limit.
const SEVERAL: usize = 3;

/// Who answers sooner did not wait for anybody.
const WAITED: Duration = Duration::from_millis(20);

/// An answer is passed on this soon.
const PASSED_ON: Duration = Duration::from_millis(20);

/// A request that was answered 504, with how long it had waited.
struct Expired<'m> {
    connection: &'m Connection,
    exchange: Exchange,
    waited: Duration,
}

/// Adds a case for each process that answers so on a port.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut places: BTreeMap<(Pid, u16), Vec<Expired<'_>>> = BTreeMap::new();
    for connection in scene.servers() {
        if docket.explaining(connection.socket).is_some() {
            continue;
        }
        for exchange in connection.exchanges() {
            if let Some(expired) = expired(scene, connection, exchange) {
                let place = (connection.pid, connection.local.port());
                places.entry(place).or_default().push(expired);
            }
        }
    }
    for all in places.into_values() {
        if let Some(case) = case(scene, &all) {
            docket.add(case);
        }
    }
}

fn expired<'m>(
    scene: &Scene<'m>,
    connection: &'m Connection,
    exchange: Exchange,
) -> Option<Expired<'m>> {
    let answered = exchange.first_byte?;
    let waited = answered.since(exchange.request_ended);
    if exchange.status != Some(GATEWAY_TIMEOUT) || waited < WAITED {
        return None;
    }
    let mut upstream = scene.clients_of(connection.pid).iter();
    if upstream.any(|upstream| {
        let mut asked = upstream.exchanges().into_iter();
        asked.any(|asked| may_be_passed_on(&asked, answered))
    }) {
        return None;
    }
    Some(Expired {
        connection,
        exchange,
        waited,
    })
}

/// Whether an answer of an upstream is, or may be, the 504 that was sent at `sent`.
fn may_be_passed_on(asked: &Exchange, sent: BootInstant) -> bool {
    let Some(told) = asked.first_byte else {
        return false;
    };
    let may_be_one = asked.status.map_or_else(
        || told.since(asked.request_ended) >= WAITED,
        |status| status == GATEWAY_TIMEOUT,
    );
    may_be_one && told <= sent && sent.since(told) <= PASSED_ON
}

fn case(scene: &Scene<'_>, all: &[Expired<'_>]) -> Option<Case> {
    let acts = all.iter().filter_map(|expired| expired.exchange.first_byte);
    if separate_acts(acts) < SEVERAL {
        return None;
    }
    let model = scene.model;
    let example = all.iter().min_by_key(|expired| expired.waited)?;
    let connection = example.connection;
    // Whom it asks is not seen then, nor what they answer.
    if scene.clients_of(connection.pid).is_empty() {
        return None;
    }
    let waits: Vec<Duration> = all.iter().map(|expired| expired.waited).collect();
    let longest = waits.iter().max().copied()?;
    let value = set_to(&waits, true).filter(|_| alike(example.waited, longest));
    let (who, number) = (model.name(connection.pid), all.len() as u64);
    let served = scene.served_at(connection.pid, connection.local).exchanges;
    let upstream = only_upstream(scene, connection.pid);
    let whom = upstream.map_or_else(|| "its upstream".into(), |one| one.to_string());
    let at = stands_at(scene, connection.pid);
    let mut measured = Measured {
        requests: Some(served.exchanges),
        requests_harmed: Some(number),
        requests_fine: Some(served.fine()),
        request_bytes: Some(example.exchange.request_bytes),
        ..Measured::default()
    };
    measured.waits(waits);
    let status = GATEWAY_TIMEOUT.to_string();
    measured.harmed_by_status.insert(status, number);
    let after = value.map_or(example.waited, Duration::from_secs_f64);
    let title = format!(
        "{who} gave up on {whom} after {} and answered {GATEWAY_TIMEOUT}",
        seconds(after)
    );
    let wait = value.map_or_else(
        || format!("{} or more", seconds(example.waited)),
        |_| format!("the same {}", seconds(after)),
    );
    let mut explanation = format!(
        "{}: {who} answered them {GATEWAY_TIMEOUT}, which says that an upstream had not answered in time, after {wait}.",
        were_harmed(number, served.exchanges)
    );
    if let Some(at) = &at {
        explanation.push_str(&format!(" Its handlers waited at {}.", brief(at)));
    }
    let mut confidence = Confidence::SEEN.but_all(&[Doubt::SettingUnknown, Doubt::OneEnd]);
    if value.is_none() {
        confidence = confidence.but(Doubt::Ambiguous);
    }
    let mut timeline = Timeline::of(model);
    timeline.request_read(connection, &example.exchange);
    timeline.outcome(connection, &example.exchange);
    let place = at
        .as_ref()
        .map_or_else(String::new, |at| format!(" at {}", brief(at)));
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::ProxyTimeout,
        severity: severity_of(number, served.exchanges),
        confidence: confidence.number(),
        count: number,
        title,
        explanation,
        process: Subject::of(model, connection.pid),
        connection: Some(connection.into()),
        related_connections: Vec::new(),
        setting: None,
        goroutines: hands::on(model, connection, &example.exchange),
        measured,
        evidence: timeline.evidence(),
        advice: vec![
            format!("See why {whom} takes longer than that, or give it more time where {who} sets its limit{place}."),
        ],
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: Some(
            "Its giving up was not seen, so neither the request to the upstream nor the setting is known: the limit is concluded from what it answered.".into(),
        ),
        code: at,
    };
    Some(Case {
        finding,
        cause: None,
        explains: all
            .iter()
            .map(|expired| expired.connection.socket)
            .collect(),
    })
}

/// The only address that `pid` asks.
fn only_upstream(scene: &Scene<'_>, pid: Pid) -> Option<SocketAddr> {
    let mut asked = scene.clients_of(pid).iter().map(|upstream| upstream.remote);
    let first = asked.next()?;
    asked.all(|other| other == first).then_some(first)
}

/// The program's own line at which most of its handlers waited.
fn stands_at(scene: &Scene<'_>, pid: Pid) -> Option<Frame> {
    let mut lines: BTreeMap<String, (u64, &Frame)> = BTreeMap::new();
    let places = scene.model.attendances(pid);
    let waiting = places.iter().filter(|place| {
        serves_http(place.frames) && ["select", "chan receive", "IO wait"].contains(&place.state)
    });
    for place in waiting {
        if let Some(own) = own_frame(place.frames) {
            let seen: u64 = place.course.iter().map(|muster| muster.count).sum();
            lines.entry(brief(own)).or_insert((0, own)).0 += seen;
        }
    }
    let most = lines.into_values().max_by_key(|(seen, _)| *seen)?;
    Some(most.1.clone())
}
