//! Every time a process gave up waiting for another: at connecting, or for a response.
//!
//! Whether that is a proxy's doing or a plain client's is for the rules to say; here it is found out
//! that it was a limit of time and no other reason, which limit, and which request suffered.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{BootInstant, SocketId, StackId},
    model::{Asking, Connection, Decided, Exchange, PairedBy, Pairing, Service},
};

use super::{
    harm::Fate,
    limit::{Limit, by_setting},
    scene::Scene,
};

mod decided;
mod dialling;
mod undecided;

/// A process gave up.
#[derive(Debug)]
pub(crate) struct GiveUp<'m> {
    /// On whom.
    pub(crate) connection: &'m Connection,
    /// Waiting for the response to this; `None` while it was connecting.
    pub(crate) exchange: Option<Exchange>,
    /// When it decided to, or closed where no decision was seen.
    pub(crate) at: BootInstant,
    /// How long it had waited, from the moment on that its limit counts from.
    pub(crate) waited: Duration,
    /// The request was sent before the window began: it waited longer than that.
    pub(crate) begun_before: bool,
    /// What ran out.
    pub(crate) limit: Limit,
    /// The decision.
    pub(crate) decision: Option<&'m Decided>,
    /// Where it was decided, or closed.
    pub(crate) stack: Option<StackId>,
    /// The request it was serving meanwhile.
    pub(crate) serving: Option<Pairing>,
    /// How sure that is.
    pub(crate) confidence: Confidence,
    /// Reasons to be less sure.
    pub(crate) doubts: Vec<Doubt>,
}

impl GiveUp<'_> {
    /// It happened while a request was being served: one that was seen, or one from before the window
    /// whose handler decided.
    pub(crate) fn serves(&self, scene: &Scene<'_>) -> bool {
        let in_handler = || {
            let frames = scene.model.frames(self.stack);
            frames
                .iter()
                .any(|frame| frame.function == "net/http.(*conn).serve")
        };
        self.serving.is_some() || (self.begun_before && in_handler())
    }

    /// Whose limit it was, for whom, and which.
    fn name(&self, scene: &Scene<'_>) -> (Service, SocketAddr, Limit) {
        let connection = self.connection;
        (scene.service(connection.pid), connection.remote, self.limit)
    }

    /// What became of the request being served.
    pub(crate) fn fate(&self, scene: &Scene<'_>) -> Option<Fate> {
        let serving = self.serving.as_ref()?;
        let connection = scene.model.connection(serving.socket)?;
        Some(Fate::of(connection, &serving.exchange))
    }
}

/// All of them, in the order of time.
pub(crate) fn all<'m>(scene: &Scene<'m>) -> Vec<GiveUp<'m>> {
    let mut all = decided::all(scene);
    all.extend(undecided::all(scene));
    let (checked, blamed): (Vec<_>, HashSet<SocketId>) = dialling::client_timeouts(scene);
    all.extend(checked);
    let mut abandoned = dialling::abandoned(scene);
    abandoned.retain(|dial| !blamed.contains(&dial.connection.socket));
    all.extend(abandoned);
    all.sort_by_key(|give_up| give_up.at);
    told_whole(scene, all)
}

/// Without those that began before the window, where the same limit was seen whole: they are more of
/// the same, with nothing to measure.
fn told_whole<'m>(scene: &Scene<'m>, all: Vec<GiveUp<'m>>) -> Vec<GiveUp<'m>> {
    let key = |give_up: &GiveUp<'_>| give_up.name(scene);
    let whole: BTreeSet<_> = all
        .iter()
        .filter(|give_up| !give_up.begun_before)
        .map(key)
        .collect();
    all.into_iter()
        .filter(|give_up| !(give_up.begun_before && whole.contains(&key(give_up))))
        .collect()
}

/// Those that are one finding: of the same service, on the same address, by the same setting.
pub(crate) fn grouped<'g, 'm>(
    scene: &Scene<'m>,
    give_ups: impl Iterator<Item = &'g GiveUp<'m>>,
) -> Vec<Vec<&'g GiveUp<'m>>>
where
    'm: 'g,
{
    let mut by_name: BTreeMap<_, Vec<&GiveUp<'_>>> = BTreeMap::new();
    for give_up in give_ups {
        by_name
            .entry(give_up.name(scene))
            .or_default()
            .push(give_up);
    }
    let split = |(name, together): ((Service, SocketAddr, Limit), Vec<&'g GiveUp<'m>>)| {
        let (.., limit) = name;
        // A deadline is handed down from caller to caller, so its waits differ and are one all the same.
        // Nor are waits alike of which only the ends were seen.
        let half_seen = together.iter().all(|give_up| give_up.begun_before);
        if limit == Limit::Context || half_seen {
            vec![together]
        } else {
            by_setting(together, |give_up| give_up.waited)
        }
    };
    by_name.into_iter().flat_map(split).collect()
}

/// The request that the owner of `connection` was serving while it waited on it, with the doubts
/// that come with the way it was found.
fn serving(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: Option<&Exchange>,
    until: BootInstant,
    decider: Option<u64>,
) -> (Option<Pairing>, Vec<Doubt>) {
    let pairing = scene.served.pair(&Asking {
        pid: connection.pid,
        started: exchange.map_or(connection.opened, |exchange| exchange.started),
        until,
        decider,
        writer: exchange.and_then(|exchange| exchange.actor?.goroutine),
        head: exchange.and_then(|exchange| exchange.head.as_ref()),
    });
    let mut doubts = Vec::new();
    if let Some(pairing) = &pairing {
        if matches!(pairing.by, PairedBy::Containment | PairedBy::Aftermath) {
            doubts.push(Doubt::RequestInferred);
        }
        if pairing.rivals > 0 {
            doubts.push(Doubt::Ambiguous);
        }
    }
    (pairing, doubts)
}

/// Who had asked for `serving` left before `at`: then nobody was kept waiting, and what was given up
/// was given up for that reason. Who left with a failure in hand had waited for it: a proxy may answer
/// before it closes what it gave up on.
fn client_had_left(scene: &Scene<'_>, serving: Option<&Pairing>, at: BootInstant) -> bool {
    let left = |serving: &Pairing| {
        let left = scene.model.connection(serving.socket)?.peer_left()?;
        let failed_before = serving.exchange.failed()
            && serving
                .exchange
                .first_byte
                .is_some_and(|answered| answered <= left);
        Some(left <= at && !failed_before)
    };
    serving.and_then(left).unwrap_or(false)
}
