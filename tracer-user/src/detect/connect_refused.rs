//! `connect-refused`: a SYN was answered by RST, for nobody listens.
//!
//! A server that restarts refuses for a moment, and a dual-stack name may have one address that
//! refuses and one that does not. Neither is a warning: it passed by itself.

use std::time::Duration;

use crate::{
    event::{BootInstant, ConnectFailure},
    model::{Connection, Model},
};

use super::{
    docket::{Case, Docket},
    finding::{Rule, Severity},
    grounds::{
        connecting::{Attempts, is_here},
        scene::Scene,
        unasked,
    },
    wording::{count, seconds},
};

/// A service that is back sooner was restarted, and its clients' retries bridge it.
const RESTART: Duration = Duration::from_secs(5);

/// A smaller share of refused attempts, with the others established, is noise.
const NOISE: f64 = 0.01;

/// Adds a case for each process and address.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for mut attempts in Attempts::gather(scene, refused) {
        if scene.model.connections_left_out() > 0 {
            attempts.number = attempts.number.max(attempts.asked.refused);
        }
        let unasked = unasked::answered(scene, attempts.pid, attempts.remote);
        for (connection, exchange) in &unasked {
            attempts.harm.touch(scene, connection, exchange);
        }
        if let Some(case) = case(scene, &attempts, unasked.len() as u64) {
            docket.add(case);
        }
    }
}

fn refused(connection: &Connection) -> bool {
    connection
        .connect_failed
        .is_some_and(|failed| failed.why == ConnectFailure::Refused)
}

fn case(scene: &Scene<'_>, attempts: &Attempts<'_>, unasked: u64) -> Option<Case> {
    let model = scene.model;
    let outage = Outage::longest(scene, attempts);
    let example = attempts
        .failed
        .iter()
        .find(|connection| connection.opened >= outage.from)
        .or(attempts.failed.first())?;
    let severity = severity(attempts, &outage).max(attempts.harm.severity());
    let mut finding = attempts.finding(scene, Rule::ConnectRefused, severity, example);
    let who = model.name(attempts.pid);
    let remote = attempts.remote;
    finding.title = format!("{who} was refused by {remote}: nobody listens there");
    let mut sentences = vec![format!("{} was answered by RST at once.", attempts.told())];
    sentences.push(who_refuses(model, attempts));
    sentences.extend(outage.sentence());
    if attempts.harm.harmed() > 0 {
        sentences.push(attempts.harm.sentence());
    }
    if unasked > 0 {
        sentences.push(format!(
            "{} of them {who} answered without asking any upstream: since it was refused, it seems to take this one for down.",
            count(unasked, "request", "requests")
        ));
    }
    finding.explanation = sentences.join(" ");
    finding.advice = vec![if is_here(model, remote) {
        format!(
            "Start what should listen on {remote} (ss -ltnp 'sport = :{}' shows who does), or correct the address in {who}.",
            remote.port()
        )
    } else {
        format!(
            "On {}, see who listens on port {} (ss -ltnp) and whether a firewall rejects with a reset; or correct the address in {who}.",
            remote.ip(),
            remote.port()
        )
    }];
    Some(Case {
        finding,
        cause: None,
        explains: attempts
            .failed
            .iter()
            .map(|connection| connection.socket)
            .chain(attempts.harm.sockets())
            .collect(),
    })
}

/// Repeated refusals are a warning while they last; what passed by itself is not.
fn severity(attempts: &Attempts<'_>, outage: &Outage) -> Severity {
    let never_reached = attempts.asked.established == 0;
    let repeated = outage.refusals > 1;
    let lasting = outage.over.is_none() || outage.length >= RESTART;
    let noise = !never_reached && attempts.failed_share() < NOISE;
    if never_reached || (repeated && lasting && !noise) {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// A stretch of time in which every connect was refused.
struct Outage {
    from: BootInstant,
    /// When a connect was established again.
    over: Option<BootInstant>,
    length: Duration,
    refusals: usize,
}

impl Outage {
    /// The longest one.
    fn longest(scene: &Scene<'_>, attempts: &Attempts<'_>) -> Self {
        let mut reached: Vec<BootInstant> = scene
            .clients_of(attempts.pid)
            .iter()
            .filter(|connection| connection.remote == attempts.remote)
            .filter_map(|connection| connection.established)
            .collect();
        reached.sort();
        let end = scene.model.now();
        let mut outages: Vec<Self> = Vec::new();
        for connection in &attempts.failed {
            let next = reached.partition_point(|at| *at < connection.opened);
            let over = reached.get(next).copied();
            match outages.last_mut() {
                Some(outage) if outage.over == over => outage.refusals += 1,
                _ => outages.push(Self {
                    from: connection.opened,
                    over,
                    length: over.unwrap_or(end).since(connection.opened),
                    refusals: 1,
                }),
            }
        }
        outages
            .into_iter()
            .max_by_key(|outage| (outage.length, outage.refusals))
            .unwrap_or(Self {
                from: end,
                over: None,
                length: Duration::ZERO,
                refusals: 0,
            })
    }

    fn sentence(&self) -> Option<String> {
        let over = self.over?;
        Some(format!(
            "It was over {} after the first refusal: connects succeed since.",
            seconds(over.since(self.from))
        ))
    }
}

fn who_refuses(model: &Model, attempts: &Attempts<'_>) -> String {
    let remote = attempts.remote;
    let served_it = model
        .connections()
        .filter(|connection| connection.peer().serves && connection.local == remote)
        .last()
        .and_then(|connection| model.process(connection.pid));
    match served_it {
        Some(process) => {
            let ended = if process.ended.is_some() {
                ", which ended in the window"
            } else {
                ""
            };
            format!(
                "That address was served by {} (pid {}){ended}.",
                process.about.comm, process.about.pid
            )
        }
        None if is_here(model, remote) => "The address is this host's own, and no process listens on it.".into(),
        None => "The host is up, but no process listens on that port, or a firewall rejects with a reset.".into(),
    }
}
