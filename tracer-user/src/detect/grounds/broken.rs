//! How far a broken connection reaches: whoever asked on it may have been serving a request itself,
//! and that one fails with it.

use std::time::Duration;

use crate::{
    event::{BootInstant, Role, SocketId},
    model::{Asking, Connection, Exchange, Pairing},
};

use super::{harm::Fate, scene::Scene};

/// What [`crate::model::Served::pair`] allows a request to begin later, or end earlier. A request that
/// fails because a connection broke does neither.
const ALLOWED: Duration = Duration::from_millis(2);

/// How soon after a connection broke the request that needed it has failed.
const AFTERMATH: Duration = Duration::from_millis(20);

/// The request that the client of `connection` was serving when it broke at `at`; where several would
/// have fitted, the one that failed with it.
pub(crate) fn serving(
    scene: &Scene<'_>,
    connection: &Connection,
    at: BootInstant,
) -> Option<Pairing> {
    let client = match connection.role {
        Role::Client => connection,
        Role::Server => scene.model.other_end(connection)?,
    };
    let exchange = asked(client, at)?;
    let pairing = scene.served.pair(&Asking {
        pid: client.pid,
        started: exchange.started.minus(ALLOWED),
        until: at.plus(ALLOWED),
        decider: None,
        writer: exchange.actor.and_then(|actor| actor.goroutine),
        head: exchange.head.as_ref(),
    })?;
    let failed_with_it = || {
        let front = scene.model.connection(pairing.socket);
        let ended = pairing
            .exchange
            .first_byte
            .or_else(|| front.and_then(Connection::left));
        fate(scene, &pairing).is_some_and(Fate::is_harm)
            && ended.is_some_and(|ended| ended.since(at) <= AFTERMATH)
    };
    (pairing.rivals == 0 || failed_with_it()).then_some(pairing)
}

/// What became of the request that was being served.
pub(crate) fn fate(scene: &Scene<'_>, pairing: &Pairing) -> Option<Fate> {
    let connection = scene.model.connection(pairing.socket)?;
    Some(Fate::of(connection, &pairing.exchange))
}

/// Both ends of a broken connection, and the one on which a request failed with it.
pub(crate) fn reaches(
    scene: &Scene<'_>,
    connection: &Connection,
    at: BootInstant,
) -> Vec<SocketId> {
    let beyond = serving(scene, connection, at)
        .filter(|pairing| fate(scene, pairing).is_some_and(Fate::is_harm));
    [
        Some(connection.socket),
        connection.other_end,
        beyond.map(|pairing| pairing.socket),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The request in flight on `connection` at `at`, or the last one before.
pub(crate) fn asked(connection: &Connection, at: BootInstant) -> Option<Exchange> {
    connection
        .exchanges()
        .into_iter()
        .rfind(|exchange| exchange.started <= at)
}
