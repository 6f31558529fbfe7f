//! Requests that were late because their handlers waited for a connection of a pool that was used up.
//!
//! Neither the service behind the pool nor the handler is slow then: the pool's own limit makes requests
//! wait for one another. It stands on what was seen in the process's memory: handlers of requests that
//! wait where `database/sql` and `net/http` wait for a connection to be given back, as many as are a good
//! part of the requests in flight at that moment. Not accused: a queue whose requests are answered in
//! time; one that waits for a connection that is being opened; queues of goroutines that serve nobody; a pool
//! that is used up because the service behind it is slow, which is told as that.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        docket::{Case, Docket},
        finding::{Evidence, Finding, Measured, Rule, Setting, Severity, Subject},
        grounds::{
            breakdown::Breakdown,
            lateness::{LATE, is_plain},
            locks::Queued,
            scene::Scene,
            standing::{at_last, seen_at_requests, serves_http},
            telling::{Timeline, wireshark_filter},
            usual::median,
        },
        own_code::{brief, own_frame},
        wording::{count, seconds},
    },
    event::{BootInstant, Frame, Pid},
    model::{Connection, Exchange, Whereabouts},
};

/// Fewer in a queue are nobody's concern.
const QUEUE: u64 = 4;

/// In so many snapshots.
const MOMENTS: usize = 2;

/// Fewer late requests may be late for another reason.
const SEVERAL: usize = 3;

/// Who waits so long for what is given back after each use waits for something that nobody gives back.
const STANDSTILL: Duration = Duration::from_secs(3);

/// Opens a connection for who waits in `getConn`, so that it is no limit that makes him wait.
const DIALS: &str = "net/http.(*Transport).dialConn";

/// A pool whose users wait in a function of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pool {
    /// `database/sql.DB`.
    Sql,
    /// The connections of an `http.Transport` to one host.
    Transport,
}

impl Pool {
    fn of(frames: &[Frame]) -> Option<Self> {
        frames.iter().find_map(Self::named)
    }

    /// The pool that this function waits for.
    fn named(frame: &Frame) -> Option<Self> {
        match &*frame.function {
            "database/sql.(*DB).conn" => Some(Self::Sql),
            "net/http.(*Transport).getConn" => Some(Self::Transport),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sql => "database/sql's pool",
            Self::Transport => "its http.Transport",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Sql => "database/sql.DB.MaxOpenConns",
            Self::Transport => "net/http.Transport.MaxConnsPerHost",
        }
    }

    fn advice(self, at: &str) -> Vec<String> {
        let (raise, hold) = match self {
            Self::Sql => (
                "Raise SetMaxOpenConns of the sql.DB, as far as the database bears it",
                "Close Rows, and end transactions, as soon as they are done with, and do not call other services in between",
            ),
            Self::Transport => (
                "Raise MaxConnsPerHost of the http.Transport, as far as the service behind it bears it, or leave it unset",
                "Read every response's Body to its end and close it as soon as it is there",
            ),
        };
        vec![
            format!("{raise}: {at} is where handlers wait."),
            format!("{hold}: each use holds a connection until then."),
        ]
    }
}

/// The handlers of one process that wait for a connection of one pool.
struct Waiters<'m> {
    pid: Pid,
    pool: Pool,
    /// How many stood there, by snapshot.
    course: BTreeMap<BootInstant, u64>,
    /// The line of the program that most of them came from.
    at: &'m Frame,
    most: u64,
    /// Those of the last snapshot.
    present: Vec<u64>,
}

/// What half of the exchanges with other services take at most.
fn held(scene: &Scene<'_>, pid: Pid) -> Option<Duration> {
    let asked = scene.clients_of(pid).iter();
    let exchanges = asked.flat_map(|connection| connection.exchanges());
    median(exchanges.filter_map(|exchange| exchange.answer_time()))
}

/// Adds a case for each pool.
pub(in crate::detect) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let pids: Vec<Pid> = scene.model.processes().map(|p| p.about.pid).collect();
    for pid in pids {
        for waiters in waiters(scene, pid) {
            let case = waiters.case(scene, docket);
            if let Some(case) = case.or_else(|| waiters.standstill(scene)) {
                docket.add(case);
            }
        }
    }
}

/// The program's own line; a proxy of the library's has none of its own between handler and pool.
fn line(frames: &[Frame]) -> Option<&Frame> {
    own_frame(frames).or(frames.iter().find(|frame| Pool::named(frame).is_some()))
}

fn waiters<'m>(scene: &Scene<'m>, pid: Pid) -> Vec<Waiters<'m>> {
    let mut pools: BTreeMap<Pool, Waiters<'_>> = BTreeMap::new();
    let mut dialling: HashSet<BootInstant> = HashSet::new();
    for place in scene.model.attendances(pid) {
        let counts = place.course.iter().filter(|muster| muster.count > 0);
        if place.frames.iter().any(|frame| frame.function == DIALS) {
            dialling.extend(counts.map(|muster| muster.at));
            continue;
        }
        let waits = place.state == "select" && serves_http(place.frames);
        let (Some(pool), Some(at), true) = (Pool::of(place.frames), line(place.frames), waits)
        else {
            continue;
        };
        let waiters = pools.entry(pool).or_insert_with(|| Waiters {
            pid,
            pool,
            course: BTreeMap::new(),
            at,
            most: 0,
            present: Vec::new(),
        });
        for muster in counts {
            *waiters.course.entry(muster.at).or_default() += muster.count;
            if muster.count > waiters.most {
                (waiters.at, waiters.most) = (at, muster.count);
            }
        }
        waiters.present.extend(place.present);
    }
    if let Some(waiters) = pools.get_mut(&Pool::Transport) {
        waiters.course.retain(|at, _| !dialling.contains(at));
    }
    pools.into_values().collect()
}

impl<'m> Waiters<'m> {
    fn case(&self, scene: &Scene<'m>, docket: &Docket) -> Option<Case> {
        let served: Vec<_> = scene.servers().filter(|c| c.pid == self.pid).collect();
        let (moments, late) = self.late(scene, &served);
        let told = |late: &Queued<'_>| docket.explaining(late.connection.socket).is_some();
        if moments.len() < MOMENTS || late.len() < SEVERAL || late.iter().any(told) {
            return None;
        }
        // A service that is slow itself keeps its pool busy, and is told as that.
        let held = held(scene, self.pid);
        if held.is_some_and(|held| held >= LATE) {
            return None;
        }
        let held = held.map_or_else(String::new, |held| {
            format!(
                " Half of what is asked over such connections is answered within {}.",
                seconds(held)
            )
        });
        let model = scene.model;
        let (_, longest) = moments.iter().copied().max_by_key(|(_, number)| *number)?;
        // Only one that was answered has an end to reckon to.
        let example = late
            .iter()
            .max_by_key(|late| (late.exchange.answered(), late.waited))?;
        let most = late.iter().map(|late| late.waited).max()?;
        let mut measured = Measured {
            goroutines: Some(longest),
            requests: Some(scene.served_by(self.pid).exchanges.exchanges),
            requests_slow: Some(late.len() as u64),
            parts_s: Breakdown::of_exchange(scene, example.connection, &example.exchange)
                .measured(),
            ..Measured::default()
        };
        measured.waits(late.iter().map(|late| late.waited).collect());
        let (who, at) = (model.name(self.pid), brief(self.at));
        let waiting = count(longest, "handler", "handlers");
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::SlowResponse,
            severity: Severity::Warning,
            confidence: Confidence::SEEN.but(Doubt::RequestInferred).number(),
            count: late.len() as u64,
            title: format!(
                "{who} answered late: up to {waiting} waited for a free connection of {} at {at}",
                self.pool.name()
            ),
            explanation: format!(
                "{} of {who} waited up to {} for an answer. In {} at its memory, up to {waiting} stood at {at} and waited for others to give a connection back: the pool has as many as it may ({}), and all are in use.{held}",
                count(late.len() as u64, "request", "requests"),
                seconds(most),
                count(moments.len() as u64, "look", "looks"),
                self.pool.setting(),
            ),
            process: Subject::of(model, self.pid),
            connection: Some(example.connection.into()),
            related_connections: Vec::new(),
            setting: Some(Setting {
                name: self.pool.setting().into(),
                value_s: None,
            }),
            code: Some(self.at.clone()),
            goroutines: self
                .present
                .first()
                .and_then(|id| at_last(model, self.pid, *id))
                .into_iter()
                .collect(),
            measured,
            evidence: self.evidence(scene, &moments, example),
            advice: self.pool.advice(&at),
            wireshark_filter: wireshark_filter([example.connection].into_iter()),
            incomplete: None,
        };
        Some(Case {
            finding,
            cause: None,
            explains: late
                .iter()
                .flat_map(|late| [Some(late.connection.socket), late.connection.other_end])
                .flatten()
                .collect(),
        })
    }

    /// Nobody gives a connection back any more, and the requests came before the window: that there are some
    /// say the handlers' own stacks.
    fn standstill(&self, scene: &Scene<'m>) -> Option<Case> {
        let model = scene.model;
        let seen = seen_at_requests(model, self.pid);
        let stands = |id: &&u64| {
            let found = model.whereabouts(self.pid, **id);
            let long = |found: Whereabouts<'_>| found.at.since(found.since) >= STANDSTILL;
            !seen.contains(*id) && found.is_some_and(long)
        };
        let stuck: Vec<u64> = self.present.iter().filter(stands).copied().collect();
        // The service behind it may be what does not answer.
        let unanswered = |upstream: &&Connection| {
            let asked = upstream.exchanges().pop();
            upstream.ended().is_none() && asked.is_some_and(|asked| !asked.answered())
        };
        if (stuck.len() as u64) < QUEUE || scene.clients_of(self.pid).iter().any(unanswered) {
            return None;
        }
        let first = model.whereabouts(self.pid, *stuck.first()?)?;
        let waited = first.at.since(first.since);
        let (who, at) = (model.name(self.pid), brief(self.at));
        let handlers = count(stuck.len() as u64, "handler", "handlers");
        let mut timeline = Timeline::of(model);
        for at in [first.since, first.at] {
            timeline.add(at, "queue", format!("{handlers} wait for a connection"));
        }
        let mut advice = self.pool.advice(&at);
        // A larger pool only leaks for longer.
        advice.reverse();
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::SlowResponse,
            severity: Severity::Warning,
            confidence: Confidence::SEEN
                .but_all(&[Doubt::RequestInferred, Doubt::NotOver])
                .number(),
            count: stuck.len() as u64,
            title: format!(
                "{who} does not answer: {handlers} wait for a connection of {} at {at}, and none is given back",
                self.pool.name()
            ),
            explanation: format!(
                "{handlers} of {who} stood at {at} in every look for {} or more, and wait for others to give a connection back: the pool has as many as it may ({}), and none of those that are out comes back. No request to the service behind it is unanswered.",
                seconds(waited),
                self.pool.setting(),
            ),
            process: Subject::of(model, self.pid),
            connection: None,
            related_connections: Vec::new(),
            setting: Some(Setting {
                name: self.pool.setting().into(),
                value_s: None,
            }),
            code: Some(self.at.clone()),
            goroutines: stuck
                .first()
                .and_then(|id| at_last(model, self.pid, *id))
                .into_iter()
                .collect(),
            measured: Measured {
                goroutines: Some(stuck.len() as u64),
                waited_s: Some(waited.as_secs_f64()),
                ..Measured::default()
            },
            evidence: timeline.evidence(),
            advice,
            wireshark_filter: None,
            incomplete: Some("Who keeps the connections was not seen.".into()),
        };
        Some(Case {
            finding,
            cause: None,
            explains: HashSet::new(),
        })
    }

    /// The snapshots in which those who waited were a good part of all requests in flight, with how many
    /// they were; and the late ones among these requests.
    fn late(
        &self,
        scene: &Scene<'m>,
        served: &[&'m Connection],
    ) -> (Vec<(BootInstant, u64)>, Vec<Queued<'m>>) {
        let requests: Vec<(&Connection, Exchange)> = served
            .iter()
            .flat_map(|connection| connection.exchanges().into_iter().map(|e| (*connection, e)))
            .filter(|(_, exchange)| is_plain(exchange))
            .collect();
        let now = scene.model.now();
        let until = |exchange: &Exchange| exchange.first_byte.unwrap_or(now);
        let in_flight =
            |exchange: &Exchange, at: BootInstant| exchange.started <= at && at < until(exchange);
        let queues = self.course.iter().map(|(at, number)| (*at, *number));
        let moments: Vec<_> = queues
            .filter(|(at, number)| {
                let asked = requests.iter().filter(|(_, e)| in_flight(e, *at)).count() as u64;
                *number >= QUEUE && number * 2 >= asked
            })
            .collect();
        let late = requests.into_iter().filter_map(|(connection, exchange)| {
            let waited = until(&exchange).since(exchange.request_ended);
            let queued = moments.iter().any(|(at, _)| in_flight(&exchange, *at));
            (queued && waited >= LATE).then_some(Queued {
                connection,
                exchange,
                waited,
            })
        });
        let late = late.collect();
        (moments, late)
    }

    fn evidence(
        &self,
        scene: &Scene<'_>,
        moments: &[(BootInstant, u64)],
        example: &Queued<'_>,
    ) -> Vec<Evidence> {
        let mut timeline = Timeline::of(scene.model);
        // Enough to see how it went.
        for (at, number) in moments.iter().step_by(moments.len().div_ceil(6).max(1)) {
            let wait = count(*number, "handler waits", "handlers wait");
            timeline.add(*at, "queue", format!("{wait} for a connection"));
        }
        timeline.request_read(example.connection, &example.exchange);
        timeline.outcome(example.connection, &example.exchange);
        timeline.evidence()
    }
}
