//! `connection-reset`: a connection with work in flight was reset.
//!
//! Not accused: resets after the answer had arrived, of idle connections and by health checks; a
//! process that ends; requests that met a closing connection; and what another rule has the reason of.
//! A client that leaves by RST is named, and is worth no more than knowing.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    event::Role,
    model::{Connection, Model, Service},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
    grounds::{
        broken,
        closing::telling_frame,
        harm::severity_of,
        reset::{By, Cause, Reset},
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
    },
    own_code::brief,
    wording::{bytes, count, seconds, times},
};

/// What resets are told together by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    service: Service,
    server: SocketAddr,
    by: By,
    cause: Cause,
    closed_in: Option<String>,
}

/// Adds a case for each server, side, cause and line.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<Kind, Vec<Reset<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        let explained = docket.explaining(connection.socket).is_some()
            || connection
                .other_end
                .is_some_and(|other| docket.explaining(other).is_some());
        if explained {
            continue;
        }
        if let Some(reset) = Reset::on(scene, connection) {
            let kind = Kind {
                service: scene.service(connection.pid),
                server: connection.server(),
                by: reset.by,
                cause: reset.cause.clone(),
                closed_in: telling_frame(reset.frames(scene)).map(|frame| frame.function.clone()),
            };
            groups.entry(kind).or_default().push(reset);
        }
    }
    join_unseen(&mut groups);
    for resets in groups.into_values() {
        if let Some(told) = Told::of(scene, &resets) {
            docket.add(told.case());
        }
    }
}

/// A server that was not traced from the first on did then what it did later. That is believed where
/// it is known for one thing only.
fn join_unseen(groups: &mut BTreeMap<Kind, Vec<Reset<'_>>>) {
    let unseen: Vec<Kind> = groups
        .keys()
        .filter(|kind| kind.by == By::UnseenServer)
        .cloned()
        .collect();
    for kind in unseen {
        let mut seen = groups
            .keys()
            .filter(|other| other.by == By::Server && other.server == kind.server);
        if let (Some(only), None) = (seen.next().cloned(), seen.next())
            && let Some(resets) = groups.remove(&kind)
        {
            groups.entry(only).or_default().extend(resets);
        }
    }
}

/// All resets of one kind, and the one that stands for them.
struct Told<'r, 'm> {
    scene: &'r Scene<'m>,
    resets: &'r [Reset<'m>],
    example: &'r Reset<'m>,
    client: String,
    server: String,
}

impl<'r, 'm> Told<'r, 'm> {
    fn of(scene: &'r Scene<'m>, resets: &'r [Reset<'m>]) -> Option<Self> {
        let example = resets
            .iter()
            .rev()
            .max_by_key(|reset| (reset.by == By::Server, reset.harmed))?;
        let model = scene.model;
        let connection = example.connection;
        let name = model.owner(connection);
        let other = model.other_end(connection).map(|end| model.owner(end));
        let (client, server) = match connection.role {
            Role::Client => (name, other.unwrap_or_else(|| connection.remote.to_string())),
            Role::Server => (
                other.unwrap_or_else(|| format!("client {}", connection.remote.ip())),
                name,
            ),
        };
        Some(Self {
            scene,
            resets,
            example,
            client,
            server,
        })
    }

    fn case(&self) -> Case {
        let model = self.scene.model;
        let connection = self.example.connection;
        let harmed = self.resets.iter().filter(|reset| reset.harmed).count() as u64;
        let traffic = match connection.role {
            Role::Server => self.scene.served_at(connection.pid, connection.local),
            Role::Client => self.scene.asked(connection.pid, connection.remote),
        }
        .exchanges;
        let beyond = broken::serving(self.scene, connection, self.example.at)
            .and_then(|pairing| model.connection(pairing.socket));
        let exchange = self.example.exchange.as_ref();
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::ConnectionReset,
            severity: match self.example.by {
                By::Client => Severity::Info,
                _ => severity_of(harmed, traffic.exchanges),
            },
            confidence: self.confidence().number(),
            count: self.resets.len() as u64,
            title: self.title(),
            explanation: self.explanation(),
            process: Subject::owner(model, connection),
            connection: Some(connection.into()),
            related_connections: beyond.into_iter().map(Ends::from).collect(),
            setting: None,
            code: telling_frame(self.example.frames(self.scene)).cloned(),
            goroutines: self.closer(model).into_iter().collect(),
            measured: Measured {
                request_bytes: exchange.map(|exchange| exchange.request_bytes),
                response_bytes: exchange.map(|exchange| exchange.response_bytes),
                requests: Some(traffic.exchanges),
                requests_harmed: Some(harmed),
                requests_fine: Some(traffic.fine()),
                unread_bytes: self.example.unread,
                ..Measured::default()
            },
            evidence: self.evidence(),
            advice: self.advice(),
            wireshark_filter: wireshark_filter([connection].into_iter().chain(beyond)),
            incomplete: self.incomplete(),
        };
        Case {
            finding,
            cause: None,
            explains: self
                .resets
                .iter()
                .flat_map(|reset| broken::reaches(self.scene, reset.connection, reset.at))
                .collect(),
        }
    }

    fn confidence(&self) -> Confidence {
        match (self.example.by, &self.example.cause) {
            (By::Server, Cause::UnreadOrLinger | Cause::Unseen) => {
                Confidence::SEEN.but(Doubt::SettingUnknown)
            }
            (By::Server, _) => Confidence::SEEN,
            (By::Client | By::UnseenServer, _) => Confidence::SEEN.but(Doubt::OneEnd),
            (By::Between, _) => Confidence::SEEN.but(Doubt::ConnectionInferred),
        }
    }

    /// Who closed, where it was a goroutine.
    fn closer(&self, model: &Model) -> Option<Witness> {
        let actor = self.example.closed?.actor?;
        let frames = self.example.frames(self.scene);
        Witness::acting(model, actor, frames).filter(|closer| !closer.frames.is_empty())
    }

    fn number(&self) -> String {
        count(self.resets.len() as u64, "connection", "connections")
    }

    fn in_flight(&self) -> &'static str {
        match &self.example.exchange {
            Some(exchange) if exchange.answered() => "an answer on its way",
            Some(exchange) if exchange.head.is_some() => "a request in flight",
            _ => "data in flight",
        }
    }

    fn title(&self) -> String {
        let (number, flight) = (self.number(), self.in_flight());
        let connection = self.example.connection;
        match self.example.by {
            By::Server => format!(
                "{} on port {} reset {number} with {flight}",
                self.server,
                connection.local.port()
            ),
            By::UnseenServer => format!(
                "{} reset {number} of {} with {flight}",
                self.server, self.client
            ),
            By::Client => format!(
                "{} {} {number} while {} was at work on the answer",
                self.client,
                match self.example.cause {
                    Cause::ClosedBefore => "left",
                    _ => "reset",
                },
                self.server
            ),
            By::Between => format!(
                "something between {} and {} reset {number} with {flight}",
                self.client, self.server
            ),
        }
    }

    /// How long the client waited, from its request to its leaving.
    fn patience(&self) -> Option<Duration> {
        let left = self.example.connection.peer_closed?;
        let exchange = self.example.exchange.as_ref()?;
        Some(left.since(exchange.request_ended))
    }

    fn explanation(&self) -> String {
        let reset = self.example;
        let (client, server) = (&self.client, &self.server);
        let at = telling_frame(reset.frames(self.scene))
            .map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
        let unread = reset.unread.map_or_else(|| "data".into(), bytes);
        let mut told = match (&reset.by, &reset.cause) {
            (By::Server, Cause::Unread) => format!(
                "{server} closed the connection{at} while {unread} of the client's lay in it unread. The kernel answers such a close with RST, and the client loses with it what was on its way to it."
            ),
            (By::Server, Cause::Linger) => format!(
                "{server} closed the connection{at} with SO_LINGER set to 0 (in Go: net.TCPConn.SetLinger(0)): that throws away what was not sent yet, and sends RST in place of FIN."
            ),
            (By::Server, Cause::UnreadOrLinger) => format!(
                "{server} closed the connection{at} with RST in place of FIN: either bytes of the client's lay in it unread, or SO_LINGER was 0."
            ),
            (By::Server, Cause::ClosedBefore) => format!(
                "{server} closed the connection{at} while the client was still sending; the kernel answered what came then with RST, and the client may lose the answer with it."
            ),
            (By::Server, Cause::Kernel(word)) => format!(
                "The kernel of {server}'s host sent RST by itself, and calls the reason {word}."
            ),
            (By::Server, Cause::Unseen) => format!("{server} sent RST; why was not to be seen."),
            (By::Client, Cause::ClosedBefore) => format!(
                "The client closed the connection{} while {server} was at work on the answer, and its kernel answered what was sent then with RST. That is how a client leaves that has waited long enough.",
                self.patience().map_or_else(String::new, |waited| format!(
                    " {} after its request",
                    seconds(waited)
                ))
            ),
            (By::Client, _) => format!(
                "The client sent RST while {server} was at work on the answer. That is how a client leaves that does not want it any more: it closed with data unread, or its process ended."
            ),
            (By::UnseenServer, _) => {
                format!("RST of {server} came while {client} waited for the answer.")
            }
            (By::Between, _) => format!(
                "RST came to {client} while it waited for the answer, but {server} never sent it: its end of the connection is still open. A firewall, a load balancer or a proxy on the way did."
            ),
        };
        if let Some(exchange) = &reset.exchange {
            told.push_str(&format!(
                " In flight was {}{}.",
                what(exchange),
                if exchange.answered() {
                    ", answered"
                } else {
                    ", without an answer"
                }
            ));
        }
        if self.resets.len() > 1 {
            told.push_str(&format!(
                " That happened {} here.",
                times(self.resets.len() as u64)
            ));
        }
        told
    }

    fn advice(&self) -> Vec<String> {
        let server = &self.server;
        match (&self.example.by, &self.example.cause) {
            (By::Server, Cause::Unread | Cause::ClosedBefore) => vec![format!(
                "Let {server} read the request to its end before it closes, or close its sending side first (in Go: net.TCPConn.CloseWrite) and read on until the client has closed."
            )],
            (By::Server, Cause::Linger) => vec![format!(
                "Drop SetLinger(0) where {server} closes connections that are in use; it is for those whose peer is known to be gone."
            )],
            (By::Server, Cause::UnreadOrLinger | Cause::Kernel(_) | Cause::Unseen) => {
                vec![format!(
                    "See why {server} closes the connection there: it has to read what the client sent, and must not set SO_LINGER to 0."
                )]
            }
            (By::Client, _) => Vec::new(),
            (By::UnseenServer, _) => vec![format!(
                "Trace {server} on its own host to see whether it sent the RST, and why."
            )],
            (By::Between, _) => vec![format!(
                "Look on the way between {} and {server} for what ends connections: idle limits of firewalls and load balancers, connection tracking that forgot the connection, rules that reject.",
                self.client
            )],
        }
    }

    fn incomplete(&self) -> Option<String> {
        match (&self.example.by, &self.example.cause) {
            (By::UnseenServer, _) => Some(format!(
                "{} is not traced here, so why it sent RST, or whether somebody else did in its name, is not known.",
                self.server
            )),
            (By::Server, Cause::UnreadOrLinger) => {
                Some("Whether data was unread or SO_LINGER was 0 was not to be seen.".into())
            }
            _ => None,
        }
    }

    fn evidence(&self) -> Vec<Evidence> {
        let reset = self.example;
        let connection: &Connection = reset.connection;
        let model = self.scene.model;
        let mut timeline = Timeline::of(model);
        match (&reset.exchange, connection.role) {
            (Some(exchange), Role::Server) if exchange.request_bytes > 0 => {
                timeline.request_read(connection, exchange);
            }
            (Some(exchange), Role::Client) => {
                let sends = format!(
                    "{} sends {} to {}",
                    self.client,
                    what(exchange),
                    self.server
                );
                timeline.add(exchange.started, "request", sends);
            }
            _ => {}
        }
        timeline.add_if(connection.unread.map(|(since, _)| since), "unread", || {
            format!(
                "bytes of the client come, and {} does not read them",
                self.server
            )
        });
        timeline.add_if(
            reset
                .closed
                .filter(|closed| closed.at < reset.at)
                .map(|closed| closed.at),
            "close",
            || format!("{} closes the connection", self.server),
        );
        if (reset.by, &reset.cause) == (By::Client, &Cause::ClosedBefore) {
            timeline.add_if(connection.peer_closed, "left", || {
                format!("{} closes the connection", connection.remote)
            });
        }
        let detail = match reset.by {
            By::Server => {
                let word = connection
                    .reset_sent
                    .as_ref()
                    .and_then(|(_, word)| word.clone());
                let word = word.map_or_else(String::new, |word| format!(" ({word})"));
                format!("{} sends RST to {}{word}", self.server, connection.remote)
            }
            _ => format!("RST of {} arrives", connection.remote),
        };
        timeline.add(reset.at, "reset", detail);
        if let Some(client) = model
            .other_end(connection)
            .filter(|_| connection.role == Role::Server)
        {
            timeline.add_if(client.reset_received, "end", || {
                format!("{} sees its connection reset", self.client)
            });
        }
        timeline.evidence()
    }
}
