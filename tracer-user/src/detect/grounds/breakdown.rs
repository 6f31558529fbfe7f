//! Where the time of one exchange went.
//!
//! In come the exchange as one end saw it, the same as the other end saw it where that is traced, the
//! waits for other services meanwhile, and what the scheduler did to the server; out come parts that add up to the whole exactly: each
//! moment belongs to the first claim that covers it, and what nobody claims to one named rest.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    detect::wording::{join, seconds},
    event::{BootInstant, Origin, Role},
    model::{Connection, Exchange, Model},
};

use super::{
    held_up::Times,
    scene::Scene,
    spans::{Span, Spans},
    upstreams::Wait,
};

/// A request goes out this soon after the handshake that was made for it.
const MADE_FOR_IT: Duration = Duration::from_millis(10);

/// Events come only almost in order.
const SLACK: Duration = Duration::from_millis(2);

/// Parts shorter than this share of the whole are not worth a word; a rest that is left by an estimate
/// is less sure.
const WORTH_TELLING: f64 = 0.02;
const WORTH_ESTIMATING: f64 = 0.05;

/// A part of an exchange's time. Its name is promised to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The handshake of a connection that was made for it.
    Connect,
    /// Its request being sent or read.
    Request,
    /// It lay in the server's socket and nobody read it.
    Unread,
    /// The quota of the server's cgroup kept it from going on.
    Throttled,
    /// The server could have gone on, and waited for a CPU.
    RunQueue,
    /// The server waited for another service.
    Upstream,
    /// The server computed; an estimate, by samples.
    OnCpu,
    /// Its goroutine queued for one of Go's processors (`GOMAXPROCS`), which others had.
    Queued,
    /// The rest of what the server took: waiting for a lock, for a timer; where the scheduler was not
    /// watched, all that it did itself.
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
            Self::Throttled => "throttled",
            Self::RunQueue => "run_queue",
            Self::Upstream => "upstream",
            Self::OnCpu => "on_cpu",
            Self::Queued => "go_run_queue",
            Self::Service => "service",
            Self::Network => "network",
            Self::Beyond => "network_and_server",
            Self::Reading => "unread_by_client",
            Self::Response => "response_transfer",
        }
    }

    /// The same for people; the service's own part is named by what else was `watched` of it.
    fn words(self, watched: Watched) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Request => "the request's transfer",
            Self::Unread => "unread in the server's socket",
            Self::Throttled => "stopped by its CPU quota",
            Self::RunQueue => "waiting for a CPU",
            Self::Upstream => "waiting for other services",
            Self::OnCpu => "computing on a CPU",
            Self::Queued => "queueing in Go's scheduler for a turn",
            Self::Service => match watched {
                Watched::Nothing => "the service itself",
                Watched::Waits => "the service itself, neither throttled nor waiting for a CPU",
                Watched::All => "the service waiting for something else (a lock, a timer, a disk)",
            },
            Self::Network => "on the way",
            Self::Beyond => "the way and the server, which is not traced",
            Self::Reading => "unread in the client's socket",
            Self::Response => "the response's transfer",
        }
    }
}

/// What is known of the server's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The scheduler was not watched.
    Nothing,
    /// Waits for a CPU; not who ran.
    Waits,
    /// Both.
    All,
}

impl Watched {
    pub(crate) fn of(scene: &Scene<'_>, server: &Connection) -> Self {
        let runs = server.role == Role::Server;
        if runs && scene.schedule.sampled(server.pid) {
            Self::All
        } else if runs && scene.schedule.watched(server.pid) {
            Self::Waits
        } else {
            Self::Nothing
        }
    }
}

/// The parts of an exchange's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breakdown {
    parts: BTreeMap<Part, Duration>,
    watched: Watched,
}

impl Breakdown {
    /// From whatever ends are traced: the client's view of the whole where there is one.
    pub(crate) fn of_exchange(
        scene: &Scene<'_>,
        connection: &Connection,
        exchange: &Exchange,
    ) -> Self {
        let there = as_seen_there(scene.model, connection, exchange);
        match (connection.role, there) {
            (Role::Server, Some((client, asked))) => {
                Self::asked(scene, client, &asked, Some((connection, exchange)))
            }
            (Role::Server, None) => Self::served(scene, connection, exchange),
            (Role::Client, Some((server, served))) => {
                Self::asked(scene, connection, exchange, Some((server, &served)))
            }
            (Role::Client, None) => Self::asked(scene, connection, exchange, None),
        }
    }

    /// Of a request that was waited for in vain, as far as `until`. Where its server never read it, that is
    /// where its time went.
    pub(crate) fn of_wait(
        scene: &Scene<'_>,
        client: &Connection,
        asked: &Exchange,
        until: BootInstant,
    ) -> Self {
        let waited = Exchange {
            last_byte: until.max(asked.last_byte),
            ..asked.clone()
        };
        let other = scene.model.other_end(client);
        let unread = other.and_then(|server| {
            let (since, _) = server.unread?;
            let read = as_seen_there(scene.model, client, asked);
            read.is_none().then_some((server, since))
        });
        let Some((server, since)) = unread else {
            return Self::of_exchange(scene, client, &waited);
        };
        let served = Exchange {
            arrived: Some(since),
            started: until,
            request_ended: until,
            last_byte: until,
            complete: true,
            first_byte: None,
            actor: None,
            ..asked.clone()
        };
        Self::asked(scene, client, &waited, Some((server, &served)))
    }

    /// As the server sees it: from when the request lay in its socket to its last byte.
    pub(crate) fn served(scene: &Scene<'_>, server: &Connection, exchange: &Exchange) -> Self {
        let began = exchange.arrived.unwrap_or(exchange.started);
        let whole = (began.min(exchange.started), exchange.last_byte);
        Self {
            parts: partition(
                whole,
                &server_claims(scene, server, exchange),
                Part::Service,
            ),
            watched: Watched::of(scene, server),
        }
    }

    /// As the client sees it: from the connect, where it was made for it, to its last byte.
    fn asked(
        scene: &Scene<'_>,
        connection: &Connection,
        exchange: &Exchange,
        server: Option<(&Connection, &Exchange)>,
    ) -> Self {
        let began = if made_for(connection, exchange) {
            connection.opened
        } else {
            exchange.started
        };
        let whole = (began, exchange.last_byte);
        let mut claims = vec![
            claim(Part::Connect, (began, exchange.started)),
            claim(Part::Request, (exchange.started, exchange.request_ended)),
        ];
        if let Some(first_byte) = exchange.first_byte {
            claims.push(claim(Part::Response, (first_byte, exchange.last_byte)));
            let reading = exchange.arrived.map(|arrived| (arrived, first_byte));
            claims.extend(reading.map(|span| claim(Part::Reading, span)));
        }
        let rest = match server {
            Some((server, served)) => {
                claims.extend(server_claims(scene, server, served));
                let answered = served.first_byte.unwrap_or(exchange.last_byte);
                claims.push(claim(Part::Service, (served.request_ended, answered)));
                Part::Network
            }
            None => {
                let ways = [sent_again(connection, exchange), round_trip(exchange)];
                claims.extend(
                    ways.into_iter()
                        .flatten()
                        .map(|span| claim(Part::Network, span)),
                );
                Part::Beyond
            }
        };
        Self {
            parts: partition(whole, &claims, rest),
            watched: server.map_or(Watched::Nothing, |(server, _)| Watched::of(scene, server)),
        }
    }

    pub(crate) fn of(&self, part: Part) -> Duration {
        self.parts.get(&part).copied().unwrap_or_default()
    }

    /// The sum of all parts.
    pub(crate) fn whole(&self) -> Duration {
        self.parts.values().sum()
    }

    /// What is known of the server's threads.
    pub(crate) fn watched(&self) -> Watched {
        self.watched
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
        let least = |part| match (part, self.watched) {
            (Part::Service, Watched::All) => whole.mul_f64(WORTH_ESTIMATING),
            _ => whole.mul_f64(WORTH_TELLING),
        };
        let mut parts: Vec<(Part, Duration)> = self
            .parts
            .iter()
            .map(|(part, time)| (*part, *time))
            .filter(|(part, time)| *time >= least(*part))
            .collect();
        parts.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let told: Vec<String> = parts
            .iter()
            .map(|(part, time)| format!("{} {}", seconds(*time), part.words(self.watched)))
            .collect();
        format!("Of {} in all: {}.", seconds(whole), join(&told))
    }
}

/// Moments that a part claims.
type Claim = (Part, Spans);

fn claim(part: Part, span: Span) -> Claim {
    (part, span.into())
}

/// Gives each moment of `whole` to the first claim that has it, and what nobody claims to `rest`.
fn partition(whole: Span, claims: &[Claim], rest: Part) -> BTreeMap<Part, Duration> {
    let mut parts: BTreeMap<Part, Duration> = BTreeMap::new();
    let mut left = Spans::from(whole);
    for (part, claimed) in claims {
        let given = left.within(claimed).total();
        if !given.is_zero() {
            *parts.entry(*part).or_default() += given;
            left = left.without(claimed);
        }
    }
    if !left.total().is_zero() {
        *parts.entry(rest).or_default() += left.total();
    }
    parts
}

/// What the server's end knows, in the order of precedence.
fn server_claims(scene: &Scene<'_>, server: &Connection, exchange: &Exchange) -> Vec<Claim> {
    let times = Times::of(scene, server, exchange);
    let upstream = scene.upstreams.during(server.socket, exchange.number);
    let arrived = exchange.arrived.unwrap_or(exchange.started);
    let response = exchange.first_byte.map(|first| (first, exchange.last_byte));
    vec![
        (Part::Throttled, times.throttled),
        (Part::RunQueue, times.run_queue),
        (Part::Queued, times.queued),
        claim(Part::Unread, (arrived, exchange.started)),
        claim(Part::Request, (exchange.started, exchange.request_ended)),
        (Part::Response, Spans::of(response)),
        (
            Part::Upstream,
            Spans::of(upstream.iter().filter_map(Wait::span)),
        ),
        (Part::OnCpu, times.on_cpu),
    ]
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
    Some((arrived.minus(exchange.round_trip?), arrived))
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
                .map(|(part, from, length)| claim(PARTS[part], span(from, length)))
                .collect();
            let parts = partition(whole, &claims, Part::Service);
            prop_assert_eq!(parts.values().sum::<Duration>(), whole.1.since(whole.0));
        }
    }

    #[test]
    fn waits_that_overlap_are_counted_once_and_the_first_claim_holds() {
        let claims = [
            claim(Part::Request, span(0, 10)),
            claim(Part::Upstream, span(5, 30)),
            claim(Part::Upstream, span(20, 40)),
        ];
        let parts = partition(span(0, 100), &claims, Part::Service);
        assert_eq!(parts[&Part::Request].as_nanos(), 10);
        assert_eq!(parts[&Part::Upstream].as_nanos(), 50);
        assert_eq!(parts[&Part::Service].as_nanos(), 40);
    }
}
