//! Which late answers are believed to be a fault.
//!
//! A wait is no fault: a long poll waits on purpose, and so does whoever passes one on. Believed is a
//! wait that was measured to be another's doing and cannot have been asked for, or that is many times
//! what requests of the same kind usually take while few of them do.

use std::{net::SocketAddr, time::Duration};

use crate::{
    detect::finding::Severity,
    event::Pid,
    model::{Kind, PairedBy},
};

use super::{
    lateness::{self, Late, Reason},
    scene::Scene,
    upstreams::Wait,
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
    Unread(Pid, u16),
    /// A handler: its process, port and route.
    Handler(Pid, u16, String),
}

impl Culprit {
    pub(crate) fn of(late: &Late<'_>) -> Self {
        let (pid, port) = (late.connection.pid, late.connection.local.port());
        match late.reason {
            Reason::Upstream(address) => Self::Upstream(address),
            Reason::Unread => Self::Unread(pid, port),
            Reason::Itself | Reason::PassedOn(..) => {
                Self::Handler(pid, port, late.kind.route.clone())
            }
        }
    }
}

/// Late answers of one culprit that are believed to be a fault.
pub(crate) struct Believed<'l, 'm> {
    pub(crate) late: Vec<&'l Late<'m>>,
    pub(crate) severity: Severity,
}

impl<'l, 'm> Believed<'l, 'm> {
    /// `None` where none is.
    pub(crate) fn of(scene: &Scene<'m>, culprit: &Culprit, late: &[&'l Late<'m>]) -> Option<Self> {
        let (late, sure) = match culprit {
            Culprit::Unread(..) => (unread(late)?, true),
            Culprit::Upstream(_) => upstream(scene, late)?,
            Culprit::Handler(..) => (unusual(scene, late)?, true),
        };
        let often = late.len() >= HABIT || share(scene, &late) >= OUTLIERS;
        let severity = if sure && often {
            Severity::Warning
        } else {
            Severity::Info
        };
        Some(Self { late, severity })
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

/// Nobody lets a request lie in a socket on purpose.
fn unread<'l, 'm>(late: &[&'l Late<'m>]) -> Option<Vec<&'l Late<'m>>> {
    let long = late.iter().copied().filter(|late| late.wait >= LATE_ALONE);
    let long: Vec<_> = long.collect();
    (!long.is_empty()).then_some(long)
}

/// Waits for another service, and whether it is sure that they were not asked for.
fn upstream<'l, 'm>(scene: &Scene<'m>, late: &[&'l Late<'m>]) -> Option<(Vec<&'l Late<'m>>, bool)> {
    let question =
        |late: &Late<'m>| longest(scene, late).map(|wait| Question::of(scene, late, wait));
    let of = |wanted: Question| {
        let those = late
            .iter()
            .copied()
            .filter(|late| question(late) == Some(wanted));
        those.collect::<Vec<_>>()
    };
    let own = of(Question::Own);
    let compared: Vec<_> = own
        .iter()
        .copied()
        .filter(|late| late.usual.is_some())
        .collect();
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
    (late.len() >= HABIT && median(&late)? < ON_PURPOSE).then_some(late)
}

/// Those that took many times what is usual, where few did.
fn unusual<'l, 'm>(scene: &Scene<'m>, late: &[&'l Late<'m>]) -> Option<Vec<&'l Late<'m>>> {
    let unusual = late.iter().copied().filter(|late| {
        late.usual.is_some() && (LATE_ALONE..ON_PURPOSE).contains(&late.wait) && !polls(late)
    });
    let unusual: Vec<_> = unusual.collect();
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

fn median(late: &[&Late<'_>]) -> Option<Duration> {
    let mut waits: Vec<Duration> = late.iter().map(|late| late.wait).collect();
    waits.sort_unstable();
    waits.get(waits.len() / 2).copied()
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
