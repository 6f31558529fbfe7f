//! Requests whose first byte of a response came late, each with the reason.
//!
//! What came late is not slow yet: a long poll waits on purpose. That is for the rule to judge.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    event::{Role, SocketId},
    model::{Connection, Exchange, Kind},
};

use super::{
    breakdown::{Breakdown, Part, as_seen_there},
    held_up,
    scene::Scene,
    turns::{Taker, Turns},
    upstreams::Wait,
    usual::TIMES_USUAL,
};

/// Nobody notices less in a single request, and what is measured to a fault is at least this.
pub(crate) const LATE: Duration = Duration::from_millis(500);

/// Services behind services that are looked through.
const DEPTH: usize = 8;

/// Requests of these take as long as they were asked to.
const ON_REQUEST: &str = "/debug/pprof/";

/// A request that had a CPU for so long would have been late without any load as well, or almost: less
/// is what it takes, and late because of others.
const COMPUTES: Duration = Duration::from_millis(400);

/// Why an answer came late; the largest part of the wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its goroutine, or thread, was busy on a CPU, or waited to be so again.
    Computed,
    /// Its goroutine queued for one of Go's processors: these requests of the same process had them;
    /// `None` where no kind of them stands out.
    Queued(Option<Taker>),
    /// It lay in the server's socket, unread.
    Unread,
    /// The server waited for another service.
    Upstream(SocketAddr),
    /// The server waited for another one that is traced as well, and late itself with this request.
    PassedOn(SocketId, u32),
    /// What the server did itself; or nothing, on purpose.
    Itself,
}

/// A request that was answered late.
#[derive(Debug)]
pub(crate) struct Late<'m> {
    /// The server's end of the connection.
    pub(crate) connection: &'m Connection,
    /// The request.
    pub(crate) exchange: Exchange,
    /// What it is compared with.
    pub(crate) kind: Kind,
    /// From the request's last byte, or from when it lay in the socket, to the first byte of the response.
    pub(crate) wait: Duration,
    /// Why.
    pub(crate) reason: Reason,
    /// Half of its kind took no longer than this, and it took many times as long.
    pub(crate) usual: Option<Duration>,
}

/// All of them.
pub(crate) fn all<'m>(scene: &Scene<'m>) -> Vec<Late<'m>> {
    let turns = Turns::of(scene);
    let mut all = Vec::new();
    for connection in scene.model.connections() {
        if connection.role != Role::Server {
            continue;
        }
        for exchange in connection.exchanges() {
            all.extend(late(scene, &turns, connection, exchange));
        }
    }
    all
}

/// HTTP/1, and one that is meant to end: no websocket, no tunnel, no profile.
pub(crate) fn is_plain(exchange: &Exchange) -> bool {
    exchange.status != Some(101)
        && exchange
            .head
            .as_ref()
            .is_some_and(|head| head.method != "CONNECT" && !head.path.contains(ON_REQUEST))
}

/// From when the request was there to the first byte of the response, its own transfer apart.
fn wait(exchange: &Exchange) -> Option<Duration> {
    let unread = exchange
        .arrived
        .map_or(Duration::ZERO, |arrived| exchange.started.since(arrived));
    Some(exchange.answer_time()? + unread)
}

fn late<'m>(
    scene: &Scene<'m>,
    turns: &Turns,
    connection: &'m Connection,
    exchange: Exchange,
) -> Option<Late<'m>> {
    let wait = wait(&exchange).filter(|wait| *wait >= LATE && is_plain(&exchange))?;
    let kind = Kind::of(&exchange)?;
    Some(Late {
        reason: reason(scene, turns, connection, &exchange, wait),
        usual: scene
            .usual(connection, &kind)
            .filter(|usual| wait >= *usual * TIMES_USUAL),
        connection,
        kind,
        wait,
        exchange,
    })
}

fn reason(
    scene: &Scene<'_>,
    turns: &Turns,
    connection: &Connection,
    exchange: &Exchange,
    wait: Duration,
) -> Reason {
    let waits = scene.upstreams.during(connection.socket, exchange.number);
    let parts = Breakdown::served(scene, connection, exchange);
    let (computed, queued) = (parts.of(Part::OnCpu), parts.of(Part::Queued));
    let kept_from = parts.of(Part::RunQueue) + parts.of(Part::Throttled);
    if computed >= COMPUTES && (computed + queued + kept_from) * 2 >= wait {
        return Reason::Computed;
    }
    if queued * 2 >= wait {
        return Reason::Queued(taker(scene, turns, connection, exchange));
    }
    // Whatever kept the process from reading it.
    let arrived = exchange.arrived.unwrap_or(exchange.started);
    if exchange.started.since(arrived) * 2 >= wait {
        return Reason::Unread;
    }
    if parts.of(Part::Upstream) * 2 < wait {
        return Reason::Itself;
    }
    let Some(longest) = longest(waits) else {
        return Reason::Itself;
    };
    match inner(scene, longest) {
        Some((socket, number)) => Reason::PassedOn(socket, number),
        None => Reason::Upstream(longest.connection.remote),
    }
}

/// Who had the processors meanwhile.
fn taker(
    scene: &Scene<'_>,
    turns: &Turns,
    connection: &Connection,
    exchange: &Exchange,
) -> Option<Taker> {
    let goroutine = exchange.actor?.goroutine?;
    let window = held_up::window(scene, connection, exchange);
    let taker = turns.taker(scene, (connection.pid, goroutine), window);
    taker.cloned()
}

/// The longest of the waits for that service which was waited for longest.
pub(crate) fn longest<'w, 'm>(waits: &'w [Wait<'m>]) -> Option<&'w Wait<'m>> {
    let took = |wait: &Wait<'_>| {
        wait.span()
            .map_or(Duration::ZERO, |(from, until)| until.since(from))
    };
    let mut by_service: BTreeMap<SocketAddr, Duration> = BTreeMap::new();
    for wait in waits {
        *by_service.entry(wait.connection.remote).or_default() += took(wait);
    }
    let (service, _) = by_service.into_iter().max_by_key(|(_, sum)| *sum)?;
    waits
        .iter()
        .filter(|wait| wait.connection.remote == service)
        .max_by_key(|wait| took(wait))
}

/// The request as the other service served it, where that is traced, speaks HTTP, and took the time
/// itself.
fn inner(scene: &Scene<'_>, outer: &Wait<'_>) -> Option<(SocketId, u32)> {
    let (server, served) = as_seen_there(scene.model, outer.connection, &outer.exchange)?;
    let (from, until) = outer.span()?;
    let its_own = wait(&served)? * 2 >= until.since(from);
    (its_own && is_plain(&served)).then_some((server.socket, served.number))
}

/// The request at the end of the chain of services that waited for each other.
pub(crate) fn innermost<'l, 'm>(
    by_request: &HashMap<(SocketId, u32), &'l Late<'m>>,
    late: &'l Late<'m>,
) -> Option<&'l Late<'m>> {
    let mut inner = late;
    for _ in 0..DEPTH {
        let Reason::PassedOn(socket, number) = inner.reason else {
            return Some(inner);
        };
        inner = by_request.get(&(socket, number))?;
    }
    None
}
