//! `keepalive-race`: a request went out on a pooled connection that the server was closing.
//!
//! Told from the client's end where it is traced, else from the server's. Both are within their
//! rights, so what matters is whether the request was lost: net/http tries again what may be repeated.
//! Not accused: a server that ends or is shut down, and requests that the server did read.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{event::Role, model::Service};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Setting, Severity, Subject},
    grounds::{
        broken, hands,
        harm::severity_of,
        limit::set_to,
        race::{Outcome, Race, answered_before},
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
    },
    wording::{count, seconds, times},
};

const IDLE_TIMEOUT: &str = "net/http.Server.IdleTimeout";

/// Adds a case for each service and server.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<(Service, SocketAddr), Vec<Race<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        if let Some(race) = Race::on(scene, connection) {
            let key = (scene.service(connection.pid), connection.server());
            groups.entry(key).or_default().push(race);
        }
    }
    for races in groups.into_values() {
        if let Some(case) = case(scene, &races) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, races: &[Race<'_>]) -> Option<Case> {
    let model = scene.model;
    let example = races
        .iter()
        .find(|race| race.outcome == Outcome::Lost)
        .or(races.first())?;
    let connection = example.connection;
    let traffic = match connection.role {
        Role::Client => scene.asked(connection.pid, connection.remote),
        Role::Server => scene.served_at(connection.pid, connection.local),
    }
    .exchanges;
    let told = Told::of(scene, races, example);
    let measured = Measured {
        request_bytes: Some(example.exchange.request_bytes).filter(|bytes| *bytes > 0),
        response_bytes: Some(0),
        requests: Some(traffic.exchanges),
        requests_fine: Some(traffic.fine()),
        requests_harmed: (connection.role == Role::Client).then_some(told.lost),
        retried: (connection.role == Role::Client).then_some(told.retried),
        client_idle_s: example.client_idle.map(|idle| idle.as_secs_f64()),
        server_idle_s: example.server_idle.map(|idle| idle.as_secs_f64()),
        ..Measured::default()
    };
    let beyond = broken::serving(scene, connection, example.failed())
        .and_then(|pairing| model.connection(pairing.socket));
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::KeepaliveRace,
        severity: told.severity(traffic.exchanges),
        confidence: told.confidence().number(),
        count: races.len() as u64,
        title: told.title(),
        explanation: told.explanation(),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: beyond.into_iter().map(Ends::from).collect(),
        setting: told.setting(),
        code: None,
        goroutines: hands::on(model, connection, &example.exchange),
        measured,
        evidence: evidence(scene, example),
        advice: told.advice(),
        wireshark_filter: wireshark_filter([connection].into_iter().chain(beyond)),
        incomplete: told.incomplete(),
    };
    Some(Case {
        finding,
        cause: None,
        explains: races
            .iter()
            .flat_map(|race| broken::reaches(scene, race.connection, race.failed()))
            .collect(),
    })
}

/// What is said of all races of one group.
struct Told<'r, 'm> {
    races: &'r [Race<'m>],
    example: &'r Race<'m>,
    client: String,
    server: String,
    lost: u64,
    retried: u64,
    /// The idle limit of the server, in seconds, as far as its closes tell.
    limit_s: Option<f64>,
}

impl<'r, 'm> Told<'r, 'm> {
    fn of(scene: &Scene<'m>, races: &'r [Race<'m>], example: &'r Race<'m>) -> Self {
        let model = scene.model;
        let connection = example.connection;
        let number = |of: Outcome| races.iter().filter(|race| race.outcome == of).count() as u64;
        let other = model.other_end(connection).map(|other| model.owner(other));
        let name = model.owner(connection);
        let (client, server) = match connection.role {
            Role::Client => (
                name,
                other.map_or_else(
                    || connection.remote.to_string(),
                    |server| format!("{server} ({})", connection.remote),
                ),
            ),
            Role::Server => (
                format!("client {}", connection.remote.ip()),
                format!("{name} on port {}", connection.local.port()),
            ),
        };
        let idles: Vec<Duration> = races.iter().filter_map(|race| race.server_idle).collect();
        Self {
            races,
            example,
            client,
            server,
            lost: number(Outcome::Lost),
            retried: number(Outcome::Retried),
            limit_s: set_to(&idles, false),
        }
    }

    fn by_idle_limit(&self) -> bool {
        self.races.iter().any(|race| race.by_idle_limit)
    }

    /// What was lost is harm. Where the client is not traced, a request that may not be repeated is
    /// taken for lost.
    fn severity(&self, requests: u64) -> Severity {
        let likely_lost = self
            .races
            .iter()
            .any(|race| race.outcome == Outcome::Unknown && !race.is_repeatable());
        severity_of(self.lost, requests).max(if likely_lost {
            Severity::Warning
        } else {
            Severity::Info
        })
    }

    /// Seen from both ends there is no other reading. From the client's alone, a FIN that was there
    /// before the request leaves none either.
    fn confidence(&self) -> Confidence {
        let connection = self.example.connection;
        if connection.other_end.is_some() {
            return Confidence::SEEN;
        }
        let one_end = Confidence::SEEN.but(Doubt::OneEnd);
        let before = connection.role == Role::Server
            || connection
                .peer_closed
                .is_some_and(|fin| fin <= self.example.exchange.started);
        if before {
            one_end
        } else {
            one_end.but(Doubt::Ambiguous)
        }
    }

    fn title(&self) -> String {
        let number = self.races.len() as u64;
        format!(
            "{} of {} went out on {} that {} was closing",
            count(number, "request", "requests"),
            self.client,
            if number == 1 {
                "a pooled connection"
            } else {
                "pooled connections"
            },
            self.server
        )
    }

    fn explanation(&self) -> String {
        let race = self.example;
        let idle = race.client_idle.map_or_else(
            || " that was open before the window".into(),
            |idle| format!(" that had been idle for {}", seconds(idle)),
        );
        let limit = race.server_idle.map_or_else(String::new, |idle| {
            let by = if self.by_idle_limit() {
                format!(", as its {IDLE_TIMEOUT} says (ReadTimeout stands in for it where that is not set)")
            } else {
                String::new()
            };
            format!(" {} after the last byte on it{by}", seconds(idle))
        });
        let mut told = format!(
            "{} sent {} on a pooled connection{idle}. {} closed it{limit}: {}.",
            self.client,
            what(&race.exchange),
            self.server,
            self.order()
        );
        if self.races.len() > 1 {
            told.push_str(&format!(
                " That happened {} here.",
                times(self.races.len() as u64)
            ));
        }
        told.push(' ');
        told.push_str(&self.outcome());
        told
    }

    /// Which of both was first.
    fn order(&self) -> String {
        let (sent, closed) = (self.example.exchange.started, self.example.closed);
        if sent >= closed {
            format!("the request was sent {} later", seconds(sent.since(closed)))
        } else {
            format!(
                "the request had been sent {} before, and was not read",
                seconds(closed.since(sent))
            )
        }
    }

    fn outcome(&self) -> String {
        if self.example.connection.role == Role::Server {
            return "Whether the client sent it again was not seen.".into();
        }
        let all = self.races.len() as u64;
        let lost = match self.lost {
            0 => {
                return if self.retried > 0 {
                    "The client sent it again on another connection, so nothing was lost.".into()
                } else {
                    "Nothing was lost by it.".into()
                };
            }
            lost if lost == all && all == 1 => {
                "The request was lost: it was not sent again.".into()
            }
            lost => format!(
                "Of these {lost} {} lost: not sent again.",
                if lost == 1 { "was" } else { "were" }
            ),
        };
        if !self.example.is_repeatable() {
            format!(
                "{lost} A request that may not be repeated is not: the client cannot know whether it was carried out."
            )
        } else {
            lost
        }
    }

    fn setting(&self) -> Option<Setting> {
        self.by_idle_limit().then(|| Setting {
            name: IDLE_TIMEOUT.into(),
            value_s: self.limit_s,
        })
    }

    fn advice(&self) -> Vec<String> {
        let below = self.limit_s.map_or_else(
            || format!("the idle limit of {}", self.server),
            |limit| format!("{limit:.3} s"),
        );
        let mut advice = vec![
            format!(
                "Let the client give idle connections up first: set the idle limit of {}'s connection pool (in Go: http.Transport.IdleConnTimeout) clearly below {below}.",
                self.client
            ),
            format!(
                "Or keep idle connections longer at {} (in Go: http.Server.IdleTimeout) than its clients do; Go's default transport keeps them for 90 s.",
                self.server
            ),
        ];
        if self.lost > 0 {
            advice.push("Where a request may be repeated, let the client try again; Go's transport does so for a request with an Idempotency-Key header.".into());
        }
        advice
    }

    fn incomplete(&self) -> Option<String> {
        let connection = self.example.connection;
        connection
            .other_end
            .is_none()
            .then(|| match connection.role {
                Role::Client => format!(
                    "{} is not traced here, so which limit closed the connection is not known.",
                    connection.remote
                ),
                Role::Server => format!(
                    "{} is not traced here, so whether it sent the request again is not known.",
                    connection.remote
                ),
            })
    }
}

fn evidence(scene: &Scene<'_>, race: &Race<'_>) -> Vec<Evidence> {
    let model = scene.model;
    let connection = race.connection;
    let mut timeline = Timeline::of(model);
    let who = model.owner(connection);
    let peer = connection.remote;
    let (client, server) = match connection.role {
        Role::Client => (who, peer.to_string()),
        Role::Server => (peer.to_string(), who),
    };
    timeline.add_if(
        answered_before(connection, race.exchange.started).map(|before| before.last_byte),
        "idle",
        || "the last byte of the exchange before; the connection is idle from here on".into(),
    );
    timeline.add(
        race.exchange.started,
        "request",
        format!("{client} sends {}", what(&race.exchange)),
    );
    timeline.add(
        race.closed,
        "close",
        format!("{server} closes the connection"),
    );
    timeline.add_if(connection.reset_received, "reset", || {
        format!("RST of {peer} answers")
    });
    timeline.evidence()
}
