//! Give-ups of which only the close was seen: programs that are not Go, or a Go program whose
//! deciders could not be probed.
//!
//! A client may leave for many reasons: its user pressed a key, a load generator came to its end,
//! another answer was faster. So time is blamed only where the same wait is seen again and again, or
//! where a request was harmed by it. And a response must have been due at all, which only HTTP
//! promises: a log shipper that is never answered gives up on nobody.

use std::{collections::HashMap, net::SocketAddr, ops::Range, time::Duration};

use crate::{
    detect::confidence::{Confidence, Doubt},
    model::{Connection, Exchange, Service},
};

use super::{
    super::{
        limit::{ENOUGH, Limit, crowd, separate_acts},
        scene::Scene,
    },
    GiveUp, client_had_left, serving,
};

/// Nobody sets a limit shorter than this; whoever leaves sooner had another reason.
const SHORTEST: Duration = Duration::from_millis(50);

pub(super) fn all<'m>(scene: &Scene<'m>) -> Vec<GiveUp<'m>> {
    let mut by_peer: HashMap<(Service, SocketAddr), Vec<GiveUp<'m>>> = HashMap::new();
    for connection in scene.clients() {
        if let Some(give_up) = on(scene, connection) {
            by_peer
                .entry((scene.service(connection.pid), connection.remote))
                .or_default()
                .push(give_up);
        }
    }
    by_peer
        .into_values()
        .flat_map(|together| believable(scene, together))
        .collect()
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<GiveUp<'m>> {
    if !connection.decisions.is_empty() {
        return None;
    }
    let closed = connection.local_closed?;
    let exchange = connection.exchanges().pop().filter(awaits_a_response)?;
    let waited = closed.at.since(exchange.request_ended);
    if connection.heard_unseen() {
        return None;
    }
    let peer_first = connection.peer_left().is_some_and(|left| left <= closed.at);
    if peer_first || waited < SHORTEST || scene.exiting(connection.pid, closed.at) {
        return None;
    }
    let (serving, doubts) = serving(scene, connection, Some(&exchange), closed.at, None);
    if client_had_left(scene, serving.as_ref(), closed.at) {
        return None;
    }
    Some(GiveUp {
        connection,
        exchange: Some(exchange),
        at: closed.at,
        waited,
        begun_before: false,
        limit: Limit::Unknown,
        decision: None,
        stack: closed.stack,
        serving,
        confidence: Confidence::from_timing(1),
        doubts,
    })
}

fn awaits_a_response(exchange: &Exchange) -> bool {
    exchange.head.is_some() && exchange.request_bytes > 0 && !exchange.answered()
}

/// Of the give-ups of one service on one peer, those that waited alike, and those that harmed a request.
fn believable<'m>(scene: &Scene<'m>, mut together: Vec<GiveUp<'m>>) -> Vec<GiveUp<'m>> {
    together.sort_by_key(|give_up| give_up.waited);
    let crowd = separate_crowd(&together);
    let confidence = Confidence::from_timing(crowd.len());
    let mut believed = Vec::new();
    for (place, mut give_up) in together.into_iter().enumerate() {
        if crowd.contains(&place) {
            give_up.confidence = confidence;
            believed.push(give_up);
        } else if give_up.fate(scene).is_some_and(|fate| fate.is_harm()) {
            give_up.doubts.push(Doubt::SettingUnknown);
            believed.push(give_up);
        }
    }
    believed
}

/// The largest run of alike waits, ended by separate acts; empty where there are too few.
fn separate_crowd(sorted: &[GiveUp<'_>]) -> Range<usize> {
    let waits: Vec<Duration> = sorted.iter().map(|give_up| give_up.waited).collect();
    let best = crowd(&waits);
    let alike = sorted.get(best.clone()).unwrap_or_default();
    if separate_acts(alike.iter().map(|give_up| give_up.at)) >= ENOUGH {
        best
    } else {
        0..0
    }
}
