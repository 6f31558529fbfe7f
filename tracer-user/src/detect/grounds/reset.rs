//! Every connection that was reset with work in flight: by whom, and why.
//!
//! In flight is a request without an answer, an answer that did not arrive, or bytes that nobody had
//! read. A reset of anything else harms nobody, and is common: of idle pooled connections, by health
//! checks, by clients that have what they wanted.

use std::time::Duration;

use crate::{
    event::{BootInstant, Frame, Role},
    model::{Connection, Exchange, LocalClosed},
};

use super::{
    broken::asked,
    closing::{Raised, closing_frames, ending},
    crossing::met_a_closing,
    scene::Scene,
};

/// Both ends are told of a reset within this.
const BOTH_ENDS: Duration = Duration::from_millis(50);

/// Who sent the RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// The traced server.
    Server,
    /// The client of a traced server, which is that one's right.
    Client,
    /// The server, of which only the client's end is seen.
    UnseenServer,
    /// Neither: the server's socket is still open.
    Between,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The socket was closed with bytes of the peer in it that nobody had read.
    Unread,
    /// The socket was closed with `SO_LINGER` 0.
    Linger,
    /// One of these two.
    UnreadOrLinger,
    /// The socket was closed, and then more bytes of the peer came.
    ClosedBefore,
    /// The kernel's own doing, in its own word.
    Kernel(String),
    /// It was not seen.
    Unseen,
}

#[derive(Debug)]
pub(crate) struct Reset<'m> {
    /// The end it is told from.
    pub(crate) connection: &'m Connection,
    pub(crate) at: BootInstant,
    pub(crate) exchange: Option<Exchange>,
    pub(crate) by: By,
    pub(crate) cause: Cause,
    /// The close that did it.
    pub(crate) closed: Option<LocalClosed>,
    pub(crate) unread: Option<u64>,
    /// A client is known to have waited for what it did not get.
    pub(crate) harmed: bool,
}

impl<'m> Reset<'m> {
    pub(crate) fn on(scene: &Scene<'m>, connection: &'m Connection) -> Option<Self> {
        if !connection.was_established() {
            return None;
        }
        match connection.role {
            Role::Server => by_server(scene, connection).or_else(|| by_client(scene, connection)),
            Role::Client => seen_by_client(scene, connection),
        }
    }

    pub(crate) fn frames(&self, scene: &Scene<'m>) -> &'m [Frame] {
        scene
            .model
            .frames(self.closed.and_then(|closed| closed.stack))
    }
}

/// Our process is the server, and it, or the kernel for it, sent RST.
fn by_server<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Reset<'m>> {
    let aborted = connection.local_closed.filter(|closed| closed.abort);
    let at = match (&connection.reset_sent, aborted) {
        (_, Some(closed)) => closed.at,
        (Some((at, _)), None) => *at,
        (None, None) => return None,
    };
    let left_first = connection.peer_left().is_some_and(|left| left <= at);
    if left_first || ending(scene, connection, at) {
        return None;
    }
    let exchange = asked(connection, at);
    let unanswered = exchange
        .as_ref()
        .is_some_and(|exchange| !exchange.answered());
    let panicked = Raised::of(closing_frames(scene.model, connection)).is_some();
    // What a panic left unanswered is an empty response, whatever ended the connection; so is what was
    // closed without an answer before the client sent on.
    let closed_before = connection.local_closed.is_some() && aborted.is_none();
    if unanswered && (panicked || closed_before) {
        return None;
    }
    let cause = cause(scene, connection, aborted.is_some());
    let harmed = harmed(scene, connection, exchange.as_ref(), &cause)?;
    Some(Reset {
        connection,
        at,
        exchange,
        by: By::Server,
        closed: connection.local_closed,
        unread: connection.unread.and_then(|(_, bytes)| bytes),
        cause,
        harmed,
    })
}

/// Whether a client was surely harmed; `None` where there was nothing in flight.
fn harmed(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: Option<&Exchange>,
    cause: &Cause,
) -> Option<bool> {
    let unread = *cause == Cause::Unread;
    let client = scene.model.other_end(connection);
    match exchange {
        // Nothing was read. Without bytes that wait to be read, that is how a health check looks.
        None => unread.then_some(true),
        Some(exchange) if exchange.answered() => match client {
            Some(client) => {
                let got = client
                    .exchanges()
                    .pop()
                    .is_some_and(|asked| asked.answered());
                (!got).then_some(true)
            }
            // Of the request's rest nobody wanted to know; whether the answer arrived was not seen.
            None => unread.then_some(false),
        },
        Some(exchange) if exchange.request_bytes == 0 && !unread => None,
        // Who speaks another protocol may have wanted no answer, but it wanted its bytes read.
        Some(exchange) => Some(exchange.head.is_some() || unread || client.is_some()),
    }
}

fn cause(scene: &Scene<'_>, connection: &Connection, aborted: bool) -> Cause {
    let word = connection
        .reset_sent
        .as_ref()
        .and_then(|(_, word)| word.as_deref());
    if !aborted {
        return match word {
            Some("TCP_ABORT_ON_DATA") if connection.local_closed.is_some() => Cause::ClosedBefore,
            Some(word) => Cause::Kernel(word.to_owned()),
            None if connection.local_closed.is_some() => Cause::ClosedBefore,
            None => Cause::Unseen,
        };
    }
    match word {
        _ if connection.unread.is_some() => Cause::Unread,
        Some("TCP_ABORT_ON_CLOSE") => Cause::Unread,
        // `tcp_disconnect`, which closing with SO_LINGER 0 comes to, gives one of these.
        Some("TCP_ABORT_ON_LINGER" | "TCP_DISCONNECT_WITH_DATA" | "TCP_STATE") => Cause::Linger,
        _ if sent_more_than_was_read(scene, connection) => Cause::Unread,
        // What lies unread would have been told, and nothing else aborts a close.
        _ if arrivals_are_watched(connection) => Cause::Linger,
        _ => Cause::UnreadOrLinger,
    }
}

fn arrivals_are_watched(connection: &Connection) -> bool {
    let exchanges = connection.exchanges();
    exchanges.iter().any(|exchange| exchange.arrived.is_some())
}

/// The client's end sent more of its last request than the server read.
fn sent_more_than_was_read(scene: &Scene<'_>, server: &Connection) -> bool {
    let Some(client) = scene.model.other_end(server) else {
        return false;
    };
    let sent = client.tally().request_bytes;
    let whole =
        |connection: &Connection| connection.exchanges().first().is_none_or(|e| e.number == 0);
    whole(client) && whole(server) && sent > server.tally().request_bytes
}

/// Our process is the server, and the client's RST came while it was at work.
fn by_client<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Reset<'m>> {
    let at = connection.reset_received?;
    let we_left_first = connection.left().is_some_and(|left| left <= at);
    let exchange = asked(connection, at)
        .filter(|exchange| exchange.request_bytes > 0 && !exchange.answered())?;
    if we_left_first || scene.exiting(connection.pid, at) {
        return None;
    }
    // A client that is traced tells its own story, and where it has none the way between did it.
    if let Some(client) = scene.model.other_end(connection)
        && (client.left().is_none() || scene.exiting(client.pid, at))
    {
        return None;
    }
    // What is sent to a client that has closed is answered with RST by its kernel.
    let closed_before = connection.peer_closed.is_some_and(|closed| closed < at);
    Some(Reset {
        connection,
        at,
        exchange: Some(exchange),
        by: By::Client,
        cause: if closed_before {
            Cause::ClosedBefore
        } else {
            Cause::Unseen
        },
        closed: None,
        unread: None,
        harmed: false,
    })
}

/// Our process is the client, and RST came while it waited.
fn seen_by_client<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Reset<'m>> {
    let at = connection.reset_received?;
    let closed_before = [connection.left(), connection.peer_closed]
        .into_iter()
        .flatten()
        .any(|left| left < at);
    let exchange = asked(connection, at)
        .filter(|exchange| exchange.request_bytes > 0 && !exchange.answered())?;
    if closed_before
        || connection.heard_unseen()
        || scene.exiting(connection.pid, at)
        || met_a_closing(connection, &exchange, at)
    {
        return None;
    }
    let by = match scene.model.other_end(connection) {
        None => By::UnseenServer,
        Some(server) => {
            let left = server.left().is_some_and(|left| left <= at.plus(BOTH_ENDS));
            if left || server.is_over() || ending(scene, server, at) {
                return None; // it tells its own story, or that there is none
            }
            By::Between
        }
    };
    Some(Reset {
        connection,
        at,
        exchange: Some(exchange),
        by,
        cause: Cause::Unseen,
        closed: None,
        unread: None,
        harmed: true,
    })
}
