//! Give-ups whose decision was seen: `net/http`'s transport closed or cancelled, and said why.

use std::time::Duration;

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{Attribution, BootInstant, Decider, Origin},
    model::{Connection, DECISION_TO_CLOSE, Decided, Exchange},
};

use super::{
    super::{limit::Limit, scene::Scene},
    GiveUp, client_had_left, serving,
};

/// A request goes out this soon after the handshake that was made for it; later, the connection
/// had been made for another one.
const MADE_FOR_IT: Duration = Duration::from_millis(10);

/// The same with a TLS handshake in between, which we see as exchanges without a head.
const MADE_FOR_IT_TLS: Duration = Duration::from_secs(1);

/// Turns of direction of a TLS handshake before the first request.
const TLS_TURNS: u32 = 2;

pub(super) fn all<'m>(scene: &Scene<'m>) -> Vec<GiveUp<'m>> {
    scene
        .clients()
        .filter_map(|connection| on(scene, connection))
        .collect()
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<GiveUp<'m>> {
    // The first decision decides; the rest is its aftermath.
    let decided = connection.decisions.first()?;
    let (limit, mut doubts) = limit(scene, decided)?;
    if decided.attribution != Attribution::Direct {
        doubts.push(Doubt::ConnectionInferred);
    }
    let exchange = connection
        .exchanges()
        .into_iter()
        .rfind(|exchange| exchange.started <= decided.at);
    let (serving, paired) = serving(
        scene,
        connection,
        exchange.as_ref(),
        decided.at,
        decided.decision.actor.goroutine,
    );
    if limit != Limit::ResponseHeader && client_had_left(scene, serving.as_ref(), decided.at) {
        return None;
    }
    doubts.extend(paired);
    let begun_before = exchange.is_none() && connection.origin == Origin::Found;
    let since = counted_from(connection, exchange.as_ref(), limit, decided.at);
    Some(GiveUp {
        connection,
        exchange,
        at: decided.at,
        waited: decided.at.since(since),
        begun_before,
        limit,
        decision: Some(decided),
        stack: decided.decision.stack,
        serving,
        confidence: Confidence::SEEN,
        doubts,
    })
}

/// Which limit of time made it decide; `None` where it was none.
fn limit(scene: &Scene<'_>, decided: &Decided) -> Option<(Limit, Vec<Doubt>)> {
    let error = decided.decision.error.as_deref();
    match decided.decision.decider {
        Decider::TransportClose => error?
            .contains("timeout awaiting response headers")
            .then(|| (Limit::ResponseHeader, Vec::new())),
        Decider::TransportCancel => {
            // context.DeadlineExceeded is a value without bytes, so there is no text to read. A
            // cancellation always has one.
            let mut doubts = match error {
                None => vec![Doubt::ReasonUnread],
                Some(text)
                    if ["deadline exceeded", "timeout", "timed out"]
                        .iter()
                        .any(|t| text.contains(t)) =>
                {
                    Vec::new()
                }
                Some(_) => return None,
            };
            let limit = match client_timeout_checked(scene, decided) {
                Some(None) => Limit::Client,
                Some(Some(doubt)) => {
                    doubts.push(doubt);
                    Limit::Client
                }
                None => Limit::Context,
            };
            Some((limit, doubts))
        }
        Decider::ClientTimeoutChecked
        | Decider::ReadDeadline
        | Decider::WriteDeadline
        | Decider::ServerShutdown
        | Decider::TransportDial => None,
    }
}

/// `http.Client` looked at its timeout because of this decision: it is what bounds the request. In
/// mid-body the decision is the read loop's and the look the body reader's, so they are joined by
/// time alone, and a doubt is given.
fn client_timeout_checked(scene: &Scene<'_>, decided: &Decided) -> Option<Option<Doubt>> {
    let actor = decided.decision.actor;
    let mut followed = scene.model.timeout_checks().filter(|check| {
        check.pid == actor.pid
            && check.at >= decided.at
            && check.at.since(decided.at) <= DECISION_TO_CLOSE
    });
    let in_read_loop = scene
        .model
        .frames(decided.decision.stack)
        .iter()
        .any(|frame| frame.function.ends_with("persistConn).readLoop"));
    if in_read_loop || actor.goroutine.is_none() {
        followed.next().map(|_| Some(Doubt::SettingInferred))
    } else {
        followed
            .any(|check| check.goroutine == actor.goroutine)
            .then_some(None)
    }
}

/// From when on the limit counts.
fn counted_from(
    connection: &Connection,
    exchange: Option<&Exchange>,
    limit: Limit,
    decided: BootInstant,
) -> BootInstant {
    let Some(exchange) = exchange else {
        return connection.established.unwrap_or(connection.opened);
    };
    // Under TLS the close itself sends a record, which moves the end of the request past the decision.
    if limit == Limit::ResponseHeader && exchange.request_ended < decided {
        return exchange.request_ended;
    }
    let (turns, soon) = match exchange.head {
        Some(_) => (0, MADE_FOR_IT),
        None => (TLS_TURNS, MADE_FOR_IT_TLS),
    };
    let made_for_it = exchange.number <= turns
        && connection
            .established
            .is_some_and(|at| exchange.started.since(at) <= soon);
    if limit != Limit::ResponseHeader && made_for_it {
        connection.opened
    } else {
        exchange.started
    }
}
