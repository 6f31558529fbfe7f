//! `connection-churn`: short connections, opened over and over to one address, where one would do.
//!
//! The opener is told, never who is called. Not accused: what happens every few seconds, such as a
//! health check; connections side by side, for which one would not do; connects that came to nothing,
//! which are another rule's; and load generators that only talk to a target.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    event::{Frame, Pid, Relation, Role},
    model::{Connection, Exchange, Model, Service},
};

use super::{
    confidence::Confidence,
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Setting, Severity, Subject},
    grounds::{
        opening::Opener,
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
        usual::median,
        workers,
    },
    own_code::brief,
    wording::{count, seconds, times},
};

mod reason;

use reason::Reason;

/// A connection that lives longer is used again and again, or waits.
const SHORT: Duration = Duration::from_secs(2);

/// Who closes so long after what was sent last waited for an answer, such as that to a TLS handshake.
const IN_VAIN: Duration = Duration::from_millis(100);

/// Turns of direction in a short connection: its greeting, one message and its farewell.
const TURNS: u64 = 8;

/// Connections that could have been spared; fewer are no habit.
const HABIT: u64 = 20;

/// Below this rate, per second, it is a health check or a timer's.
const OFTEN: f64 = 1.0;

/// From this rate on it is worth changing where a program's own code does it for every message.
const FOR_EACH_MESSAGE: f64 = 5.0;

/// From this rate on it costs CPU and ports whatever each connection is for.
const STORM: f64 = 100.0;

/// The shortest time that a rate is told over: a burst is no rate.
const RATED_OVER: Duration = Duration::from_secs(3);

/// A share of the request's time that goes into connecting which somebody would want back.
const DEAR: f64 = 1.0 / 3.0;

/// Local ports to one address (`net.ipv4.ip_local_port_range`, 32768 to 60999), and for how many
/// seconds the one who closes first cannot use a port again (`TCP_TIMEWAIT_LEN`).
const PORTS: f64 = 28_232.0;
const TIME_WAIT: f64 = 60.0;

/// The short connections of one process, or of several workers of a service, to one address.
struct Churn<'m> {
    /// The process; of several the one that opens the most.
    pid: Pid,
    /// How many they are.
    workers: usize,
    remote: SocketAddr,
    /// Those still kept one by one, in the order of opening.
    short: Vec<&'m Connection>,
    /// All of them, as far as counted.
    number: u64,
    /// Of `short`, those for which an earlier one had just become free.
    spared: u64,
    per_second: f64,
    /// The share of the requests' time that went into connecting.
    connecting: f64,
    opener: Option<Opener<'m>>,
    reason: Reason,
}

/// Adds a case for each service and address. No process can use another's connection, so it is judged by
/// process, and told together.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut by_peer: BTreeMap<(Pid, SocketAddr), Vec<&Connection>> = BTreeMap::new();
    for connection in scene.clients().filter(|c| is_short(c)) {
        by_peer
            .entry((connection.pid, connection.remote))
            .or_default()
            .push(connection);
    }
    let mut by_service: BTreeMap<(Service, SocketAddr), Churn<'_>> = BTreeMap::new();
    for ((pid, remote), short) in by_peer {
        let Some(churn) = Churn::of(scene, pid, remote, short) else {
            continue;
        };
        let place = (scene.service(pid), remote);
        let whole = match by_service.remove(&place) {
            Some(others) => others.join(churn),
            None => churn,
        };
        by_service.insert(place, whole);
    }
    for churn in by_service.into_values() {
        if let Some(case) = churn.case(scene, docket) {
            docket.add(case);
        }
    }
}

/// It was opened and ended in the window, did its work in between, and that quickly.
fn is_short(connection: &Connection) -> bool {
    let exchanges = connection.exchanges();
    let Some(ended) = connection.left().max(connection.closed.map(|(at, _)| at)) else {
        return false;
    };
    // A message may want no answer; then nobody waits for one.
    let served = |exchange: &Exchange| {
        let told = exchange.head.is_none() && ended.since(exchange.last_byte) < IN_VAIN;
        told || exchange.answered()
    };
    connection.connect_time().is_some()
        && connection.reset_received.is_none()
        && ended.since(connection.opened) <= SHORT
        && !exchanges.is_empty()
        && exchanges.iter().all(served)
        && exchanges.len() as u64 <= TURNS
}

impl<'m> Churn<'m> {
    fn of(
        scene: &Scene<'m>,
        pid: Pid,
        remote: SocketAddr,
        mut short: Vec<&'m Connection>,
    ) -> Option<Self> {
        short.sort_by_key(|connection| connection.opened);
        let kept = scene
            .clients_of(pid)
            .iter()
            .filter(|connection| connection.remote == remote)
            .count() as u64;
        // Those no longer kept were closed, and nothing was remarkable about them.
        let folded = scene.asked_by(pid, remote).connections.saturating_sub(kept);
        let number = short.len() as u64 + folded;
        let spared = spared(&short);
        let first = short.first()?.opened;
        let span = short.last()?.opened.since(first).max(RATED_OVER);
        let mut per_second = short.len() as f64 / span.as_secs_f64();
        if folded > 0 {
            per_second = per_second.max(number as f64 / scene.model.watched().as_secs_f64());
        }
        let half = spared * 2 >= short.len() as u64;
        (spared >= HABIT && half && per_second >= OFTEN).then(|| Self {
            pid,
            workers: 1,
            remote,
            number,
            spared,
            per_second,
            connecting: connecting(&short),
            opener: Opener::of(scene.model, short.iter().copied())
                .or_else(|| Opener::by_calls(scene.model, pid, remote)),
            reason: Reason::of(&short),
            short,
        })
    }

    /// Both together, of one service. What stands for them is taken of who opens more.
    fn join(self, other: Self) -> Self {
        let (mut more, less) = if self.number >= other.number {
            (self, other)
        } else {
            (other, self)
        };
        more.workers += less.workers;
        more.number += less.number;
        more.spared += less.spared;
        more.per_second += less.per_second;
        more.short.extend(less.short);
        more.short.sort_by_key(|connection| connection.opened);
        more.connecting = connecting(&more.short);
        more.reason = Reason::of(&more.short);
        more
    }

    fn case(&self, scene: &Scene<'m>, docket: &Docket) -> Option<Case> {
        let model = scene.model;
        let example = *self.short.get(self.short.len() / 2)?;
        let lifetime = median(self.short.iter().filter_map(|c| lifetime(c)))?;
        let requests: u64 = self.short.iter().map(|c| c.exchanges().len() as u64).sum();
        let who = model.name(self.pid);
        let by = self
            .frame()
            .map_or_else(String::new, |frame| format!(" in {}", frame.function));
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::ConnectionChurn,
            severity: self.severity(scene),
            confidence: Confidence::SEEN.number(),
            count: self.number,
            title: format!(
                "{} opens {:.0} connections a second to {}{by}, where {} would do",
                workers::counted(who.clone(), self.workers),
                self.per_second.max(1.0),
                self.remote,
                self.needed()
            ),
            explanation: self.explanation(scene, &who, lifetime),
            process: Subject::of(model, self.pid),
            connection: Some(example.into()),
            related_connections: Vec::new(),
            setting: self.reason.setting().map(|name| Setting {
                name: name.into(),
                value_s: None,
            }),
            code: self.frame().cloned(),
            goroutines: Vec::new(),
            measured: Measured {
                connections: Some(self.number),
                connections_per_s: Some(self.per_second),
                requests_per_connection: Some(requests as f64 / self.short.len() as f64),
                lifetime_s: Some(lifetime.as_secs_f64()),
                connecting_share: Some(self.connecting),
                ..Measured::default()
            },
            evidence: self.evidence(scene, example),
            advice: self.advice(model),
            wireshark_filter: wireshark_filter([example].into_iter()),
            incomplete: self.incomplete(),
        };
        Some(Case {
            cause: docket.explaining(example.socket),
            finding,
            explains: Default::default(),
        })
    }

    /// As many as were in use at once.
    fn needed(&self) -> u64 {
        (self.short.len() as u64).saturating_sub(self.spared).max(1)
    }

    fn severity(&self, scene: &Scene<'_>) -> Severity {
        let model = scene.model;
        let process = model.process(self.pid).map(|process| &process.about);
        let target = process.is_some_and(|about| about.relation == Relation::Target);
        let storm = self.per_second >= STORM;
        let dear = self.connecting >= DEAR && self.per_second >= FOR_EACH_MESSAGE;
        let own =
            self.opener.is_some() && self.reason.is_ours() && self.per_second >= FOR_EACH_MESSAGE;
        let ports = self.reason.is_ours() && self.in_time_wait() >= PORTS / 2.0;
        let costs = if model.is_go(self.pid) {
            storm || dear || own
        } else {
            // What keeps no connection by design (a load generator, nginx with its defaults) is
            // accused only where it runs out of ports, and serves somebody.
            ports
                && model
                    .connections()
                    .any(|c| c.pid == self.pid && c.role == Role::Server)
        };
        if target && costs {
            Severity::Warning
        } else {
            Severity::Info
        }
    }

    /// How many ports wait, where it is us who closes first.
    fn in_time_wait(&self) -> f64 {
        self.per_second * TIME_WAIT
    }

    fn explanation(&self, scene: &Scene<'_>, who: &str, lifetime: Duration) -> String {
        let mut told = vec![format!(
            "{who} opened {} to {} in this window, {:.1} a second; half of them lived for {} or less and each carried {}.",
            count(self.number, "connection", "connections"),
            self.remote,
            self.per_second,
            seconds(lifetime),
            if self.short.iter().all(|c| c.exchanges().len() == 1) {
                "one request or message".into()
            } else {
                format!(
                    "a few messages ({} at most)",
                    self.short
                        .iter()
                        .map(|c| c.exchanges().len())
                        .max()
                        .unwrap_or(1)
                )
            },
        )];
        if let Some(served) = self.for_each_served(scene) {
            told.push(served);
        }
        told.extend(self.opener.as_ref().map(|opener| {
            if opener.number == opener.seen {
                format!("{} opens them.", brief(opener.frame))
            } else {
                format!(
                    "{} opens most of them ({} of {} whose opening was seen).",
                    brief(opener.frame),
                    opener.number,
                    opener.seen
                )
            }
        }));
        told.push(match self.needed() {
            1 => "There were never two at once, so one that is kept open would do.".into(),
            more => format!(
                "At most {more} were in use at once, so {more} that are kept open would do."
            ),
        });
        told.push(format!(
            "Connecting takes {:.0}% of the time of connecting and asking together.",
            self.connecting * 100.0
        ));
        if self.reason.is_ours() && self.in_time_wait() >= PORTS / 10.0 {
            told.push(format!(
                "It closes first, so each leaves a port in TIME_WAIT for 60 s: the {PORTS:.0} that a host has to one address by default are used up in {:.0} s (to itself it may use them again after 1 s).",
                PORTS / self.per_second
            ));
        }
        told.push(self.reason.sentence(who, self.remote));
        told.join(" ")
    }

    /// One for each request that it serves.
    fn for_each_served(&self, scene: &Scene<'_>) -> Option<String> {
        let served = scene.served_by(self.pid).exchanges.exchanges;
        let each = self.number as f64 / served.max(1) as f64;
        (served >= HABIT && (0.8..=1.25).contains(&each))
            .then(|| format!("It served {served} requests meanwhile: a connection for each."))
    }

    fn advice(&self, model: &Model) -> Vec<String> {
        let mut advice = self.reason.advice(self.remote, model.is_go(self.pid));
        if let Some(frame) = self.frame() {
            advice.push(format!(
                "{} is where to keep it: open once, outside of what runs for each message, and share it.",
                brief(frame)
            ));
        }
        advice
    }

    fn frame(&self) -> Option<&'m Frame> {
        self.opener.as_ref().map(|opener| opener.frame)
    }

    fn incomplete(&self) -> Option<String> {
        self.opener.is_none().then(|| {
            "Which of the program's own functions asks for the connections was not seen.".into()
        })
    }

    fn evidence(&self, scene: &Scene<'_>, example: &Connection) -> Vec<Evidence> {
        let model = scene.model;
        let who = model.name(self.pid);
        let mut timeline = Timeline::of(model);
        timeline.add(
            example.opened,
            "connect",
            format!("{who} connects to {}", self.remote),
        );
        timeline.add_if(example.established, "established", || {
            format!(
                "after {} it is connected",
                seconds(example.connect_time().unwrap_or_default())
            )
        });
        for exchange in example.exchanges() {
            timeline.add(
                exchange.started,
                "request",
                format!("it sends {}", what(&exchange)),
            );
            timeline.add_if(exchange.first_byte, "response", || "it is answered".into());
        }
        timeline.add_if(example.peer_closed, "close", || {
            format!("{} closes", self.remote)
        });
        timeline.add_if(example.left(), "close", || format!("{who} closes"));
        let next = self
            .short
            .iter()
            .find(|other| Some(other.opened) > example.left());
        timeline.add_if(next.map(|next| next.opened), "connect", || {
            format!(
                "{who} connects to {} again, {} in all",
                self.remote,
                times(self.number)
            )
        });
        timeline.evidence()
    }
}

fn lifetime(connection: &Connection) -> Option<Duration> {
    let ended = connection.ended()?;
    Some(ended.since(connection.opened))
}

/// How many of these could have used one that was free again, had it been kept.
fn spared(short: &[&Connection]) -> u64 {
    let mut ends: Vec<_> = short.iter().filter_map(|c| c.ended()).collect();
    ends.sort();
    let mut ends = ends.into_iter().peekable();
    let (mut free, mut spared) = (0_u64, 0);
    for connection in short {
        while ends.next_if(|end| *end <= connection.opened).is_some() {
            free += 1;
        }
        if free > 0 {
            free -= 1;
            spared += 1;
        }
    }
    spared
}

/// The share of connecting in the time that connecting and asking took together.
fn connecting(short: &[&Connection]) -> f64 {
    let connecting: Duration = short.iter().filter_map(|c| c.connect_time()).sum();
    let asking: Duration = short
        .iter()
        .flat_map(|c| c.exchanges())
        .map(|exchange| exchange.duration())
        .sum();
    let both = (connecting + asking).as_secs_f64();
    if both > 0.0 {
        connecting.as_secs_f64() / both
    } else {
        0.0
    }
}
