//! `connect-timeout`: SYNs went unanswered, because nobody is there or because something drops them.
//!
//! Whose time ran out meanwhile is another matter (`client-timeout`, `proxy-timeout`) and told as
//! the consequence of this.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    event::{BootInstant, ConnectFailure},
    model::{Connection, Model},
};

use super::{
    docket::{Case, Docket},
    finding::{Rule, Severity},
    grounds::{
        connecting::{Attempts, errno_name, is_here},
        drops::{dropper, drops},
        scene::Scene,
    },
    wording::{count, join, seconds},
};

/// After this time the kernel sends the SYN again (`TCP_TIMEOUT_INIT`, RFC 6298); hardly any path is
/// that long.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A SYN that stays on the host is answered within microseconds.
const FIRST_RETRY_HERE: Duration = Duration::from_millis(200);

/// A smaller share of unanswered attempts, with the others established, is noise.
const NOISE: f64 = 0.01;

/// Errors by which the kernel says that nobody is there (asm-generic/errno.h).
const UNREACHABLE: [i32; 3] = [110, 112, 113];

/// Adds a case for each process and address.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let now = scene.model.now();
    for attempts in Attempts::gather(scene, |connection| unanswered(connection, now)) {
        if let Some(case) = case(scene, &attempts, docket) {
            docket.add(case);
        }
    }
    for attempts in Attempts::gather(scene, |connection| answered_late(connection, scene)) {
        if let Some(case) = late_case(scene, &attempts, docket) {
            docket.add(case);
        }
    }
}

/// How long a connection lasted, or a connect that came to nothing waited.
fn waited(connection: &Connection, now: BootInstant) -> Duration {
    connection.ended().unwrap_or(now).since(connection.opened)
}

fn unanswered(connection: &Connection, now: BootInstant) -> bool {
    let long = if connection.remote.ip().is_loopback() {
        FIRST_RETRY_HERE
    } else {
        FIRST_RETRY
    };
    let no_answer = connection.syn_retransmits > 0
        || waited(connection, now) >= long
        || !connection.drops.is_empty();
    match connection.connect_failed.map(|failed| failed.why) {
        Some(ConnectFailure::TimedOut) => true,
        Some(ConnectFailure::Abandoned) => no_answer,
        Some(ConnectFailure::Error(errno)) => UNREACHABLE.contains(&errno),
        Some(ConnectFailure::Refused) => false,
        None => connection.connecting() && no_answer,
    }
}

/// Established, but not by the first SYN. Where others to the same address never were, that story
/// is told already.
fn answered_late(connection: &Connection, scene: &Scene<'_>) -> bool {
    connection.syn_retransmits > 0
        && connection.established.is_some()
        && !scene
            .clients_of(connection.pid)
            .iter()
            .any(|other| other.remote == connection.remote && unanswered(other, scene.model.now()))
}

fn case(scene: &Scene<'_>, attempts: &Attempts<'_>, docket: &Docket) -> Option<Case> {
    let model = scene.model;
    let now = model.now();
    let drops = drops(attempts.failed.iter().copied());
    let example = attempts
        .failed
        .iter()
        .rev()
        .max_by_key(|c| (!c.drops.is_empty(), c.connect_failed.is_some()))?;
    let severity = severity(attempts).max(attempts.harm.severity());
    let mut finding = attempts.finding(scene, Rule::ConnectTimeout, severity, example);
    let who = model.name(attempts.pid);
    let remote = attempts.remote;
    finding.title = format!("{who} got no answer from {remote} when connecting");
    finding
        .measured
        .waits(attempts.failed.iter().map(|c| waited(c, now)).collect());
    finding.measured.syn_retransmits = Some(syn_retransmits(&attempts.failed));
    finding.measured.drops = drops.clone();
    let mut sentences = vec![format!(
        "{} got no answer to its SYN ({} sent again in all, up to {} waited).",
        attempts.told(),
        count(syn_retransmits(&attempts.failed), "SYN", "SYNs"),
        seconds(Duration::from_secs_f64(
            finding.measured.waited_max_s.unwrap_or_default()
        )),
    )];
    if cause(attempts, docket).is_none() {
        sentences.push(who_drops(model, attempts, &drops));
    }
    if attempts.harm.harmed() > 0 {
        sentences.push(attempts.harm.sentence());
    }
    finding.explanation = sentences.join(" ");
    finding.advice = advice(model, attempts, &drops);
    if drops.is_empty() && cause(attempts, docket).is_none() {
        finding.incomplete =
            Some("Where the SYN or its answer was lost is not to be seen from this host.".into());
    }
    Some(Case {
        finding,
        cause: cause(attempts, docket),
        explains: attempts
            .failed
            .iter()
            .map(|connection| connection.socket)
            .chain(attempts.harm.sockets())
            .collect(),
    })
}

fn late_case(scene: &Scene<'_>, attempts: &Attempts<'_>, docket: &Docket) -> Option<Case> {
    let example = attempts.failed.first()?;
    let mut finding = attempts.finding(scene, Rule::ConnectTimeout, Severity::Info, example);
    finding.title = format!(
        "{} connected to {} only after sending its SYN again",
        scene.model.name(attempts.pid),
        attempts.remote
    );
    finding.measured.waits(
        attempts
            .failed
            .iter()
            .filter_map(|c| c.connect_time())
            .collect(),
    );
    finding.measured.syn_retransmits = Some(syn_retransmits(&attempts.failed));
    finding.explanation = format!(
        "{} of {} to {} took a second SYN, and up to {}: the first or its answer was lost, or the answer takes longer than a second to come. They were established in the end.",
        attempts.failed.len(),
        count(attempts.asked.connections, "connect", "connects"),
        attempts.remote,
        seconds(Duration::from_secs_f64(
            finding.measured.waited_max_s.unwrap_or_default()
        )),
    );
    finding.advice = vec![
        "Look at the listener's accept queue (nstat -az TcpExtListenOverflows on its host), and for loss and long round trips on the path (ping).".into(),
    ];
    Some(Case {
        finding,
        cause: cause(attempts, docket),
        explains: attempts
            .failed
            .iter()
            .filter(|connection| was_mostly_connecting(connection, scene.model.now()))
            .map(|connection| connection.socket)
            .collect(),
    })
}

/// Who gave up on it meanwhile did so for the handshake; what else went wrong on it is its own story.
fn was_mostly_connecting(connection: &Connection, now: BootInstant) -> bool {
    connection
        .connect_time()
        .is_some_and(|took| took * 2 >= waited(connection, now))
}

/// What explains that these connects came to nothing, such as the listener's full queue.
fn cause(attempts: &Attempts<'_>, docket: &Docket) -> Option<usize> {
    attempts
        .failed
        .iter()
        .find_map(|connection| docket.explaining(connection.socket))
}

fn severity(attempts: &Attempts<'_>) -> Severity {
    if attempts.asked.established > 0 && attempts.failed_share() < NOISE {
        Severity::Info
    } else {
        Severity::Warning
    }
}

fn syn_retransmits(connections: &[&Connection]) -> u64 {
    connections
        .iter()
        .map(|c| u64::from(c.syn_retransmits))
        .sum()
}

/// Who dropped the SYN, as far as this kernel knows.
fn who_drops(model: &Model, attempts: &Attempts<'_>, drops: &BTreeMap<String, u64>) -> String {
    if !drops.is_empty() {
        let by: Vec<String> = drops.keys().map(|reason| dropper(reason)).collect();
        return format!("Packets were dropped on this host {}.", join(&by));
    }
    let errno = attempts
        .failed
        .iter()
        .find_map(|c| match c.connect_failed?.why {
            ConnectFailure::Error(errno) => Some(errno),
            _ => None,
        });
    match errno {
        Some(errno) => format!("The kernel says {}: nobody answers for that address on the link, or a router said so.", errno_name(errno)),
        None if is_here(model, attempts.remote) => "The address is this host's own: the listener's accept queue is full, or a firewall rule drops the SYN.".into(),
        None => "No packet came back: no such host, or something on the way drops it.".into(),
    }
}

fn advice(model: &Model, attempts: &Attempts<'_>, drops: &BTreeMap<String, u64>) -> Vec<String> {
    let remote = attempts.remote;
    let (ip, port) = (remote.ip(), remote.port());
    vec![if drops.contains_key("NETFILTER_DROP") {
        format!(
            "Find the rule that drops packets to {ip} port {port}: nft list ruleset (or iptables-save), chains output and, for this host's own addresses, input."
        )
    } else if is_here(model, remote) {
        format!(
            "See whether {port} has a listener whose queue is full: ss -ltn 'sport = :{port}' (Recv-Q above Send-Q), and the firewall's rules: nft list ruleset."
        )
    } else {
        format!(
            "See whether {ip} is up and reachable (ip route get {ip}; tracepath -n {ip}), and whether a firewall on the way or there drops port {port}."
        )
    }]
}
