//! Which late answers are believed to be a fault.
//!
//! A wait is no fault: a long poll waits on purpose, and so does whoever passes one on. Believed is a
//! wait that was measured to be another's doing and cannot have been asked for, one that was no wait
//! because the handler computed, and one that is many times what requests of the same kind usually take
//! while few of them do.

use std::{net::SocketAddr, time::Duration};

use crate::{
    detect::finding::Severity,
    model::{Kind, PairedBy, Service},
};

use super::{
    lateness::{self, Late, Reason},
    scene::Scene,
    upstreams::Wait,
    usual::median,
    work::waiting_for_io,
};

/// A handler that took less by itself may have been unlucky once: a busy CPU, a collection.
const LATE_ALONE: Duration = Duration::from_secs(1);

/// Where nothing can be compared, longer waits are rather what was asked for (a blocking read, a poll).
const ON_PURPOSE: Duration = Duration::from_secs(10);

/// So many make a habit of it.
const HABIT: usize = 3;

/// A smaller share of the requests is an outlier, and worth knowing only.
const OUTLIERS: f64 = 0.01;

/// A larger share of late ones is how the service is meant to be.
const MEANT: f64 = 0.1;

/// Words in the path of requests that wait on purpose.
const POLLS: [&str; 8] = [
    "poll",
    "watch",
    "wait",
    "subscribe",
    "stream",
    "events",
    "notif",
    "comet",
];

/// Behind these ports is a request that cannot be read (TLS), and may be the one that was served.
const TLS_PORTS: [u16; 2] = [443, 8443];

/// What late answers are told together by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Culprit {
    /// Another service.
    Upstream(SocketAddr),
    /// Who did not read, on which port.
    Unread(Service, u16),
    /// A handler: its service, port and route.
    Handler(Service, u16, String),
    /// Goroutines of this service, none of which stands out, which it serves at that port.
    Crowd(Service, u16),
}

impl Culprit {
    pub(crate) fn of(scene: &Scene<'_>, late: &Late<'_>) -> Self {
        let (of, port) = (
            scene.service(late.connection.pid),
            late.connection.local.port(),
        );
        match &late.reason {
            Reason::Upstream(address) => Self::Upstream(*address),
            Reason::Unread => Self::Unread(of, port),
            Reason::Queued(Some((port, route))) => Self::Handler(of, *port, route.clone()),
            Reason::Queued(None) => Self::Crowd(of, port),
            Reason::Computed | Reason::Itself | Reason::PassedOn(..) => {
                Self::Handler(of, port, late.kind.route.clone())
            }
        }
    }
}

/// Late answers of one culprit that are believed to be a fault.
pub(crate) struct Believed<'l, 'm> {
    pub(crate) late: Vec<&'l Late<'m>>,
    pub(crate) because: Because,
    pub(crate) severity: Severity,
}

/// What a late answer was seen to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Its handler computed.
    Computed,
    /// It queued in Go's scheduler.
    Queued,
    /// What the culprit says.
    Other,
}

impl<'l, 'm> Believed<'l, 'm> {
    /// `None` where none is.
    pub(crate) fn of(scene: &Scene<'m>, culprit: &Culprit, all: &[&'l Late<'m>]) -> Option<Self> {
        if let Culprit::Handler(.., route) = culprit
            && let Some(busy) = Self::busy(scene, route, all)
        {
            return Some(busy);
        }
        let (late, sure) = match culprit {
            Culprit::Unread(..) => (unread(all)?, true),
            Culprit::Upstream(_) => upstream(scene, all)?,
            Culprit::Handler(..) => (unusual(scene, all)?, true),
            Culprit::Crowd(..) => crowd(scene, all)?,
        };
        let often = late.len() >= HABIT || share(scene, &late) >= OUTLIERS;
        let because = match culprit {
            Culprit::Crowd(..) => Because::Queued,
            _ => Because::Other,
        };
        Some(Self::new(late, because, sure && often))
    }

    /// Where most of them computed themselves, or queued behind those that did.
    fn busy(scene: &Scene<'m>, route: &str, all: &[&'l Late<'m>]) -> Option<Self> {
        let computed = only(all, |late| late.reason == Reason::Computed);
        let queued = only(all, |late| matches!(late.reason, Reason::Queued(_)));
        if (computed.len() + queued.len()) * 2 < all.len() {
            return None;
        }
        if !computed.is_empty() {
            let often = computed.len() + queued.len() >= HABIT;
            return Some(Self::new(computed, Because::Computed, often));
        }
        // Requests that queue behind their own kind are more than the CPUs can do, no fault of one.
        let others = only(&queued, |late| late.kind.route != route);
        let warn = others.len() >= HABIT || unusual(scene, &queued).is_some();
        (queued.len() >= HABIT).then(|| Self::new(queued, Because::Queued, warn))
    }

    fn new(late: Vec<&'l Late<'m>>, because: Because, warn: bool) -> Self {
        let severity = if warn {
            Severity::Warning
        } else {
            Severity::Info
        };
        Self {
            late,
            because,
            severity,
        }
    }

    /// One of those of which most is known, in the middle of their waits.
    pub(crate) fn example(&self, scene: &Scene<'_>) -> Option<&'l Late<'m>> {
        let doubts = |late: &Late<'_>| longest(scene, late).map_or(0, |wait| wait.doubts().len());
        let fewest = self.late.iter().map(|late| doubts(late)).min()?;
        let mut surest: Vec<&'l Late<'m>> = self.late.clone();
        surest.retain(|late| doubts(late) == fewest);
        surest.sort_by_key(|late| (late.wait, late.exchange.started));
        surest.get(surest.len() / 2).copied()
    }
}

fn only<'l, 'm>(late: &[&'l Late<'m>], wanted: impl Fn(&Late<'m>) -> bool) -> Vec<&'l Late<'m>> {
    late.iter().copied().filter(|late| wanted(late)).collect()
}

/// Nobody lets a request lie in a socket on purpose.
fn unread<'l, 'm>(late: &[&'l Late<'m>]) -> Option<Vec<&'l Late<'m>>> {
    let long = only(late, |late| late.wait >= LATE_ALONE);
    (!long.is_empty()).then_some(long)
}

/// Requests that queue behind each other: a fault for sure only where they seldom do. A service that is
/// asked for more than its CPUs give is worth knowing.
fn crowd<'l, 'm>(scene: &Scene<'m>, late: &[&'l Late<'m>]) -> Option<(Vec<&'l Late<'m>>, bool)> {
    match unusual(scene, late) {
        Some(unusual) => Some((unusual, true)),
        None => (late.len() >= HABIT).then(|| (late.to_vec(), false)),
    }
}

/// Waits for another service, and whether it is sure that they were not asked for.
fn upstream<'l, 'm>(scene: &Scene<'m>, late: &[&'l Late<'m>]) -> Option<(Vec<&'l Late<'m>>, bool)> {
    let question =
        |late: &Late<'m>| longest(scene, late).map(|wait| Question::of(scene, late, wait));
    let of = |wanted: Question| only(late, |late| question(late) == Some(wanted));
    let own = of(Question::Own);
    let compared = only(&own, |late| late.usual.is_some());
    if compared.len() >= HABIT {
        return Some((compared, true));
    }
    let own = habit(own);
    if own.is_some() {
        return own.map(|own| (own, true));
    }
    if let Some(compared) = unusual(scene, late) {
        return Some((compared, true));
    }
    habit(of(Question::Another)).map(|other| (other, false))
}

/// Those of requests that do not wait on purpose, where they are several.
fn habit<'l, 'm>(mut late: Vec<&'l Late<'m>>) -> Option<Vec<&'l Late<'m>>> {
    late.retain(|late| !polls(late));
    (late.len() >= HABIT && median(late.iter().map(|late| late.wait))? < ON_PURPOSE).then_some(late)
}

/// Those that took many times what is usual, where few did.
fn unusual<'l, 'm>(scene: &Scene<'m>, late: &[&'l Late<'m>]) -> Option<Vec<&'l Late<'m>>> {
    let unusual = only(late, |late| {
        late.usual.is_some() && (LATE_ALONE..ON_PURPOSE).contains(&late.wait) && !polls(late)
    });
    (unusual.len() >= HABIT && share(scene, &unusual) <= MEANT).then_some(unusual)
}

/// Their share of what the first of them's process served at that port.
fn share(scene: &Scene<'_>, late: &[&Late<'_>]) -> f64 {
    let Some(first) = late.first() else {
        return 0.0;
    };
    let place = first.connection;
    let served = scene.served_at(place.pid, place.local).exchanges.exchanges;
    late.len() as f64 / served.max(1) as f64
}

fn polls(late: &Late<'_>) -> bool {
    is_poll(&late.kind)
}

/// The path of such requests says that they wait on purpose.
pub(crate) fn is_poll(kind: &Kind) -> bool {
    let route = kind.route.to_ascii_lowercase();
    POLLS.iter().any(|word| route.contains(word))
}

fn longest<'s, 'm>(scene: &'s Scene<'m>, late: &Late<'_>) -> Option<&'s Wait<'m>> {
    let waits = scene
        .upstreams
        .during(late.connection.socket, late.exchange.number);
    lateness::longest(waits)
}

/// What a service asked another one for, while it was asked itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Something of its own, in a protocol that is not HTTP: its handler itself asked and read.
    Own,
    /// Something else by HTTP.
    Another,
    /// The same, or nobody knows. A proxy cannot know whether what it passes on is a long poll.
    PassedOn,
}

impl Question {
    fn of(scene: &Scene<'_>, late: &Late<'_>, wait: &Wait<'_>) -> Self {
        let served = late.exchange.head.as_ref().map(|head| head.path.as_str());
        let asked = wait.exchange.head.as_ref().map(|head| head.path.as_str());
        match (served, asked) {
            (Some(served), Some(asked)) if served.ends_with(asked) || asked.ends_with(served) => {
                Self::PassedOn
            }
            (_, Some(_)) => Self::Another,
            _ if TLS_PORTS.contains(&wait.connection.remote.port()) => Self::PassedOn,
            // net/http's transport writes in a goroutine of its own, and lets the handler wait for a
            // channel: only what a handler does by itself is seen so.
            _ if wait.by == PairedBy::Goroutine
                || waiting_for_io(scene.model, late.connection.pid).is_some() =>
            {
                Self::Own
            }
            _ => Self::PassedOn,
        }
    }
}
