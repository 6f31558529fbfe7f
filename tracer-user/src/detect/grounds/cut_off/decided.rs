//! Requests that were cut off by a deadline which was seen to pass.

use std::time::Duration;

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{BootInstant, Decider, Frame},
    model::{Connection, Exchange},
};

use super::{
    super::{
        broken::asked,
        closing::{Raised, by_http_server, closing_frames, ending},
        scene::Scene,
    },
    CutOff, ServerLimit, reading_since, was_sending,
};

/// How soon a goroutine that waits on a connection ends the request when its deadline passes.
const PROMPT: Duration = Duration::from_millis(250);

/// A limit this short is none: setting a deadline in the past is how a read is called off.
const SHORTEST: Duration = Duration::from_millis(10);

/// Length of `net/http`'s own answer to a request whose head it could not read to its end: a header that
/// the deadline cut in its name reads as malformed (server.go, `publicErr` of `conn.serve`).
const OWN_BAD_REQUEST: (u16, u64) = (400, 103);

pub(super) fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<CutOff<'m>> {
    connection
        .deadlines
        .iter()
        .find_map(|deadline| match deadline.of {
            Decider::ReadDeadline => reading(scene, connection, deadline.at),
            Decider::WriteDeadline => writing(scene, connection, deadline.at),
            _ => None,
        })
}

/// The request that was in flight when a deadline passed at `at`.
fn in_flight(scene: &Scene<'_>, connection: &Connection, at: BootInstant) -> Option<Exchange> {
    let left_first = connection.peer_left().is_some_and(|left| left <= at);
    let exchange = asked(connection, at)?;
    // On a connection that speaks another protocol now, silence is for that protocol to judge.
    let upgraded = connection
        .exchanges()
        .iter()
        .any(|exchange| exchange.status == Some(101));
    let fits = exchange.request_bytes > 0
        && at.since(exchange.started) >= SHORTEST
        && !left_first
        && !upgraded
        && !ending(scene, connection, at);
    fits.then_some(exchange)
}

fn reading<'m>(
    scene: &Scene<'m>,
    connection: &'m Connection,
    at: BootInstant,
) -> Option<CutOff<'m>> {
    let exchange = in_flight(scene, connection, at)?;
    let answered = exchange.first_byte.filter(|_| exchange.answered());
    if answered.is_some_and(|first| first < at) {
        return None; // idle, or answered before the request was whole
    }
    let left = connection.left().filter(|left| *left >= at);
    let over = [answered, left].into_iter().flatten().min()?;
    let fine = exchange.status.is_some_and(|status| status < 400);
    if over.since(at) > PROMPT || (answered.is_some() && fine) {
        return None;
    }
    let frames = closing_frames(scene.model, connection);
    let http = is_http_servers(frames);
    let sending = was_sending(&exchange, at);
    let mut doubts = Vec::new();
    let limit = if !http && (!frames.is_empty() || exchange.head.is_none()) {
        if exchange.head.is_none() && !sending {
            return None; // nobody says that an answer, or more of a message, was due
        }
        ServerLimit::Conn
    } else {
        if !http {
            doubts.push(Doubt::SettingInferred);
        }
        let by_server = (exchange.status.unwrap_or(0), exchange.response_bytes) == OWN_BAD_REQUEST;
        if by_server {
            ServerLimit::ReadHeader
        } else if answered.is_some()
            || Raised::of(frames).is_some()
            || write_deadline(connection, over)
        {
            ServerLimit::Read
        } else {
            ServerLimit::ReadHeader
        }
    };
    Some(CutOff {
        waited: at.since(reading_since(connection, &exchange)),
        connection,
        at,
        at_most: false,
        limit,
        setting: limit.named(),
        sending,
        confidence: Confidence::SEEN,
        doubts,
        exchange,
    })
}

/// The connection was `net/http`'s server's to close. The last goroutine to leave a connection closes it, and
/// that may be the one that reads ahead while the handler works; who takes a connection over ends it first.
fn is_http_servers(frames: &[Frame]) -> bool {
    let reads_ahead = "net/http.(*connReader).backgroundRead";
    by_http_server(frames) || frames.iter().any(|frame| frame.function == reads_ahead)
}

/// The deadline for writing is only set once the head has been read.
fn write_deadline(connection: &Connection, until: BootInstant) -> bool {
    connection
        .deadlines
        .iter()
        .any(|deadline| deadline.of == Decider::WriteDeadline && deadline.at <= until)
}

fn writing<'m>(
    scene: &Scene<'m>,
    connection: &'m Connection,
    at: BootInstant,
) -> Option<CutOff<'m>> {
    let exchange = in_flight(scene, connection, at)?;
    let left = connection.left().filter(|left| *left >= at)?;
    let frames = closing_frames(scene.model, connection);
    let http = is_http_servers(frames);
    let answered = exchange.first_byte.filter(|_| exchange.answered());
    let mut doubts = Vec::new();
    match answered {
        // Nothing goes out after it; what did, did so under a later deadline.
        Some(first) if first >= at || exchange.last_byte > at || exchange.complete => return None,
        // Only net/http is known to take its deadline back when the response is whole.
        Some(_) if left.since(at) > PROMPT && !http => return None,
        Some(_) => doubts.push(Doubt::Ambiguous),
        // Its own story, and the deadline had no part in it.
        None if Raised::of(frames).is_some() => return None,
        None if exchange.head.is_none() && left.since(at) > PROMPT => return None,
        None => {}
    }
    let limit = if http || (frames.is_empty() && exchange.head.is_some()) {
        if !http {
            doubts.push(Doubt::SettingInferred);
        }
        ServerLimit::Write
    } else {
        ServerLimit::Conn
    };
    Some(CutOff {
        waited: at.since(exchange.started),
        connection,
        at,
        at_most: false,
        limit,
        setting: limit.named(),
        sending: false,
        confidence: Confidence::SEEN,
        doubts,
        exchange,
    })
}
