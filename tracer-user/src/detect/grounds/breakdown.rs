//! Where the time of one exchange went.
//!
//! In come the exchange as one end saw it, the same as the other end saw it where that is traced, and
//! the waits for other services meanwhile; out come parts that add up to the whole exactly: each
//! moment belongs to the first claim that covers it, and what nobody claims to one named rest.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    detect::wording::{join, seconds},
    event::{BootInstant, Origin, Role},
    model::{Connection, Exchange, Model},
};

use super::{scene::Scene, upstreams::Wait};

/// A request goes out this soon after the handshake that was made for it.
const MADE_FOR_IT: Duration = Duration::from_millis(10);

/// Events come only almost in order.
const SLACK: Duration = Duration::from_millis(2);

/// Parts shorter than this share of the whole are not worth a word.
const WORTH_TELLING: f64 = 0.02;

/// A part of an exchange's time. Its name is promised to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The handshake of a connection that was made for it.
    Connect,
    /// Its request being sent or read.
    Request,
    /// It lay in the server's socket and nobody read it.
    Unread,
    /// The server waited for another service.
    Upstream,
    /// The rest of what the server took: computing, waiting for a CPU, for a lock, for a timer.
    Service,
    /// On the way: round trips, and waiting for lost packets to be sent again.
    Network,
    /// Behind the wire: the server and the way to it, of which only this end is seen.
    Beyond,
    /// The response lay in the client's socket and nobody read it.
    Reading,
    /// Its response being sent or read, gaps included.
    Response,
}

impl Part {
    /// The key in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request_transfer",
            Self::Unread => "unread_by_server",
            Self::Upstream => "upstream",
            Self::Service => "service",
            Self::Network => "network",
            Self::Beyond => "network_and_server",
            Self::Reading => "unread_by_client",
            Self::Response => "response_transfer",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Request => "the request's transfer",
            Self::Unread => "unread in the server's socket",
            Self::Upstream => "waiting for other services",
            Self::Service => "the service itself",
            Self::Network => "on the way",
            Self::Beyond => "the way and the server, which is not traced",
            Self::Reading => "unread in the client's socket",
            Self::Response => "the response's transfer",
        }
    }
}

/// The parts of an exchange's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breakdown {
    parts: BTreeMap<Part, Duration>,
}

type Span = (BootInstant, BootInstant);

impl Breakdown {
    /// From whatever ends are traced: the client's view of the whole where there is one.
    pub(crate) fn of_exchange(
        scene: &Scene<'_>,
        connection: &Connection,
        exchange: &Exchange,
    ) -> Self {
        let during = |server: &Connection, served: &Exchange| {
            scene.upstreams.during(server.socket, served.number)
        };
        let there = as_seen_there(scene.model, connection, exchange);
        match (connection.role, there) {
            (Role::Server, Some((client, asked))) => {
                let server = (exchange, during(connection, exchange));
                Self::asked(client, &asked, Some(server))
            }
            (Role::Server, None) => Self::served(exchange, during(connection, exchange)),
            (Role::Client, Some((server, served))) => {
                let there = (&served, during(server, &served));
                Self::asked(connection, exchange, Some(there))
            }
            (Role::Client, None) => Self::asked(connection, exchange, None),
        }
    }

    /// As the server sees it: from when the request lay in its socket to its last byte.
    pub(crate) fn served(exchange: &Exchange, upstream: &[Wait<'_>]) -> Self {
        let began = exchange.arrived.unwrap_or(exchange.started);
        let whole = (began.min(exchange.started), exchange.last_byte);
        Self::partition(whole, &server_claims(exchange, upstream), Part::Service)
    }

    /// As the client sees it: from the connect, where it was made for it, to its last byte.
    fn asked(
        connection: &Connection,
        exchange: &Exchange,
        server: Option<(&Exchange, &[Wait<'_>])>,
    ) -> Self {
        let began = if made_for(connection, exchange) {
            connection.opened
        } else {
            exchange.started
        };
        let whole = (began, exchange.last_byte);
        let mut claims = vec![
            (Part::Connect, (began, exchange.started)),
            (Part::Request, (exchange.started, exchange.request_ended)),
        ];
        if let Some(first_byte) = exchange.first_byte {
            claims.push((Part::Response, (first_byte, exchange.last_byte)));
            claims.extend(
                exchange
                    .arrived
                    .map(|arrived| (Part::Reading, (arrived, first_byte))),
            );
        }
        let rest = match server {
            Some((served, upstream)) => {
                claims.extend(server_claims(served, upstream));
                let answered = served.first_byte.unwrap_or(exchange.last_byte);
                claims.push((Part::Service, (served.request_ended, answered)));
                Part::Network
            }
            None => {
                claims.extend(sent_again(connection, exchange).map(|span| (Part::Network, span)));
                claims.extend(round_trip(exchange).map(|span| (Part::Network, span)));
                Part::Beyond
            }
        };
        Self::partition(whole, &claims, rest)
    }

    fn partition(whole: Span, claims: &[(Part, Span)], rest: Part) -> Self {
        let clip = |at: BootInstant| at.max(whole.0).min(whole.1);
        let claims: Vec<(Part, Span)> = claims
            .iter()
            .map(|(part, (from, until))| (*part, (clip(*from), clip(*until))))
            .filter(|(_, (from, until))| from < until)
            .collect();
        let mut cuts: Vec<BootInstant> = claims
            .iter()
            .flat_map(|(_, (from, until))| [*from, *until])
            .chain([whole.0, whole.1])
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts: BTreeMap<Part, Duration> = BTreeMap::new();
        for pair in cuts.windows(2) {
            let [from, until] = pair else { continue };
            let part = claims
                .iter()
                .find(|(_, claim)| claim.0 <= *from && *until <= claim.1)
                .map_or(rest, |(part, _)| *part);
            *parts.entry(part).or_default() += until.since(*from);
        }
        Self { parts }
    }

    pub(crate) fn of(&self, part: Part) -> Duration {
        self.parts.get(&part).copied().unwrap_or_default()
    }

    /// The sum of all parts.
    pub(crate) fn whole(&self) -> Duration {
        self.parts.values().sum()
    }

    /// Each part in seconds, by its name.
    pub(crate) fn measured(&self) -> BTreeMap<String, f64> {
        self.parts
            .iter()
            .map(|(part, time)| (part.name().to_owned(), time.as_secs_f64()))
            .collect()
    }

    /// The parts in a sentence, the largest first.
    pub(crate) fn sentence(&self) -> String {
        let whole = self.whole();
        let least = whole.mul_f64(WORTH_TELLING);
        let mut parts: Vec<(Part, Duration)> = self
            .parts
            .iter()
            .map(|(part, time)| (*part, *time))
            .filter(|(_, time)| *time >= least)
            .collect();
        parts.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let told: Vec<String> = parts
            .iter()
            .map(|(part, time)| format!("{} {}", seconds(*time), part.words()))
            .collect();
        format!("Of {} in all: {}.", seconds(whole), join(&told))
    }
}

/// What the server's end knows, in the order of precedence.
fn server_claims(exchange: &Exchange, upstream: &[Wait<'_>]) -> Vec<(Part, Span)> {
    let arrived = exchange.arrived.unwrap_or(exchange.started);
    let mut claims = vec![
        (Part::Unread, (arrived, exchange.started)),
        (Part::Request, (exchange.started, exchange.request_ended)),
    ];
    if let Some(first_byte) = exchange.first_byte {
        claims.push((Part::Response, (first_byte, exchange.last_byte)));
    }
    claims.extend(
        upstream
            .iter()
            .filter_map(|wait| Some((Part::Upstream, wait.span()?))),
    );
    claims
}

/// The connection was opened for this exchange.
fn made_for(connection: &Connection, exchange: &Exchange) -> bool {
    let soon = |at: BootInstant| exchange.started.since(at) <= MADE_FOR_IT;
    connection.origin == Origin::Connected
        && exchange.number == 0
        && connection.established.is_some_and(soon)
}

/// The time until the request, sent again, had gone out for the last time before its answer came.
fn sent_again(connection: &Connection, exchange: &Exchange) -> Option<Span> {
    let until = exchange.arrived.or(exchange.first_byte)?;
    let last = connection
        .retransmitted
        .iter()
        .rfind(|at| (exchange.request_ended..until).contains(at))?;
    Some((exchange.request_ended, *last))
}

/// The last round trip before the answer came.
fn round_trip(exchange: &Exchange) -> Option<Span> {
    let arrived = exchange.arrived.or(exchange.first_byte)?;
    let took = u64::try_from(exchange.round_trip?.as_nanos()).ok()?;
    Some((BootInstant(arrived.0.saturating_sub(took)), arrived))
}

/// The same exchange as the other end of `connection` saw it.
pub(crate) fn as_seen_there<'m>(
    model: &'m Model,
    connection: &Connection,
    exchange: &Exchange,
) -> Option<(&'m Connection, Exchange)> {
    let other = model.other_end(connection)?;
    // A server reads a request after it was sent, and before its answer is read.
    let fits = |seen: &Exchange| {
        let (asked, served) = match connection.role {
            Role::Client => (exchange, seen),
            Role::Server => (seen, exchange),
        };
        served.started.plus(SLACK) >= asked.started
            && (!asked.answered() || served.started <= asked.last_byte.plus(SLACK))
    };
    let exchanges = other.exchanges();
    let found = exchanges
        .iter()
        .filter(|seen| fits(seen))
        .min_by_key(|seen| seen.number.abs_diff(exchange.number))?;
    Some((other, found.clone()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTS: [Part; 5] = [
        Part::Unread,
        Part::Request,
        Part::Response,
        Part::Upstream,
        Part::Network,
    ];

    fn span(from: u64, length: u64) -> Span {
        (BootInstant(from), BootInstant(from + length))
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_whole(
            whole in (0_u64..1_000, 0_u64..1_000),
            claims in prop::collection::vec((0_usize..5, 0_u64..2_000, 0_u64..2_000), 0..12),
        ) {
            let whole = span(whole.0, whole.1);
            let claims: Vec<_> = claims
                .into_iter()
                .map(|(part, from, length)| (PARTS[part], span(from, length)))
                .collect();
            let broken = Breakdown::partition(whole, &claims, Part::Service);
            prop_assert_eq!(broken.whole(), whole.1.since(whole.0));
        }
    }

    #[test]
    fn waits_that_overlap_are_counted_once_and_the_first_claim_holds() {
        let claims = [
            (Part::Request, span(0, 10)),
            (Part::Upstream, span(5, 30)),
            (Part::Upstream, span(20, 40)),
        ];
        let broken = Breakdown::partition(span(0, 100), &claims, Part::Service);
        assert_eq!(broken.of(Part::Request).as_nanos(), 10);
        assert_eq!(broken.of(Part::Upstream).as_nanos(), 50);
        assert_eq!(broken.of(Part::Service).as_nanos(), 40);
    }
}
