//! A request that was never even read: its bytes lie in the socket, and nobody comes for them.
//!
//! Either the accept loop does not take the connection, or the process does not run at all. A server
//! that serves one connection after the other also leaves bytes lying, and goes on: it gets more time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        docket::{Case, Docket},
        finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
        grounds::{
            scene::Scene,
            standing::{self, Acceptors, Standing, serving},
            telling::{Timeline, wireshark_filter},
            want_of_cpu::WantOfCpu,
        },
        wording::{bytes, count, seconds},
    },
    event::{BootInstant, Origin, Pid, Role},
    model::{Connection, Exchange, Model, Service},
};

use super::{both_ends, given_up, severity};

/// Whoever runs reads sooner.
const LONG: Duration = Duration::from_secs(2);

/// Whoever serves one after the other may take so long.
const VERY_LONG: Duration = Duration::from_secs(10);

/// Events come only almost in order, and what was begun is ended.
const SLACK: Duration = Duration::from_millis(100);

/// One connection with a request that nobody read.
struct Unread<'m> {
    connection: &'m Connection,
    since: BootInstant,
    bytes: Option<u64>,
    waited: Duration,
    severity: Severity,
    given_up: bool,
}

/// Why nobody reads, as far as it shows.
enum Reason {
    /// The process has something to run, and hardly a CPU to run it on.
    Starved(WantOfCpu),
    /// Its accept loop is ready to run, and others have Go's processors.
    Queued(String),
    /// A goroutine waits in the network poller for what has long been there: the process does not run.
    Stopped(String),
    /// Nothing of the process moved since; why cannot be told.
    Silent,
    /// Its goroutines are known, and who should take the connection is elsewhere.
    Loop(String),
    /// It serves others meanwhile.
    Busy,
}

impl Reason {
    /// The same for reasons that differ only in whom they name.
    fn kind(&self) -> u8 {
        match self {
            Self::Starved(_) => 0,
            Self::Queued(_) => 1,
            Self::Stopped(_) => 2,
            Self::Silent => 3,
            Self::Loop(_) => 4,
            Self::Busy => 5,
        }
    }
}

/// Adds a case for each listening port. Where workers share it, each is judged by what it has in hand itself,
/// and they are told together where they leave it for the same reason.
pub(in crate::detect) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<(Service, u16, Option<Pid>), Vec<Unread<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        if let Some(unread) = on(scene, connection) {
            let service = scene.service(connection.pid);
            let key = (service, connection.local.port(), in_hand(scene, connection));
            groups.entry(key).or_default().push(unread);
        }
    }
    let mut alike: BTreeMap<_, (Reason, Vec<Unread<'_>>)> = BTreeMap::new();
    for ((service, port, _), group) in groups {
        if let Some(reason) = reason(scene, &group) {
            let place = (service, port, reason.kind());
            let (_, all) = alike.entry(place).or_insert((reason, Vec::new()));
            all.extend(group);
        }
    }
    for (reason, group) in alike.into_values() {
        if let Some(case) = case(scene, docket, &reason, &group) {
            if let Some(cause) = case.cause {
                docket.raise(cause, case.finding.severity);
            }
            docket.add(case);
        }
    }
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Unread<'m>> {
    let (since, bytes) = connection.unread?;
    if connection.role != Role::Server || !begins_a_request(connection, since) {
        return None;
    }
    let model = scene.model;
    let until = connection
        .closed
        .map(|(at, _)| at)
        .or(connection.left())
        .unwrap_or(model.now());
    if scene.exiting(connection.pid, until) {
        return None;
    }
    let waited = until.since(since);
    let given_up = given_up(scene, connection);
    let long = waited >= LONG || given_up.is_some();
    let alarming = waited >= VERY_LONG || (long && !goes_on(scene, connection, since));
    if !long {
        return None;
    }
    let harm = given_up.map_or(Severity::Warning, |(_, harm)| harm.max(Severity::Warning));
    Some(Unread {
        connection,
        since,
        bytes,
        waited,
        severity: if alarming { harm } else { Severity::Info },
        given_up: given_up.is_some(),
    })
}

/// The worker, of several, that has taken the connection. Which of them takes one is seen only when it reads.
fn in_hand(scene: &Scene<'_>, connection: &Connection) -> Option<Pid> {
    let several = !scene.services.workers(connection.pid).is_empty();
    (several && !is_fresh(connection)).then_some(connection.pid)
}

/// Nothing of it was read or answered yet.
fn is_fresh(connection: &Connection) -> bool {
    connection.exchanges().iter().all(|e| !was_moved(e))
}

/// Who would have to read it: one process, or any worker of a service.
fn readers(scene: &Scene<'_>, connection: &Connection) -> Vec<Pid> {
    let workers = scene.services.workers(connection.pid);
    if workers.is_empty() || !is_fresh(connection) {
        vec![connection.pid]
    } else {
        workers.to_vec()
    }
}

/// The bytes are the first of a request: the connection's first, or its next after one that was
/// answered over HTTP. Behind an unfinished one they are its body, and after a change of protocol
/// (101) nobody need read at all.
fn begins_a_request(connection: &Connection, since: BootInstant) -> bool {
    let read: Vec<Exchange> = connection
        .exchanges()
        .into_iter()
        .filter(was_moved)
        .collect();
    match read.last() {
        None => connection.origin != Origin::Found || !connection.exchanges().is_empty(),
        Some(last) => {
            last.head.is_some()
                && last.answered()
                && last.status != Some(101)
                && last.last_byte <= since.plus(SLACK)
        }
    }
}

/// The process's own calls moved bytes of it; else only its head was seen on the wire.
fn was_moved(exchange: &Exchange) -> bool {
    exchange.request_bytes + exchange.response_bytes > 0
}

/// Whoever should read goes on with other work: later connections are served, or this one is behind
/// one that is.
fn goes_on(scene: &Scene<'_>, connection: &Connection, since: BootInstant) -> bool {
    let model = scene.model;
    let fresh = is_fresh(connection);
    let readers = readers(scene, connection);
    model
        .connections()
        .filter(|other| {
            other.role == Role::Server
                && readers.contains(&other.pid)
                && other.local.port() == connection.local.port()
                && other.socket != connection.socket
        })
        .any(|other| {
            let exchanges: Vec<_> = other.exchanges().into_iter().filter(was_moved).collect();
            let taken_since = fresh
                && exchanges
                    .first()
                    .is_some_and(|first| first.number == 0 && first.started > since.plus(SLACK));
            taken_since
                || (exchanges
                    .last()
                    .is_some_and(|last| in_service(model, other, last)))
        })
}

/// `other` is being served by whoever would have to read the next connection: its goroutine works, and
/// is not one of net/http, where each connection has its own.
fn in_service(model: &Model, other: &Connection, last: &Exchange) -> bool {
    if last.answered() || other.left().is_some() {
        return false;
    }
    match serving(model, other) {
        Some(witness) => {
            Standing::of(&witness.state) == Standing::Busy
                && !standing::serves_http(&witness.frames)
        }
        None => model.process(other.pid).is_some() && !model.is_go(other.pid),
    }
}

/// The one that stands for them.
fn example<'u, 'm>(group: &'u [Unread<'m>]) -> Option<&'u Unread<'m>> {
    group
        .iter()
        .max_by_key(|unread| (unread.severity, unread.given_up, unread.waited))
}

/// Who does not read, for people: some workers of a service, where it is not all of it.
fn who(scene: &Scene<'_>, group: &[Unread<'_>], example: &Unread<'_>) -> String {
    let name = scene.model.owner(example.connection);
    let in_hand: Option<BTreeSet<Pid>> = group
        .iter()
        .map(|unread| in_hand(scene, unread.connection))
        .collect();
    let all = scene.services.workers(example.connection.pid).len();
    match in_hand.map(|pids| pids.len()) {
        Some(1) => format!(
            "{name} (1 of {all} workers, pid {})",
            example.connection.pid
        ),
        Some(several) if several < all => format!("{name} ({several} of {all} workers)"),
        _ => name,
    }
}

fn case(scene: &Scene<'_>, docket: &Docket, reason: &Reason, group: &[Unread<'_>]) -> Option<Case> {
    let model = scene.model;
    let example = example(group)?;
    let connection = example.connection;
    let number = group.len() as u64;
    let who = who(scene, group, example);
    let mut measured = Measured {
        unread_bytes: example.bytes,
        response_bytes: Some(0),
        ..Measured::default()
    };
    measured.waits(group.iter().map(|unread| unread.waited).collect());
    let mut worst = group.iter().map(|unread| unread.severity).max()?;
    if worst >= Severity::Warning {
        measured.requests_harmed = Some(number);
        worst = worst.max(severity(scene, connection, number));
    }
    let confidence = match reason {
        Reason::Starved(_) | Reason::Stopped(_) | Reason::Loop(_) => Confidence::SEEN,
        Reason::Queued(_) => Confidence::SEEN.but(Doubt::QueueInferred),
        Reason::Silent | Reason::Busy => Confidence::SEEN.but(Doubt::Ambiguous),
    };
    let goroutines: Vec<Witness> = serving(model, connection).into_iter().collect();
    let acceptors = Acceptors::of(model, connection.pid);
    let loop_at = acceptors.as_ref().and_then(Acceptors::away_at).cloned();
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::NoResponse,
        severity: worst,
        confidence: confidence.number(),
        count: number,
        title: title(&who, reason, connection.local.port(), number),
        explanation: explanation(scene, &who, reason, group),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: Vec::new(),
        setting: None,
        code: loop_at.filter(|_| matches!(reason, Reason::Loop(_) | Reason::Queued(_))),
        goroutines,
        measured,
        evidence: evidence(model, example),
        advice: advice(reason, connection),
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: matches!(reason, Reason::Silent).then(|| {
            "Whether the process is stopped or stuck cannot be told from its sockets alone.".into()
        }),
    };
    let by_scheduler = match reason {
        Reason::Starved(want) => want.cause(docket),
        _ => None,
    };
    let cause = group
        .iter()
        .find_map(|unread| docket.explaining(unread.connection.socket))
        .or(by_scheduler);
    Some(Case {
        finding,
        cause,
        explains: both_ends(
            group
                .iter()
                .filter(|unread| unread.severity >= Severity::Warning)
                .map(|unread| unread.connection),
        ),
    })
}

/// Why nobody reads these, which the same processes would have to; `None` of none.
fn reason(scene: &Scene<'_>, group: &[Unread<'_>]) -> Option<Reason> {
    let example = example(group)?;
    let (model, pid) = (scene.model, example.connection.pid);
    let acceptors = Acceptors::of(model, pid);
    let stuck = acceptors.as_ref().is_some_and(Acceptors::is_stuck);
    let lay = (example.since, example.since.plus(example.waited));
    let starved = WantOfCpu::of_process(scene, pid, lay).filter(WantOfCpu::is_decisive);
    if let Some(want) = starved.filter(|_| !stuck) {
        return Some(Reason::Starved(want));
    }
    let waits_in_vain = group
        .iter()
        .filter_map(|unread| serving(model, unread.connection))
        .find(|witness| witness.state == "IO wait");
    if let Some(witness) = waits_in_vain {
        return Some(Reason::Stopped(format!(
            "Goroutine {} waits for bytes on a connection where they have long arrived, so the process does not run: it is stopped (SIGSTOP, a debugger, a frozen cgroup) or gets no CPU.",
            witness.id
        )));
    }
    let moved = last_move(model, &readers(scene, example.connection));
    let first = group.iter().map(|unread| unread.since).min();
    let silent = moved.is_none_or(|at| first.is_none_or(|first| at <= first.plus(SLACK)));
    Some(match acceptors {
        Some(acceptors) if acceptors.waiting > 0 && silent => Reason::Stopped(format!(
            "{} Yet connections have long been there to take, and no call of the process moved a byte since: it does not run. It is stopped (SIGSTOP, a debugger, a frozen cgroup) or gets no CPU.",
            acceptors.sentence(&model.name(pid))
        )),
        Some(acceptors) if acceptors.is_ready() => {
            Reason::Queued(acceptors.sentence(&model.name(pid)))
        }
        Some(acceptors) if acceptors.waiting == 0 || acceptors.away_at().is_some() => {
            Reason::Loop(acceptors.sentence(&model.name(pid)))
        }
        _ if silent => Reason::Silent,
        _ => Reason::Busy,
    })
}

/// When a call of these processes last moved a byte on a connection, or opened or closed one.
fn last_move(model: &Model, pids: &[Pid]) -> Option<BootInstant> {
    model
        .connections()
        .filter(|connection| pids.contains(&connection.pid))
        .filter_map(|connection| {
            let moved = connection.exchanges().into_iter().rfind(was_moved);
            let opened = (connection.role == Role::Client
                && connection.origin == Origin::Connected)
                .then_some(connection.opened);
            let closed = connection.local_closed.map(|closed| closed.at);
            [moved.map(|exchange| exchange.last_byte), opened, closed]
                .into_iter()
                .flatten()
                .max()
        })
        .max()
}

fn title(who: &str, reason: &Reason, port: u16, number: u64) -> String {
    let what = if number == 1 {
        "a request".into()
    } else {
        count(number, "request", "requests")
    };
    match reason {
        Reason::Starved(_) | Reason::Queued(_) => {
            format!("{who} got too little CPU: it left {what} on port {port} unread")
        }
        Reason::Stopped(_) => format!("{who} does not run: it left {what} on port {port} unread"),
        Reason::Loop(_) => {
            format!("{who} does not take its connections: it left {what} on port {port} unread")
        }
        Reason::Silent | Reason::Busy => format!("{who} left {what} on port {port} unread"),
    }
}

fn explanation(scene: &Scene<'_>, who: &str, reason: &Reason, group: &[Unread<'_>]) -> String {
    let Some(example) = example(group) else {
        return String::new();
    };
    let size = example
        .bytes
        .map_or_else(String::new, |number| format!(" ({})", bytes(number)));
    let mut told = vec![format!(
        "{} on {} arrived and {} never read{size}; the one that waited longest lay there for {}.",
        count(group.len() as u64, "request", "requests"),
        count(group.len() as u64, "connection", "connections"),
        if group.len() == 1 { "was" } else { "were" },
        seconds(
            group
                .iter()
                .map(|unread| unread.waited)
                .max()
                .unwrap_or_default()
        ),
    )];
    told.push(match reason {
        Reason::Starved(want) => format!(
            "{who} hardly ran meanwhile: {}.",
            want.numbers(scene.model)
        ),
        Reason::Queued(why) => {
            format!("{why} Other goroutines have Go's processors (GOMAXPROCS).")
        }
        Reason::Stopped(why) | Reason::Loop(why) => why.clone(),
        Reason::Silent => format!(
            "No call of {who} moved a byte on any connection since: it is stopped (SIGSTOP, a debugger, a frozen cgroup), or stuck as a whole."
        ),
        Reason::Busy => format!("{who} reads other connections meanwhile, so it runs, and is slow to come to these."),
    });
    let gave_up = group.iter().filter(|unread| unread.given_up).count() as u64;
    if gave_up > 0 {
        told.push(format!("{} gave up.", count(gave_up, "client", "clients")));
    }
    told.join(" ")
}

fn advice(reason: &Reason, connection: &Connection) -> Vec<String> {
    let (pid, port) = (connection.pid, connection.local.port());
    vec![match reason {
        Reason::Starved(want) if want.throttled >= want.run_queue => format!(
            "Raise the CPU quota of its cgroup, or find what uses it up: gopulse diagnose --pid {pid} names the lines that compute."
        ),
        Reason::Starved(_) => format!(
            "Find who has the CPUs (top), and give process {pid} a larger share: another host, cpu.weight of its cgroup, renice."
        ),
        Reason::Queued(_) => format!(
            "Find who has Go's processors: gopulse diagnose --pid {pid} names the lines that compute. Where GOMAXPROCS is below the CPUs that it may use, raise it."
        ),
        Reason::Stopped(_) | Reason::Silent => format!(
            "See its state: grep State /proc/{pid}/status. T is stopped (kill -CONT {pid} lets it go on, if nobody debugs it), D waits for a disk or a mount."
        ),
        Reason::Loop(_) => format!(
            "Let the accept loop of port {port} do nothing but Accept and start a goroutine; see what it waits for: gopulse goroutines --pid {pid}."
        ),
        Reason::Busy => format!(
            "Serve connections of port {port} side by side, or with more workers: they wait for one another."
        ),
    }]
}

fn evidence(model: &Model, example: &Unread<'_>) -> Vec<Evidence> {
    let connection = example.connection;
    let who = model.owner(connection);
    let mut timeline = Timeline::of(model);
    timeline.add(
        connection.opened,
        "connect",
        format!("{} is connected to {}", connection.remote, connection.local),
    );
    timeline.add(
        example.since,
        "arrival",
        format!("its request lies in the socket; {who} does not read it"),
    );
    timeline.add_if(connection.peer_left(), "left", || {
        format!("{} leaves without an answer", connection.remote)
    });
    if connection.closed.is_none() {
        timeline.add(
            model.now(),
            "waiting",
            "still unread at the end of the window".into(),
        );
    }
    timeline.evidence()
}
