//! What became of the requests that a process was serving.
//!
//! Harm is counted in requests served, not in upstream calls: a gateway that tried three times for
//! one request harmed one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    detect::{
        finding::{Measured, Severity},
        wording::{bytes, count, join},
    },
    event::SocketId,
    model::{Connection, Exchange, Pairing, Service, Traffic},
};

use super::scene::Scene;

/// A share of harmed requests from which on the harm is critical.
const CRITICAL_SHARE: f64 = 0.05;

/// Sizes are worth telling where at least this share of the fine requests was smaller than every
/// harmed one.
const TELLING_SHARE: f64 = 0.95;

/// This few requests are no share of anything.
const FEW: u64 = 2;

/// `2 of 7 requests served were harmed`.
pub(crate) fn were_harmed(harmed: u64, served: u64) -> String {
    let served = count(served.max(harmed), "request served", "requests served");
    let were = if harmed == 1 { "was" } else { "were" };
    format!("{harmed} of {served} {were} harmed")
}

/// Nobody harmed is worth knowing; a request that failed is a warning; a good share of all is critical.
pub(crate) fn severity_of(harmed: u64, all: u64) -> Severity {
    if harmed == 0 {
        Severity::Info
    } else if harmed > FEW && harmed as f64 >= all as f64 * CRITICAL_SHARE {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// Its connection was closed by the server with no byte of a response.
    Empty,
    /// It was answered with this status, 500 or above.
    Failed(u16),
    /// It was answered well.
    Fine,
    /// Who asked left before.
    ClientLeft,
    /// The window ended first.
    Open,
}

impl Fate {
    pub(crate) fn of(connection: &Connection, exchange: &Exchange) -> Self {
        if exchange.answered() {
            return match exchange.status {
                Some(status) if status >= 500 => Self::Failed(status),
                _ => Self::Fine,
            };
        }
        match (connection.left(), connection.peer_left()) {
            (_, Some(peer)) if connection.left().is_none_or(|left| peer <= left) => {
                Self::ClientLeft
            }
            (Some(_), _) => Self::Empty,
            _ => Self::Open,
        }
    }

    pub(crate) fn is_harm(self) -> bool {
        matches!(self, Self::Empty | Self::Failed(_))
    }
}

/// The requests that some trouble touched, and all others served at the same place.
#[derive(Debug, Default)]
pub(crate) struct Harm {
    fates: BTreeMap<(SocketId, u32), (Fate, u64)>,
    /// Services, and the ports on which they serve.
    places: BTreeSet<(Service, u16)>,
    served: Traffic,
}

impl Harm {
    pub(crate) fn of<'p>(scene: &Scene<'_>, touched: impl Iterator<Item = &'p Pairing>) -> Self {
        let mut harm = Self::default();
        for pairing in touched {
            if let Some(connection) = scene.model.connection(pairing.socket) {
                harm.touch(scene, connection, &pairing.exchange);
            }
        }
        harm
    }

    /// One more request.
    pub(crate) fn touch(
        &mut self,
        scene: &Scene<'_>,
        connection: &Connection,
        exchange: &Exchange,
    ) {
        let fate = Fate::of(connection, exchange);
        let key = (connection.socket, exchange.number);
        self.fates.insert(key, (fate, exchange.request_bytes));
        let place = (scene.service(connection.pid), connection.local.port());
        if self.places.insert(place) {
            self.served
                .add(&scene.served_at(connection.pid, connection.local));
        }
    }

    pub(crate) fn harmed(&self) -> u64 {
        self.fates
            .values()
            .filter(|(fate, _)| fate.is_harm())
            .count() as u64
    }

    pub(crate) fn empty(&self) -> u64 {
        self.fates
            .values()
            .filter(|(fate, _)| *fate == Fate::Empty)
            .count() as u64
    }

    /// The connections on which a request was harmed.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.fates
            .iter()
            .filter(|(_, (fate, _))| fate.is_harm())
            .map(|((socket, _), _)| *socket)
    }

    /// Nobody harmed is worth knowing; one harmed is a warning; one in twenty is critical.
    pub(crate) fn severity(&self) -> Severity {
        let harmed = self.harmed();
        let all = self.served.exchanges.exchanges.max(harmed);
        if harmed == 0 {
            Severity::Info
        } else if harmed as f64 >= all as f64 * CRITICAL_SHARE {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }

    pub(crate) fn measure(&self, measured: &mut Measured) {
        measured.requests = Some(self.served.exchanges.exchanges);
        measured.requests_harmed = Some(self.harmed());
        measured.requests_fine = Some(self.served.exchanges.fine());
        for (fate, _) in self.fates.values() {
            let status = match fate {
                Fate::Empty => "none".to_owned(),
                Fate::Failed(status) => status.to_string(),
                Fate::Fine | Fate::ClientLeft | Fate::Open => continue,
            };
            *measured.harmed_by_status.entry(status).or_default() += 1;
        }
    }

    /// The harm in a sentence or two.
    pub(crate) fn sentence(&self) -> String {
        let harmed = self.harmed();
        if harmed == 0 {
            return if self.fates.values().any(|(fate, _)| *fate == Fate::Open) {
                "The requests it was serving had no answer yet when the window ended.".into()
            } else {
                "The requests it was serving were answered all the same.".into()
            };
        }
        let mut told = format!(
            "{}: {}.",
            were_harmed(harmed, self.served.exchanges.exchanges),
            self.received(),
        );
        if let Some(sizes) = self.sizes() {
            told.push(' ');
            told.push_str(&sizes);
        }
        told
    }

    /// What the clients got.
    fn received(&self) -> String {
        let mut by_fate: BTreeMap<Fate, u64> = BTreeMap::new();
        for (fate, _) in self.fates.values().filter(|(fate, _)| fate.is_harm()) {
            *by_fate.entry(*fate).or_default() += 1;
        }
        let alone = by_fate.len() == 1;
        let parts: Vec<String> = by_fate
            .into_iter()
            .map(|(fate, times)| {
                let got = match fate {
                    Fate::Failed(status) => format!("status {status}"),
                    _ => "nothing (the connection was closed without a byte)".to_owned(),
                };
                if alone {
                    got
                } else {
                    format!("{got} {}", count(times, "time", "times"))
                }
            })
            .collect();
        format!("the client got {}", join(&parts))
    }

    /// Small requests passed and large ones did not, where that is so.
    fn sizes(&self) -> Option<String> {
        let harmed = self.fates.values().filter(|(fate, _)| fate.is_harm());
        let smallest = harmed.map(|(_, size)| *size).min()?;
        let fine = &self.served.exchanges.fine_sizes;
        let largest = fine.largest()?;
        let share = fine.share_below(smallest)?;
        // Half again as large is a difference; a few bytes of a header are not.
        if share >= 1.0 && smallest >= largest.saturating_mul(3) / 2 {
            Some(format!(
                "Small requests were answered (up to {}); the harmed ones had {} or more.",
                bytes(largest),
                bytes(smallest)
            ))
        } else if (TELLING_SHARE..1.0).contains(&share) {
            Some(format!(
                "Large requests suffer: {:.0}% of those answered were smaller than {}, the smallest harmed one.",
                share * 100.0,
                bytes(smallest)
            ))
        } else {
            None
        }
    }
}
