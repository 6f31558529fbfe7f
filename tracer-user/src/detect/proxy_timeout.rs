//! `proxy-timeout`: a process gave up waiting for its upstream, and with it on a request that it was
//! serving.
//!
//! Not accused: a proxy whose own client had left first (it cancels upstream, rightly), and one that
//! was told to cancel because another answer won.

use super::{
    docket::{Case, Docket},
    finding::{Rule, Severity},
    grounds::{
        give_up::{GiveUp, grouped},
        harm::{Fate, Harm},
        limit::Limit,
        occasion::{Occasion, above},
        scene::Scene,
    },
    wording::times,
};

/// Less sure than this it is a guess, and a guess is never critical.
const GUESS: f64 = 0.6;

/// Adds a case for each upstream address and setting.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let serving = scene.give_ups.iter().filter(|g| g.serves(scene));
    for together in grouped(scene, serving) {
        let harmed = |give_up: &GiveUp<'_>| give_up.fate(scene).is_some_and(Fate::is_harm);
        let Some(occasion) = Occasion::of(scene, together, harmed) else {
            continue;
        };
        let case = case(scene, &occasion, docket);
        if let Some(cause) = case.cause {
            docket.raise(cause, case.finding.severity);
        }
        docket.add(case);
    }
}

fn case(scene: &Scene<'_>, occasion: &Occasion<'_, '_>, docket: &Docket) -> Case {
    let pairings = occasion.all.iter().filter_map(|g| g.serving.as_ref());
    let harm = Harm::of(scene, pairings);
    let mut finding = occasion.finding(Rule::ProxyTimeout);
    finding.severity = harm.severity();
    if occasion.example.begun_before {
        // The request it was serving began before the window too; that it was cut off is certain.
        finding.severity = finding.severity.max(Severity::Warning);
    }
    if finding.confidence < GUESS {
        finding.severity = finding.severity.min(Severity::Warning);
    }
    if !occasion.example.begun_before {
        harm.measure(&mut finding.measured);
    }
    let mut sentences: Vec<String> = occasion.want_sentence().into_iter().collect();
    sentences.push(occasion.limit_sentence());
    if finding.count > 1 {
        sentences.push(format!("That happened {} here.", times(finding.count)));
    }
    sentences.extend(occasion.upstream_sentence());
    if occasion.example.begun_before {
        sentences.push("The request it was serving began before the window, so what became of it was not seen.".into());
    } else {
        sentences.push(harm.sentence());
    }
    finding.explanation = sentences.join(" ");
    finding.advice = advice(occasion, &harm);
    Case {
        cause: occasion.cause(docket),
        explains: harm
            .sockets()
            .chain(occasion.all.iter().map(|g| g.connection.socket))
            .collect(),
        finding,
    }
}

fn advice(occasion: &Occasion<'_, '_>, harm: &Harm) -> Vec<String> {
    let value = above(occasion.value_s);
    let mut advice = vec![match occasion.limit {
        Limit::ResponseHeader => format!(
            "Raise ResponseHeaderTimeout of the http.Transport towards {}{value}, to more than the upstream's slowest honest answer.",
            occasion.connection().remote
        ),
        Limit::Client => format!(
            "Raise Timeout of the http.Client{value}, or drop it and bound the single steps (ResponseHeaderTimeout, a deadline of the context): it also cuts off bodies that flow."
        ),
        Limit::Context => "Find who sets the deadline of this request's context (context.WithTimeout, http.TimeoutHandler), and give it more time.".into(),
        Limit::Dialer | Limit::Connecting => "See why the SYN gets no answer before raising the limit for connecting.".into(),
        Limit::Unknown => format!(
            "Raise the time limit that {} has for its upstream{value}.",
            occasion.who()
        ),
    }];
    if occasion.example.exchange.is_some() {
        advice.push(occasion.faster_upstream());
    }
    if harm.empty() > 0 {
        advice.push("Let the proxy answer 504 instead of closing the connection (in Go: httputil.ReverseProxy.ErrorHandler), so that clients learn what happened.".into());
    }
    advice
}
