//! `accept-backlog`: the accept queue of a listening socket overflowed.
//!
//! The kernel finishes handshakes and queues the connections for `accept(2)`. Where the queue is full
//! it drops SYNs and last ACKs without a word; the client sends again after 1 s, 3 s, 7 s. Not
//! accused: a queue that is full for a moment and drops nothing, and a listener whose clients send their
//! SYNs again for another reason (`target/overflows.rs` tells these drops apart).

use std::collections::HashSet;

use crate::{
    event::{BootInstant, ConnectFailure, Role, SocketId},
    model::{Connection, Model, Queue},
};

use super::{
    confidence::Confidence,
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Severity, Subject},
    grounds::{
        connecting::is_here,
        scene::Scene,
        standing::Acceptors,
        telling::{Timeline, wireshark_filter},
    },
    wording::count,
};

/// A smaller share of handshakes dropped, with the queue emptied since, passed by itself.
const NOISE: f64 = 0.01;

/// A share of handshakes dropped from which on the harm is critical.
const CRITICAL_SHARE: f64 = 0.05;

/// Adds a case for each listening socket.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for queue in scene.model.queues() {
        if let Some(case) = case(scene, docket, queue) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, docket: &mut Docket, queue: &Queue) -> Option<Case> {
    let model = scene.model;
    let (_, listening) = queue.last;
    let dropped = queue.dropped();
    if dropped == 0 {
        return None;
    }
    let clients = kept_waiting(model, queue);
    let served = scene.served_at(listening.pid, listening.address);
    let severity = severity(queue, dropped, served.connections, !clients.is_empty());
    let who = model.name(listening.pid);
    let port = listening.address.port();
    let mut measured = Measured {
        queued: Some(u64::from(queue.fullest.1.queued)),
        backlog: Some(u64::from(listening.backlog)),
        handshakes_dropped: Some(dropped),
        connections: Some(served.connections),
        ..Measured::default()
    };
    if !clients.is_empty() {
        measured.attempts = Some(clients.len() as u64);
    }
    let cause = out_of_descriptors(docket, listening.pid);
    if let Some(cause) = cause {
        docket.raise(cause, severity);
    }
    let example = clients.first().copied();
    let waiting = never_taken(model, queue);
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::AcceptBacklog,
        severity,
        confidence: Confidence::SEEN.number(),
        count: dropped,
        title: format!("{who}'s accept queue on port {port} overflowed"),
        explanation: explanation(model, queue, dropped, clients.len(), cause.is_some()),
        process: Subject::of(model, listening.pid),
        connection: example.map(Into::into),
        related_connections: Vec::new(),
        setting: None,
        code: Acceptors::of(model, listening.pid)
            .as_ref()
            .and_then(Acceptors::away_at)
            .cloned(),
        goroutines: Vec::new(),
        measured,
        evidence: evidence(model, queue, example),
        advice: advice(&who, queue),
        wireshark_filter: wireshark_filter(example.into_iter())
            .or_else(|| Some(format!("tcp.port=={port}"))),
        incomplete: None,
    };
    Some(Case {
        finding,
        cause,
        explains: clients
            .iter()
            .map(|connection| connection.socket)
            .chain(waiting)
            .collect(),
    })
}

fn severity(queue: &Queue, dropped: u64, taken: u64, clients_waited: bool) -> Severity {
    let share = dropped as f64 / (taken + dropped) as f64;
    let full = is_full(queue);
    if full && share >= CRITICAL_SHARE && dropped >= 3 {
        Severity::Critical
    } else if full || share >= NOISE || clients_waited {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// It is full as last told. A queue holds one more than its backlog (`sk_acceptq_is_full`).
fn is_full(queue: &Queue) -> bool {
    queue.last.1.queued >= queue.last.1.backlog
}

fn out_of_descriptors(docket: &Docket, pid: crate::event::Pid) -> Option<usize> {
    docket.worst_of(Rule::FdExhaustion, pid).filter(|place| {
        docket
            .finding(*place)
            .is_some_and(|finding| finding.measured.calls_refused > Some(0))
    })
}

/// Connects of traced processes to this queue that sent their SYN again, or were never let in.
fn kept_waiting<'m>(model: &'m Model, queue: &Queue) -> Vec<&'m Connection> {
    let address = queue.last.1.address;
    let to_it = |connection: &&Connection| {
        connection.role == Role::Client
            && connection.remote.port() == address.port()
            && (connection.remote.ip() == address.ip()
                || (address.ip().is_unspecified() && is_here(model, connection.remote)))
    };
    let waited = |connection: &&Connection| {
        let failed = connection.connect_failed.is_some_and(|failed| {
            matches!(
                failed.why,
                ConnectFailure::TimedOut | ConnectFailure::Abandoned
            )
        });
        // The client believes it is connected, and the kernel here dropped its last ACK.
        let half_open = connection.established.is_some()
            && connection.other_end.is_none()
            && connection.retransmits > 0
            && connection.exchanges().iter().all(|e| !e.answered());
        connection.syn_retransmits > 0 || failed || half_open
    };
    let from = queue.overflowed;
    model
        .connections()
        .filter(to_it)
        .filter(waited)
        .filter(|connection| {
            from.is_none_or(|from| connection.ended().is_none_or(|ended| ended >= from))
        })
        .collect()
}

/// Connections that lie in the queue still: established, and no call moved a byte of them.
fn never_taken(model: &Model, queue: &Queue) -> HashSet<SocketId> {
    let listening = queue.last.1;
    if !is_full(queue) {
        return HashSet::new();
    }
    model
        .connections()
        .filter(|c| {
            c.role == Role::Server
                && c.pid == listening.pid
                && c.local.port() == listening.address.port()
                && c.exchanges()
                    .iter()
                    .all(|e| e.request_bytes + e.response_bytes == 0)
        })
        .flat_map(|c| [Some(c.socket), c.other_end])
        .flatten()
        .collect()
}

fn explanation(
    model: &Model,
    queue: &Queue,
    dropped: u64,
    clients: usize,
    explained: bool,
) -> String {
    let (_, listening) = queue.last;
    let who = model.name(listening.pid);
    let mut told = vec![format!(
        "{} found no room in the queue of {}, by the kernel's own count (ListenOverflows): {} may wait there to be accepted, for its backlog is {}.",
        count(
            dropped,
            "SYN or last ACK of a handshake",
            "SYNs and last ACKs of handshakes"
        ),
        listening.address,
        count(
            u64::from(listening.backlog.saturating_add(1)),
            "connection",
            "connections"
        ),
        listening.backlog,
    )];
    let most = queue.fullest.1.queued;
    if most <= queue.fullest.1.backlog {
        told.push(format!(
            "It was full for a moment between two looks, at which {most} waited at most."
        ));
    }
    if explained {
        told.push(format!(
            "{who} has no file descriptor left to accept them with."
        ));
    } else if let Some(acceptors) = Acceptors::of(model, listening.pid) {
        told.push(acceptors.sentence(&who));
    }
    if clients > 0 {
        told.push(format!(
            "{} from this host had to send again, or never got in.",
            count(clients as u64, "connect", "connects")
        ));
    }
    told.push(if is_full(queue) {
        "It was still full when last looked at.".into()
    } else {
        format!(
            "When last looked at it held {}.",
            count(u64::from(queue.last.1.queued), "connection", "connections")
        )
    });
    told.join(" ")
}

fn advice(who: &str, queue: &Queue) -> Vec<String> {
    let (_, listening) = queue.last;
    let port = listening.address.port();
    vec![
        format!(
            "Let {who} accept faster: its accept loop should do nothing but accept and hand over. ss -ltn 'sport = :{port}' shows the queue (Recv-Q of Send-Q)."
        ),
        format!(
            "For bursts, raise the backlog above {}: the second argument of listen(2), which net.core.somaxconn bounds (Go takes net.core.somaxconn itself when it begins to listen, so restart {who} after sysctl -w).",
            listening.backlog
        ),
    ]
}

fn evidence(model: &Model, queue: &Queue, example: Option<&Connection>) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let held = |(at, listening): (BootInstant, crate::event::Listening)| {
        (
            at,
            format!(
                "the queue of {} holds {} of {}; {} dropped so far",
                listening.address,
                listening.queued,
                listening.backlog.saturating_add(1),
                listening.dropped
            ),
        )
    };
    let mut moments = vec![held(queue.first), held(queue.fullest), held(queue.last)];
    moments.dedup();
    for (at, detail) in moments {
        timeline.add(at, "queue", detail);
    }
    timeline.add_if(queue.overflowed, "overflow", || {
        "the first drop is noticed".into()
    });
    if let Some(client) = example {
        timeline.add(
            client.opened,
            "connect",
            format!(
                "{} sends a SYN to {}, and again {}",
                model.owner(client),
                client.remote,
                super::wording::times(u64::from(client.syn_retransmits))
            ),
        );
        timeline.add_if(client.established, "established", || {
            "its handshake is done".into()
        });
    }
    timeline.evidence()
}
