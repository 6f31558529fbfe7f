//! Give-ups while connecting.
//!
//! Up to Go 1.22 `net/http` dials under the request's context, so its deadline, `Client.Timeout` and
//! `Dialer.Timeout` all abandon the socket alike. From 1.23 on the dial is detached
//! (`context.WithoutCancel` in `Transport.getConn`): only the dialer abandons it, while a client whose
//! time is up leaves the socket connecting and goes.

use std::{collections::HashSet, time::Duration};

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{ConnectFailure, Frame, SocketId},
    model::{Connection, DECISION_TO_CLOSE, TimeoutCheck},
};

use super::{
    super::{
        limit::{Limit, alike},
        scene::Scene,
    },
    GiveUp, client_had_left, serving,
};

/// A connect younger than this is not what a client's time ran out on.
const JUST_BEGUN: Duration = Duration::from_millis(10);

/// The first minor version of Go 1 whose transport dials detached from the request.
const DETACHED_SINCE: u32 = 23;

/// Sockets that a dialer closed before they were connected.
pub(super) fn abandoned<'m>(scene: &Scene<'m>) -> Vec<GiveUp<'m>> {
    let all = scene.clients();
    let mut all: Vec<_> = all
        .filter_map(|connection| abandoned_on(scene, connection))
        .collect();
    let place = |dial: &GiveUp<'_>| (scene.service(dial.connection.pid), dial.connection.remote);
    let known: Vec<_> = all
        .iter()
        .filter(|dial| dial.limit == Limit::Dialer)
        .map(|dial| (place(dial), dial.waited))
        .collect();
    // The stack of one may have been read in part only. What waited as long for the same was ended by the same.
    for dial in all
        .iter_mut()
        .filter(|dial| dial.limit == Limit::Connecting)
    {
        let same = |(known, waited): &(_, Duration)| {
            *known == place(dial) && alike(dial.waited.min(*waited), dial.waited.max(*waited))
        };
        if known.iter().any(same) {
            dial.limit = Limit::Dialer;
        }
    }
    all
}

fn abandoned_on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<GiveUp<'m>> {
    let failed = connection
        .connect_failed
        .filter(|failed| failed.why == ConnectFailure::Abandoned)?;
    if scene.lost_a_race(connection) {
        return None;
    }
    let (serving, mut doubts) = serving(scene, connection, None, failed.at, None);
    if client_had_left(scene, serving.as_ref(), failed.at) {
        return None;
    }
    let frames = scene.model.frames(failed.stack);
    let limit = if frames.iter().any(is_dialer) {
        dialer_limit(frames, go_minor(scene, connection))
    } else if scene.exiting(connection.pid, failed.at) || serving.is_none() {
        return None;
    } else {
        Limit::Unknown
    };
    let confidence = match limit {
        // A context ends for other reasons than time as well, so once is not enough.
        Limit::Unknown | Limit::Connecting => Confidence::from_timing(1),
        _ => Confidence::SEEN,
    };
    if serving.is_none() {
        doubts.clear();
    }
    Some(GiveUp {
        connection,
        exchange: None,
        at: failed.at,
        waited: failed.at.since(connection.opened),
        begun_before: false,
        limit,
        decision: None,
        stack: failed.stack,
        serving,
        confidence,
        doubts,
    })
}

fn is_dialer(frame: &Frame) -> bool {
    [
        "net.(*Dialer).",
        "net.(*sysDialer).",
        "net.(*netFD).connect",
    ]
    .iter()
    .any(|name| frame.function.starts_with(name))
}

/// What bounded a dial with these frames.
fn dialer_limit(frames: &[Frame], go_minor: Option<u32>) -> Limit {
    let has = |name: &str| frames.iter().any(|frame| frame.function == name);
    // These two pass no context, so there is no deadline but the dialer's own.
    let without_context = has("net.DialTimeout") || has("net.(*Dialer).Dial");
    let detached = has("net/http.(*Transport).dialConnFor")
        && go_minor.is_some_and(|minor| minor >= DETACHED_SINCE);
    if without_context || detached {
        Limit::Dialer
    } else {
        Limit::Connecting
    }
}

/// `27` of `go1.27.3`.
fn go_minor(scene: &Scene<'_>, connection: &Connection) -> Option<u32> {
    let process = scene.model.process(connection.pid)?;
    let version = process.about.go_version.as_deref()?;
    let minor = version.strip_prefix("go1.")?;
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Clients whose `Client.Timeout` ran out while their socket was still connecting. There is no
/// decision about a connection then, only the look at the timeout. Gives also the sockets, for what
/// becomes of them later harms nobody any more.
pub(super) fn client_timeouts<'m>(scene: &Scene<'m>) -> (Vec<GiveUp<'m>>, HashSet<SocketId>) {
    let mut blamed = HashSet::new();
    let mut found = Vec::new();
    for check in scene.model.timeout_checks() {
        if has_another_reason(scene, check) {
            continue;
        }
        let waiting: Vec<&&Connection> = scene
            .clients_of(check.pid)
            .iter()
            .filter(|c| was_connecting(c, check) && !blamed.contains(&c.socket))
            .collect();
        let Some(connection) = waiting.iter().min_by_key(|c| c.opened).map(|c| **c) else {
            continue;
        };
        blamed.insert(connection.socket);
        let mut doubts = vec![Doubt::ConnectionInferred];
        if waiting.len() > 1 {
            doubts.push(Doubt::Ambiguous);
        }
        let (serving, paired) = serving(scene, connection, None, check.at, check.goroutine);
        doubts.extend(paired);
        found.push(GiveUp {
            connection,
            exchange: None,
            at: check.at,
            waited: check.at.since(connection.opened),
            begun_before: false,
            limit: Limit::Client,
            decision: None,
            stack: None,
            serving,
            confidence: Confidence::SEEN,
            doubts,
        });
    }
    (found, blamed)
}

/// The timeout is looked at after every error, so another error just before is the reason.
fn has_another_reason(scene: &Scene<'_>, check: &TimeoutCheck) -> bool {
    let just_before = |at| at <= check.at && check.at.since(at) <= DECISION_TO_CLOSE;
    scene.clients_of(check.pid).iter().any(|connection| {
        connection.ended().is_some_and(just_before)
            || connection
                .decisions
                .iter()
                .any(|decided| just_before(decided.at))
    })
}

fn was_connecting(connection: &Connection, check: &TimeoutCheck) -> bool {
    !connection.was_established()
        && connection.opened.plus(JUST_BEGUN) <= check.at
        && connection.ended().is_none_or(|ended| ended > check.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::frames;

    const CONNECT: &str = "net.(*sysDialer).dialSingle";

    #[test]
    fn a_dial_without_a_context_is_bounded_by_the_dialer() {
        for caller in ["net.DialTimeout", "net.(*Dialer).Dial"] {
            let stack = frames(&[CONNECT, "net.(*Dialer).DialContext", caller]);
            assert_eq!(dialer_limit(&stack, None), Limit::Dialer);
        }
    }

    #[test]
    fn the_transport_dials_detached_from_go_1_23_on() {
        let stack = frames(&[CONNECT, "net/http.(*Transport).dialConnFor"]);
        assert_eq!(dialer_limit(&stack, Some(23)), Limit::Dialer);
        assert_eq!(dialer_limit(&stack, Some(22)), Limit::Connecting);
        assert_eq!(dialer_limit(&stack, None), Limit::Connecting);
    }

    #[test]
    fn a_dial_with_a_context_may_be_bounded_by_either() {
        let stack = frames(&[CONNECT, "net.(*Dialer).DialContext", "main.connect"]);
        assert_eq!(dialer_limit(&stack, Some(27)), Limit::Connecting);
    }
}
