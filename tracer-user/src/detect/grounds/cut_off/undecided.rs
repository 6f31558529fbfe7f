//! Requests that were cut off with no deadline seen: programs that are not Go, a Go program whose
//! deadlines could not be probed, or a packet capture.
//!
//! What is left is the order of events. A server says it itself with status 408. A `net/http` server
//! that closes without an answer and without a panic does so only when a limit has passed. Others
//! close for many reasons; time is blamed where the same wait is seen again and again.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{BootInstant, SocketId},
    model::{Connection, Exchange, Service},
};

use super::{
    super::{
        closing::{Raised, by_http_server, closing_frames, ending},
        crossing::last_request,
        limit::{ENOUGH, crowd, separate_acts},
        scene::Scene,
    },
    Answers, CutOff, ServerLimit, place, reading_since, was_sending,
};

/// "Request Timeout", RFC 9110 section 15.5.9.
const REQUEST_TIMEOUT: u16 = 408;

/// Nobody sets a limit shorter than this; what ends sooner had another reason.
const SHORTEST: Duration = Duration::from_millis(50);

/// The function at which passing deadlines are seen.
const WATCHED_AT: &str = "netpolldeadline";

pub(super) fn all<'m>(
    scene: &Scene<'m>,
    servers: &[&'m Connection],
    answers: &Answers,
) -> Vec<CutOff<'m>> {
    let mut all = Vec::new();
    let mut silent: BTreeMap<(Service, u16), Vec<CutOff<'m>>> = BTreeMap::new();
    for connection in servers {
        if let Some(cut) = said(connection, answers).or_else(|| by_go(scene, connection)) {
            all.push(cut);
        } else if let Some(cut) = closed_silently(scene, connection) {
            let place = place(scene, connection);
            silent.entry(place).or_default().push(cut);
        }
    }
    all.extend(silent.into_values().flat_map(believable));
    all
}

/// The server's own word.
fn said<'m>(connection: &'m Connection, answers: &Answers) -> Option<CutOff<'m>> {
    let exchange = connection
        .exchanges()
        .into_iter()
        .find(|exchange| exchange.status == Some(REQUEST_TIMEOUT) && exchange.request_bytes > 0)?;
    let at = exchange.first_byte?;
    let since = reading_since(connection, &exchange);
    if at.since(since) < SHORTEST || answers.passed_on(connection, &exchange) {
        return None;
    }
    Some(CutOff {
        doubts: vec![Doubt::SettingUnknown],
        ..unknown(connection, exchange, since, at, Confidence::SEEN)
    })
}

/// `net/http`'s server closed without an answer, and no handler had panicked.
fn by_go<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<CutOff<'m>> {
    let (exchange, at) = unanswered(scene, connection)?;
    let frames = closing_frames(scene.model, connection);
    let hooks = &scene.model.source().hooks;
    let watched = hooks.iter().any(|hook| hook.by.contains(WATCHED_AT));
    if watched || !by_http_server(frames) || Raised::of(frames).is_some() {
        return None;
    }
    // A handler that returned has answered, so either none ran, for the head was not whole, or what it
    // wrote was thrown away. A head that trickles in is the rarer case, and looks it.
    let head_trickled = exchange.request_ended.since(exchange.started) >= SHORTEST
        && was_sending(&exchange, at)
        && exchange
            .head
            .as_ref()
            .is_some_and(|head| matches!(head.method.as_str(), "GET" | "HEAD" | "DELETE"));
    let (limit, since) = if head_trickled {
        (
            ServerLimit::ReadHeader,
            reading_since(connection, &exchange),
        )
    } else {
        (ServerLimit::Write, exchange.started)
    };
    Some(CutOff {
        limit,
        setting: limit.named(),
        at_most: limit == ServerLimit::Write,
        doubts: vec![Doubt::SettingInferred, Doubt::Ambiguous],
        ..unknown(connection, exchange, since, at, Confidence::SEEN)
    })
}

/// A server of which no more is known than that it closed.
fn closed_silently<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<CutOff<'m>> {
    let (exchange, at) = unanswered(scene, connection)?;
    let frames = closing_frames(scene.model, connection);
    let go = scene.model.is_go(connection.pid);
    if (go && !frames.is_empty()) || at.since(exchange.request_ended) < SHORTEST {
        return None; // the line that closed says more
    }
    let since = exchange.request_ended;
    let doubted = Confidence::from_timing(1);
    Some(unknown(connection, exchange, since, at, doubted))
}

/// The last request, where the server left it without a byte of an answer, and when.
fn unanswered(scene: &Scene<'_>, connection: &Connection) -> Option<(Exchange, BootInstant)> {
    let exchange = last_request(connection)?;
    let at = connection.left()?;
    let left_first = connection.peer_left().is_some_and(|left| left <= at);
    let fits = !exchange.answered() && !left_first && !ending(scene, connection, at);
    fits.then_some((exchange, at))
}

fn unknown<'m>(
    connection: &'m Connection,
    exchange: Exchange,
    since: BootInstant,
    at: BootInstant,
    confidence: Confidence,
) -> CutOff<'m> {
    CutOff {
        waited: at.since(since),
        sending: was_sending(&exchange, at),
        connection,
        exchange,
        at,
        at_most: false,
        limit: ServerLimit::Unknown,
        setting: None,
        confidence,
        doubts: Vec::new(),
    }
}

/// Of those that one server closed, those that waited alike, and were ended by separate acts. The wait
/// may count from the last byte that came, or from the first.
fn believable(mut together: Vec<CutOff<'_>>) -> Vec<CutOff<'_>> {
    let from_last = alike(&mut together);
    for cut in &mut together {
        cut.waited = cut.at.since(reading_since(cut.connection, &cut.exchange));
    }
    let from_first = alike(&mut together);
    let (best, counts_from_last) = if from_last.len() > from_first.len() {
        (from_last, true)
    } else {
        (from_first, false)
    };
    let confidence = Confidence::from_timing(best.len());
    together
        .into_iter()
        .filter(|cut| best.contains(&cut.connection.socket))
        .map(|cut| CutOff {
            waited: if counts_from_last {
                cut.at.since(cut.exchange.request_ended)
            } else {
                cut.waited
            },
            confidence,
            ..cut
        })
        .collect()
}

/// The connections with the largest number of alike waits; none where there are too few.
fn alike(together: &mut [CutOff<'_>]) -> HashSet<SocketId> {
    together.sort_by_key(|cut| cut.waited);
    let waits: Vec<Duration> = together.iter().map(|cut| cut.waited).collect();
    let best = together.get(crowd(&waits)).unwrap_or_default();
    if separate_acts(best.iter().map(|cut| cut.at)) < ENOUGH {
        return HashSet::new();
    }
    best.iter().map(|cut| cut.connection.socket).collect()
}
