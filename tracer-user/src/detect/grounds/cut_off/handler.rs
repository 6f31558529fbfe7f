//! Requests that a handler's own limit answered with 503: `net/http.TimeoutHandler`.
//!
//! It answers while the handler's goroutine, which it started, works on. No deadline of the connection
//! passes, so it is known by that goroutine, and by the same wait again and again. A gateway that
//! gave up on its upstream, or passes a 503 on, is another story.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{Frame, Pid},
    model::{Connection, Group, Service},
};

use super::{
    super::{limit::crowd, scene::Scene},
    Answers, CutOff, ServerLimit, place,
};

/// "Service Unavailable".
const UNAVAILABLE: u16 = 503;

/// Whoever refuses at once is no limit of time.
const SHORTEST: Duration = Duration::from_millis(50);

/// Waits of the same length that make a limit where its goroutine was not seen.
const ENOUGH: usize = 3;

/// The same where it was.
const ENOUGH_NAMED: usize = 2;

const TIMEOUT_HANDLER: &str = "net/http.(*timeoutHandler).ServeHTTP";

pub(super) fn all<'m>(
    scene: &Scene<'m>,
    servers: &[&'m Connection],
    answers: &Answers,
) -> Vec<CutOff<'m>> {
    let mut by_port: BTreeMap<(Service, u16), Vec<CutOff<'m>>> = BTreeMap::new();
    for connection in servers {
        let place = place(scene, connection);
        for cut in on(scene, connection, answers) {
            by_port.entry(place).or_default().push(cut);
        }
    }
    let mut all = Vec::new();
    let groups = scene.model.goroutine_groups();
    for together in by_port.into_values() {
        let is_seen = |cut: &CutOff<'_>| started_by_it(&groups, cut.connection.pid).is_some();
        let named = together.iter().any(is_seen);
        all.extend(believable(together, named));
    }
    all
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection, answers: &Answers) -> Vec<CutOff<'m>> {
    if !scene.model.is_go(connection.pid) {
        return Vec::new();
    }
    connection
        .exchanges()
        .into_iter()
        .filter(|exchange| exchange.status == Some(UNAVAILABLE) && exchange.head.is_some())
        .filter(|exchange| !scene.harmed_by_give_up(connection.socket, exchange.number))
        .filter(|exchange| !answers.passed_on(connection, exchange))
        .filter_map(|exchange| {
            let at = exchange.first_byte?;
            let waited = at.since(exchange.started);
            (waited >= SHORTEST).then_some(CutOff {
                connection,
                at,
                waited,
                at_most: false,
                limit: ServerLimit::Handler,
                setting: None,
                sending: false,
                confidence: Confidence::from_timing(1),
                doubts: Vec::new(),
                exchange,
            })
        })
        .collect()
}

/// Those that waited alike. Where a goroutine of it was seen, fewer are enough.
fn believable(mut together: Vec<CutOff<'_>>, named: bool) -> Vec<CutOff<'_>> {
    together.sort_by_key(|cut| cut.waited);
    let waits: Vec<Duration> = together.iter().map(|cut| cut.waited).collect();
    let best = crowd(&waits);
    let number = best.len();
    if number < if named { ENOUGH_NAMED } else { ENOUGH } {
        return Vec::new();
    }
    let (confidence, setting, doubts) = if named {
        // Seen was a handler under this limit, not the very one that was cut off.
        let doubts = vec![Doubt::SettingInferred];
        (Confidence::SEEN, Some("net/http.TimeoutHandler"), doubts)
    } else {
        (Confidence::from_timing(number), None, Vec::new())
    };
    together
        .drain(best)
        .map(|cut| CutOff {
            confidence,
            setting,
            doubts: doubts.clone(),
            ..cut
        })
        .collect()
}

/// Goroutines of `pid` that `TimeoutHandler` started: the most of them at one place.
pub(crate) fn started_by_it(groups: &[Group], pid: Pid) -> Option<&Group> {
    let is_it = |frame: &Frame| frame.function == TIMEOUT_HANDLER;
    let of_it = |group: &&Group| group.pid == pid && group.created_by.as_ref().is_some_and(is_it);
    groups.iter().find(of_it).or_else(|| {
        groups
            .iter()
            .find(|group| group.pid == pid && group.frames.iter().any(is_it))
    })
}
