//! What each request that was served waited for: exchanges with other services meanwhile.

use std::{collections::HashMap, time::Duration};

use crate::{
    detect::confidence::Doubt,
    event::{BootInstant, Role, SocketId},
    model::{Asking, Connection, Exchange, Model, PairedBy, Served},
};

/// Whoever answers within this time keeps nobody waiting.
const NOTICEABLE: Duration = Duration::from_millis(50);

/// A wait for another service while a request was served.
#[derive(Debug)]
pub(crate) struct Wait<'m> {
    /// The connection to the other service.
    pub(crate) connection: &'m Connection,
    /// What was asked there.
    pub(crate) exchange: Exchange,
    /// How it was found to belong to the request.
    pub(crate) by: PairedBy,
    rivals: usize,
    /// Its first byte came then, or it was given up.
    until: BootInstant,
}

impl Wait<'_> {
    /// From the first byte asked to the first byte answered, or until nobody waited for it any more.
    pub(crate) fn span(&self) -> Option<(BootInstant, BootInstant)> {
        Some((self.exchange.started, self.until))
    }

    /// Reasons to doubt that it belongs to the request.
    pub(crate) fn doubts(&self) -> Vec<Doubt> {
        let inferred = matches!(self.by, PairedBy::Containment | PairedBy::Timing);
        let inferred = inferred.then_some(Doubt::RequestInferred);
        let ambiguous = (self.rivals > 0).then_some(Doubt::Ambiguous);
        inferred.into_iter().chain(ambiguous).collect()
    }
}

/// All of them, by the request served.
#[derive(Debug, Default)]
pub(crate) struct Upstreams<'m> {
    by_request: HashMap<(SocketId, u32), Vec<Wait<'m>>>,
}

impl<'m> Upstreams<'m> {
    pub(crate) fn of(model: &'m Model, served: &Served) -> Self {
        let mut by_request: HashMap<_, Vec<Wait<'_>>> = HashMap::new();
        for connection in model.connections().filter(|c| c.role == Role::Client) {
            for exchange in connection.exchanges() {
                if let Some((request, wait)) = wait(served, connection, exchange) {
                    by_request.entry(request).or_default().push(wait);
                }
            }
        }
        Self { by_request }
    }

    /// What request `number` of the server's connection `socket` waited for, in no order.
    pub(crate) fn during(&self, socket: SocketId, number: u32) -> &[Wait<'m>] {
        self.by_request
            .get(&(socket, number))
            .map_or(&[], Vec::as_slice)
    }
}

fn wait<'m>(
    served: &Served,
    connection: &'m Connection,
    exchange: Exchange,
) -> Option<((SocketId, u32), Wait<'m>)> {
    let until = match exchange.first_byte.filter(|_| exchange.answered()) {
        Some(answered) => answered,
        None => given_up(connection)?,
    };
    if until.since(exchange.started) < NOTICEABLE {
        return None;
    }
    let pairing = served.pair_answered(&Asking {
        pid: connection.pid,
        started: exchange.started,
        until,
        decider: None,
        writer: exchange.actor.and_then(|actor| actor.goroutine),
        head: exchange.head.as_ref(),
    })?;
    let wait = Wait {
        connection,
        exchange,
        by: pairing.by,
        rivals: pairing.rivals,
        until,
    };
    Some(((pairing.socket, pairing.exchange.number), wait))
}

/// When the client left a connection on which it had no answer; who tries again elsewhere waited all the same.
fn given_up(connection: &Connection) -> Option<BootInstant> {
    let left = connection.left()?;
    let peer_stayed = connection.peer_left().is_none_or(|peer| left <= peer);
    peer_stayed.then_some(left)
}
