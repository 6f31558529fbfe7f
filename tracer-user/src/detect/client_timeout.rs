//! `client-timeout`: a process gave up waiting for a server, for itself and not for a request that it
//! was serving.
//!
//! Not accused: whoever leaves once and without a seen reason, load generators that stop in the
//! middle, and dials that were abandoned because another address was faster.

use crate::model::Traffic;

use super::{
    docket::{Case, Docket},
    finding::{Rule, Severity},
    grounds::{
        give_up::grouped,
        limit::Limit,
        occasion::{Occasion, above},
        scene::Scene,
    },
    wording::{count, times},
};

/// Adds a case for each server address and setting.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let plain = scene.give_ups.iter().filter(|g| !g.serves(scene));
    for together in grouped(scene, plain) {
        let Some(occasion) = Occasion::of(scene, together, |_| false) else {
            continue;
        };
        let connection = occasion.connection();
        let asked = scene.asked(connection.pid, connection.remote);
        let case = case(&occasion, &asked, docket);
        if let Some(cause) = case.cause {
            docket.raise(cause, case.finding.severity);
        }
        docket.add(case);
    }
}

fn case(occasion: &Occasion<'_, '_>, asked: &Traffic, docket: &Docket) -> Case {
    let mut finding = occasion.finding(Rule::ClientTimeout);
    finding.severity = severity(occasion);
    let exchanges = &asked.exchanges;
    if occasion.example.exchange.is_some() {
        finding.measured.requests = Some(exchanges.exchanges);
        finding.measured.requests_fine = Some(exchanges.fine());
    }
    finding.measured.attempts = Some(asked.connections);
    finding.measured.established = Some(asked.established);
    let mut sentences: Vec<String> = occasion.want_sentence().into_iter().collect();
    sentences.push(occasion.limit_sentence());
    if finding.count > 1 {
        sentences.push(format!("That happened {} here.", times(finding.count)));
    }
    sentences.extend(occasion.upstream_sentence());
    if exchanges.fine() > 0 {
        sentences.push(format!(
            "{} to the same address {} answered.",
            count(exchanges.fine(), "other request", "other requests"),
            if exchanges.fine() == 1 { "was" } else { "were" }
        ));
    }
    finding.explanation = sentences.join(" ");
    finding.advice = advice(occasion);
    Case {
        cause: occasion.cause(docket),
        explains: occasion.all.iter().map(|g| g.connection.socket).collect(),
        finding,
    }
}

/// A request that was not answered in time failed for who asked. But where bytes of the response were
/// flowing and a context's deadline ended them, that is how streams are left on purpose; and a dial
/// abandoned once, under a context, may as well have been called off.
fn severity(occasion: &Occasion<'_, '_>) -> Severity {
    let left_a_stream = occasion.limit == Limit::Context
        && occasion
            .all
            .iter()
            .all(|g| g.exchange.as_ref().is_some_and(|e| e.answered()));
    let may_be_called_off = occasion.limit == Limit::Connecting && occasion.all.len() == 1;
    if left_a_stream || may_be_called_off {
        Severity::Info
    } else {
        Severity::Warning
    }
}

fn advice(occasion: &Occasion<'_, '_>) -> Vec<String> {
    let value = above(occasion.value_s);
    let mut advice = vec![match occasion.limit {
        Limit::ResponseHeader => format!("Raise ResponseHeaderTimeout of the http.Transport{value}, if the server's answer may take longer."),
        Limit::Client => format!("Raise Timeout of the http.Client{value}, if the server's answer may take longer."),
        Limit::Context => "Give the request's context more time where it is made (context.WithTimeout or WithDeadline), or pass on the deadline so that the server can stop as well.".into(),
        Limit::Dialer | Limit::Connecting => "See why the SYN gets no answer before raising the limit for connecting.".into(),
        Limit::Unknown => format!("Raise the client's time limit{value}, if the server's answer may take longer."),
    }];
    if occasion.example.exchange.is_some() {
        advice.push(occasion.faster_upstream());
    }
    advice
}
