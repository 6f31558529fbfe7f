//! One file a rule: from the model to findings.
//!
//! In comes a [`Model`]; out come [`Finding`]s, each with its evidence, the harm measured, how sure
//! it is and what was missing to be sure. A finding never claims more than was seen: where two
//! readings of the same events are possible, the harmless one holds. Nothing here does I/O or reads
//! a clock, so a recording gives the same findings as the live run.

mod accept_backlog;
mod client_timeout;
mod close_wait_leak;
mod confidence;
mod connect_refused;
mod connect_timeout;
mod connection_churn;
mod connection_reset;
mod cpu_throttled;
mod deadlock;
mod docket;
mod empty_response;
mod fd_exhaustion;
mod finding;
mod gateway_timeout;
mod gc_pressure;
mod goroutine_leak;
mod grounds;
mod keepalive_race;
mod lock_contention;
mod no_response;
mod own_code;
mod packet_loss;
mod proxy_timeout;
mod run_queue_delay;
mod scheduler_thrash;
mod server_timeout;
mod slow_response;
mod stalled_transfer;
#[cfg(test)]
mod tests;
mod timer_abuse;
pub(crate) mod wording;

pub use confidence::{Confidence, Doubt};
pub use finding::{
    Ends, Evidence, Finding, Measured, Rule, Setting, Severity, Starter, Subject, Witness,
};
pub use own_code::{brief, is_standard, own_frame};

pub(crate) use finding::{known_pid, rfc3339_nanoseconds};
pub(crate) use grounds::telling::deciding_frame;
#[cfg(test)]
pub(crate) use tests::{GATEWAY, large_uploads_fail, saving};

use crate::{
    event::Shed,
    model::{Model, WentWithout},
};

use docket::Docket;
use grounds::scene::Scene;
use wording::{count, join};

/// Every rule; causes before what they may cause.
const RULES: &[fn(&Scene<'_>, &mut Docket)] = &[
    packet_loss::find,
    cpu_throttled::find,
    timer_abuse::find,
    gc_pressure::find,
    scheduler_thrash::find,
    run_queue_delay::find,
    deadlock::find,
    lock_contention::find,
    goroutine_leak::find,
    no_response::taken::find,
    no_response::standstill::find,
    close_wait_leak::find,
    fd_exhaustion::find,
    accept_backlog::find,
    no_response::unread::find,
    connection_churn::find,
    connect_refused::find,
    connect_timeout::find,
    proxy_timeout::find,
    client_timeout::find,
    server_timeout::find,
    gateway_timeout::find,
    keepalive_race::find,
    connection_reset::find,
    empty_response::find,
    stalled_transfer::find,
    slow_response::pool::find,
    slow_response::find,
];

/// What is wrong, the worst first, causes before their consequences.
#[must_use]
pub fn findings(model: &Model) -> Vec<Finding> {
    let scene = Scene::of(model);
    let mut docket = Docket::new(&scene.services);
    for rule in RULES {
        rule(&scene, &mut docket);
    }
    let mut findings = docket.close();
    if let Some(lost) = losses(model) {
        for finding in &mut findings {
            let doubted = Confidence::of(finding.confidence).but(Doubt::Losses);
            finding.confidence = doubted.number();
            let before = finding.incomplete.take();
            finding.incomplete = Some(
                before
                    .into_iter()
                    .chain([lost.clone()])
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
    }
    findings
}

/// What was not looked at any more, in a sentence.
fn without(went: &WentWithout) -> String {
    match went.shed {
        Shed::Packets => "Packets were not seen to the end.".to_owned(),
        Shed::Samples => "Where CPU time goes was not sampled to the end.".to_owned(),
        Shed::Scheduler => "Threads on CPUs were not watched to the end.".to_owned(),
        Shed::Connections { one_in } => format!(
            "In the end only one connection in {one_in} was followed, so counts are lower bounds."
        ),
    }
}

/// What was lost or left out, in a sentence or two.
fn losses(model: &Model) -> Option<String> {
    let mut told = Vec::new();
    let losses = model.losses();
    if !losses.is_empty() {
        let lost: u64 = losses.values().sum();
        let by: Vec<String> = losses.keys().map(|probe| (*probe).to_owned()).collect();
        told.push(format!(
            "{} lost in this window (by {}), so counts are lower bounds.",
            count(lost, "record was", "records were"),
            join(&by)
        ));
    }
    told.extend(model.went_without().iter().map(without));
    if model.forgotten() > 0 {
        told.push(format!(
            "More went wrong than is kept: {} too many, so counts are lower bounds.",
            count(
                model.forgotten(),
                "connection or exchange",
                "connections or exchanges"
            )
        ));
    }
    (!told.is_empty()).then(|| told.join(" "))
}
