//! Messages that were held up because packets were lost and had to be sent again.
//!
//! A segment sent again is no harm by itself: most are mended within a round trip, some were sent
//! again for nothing, and a probe of a closed window or of a silent tail looks the same. Counted is
//! only the wait for a retransmission timer (200 ms and more, RFC 6298 and `TCP_RTO_MIN`), where the
//! message was seen to wait for it.

use std::time::Duration;

use crate::{
    event::{BootInstant, Message, Role},
    model::{Connection, Exchange, Model},
};

use super::{
    breakdown::as_seen_there,
    gaps::{self, Gap, Silent},
};

/// A retransmission timer takes 200 ms at least; its tick may come a little early.
const TIMER: Duration = Duration::from_millis(190);

/// It takes 1 s where nothing was measured yet (RFC 6298), and more on long paths only.
const FIRST_TIMER: Duration = Duration::from_secs(3);

/// Ten segments go out at once (RFC 6928), so a message of this size is on its way when the process's
/// call returns. A larger one may wait in the buffer for other reasons.
const AT_ONCE: u64 = 14_000;

/// A request that was never answered waited for its packets if these were still sent again when this
/// share of the wait was over.
const TO_THE_END: f64 = 0.3;

/// A message that was held up.
#[derive(Clone, Debug)]
pub(crate) struct Held<'m> {
    /// The sender's end, or the only one that is traced.
    pub(crate) connection: &'m Connection,
    /// The exchange as that end saw it.
    pub(crate) exchange: Exchange,
    pub(crate) message: Message,
    /// The last moment at which it flowed.
    pub(crate) from: BootInstant,
    /// When it flowed again, or the end of the wait.
    pub(crate) until: BootInstant,
    /// It never did.
    pub(crate) in_vain: bool,
    /// The other end saw it too.
    pub(crate) both_ends: bool,
}

impl Held<'_> {
    pub(crate) fn delay(&self) -> Duration {
        self.until.since(self.from)
    }
}

/// All of them; each message once.
pub(crate) fn all(model: &Model) -> Vec<Held<'_>> {
    let mut all: Vec<Held<'_>> = gaps::all(model)
        .into_iter()
        .filter(|gap| gap.silent == Silent::Lost)
        .map(from_gap)
        .collect();
    for connection in model.connections() {
        if connection.retransmitted.is_empty() {
            continue;
        }
        for exchange in connection.exchanges() {
            let held = match connection.role {
                Role::Client => request(model, connection, &exchange),
                Role::Server => response(model, connection, &exchange),
            };
            let known = |held: &Held<'_>, message| {
                same_pair(held.connection, connection)
                    && held.message == message
                    && held.exchange.started <= exchange.last_byte
                    && exchange.started <= held.exchange.last_byte
            };
            all.extend(held.filter(|held| !all.iter().any(|old| known(old, held.message))));
        }
    }
    all.sort_by_key(|held| held.from);
    all
}

fn same_pair(one: &Connection, other: &Connection) -> bool {
    one.socket == other.socket || one.other_end == Some(other.socket)
}

fn from_gap(gap: Gap<'_>) -> Held<'_> {
    Held {
        connection: gap.connection,
        exchange: gap.exchange,
        message: gap.message,
        from: gap.from,
        until: gap.until,
        in_vain: !gap.resumed,
        both_ends: gap.sender.is_some() && gap.receiver.is_some(),
    }
}

/// The last time a segment was sent again between two moments, where that was a timer's doing. The
/// timer doubles each time; what is sent again much later than that is something else (a FIN).
fn by_timer(connection: &Connection, from: BootInstant, until: BootInstant) -> Option<BootInstant> {
    let mut last = from;
    let mut patience = FIRST_TIMER;
    for at in &connection.retransmitted {
        if !(from..until).contains(at) {
            continue;
        }
        let step = at.since(last);
        if step > patience {
            break;
        }
        patience = patience.max(step * 3);
        last = *at;
    }
    (last.since(from) >= TIMER).then_some(last)
}

/// A small request that was sent, and did not reach the server.
fn request<'m>(
    model: &'m Model,
    connection: &'m Connection,
    exchange: &Exchange,
) -> Option<Held<'m>> {
    if exchange.request_bytes > AT_ONCE {
        return None;
    }
    let sent = exchange.request_ended;
    let answered = exchange
        .arrived
        .or(exchange.first_byte)
        .filter(|_| exchange.answered());
    let end = answered.or(connection.ended()).unwrap_or(model.now());
    let again = by_timer(connection, sent, end)?;
    let reached = as_seen_there(model, connection, exchange)
        .map(|(_, served)| served.arrived.unwrap_or(served.started));
    let until = match (answered, reached) {
        (_, Some(reached)) if reached.since(sent) < TIMER => return None,
        (_, Some(reached)) => reached,
        (Some(_), None) => again,
        (None, None) if again.since(sent) >= end.since(sent).mul_f64(TO_THE_END) => end,
        (None, None) => return None,
    };
    Some(Held {
        connection,
        exchange: exchange.clone(),
        message: Message::Request,
        from: sent,
        until,
        in_vain: answered.is_none() && reached.is_none(),
        both_ends: reached.is_some(),
    })
}

/// A small response that was sent, and did not reach the client.
fn response<'m>(
    model: &'m Model,
    connection: &'m Connection,
    exchange: &Exchange,
) -> Option<Held<'m>> {
    if !exchange.answered() || exchange.response_bytes > AT_ONCE {
        return None;
    }
    let sent = exchange.last_byte;
    let next = connection
        .exchanges()
        .iter()
        .map(|other| other.started)
        .find(|started| *started > sent);
    let gone = connection.peer_left();
    let end = [next, gone]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(model.now());
    let again = by_timer(connection, sent, end)?;
    let read = as_seen_there(model, connection, exchange).map(|(_, asked)| {
        let arrived = asked.arrived.unwrap_or(asked.last_byte);
        arrived.max(asked.first_byte.unwrap_or(arrived))
    });
    let until = match read {
        Some(read) if read.since(sent) < TIMER => return None,
        Some(read) => read,
        None => again,
    };
    Some(Held {
        connection,
        exchange: exchange.clone(),
        message: Message::Response,
        from: sent,
        until,
        in_vain: false,
        both_ends: read.is_some(),
    })
}
