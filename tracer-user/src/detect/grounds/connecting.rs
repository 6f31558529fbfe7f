//! What `connect-refused` and `connect-timeout` have in common: connects of one process to one
//! address that came to nothing.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    detect::{
        confidence::Confidence,
        finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
        own_code::own_frame,
    },
    event::{ConnectFailure, Pid},
    model::{Asking, Connection, Model, Service, Traffic},
};

use super::{
    harm::Harm,
    scene::Scene,
    telling::{Timeline, wireshark_filter},
};

/// Failed connects of one service to one address, in the order of time, and all others there.
pub(crate) struct Attempts<'m> {
    /// Of several workers, who failed first.
    pub(crate) pid: Pid,
    pub(crate) remote: SocketAddr,
    pub(crate) failed: Vec<&'m Connection>,
    /// How many failed; more than `failed` where these are no longer all kept one by one.
    pub(crate) number: u64,
    pub(crate) asked: Traffic,
    pub(crate) harm: Harm,
}

impl<'m> Attempts<'m> {
    /// Gathers those connects that `fits`, by service and address. Those that lost a race against
    /// another address of the same name do not count.
    pub(crate) fn gather(scene: &Scene<'m>, fits: impl Fn(&Connection) -> bool) -> Vec<Self> {
        let mut by_peer: BTreeMap<(Service, SocketAddr), Vec<&'m Connection>> = BTreeMap::new();
        for connection in scene.clients() {
            if fits(connection) && !scene.lost_a_race(connection) {
                by_peer
                    .entry((scene.service(connection.pid), connection.remote))
                    .or_default()
                    .push(connection);
            }
        }
        by_peer
            .into_iter()
            .filter_map(|((_, remote), failed)| {
                let pid = failed.first()?.pid;
                Some(Self {
                    pid,
                    remote,
                    harm: harm(scene, &failed),
                    number: failed.len() as u64,
                    failed,
                    asked: scene.asked(pid, remote),
                })
            })
            .collect()
    }

    /// The share of attempts at this address that failed.
    pub(crate) fn failed_share(&self) -> f64 {
        self.number as f64 / self.asked.connections.max(1) as f64
    }

    /// The failed ones of all, as the subject of a sentence in the singular.
    pub(crate) fn told(&self) -> String {
        let (failed, all) = (self.number, self.asked.connections);
        let remote = self.remote;
        if failed < all {
            format!("Of {all} connects to {remote} {failed} failed: each")
        } else if all == 1 {
            format!("The only connect to {remote}")
        } else {
            format!("Every one of {all} connects to {remote}")
        }
    }

    /// The finding, but for title, explanation and advice.
    pub(crate) fn finding(
        &self,
        scene: &Scene<'m>,
        rule: Rule,
        severity: Severity,
        example: &'m Connection,
    ) -> Finding {
        let model = scene.model;
        let mut measured = Measured {
            attempts: Some(self.asked.connections),
            established: Some(self.asked.established),
            ..Measured::default()
        };
        if self.harm.harmed() > 0 {
            self.harm.measure(&mut measured);
        }
        let frames = model.frames(example.opened_at);
        Finding {
            id: String::new(),
            caused_by: None,
            rule,
            severity,
            confidence: Confidence::SEEN.number(),
            count: self.number,
            title: String::new(),
            explanation: String::new(),
            process: Subject::of(model, self.pid),
            connection: Some(example.into()),
            related_connections: Vec::new(),
            setting: None,
            code: own_frame(frames).cloned(),
            goroutines: opener(model, example).into_iter().collect(),
            measured,
            evidence: evidence(model, example),
            advice: Vec::new(),
            wireshark_filter: wireshark_filter([example].into_iter()),
            incomplete: None,
        }
    }
}

/// Requests that were in flight when a connect failed, and failed at once. Where several did, or
/// another reason is known for the one, the connect is not to blame.
fn harm(scene: &Scene<'_>, failed: &[&Connection]) -> Harm {
    let pairings: Vec<_> = failed
        .iter()
        .filter_map(|connection| {
            scene.served.pair(&Asking {
                pid: connection.pid,
                started: connection.opened,
                until: connection.connect_failed?.at,
                decider: None,
                writer: None,
                head: None,
            })
        })
        .filter(|pairing| pairing.rivals == 0 && !scene.given_up_for(pairing))
        .collect();
    Harm::of(scene, pairings.iter())
}

fn opener(model: &Model, connection: &Connection) -> Option<Witness> {
    let actor = connection.opened_by?;
    let frames = model.frames(connection.opened_at);
    Witness::acting(model, actor, frames).filter(|opener| !opener.frames.is_empty())
}

fn evidence(model: &Model, connection: &Connection) -> Vec<Evidence> {
    let who = model.owner(connection);
    let remote = connection.remote;
    let mut timeline = Timeline::of(model);
    timeline.on(connection).add(
        connection.opened,
        "connect",
        format!("{who} sends a SYN to {remote}"),
    );
    timeline.add_if(connection.established, "established", || {
        format!(
            "after {} further SYNs the connection is established",
            connection.syn_retransmits
        )
    });
    if let Some(failed) = connection.connect_failed {
        let (event, detail) = match failed.why {
            ConnectFailure::Refused => ("reset", format!("{remote} answers with RST")),
            ConnectFailure::TimedOut => (
                "timeout",
                "the kernel gives up sending SYNs (ETIMEDOUT)".into(),
            ),
            ConnectFailure::Abandoned => ("close", format!("{who} gives up; no answer had come")),
            ConnectFailure::Error(errno) => (
                "error",
                format!("the kernel gives up ({})", errno_name(errno)),
            ),
        };
        timeline.add(failed.at, event, detail);
    } else if connection.connecting() {
        timeline.add(
            model.now(),
            "waiting",
            "no answer by the end of the window".into(),
        );
    }
    timeline.evidence()
}

/// The name of an error number (asm-generic/errno.h).
pub(crate) fn errno_name(errno: i32) -> String {
    match errno {
        101 => "ENETUNREACH, no route to the network".into(),
        110 => "ETIMEDOUT, no answer".into(),
        112 => "EHOSTDOWN, the host is down".into(),
        113 => "EHOSTUNREACH, no route to the host".into(),
        other => format!("errno {other}"),
    }
}

/// `address` is one of this host's own.
pub(crate) fn is_here(model: &Model, address: SocketAddr) -> bool {
    address.ip().is_loopback()
        || model
            .connections()
            .any(|connection| connection.local.ip() == address.ip())
}
