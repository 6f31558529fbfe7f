//! Every request that went out on a pooled connection while the server was closing it, and what became
//! of it.

use std::time::Duration;

use crate::{
    event::{BootInstant, Decider, RequestHead, Role},
    model::{Connection, Exchange},
};

use super::{
    broken,
    closing::{by_http_server, closing_frames, ending},
    crossing::{crossing, met_a_closing, used_before, was_read},
    harm::Fate,
    scene::Scene,
};

/// How soon a client that tries again does so.
const AGAIN: Duration = Duration::from_millis(100);

/// Events come only almost in order.
const SLACK: Duration = Duration::from_millis(2);

/// How soon after its deadline a server closes.
const DEADLINE_TO_CLOSE: Duration = Duration::from_millis(50);

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client sent it again on another connection.
    Retried,
    /// The request for whose sake it was sent was answered all the same.
    Saved,
    /// Nobody answered it.
    Lost,
    /// The client is not traced.
    Unknown,
}

pub(crate) struct Race<'m> {
    /// The end it is told from.
    pub(crate) connection: &'m Connection,
    pub(crate) exchange: Exchange,
    /// When the server closed, as that end knows it.
    pub(crate) closed: BootInstant,
    pub(crate) client_idle: Option<Duration>,
    pub(crate) server_idle: Option<Duration>,
    /// The server's deadline for an idle connection had passed.
    pub(crate) by_idle_limit: bool,
    pub(crate) outcome: Outcome,
}

impl<'m> Race<'m> {
    /// On this connection, as its own end saw it.
    pub(crate) fn on(scene: &Scene<'m>, connection: &'m Connection) -> Option<Self> {
        match connection.role {
            Role::Client => by_client(scene, connection),
            Role::Server => by_server(scene, connection),
        }
    }

    /// When the request had failed.
    pub(crate) fn failed(&self) -> BootInstant {
        self.closed.max(self.exchange.started)
    }

    /// net/http's transport sends such a request again by itself.
    pub(crate) fn is_repeatable(&self) -> bool {
        let head = self.exchange.head.as_ref();
        head.is_some_and(|head| repeatable(&head.method))
    }
}

fn by_client<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Race<'m>> {
    let exchange = last_sent(connection)?;
    let learnt = connection.peer_left()?;
    let we_left_first = connection.left().is_some_and(|left| left < learnt);
    if exchange.answered()
        || connection.heard_unseen()
        || we_left_first
        || !met_a_closing(connection, &exchange, learnt)
    {
        return None;
    }
    let server = scene.model.other_end(connection);
    if server.is_some_and(|server| was_read(server, &exchange) || ending(scene, server, learnt)) {
        return None;
    }
    let closed = server.and_then(Connection::left).unwrap_or(learnt);
    let idle = |end: &Connection, until: BootInstant| {
        let before = answered_before(end, until)?;
        Some(until.since(before.last_byte))
    };
    Some(Race {
        client_idle: idle(connection, exchange.started),
        server_idle: match server {
            Some(server) => idle(server, closed),
            // Only a FIN tells when the server closed; RST answers the request.
            None => connection.peer_closed.and_then(|fin| idle(connection, fin)),
        },
        by_idle_limit: server.is_some_and(|server| idle_limit_passed(scene, server, closed)),
        outcome: outcome(scene, connection, &exchange, learnt),
        connection,
        exchange,
        closed,
    })
}

/// The last request that left for the server. RST may answer it before the call that sends it returns,
/// so that only its head is known.
fn last_sent(connection: &Connection) -> Option<Exchange> {
    let last = connection.exchanges().pop()?;
    last.head.is_some().then_some(last)
}

/// The request lay in the socket, unread, when the server closed, or came just after.
fn by_server<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Race<'m>> {
    let closed = connection.left()?;
    let client_left_first = connection.peer_left().is_some_and(|left| left <= closed);
    if connection.other_end.is_some() || client_left_first || ending(scene, connection, closed) {
        return None;
    }
    let exchange = connection.exchanges().pop()?;
    let unread = exchange.head.is_some()
        && exchange.request_bytes == 0
        && !exchange.answered()
        && used_before(connection, &exchange)
        && exchange.started.plus(crossing(connection, &exchange)) >= closed;
    if !unread {
        return None;
    }
    let before = answered_before(connection, exchange.started);
    Some(Race {
        client_idle: before
            .as_ref()
            .map(|before| exchange.started.since(before.last_byte)),
        server_idle: before.map(|before| closed.since(before.last_byte)),
        by_idle_limit: idle_limit_passed(scene, connection, closed),
        outcome: Outcome::Unknown,
        connection,
        exchange,
        closed,
    })
}

/// The exchange after which the connection was idle at `at`.
pub(crate) fn answered_before(end: &Connection, at: BootInstant) -> Option<Exchange> {
    end.exchanges()
        .into_iter()
        .rfind(|exchange| exchange.answered() && exchange.last_byte <= at)
}

/// A Go server closed because its deadline for reading had passed, with nothing there to read. Of an
/// ordinary close no stack is told.
fn idle_limit_passed(scene: &Scene<'_>, server: &Connection, closed: BootInstant) -> bool {
    let frames = closing_frames(scene.model, server);
    (frames.is_empty() || by_http_server(frames))
        && server.deadlines.iter().any(|deadline| {
            deadline.of == Decider::ReadDeadline
                && deadline.at <= closed.plus(SLACK)
                && closed.since(deadline.at) <= DEADLINE_TO_CLOSE
        })
}

fn outcome(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: &Exchange,
    learnt: BootInstant,
) -> Outcome {
    let failed = learnt.max(exchange.started);
    if sent_again(scene, connection, exchange, failed) {
        return Outcome::Retried;
    }
    let serving = broken::serving(scene, connection, failed);
    match serving.and_then(|pairing| broken::fate(scene, &pairing)) {
        Some(Fate::Fine | Fate::ClientLeft | Fate::Open) => Outcome::Saved,
        Some(Fate::Empty | Fate::Failed(_)) | None => Outcome::Lost,
    }
}

/// The same request went out once more, on another connection. One that may not be repeated is known
/// by its trace only: another of its kind may be sent at any time.
fn sent_again(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: &Exchange,
    failed: BootInstant,
) -> bool {
    let Some(head) = &exchange.head else {
        return false;
    };
    let same = |other: &RequestHead| {
        other.method == head.method
            && other.path == head.path
            && (repeatable(&head.method)
                || (head.traceparent.is_some() && other.traceparent == head.traceparent))
    };
    scene.clients_of(connection.pid).iter().any(|other| {
        other.socket != connection.socket
            && other.remote == connection.remote
            && other.exchanges().iter().any(|again| {
                again.started.plus(SLACK) >= failed
                    && again.started.since(failed) <= AGAIN
                    && again.head.as_ref().is_some_and(same)
            })
    })
}

/// Methods that net/http's transport sends again by itself (`Request.isReplayable`).
fn repeatable(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}
