//! `no-response`: a request was taken, or was never even read, and its connection stayed open without
//! an answer.
//!
//! The two are told apart and are found in two steps, for what overflows or runs out may be why
//! nobody reads. Not accused: long polls, streams and websockets, which are quiet on purpose; whoever
//! is slow but goes on; a server that itself waits for another; and protocols that promise no answer.

use std::{collections::HashSet, time::Duration};

use crate::{
    event::{BootInstant, SocketId},
    model::{Connection, Exchange},
};

use super::{
    finding::Severity,
    grounds::{harm::Harm, scene::Scene, usual::median},
};

pub(super) mod standstill;
pub(super) mod taken;
pub(super) mod unread;

/// A share of the requests served from which on the harm is critical.
const CRITICAL_SHARE: f64 = 0.05;

/// Fewer are never a good part of the requests.
const CRITICAL_NUMBER: u64 = 3;

/// `number` of all requests served on this connection's port came to nothing.
fn severity(scene: &Scene<'_>, connection: &Connection, number: u64) -> Severity {
    let served = scene.served_at(connection.pid, connection.local).exchanges;
    if number >= CRITICAL_NUMBER && number as f64 >= served.exchanges as f64 * CRITICAL_SHARE {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// When the client of `connection` gave up waiting, if it is known that it did, and to whose harm.
fn given_up(scene: &Scene<'_>, connection: &Connection) -> Option<(BootInstant, Severity)> {
    let other = connection.other_end?;
    let give_up = scene
        .give_ups
        .iter()
        .find(|give_up| give_up.connection.socket == other)?;
    let harm = Harm::of(scene, give_up.serving.iter());
    Some((give_up.at, harm.severity()))
}

/// Both ends of these connections.
fn both_ends<'m>(connections: impl Iterator<Item = &'m Connection>) -> HashSet<SocketId> {
    connections
        .flat_map(|connection| [Some(connection.socket), connection.other_end])
        .flatten()
        .collect()
}

/// The requests answered at the same place, by how long their first byte took.
struct Answered {
    number: usize,
    median: Duration,
    longest: Duration,
}

impl Answered {
    /// `None` where there are none.
    fn of(scene: &Scene<'_>, at: &Connection, alike: impl Fn(&Exchange) -> bool) -> Option<Self> {
        let service = scene.service(at.pid);
        let here = |other: &&Connection| {
            other.peer().serves
                && other.local.port() == at.local.port()
                && scene.service(other.pid) == service
        };
        let times: Vec<Duration> = scene
            .model
            .connections()
            .filter(here)
            .flat_map(Connection::exchanges)
            .filter(|exchange| exchange.answered() && alike(exchange))
            .filter_map(|exchange| exchange.time_to_first_byte())
            .collect();
        Some(Self {
            number: times.len(),
            longest: times.iter().max().copied()?,
            median: median(times)?,
        })
    }

    /// A request that waits `waited` is not one of these that is a little late.
    fn far_exceeded_by(&self, waited: Duration) -> bool {
        waited >= self.median * 10 && waited >= self.longest * 2
    }
}
