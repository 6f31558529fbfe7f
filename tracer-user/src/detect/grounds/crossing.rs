//! Requests that cross the close of the connection they go out on.
//!
//! A server that closes an idle connection cannot know that a request is on its way; the client
//! cannot know that the connection is being closed. Nobody read such a request, so it says nothing
//! about the server's handlers.

use std::time::Duration;

use crate::{
    event::{BootInstant, Origin},
    model::{Connection, Exchange},
};

/// For a connection whose round-trip time was never measured, and what scheduling adds to one that was.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(1);

/// The round-trip time, as far as it is known.
fn round_trip(connection: &Connection, exchange: &Exchange) -> Duration {
    connection
        .closed
        .and_then(|(_, closed)| closed.srtt)
        .or(exchange.round_trip)
        .or(connection.connect_time())
        .unwrap_or(ROUND_TRIP)
}

/// How long after one end did something the other may do what it would not have done had it known.
pub(crate) fn crossing(connection: &Connection, exchange: &Exchange) -> Duration {
    round_trip(connection, exchange) * 2 + ROUND_TRIP
}

/// The connection had carried another exchange before, so it came from a pool.
pub(crate) fn used_before(connection: &Connection, exchange: &Exchange) -> bool {
    exchange.number > 0 || connection.origin == Origin::Found
}

/// The request went out on a connection used before, and the end came so soon that the server must
/// have sent it before the request reached it, or had no connection left when it did.
pub(crate) fn met_a_closing(
    connection: &Connection,
    exchange: &Exchange,
    ended: BootInstant,
) -> bool {
    used_before(connection, exchange)
        && ended <= exchange.started.plus(crossing(connection, exchange))
}

/// `server` read the request that its client had sent as `exchange`.
pub(crate) fn was_read(server: &Connection, exchange: &Exchange) -> bool {
    server.exchanges().iter().any(|served| {
        served.request_bytes > 0 && served.started.plus(ROUND_TRIP) >= exchange.started
    })
}

/// The last request on `connection` that came from its process's own calls.
pub(crate) fn last_request(connection: &Connection) -> Option<Exchange> {
    connection
        .exchanges()
        .pop()
        .filter(|exchange| exchange.head.is_some() && exchange.request_bytes > 0)
}
