//! Every time a server's own limit of time cut a request off.
//!
//! It is found out here that it was a limit and no other reason, which one, and from when on it
//! counted. What Go's `net/http` does when one passes (server.go, `conn.serve` and `readRequest`):
//!
//! | limit | set when | what follows |
//! | --- | --- | --- |
//! | ReadHeaderTimeout | the connection, or the request's first byte, comes | closed without an answer, and no handler ran |
//! | ReadTimeout | the same | the handler's next read of the body fails; most handlers answer an error then |
//! | WriteTimeout | the head has been read | what the handler writes later is thrown away; closed when it returns |
//! | IdleTimeout | the answer is sent | closed; nobody is harmed |
//!
//! A deadline for reading is taken back as soon as the body has been read, so one that passes while a
//! request is in flight did cut it off.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    detect::confidence::{Confidence, Doubt},
    event::{BootInstant, Origin, Pid, SocketId},
    model::{Connection, Exchange, Service},
};

use super::{limit::by_setting, scene::Scene};

mod decided;
mod handler;
mod undecided;

pub(crate) use handler::started_by_it;

/// Which limit of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerLimit {
    /// `net/http.Server.ReadTimeout`: until the last byte of the request.
    Read,
    /// `net/http.Server.ReadHeaderTimeout`: until the last byte of its head.
    ReadHeader,
    /// `net/http.Server.WriteTimeout`: from the head on until the last byte of the response.
    Write,
    /// `net/http.TimeoutHandler`, or a limit of the handler's own that answers 503 in the same manner.
    Handler,
    /// A deadline that a Go program which is no `net/http` server set on its connection.
    Conn,
    /// Something; which, was not to be seen.
    Unknown,
}

impl ServerLimit {
    /// The name of the setting, where there is one.
    fn named(self) -> Option<&'static str> {
        match self {
            Self::Read => Some("net/http.Server.ReadTimeout"),
            Self::ReadHeader => Some("net/http.Server.ReadHeaderTimeout"),
            Self::Write => Some("net/http.Server.WriteTimeout"),
            Self::Conn => Some("net.Conn deadline"),
            Self::Handler | Self::Unknown => None,
        }
    }
}

/// A server cut a request off.
#[derive(Debug)]
pub(crate) struct CutOff<'m> {
    /// The server's end.
    pub(crate) connection: &'m Connection,
    pub(crate) exchange: Exchange,
    /// When the limit passed, or when the request was ended where that was not seen.
    pub(crate) at: BootInstant,
    /// From where the limit counts to `at`.
    pub(crate) waited: Duration,
    /// The request was ended later than the limit passed, so `waited` says only what it is at most.
    pub(crate) at_most: bool,
    pub(crate) limit: ServerLimit,
    /// The name of the setting; `None` where several would fit.
    pub(crate) setting: Option<&'static str>,
    /// Bytes of the request were coming until shortly before.
    pub(crate) sending: bool,
    pub(crate) confidence: Confidence,
    pub(crate) doubts: Vec<Doubt>,
}

impl CutOff<'_> {
    /// Who asked was harmed by it. One that sent a part of a head and then nothing was not: the limit
    /// is there to be rid of it.
    pub(crate) fn is_harm(&self) -> bool {
        match self.limit {
            ServerLimit::ReadHeader => self.sending,
            ServerLimit::Conn => self.sending && self.went_on_sending(),
            _ => true,
        }
    }

    /// More bytes came after the end: they were answered by RST, or lay there unread.
    fn went_on_sending(&self) -> bool {
        let connection = self.connection;
        connection.unread.is_some()
            || connection.reset_sent.is_some()
            || connection.local_closed.is_some_and(|closed| closed.abort)
    }

    /// Bytes per second at which the request came.
    pub(crate) fn rate(&self) -> Option<u64> {
        let took = self.at.since(self.exchange.started).as_secs_f64();
        (took > 0.0).then(|| (self.exchange.request_bytes as f64 / took) as u64)
    }
}

/// All of them. `explained` says of which connections another rule has told the reason.
pub(crate) fn all<'m>(scene: &Scene<'m>, explained: impl Fn(SocketId) -> bool) -> Vec<CutOff<'m>> {
    let open = |connection: &&Connection| {
        let beyond = connection.other_end.is_some_and(&explained);
        !explained(connection.socket) && !beyond
    };
    let servers: Vec<&Connection> = scene.servers().filter(open).collect();
    let mut all: Vec<CutOff<'m>> = servers
        .iter()
        .filter_map(|connection| decided::on(scene, connection))
        .collect();
    let mut told: BTreeSet<SocketId> = all.iter().map(|cut| cut.connection.socket).collect();
    let answers = Answers::of(scene);
    let handlers = handler::all(scene, &servers, &answers);
    told.extend(handlers.iter().map(|cut| cut.connection.socket));
    all.extend(handlers);
    let rest: Vec<&Connection> = servers
        .into_iter()
        .filter(|connection| !told.contains(&connection.socket))
        .collect();
    all.extend(undecided::all(scene, &rest, &answers));
    all.sort_by_key(|cut| cut.at);
    all
}

/// Where the limits of a server hold.
fn place(scene: &Scene<'_>, connection: &Connection) -> (Service, u16) {
    (scene.service(connection.pid), connection.local.port())
}

/// What is told together: the same service and port, the same limit, set to the same value.
pub(crate) fn grouped<'m>(scene: &Scene<'m>, all: Vec<CutOff<'m>>) -> Vec<Vec<CutOff<'m>>> {
    let mut by_name: BTreeMap<_, Vec<CutOff<'_>>> = BTreeMap::new();
    for cut in all {
        let name = (place(scene, cut.connection), cut.limit);
        by_name.entry(name).or_default().push(cut);
    }
    let split = |together: Vec<CutOff<'m>>| {
        if together.iter().any(|cut| cut.at_most) {
            vec![together]
        } else {
            by_setting(together, |cut| cut.waited)
        }
    };
    by_name.into_values().flat_map(split).collect()
}

/// Bytes came until shortly before `at`: within half a second, or half of what it took until then.
fn was_sending(exchange: &Exchange, at: BootInstant) -> bool {
    const SHORTLY: Duration = Duration::from_millis(500);
    let silent = at.since(exchange.request_ended);
    let took = at.since(exchange.started);
    exchange.request_ended > exchange.started && silent <= SHORTLY.max(took / 2) && silent < took
}

/// From when on `net/http`'s limits for reading count: the first request's from the connection, a later
/// one's from its first byte.
fn reading_since(connection: &Connection, exchange: &Exchange) -> BootInstant {
    if exchange.number == 0 && connection.origin == Origin::Accepted {
        connection.opened
    } else {
        exchange.started
    }
}

/// Answers that came to processes from elsewhere, of the statuses by which a server says that time ran
/// out: whoever passes one on did not set the limit.
struct Answers(HashMap<(Pid, u16), Vec<(BootInstant, BootInstant)>>);

impl Answers {
    fn of(scene: &Scene<'_>) -> Self {
        let mut by_status: HashMap<(Pid, u16), Vec<(BootInstant, BootInstant)>> = HashMap::new();
        for client in scene.clients() {
            for asked in client.exchanges() {
                if let (Some(status @ (408 | 503)), Some(at)) = (asked.status, asked.first_byte) {
                    let of_it = by_status.entry((client.pid, status)).or_default();
                    of_it.push((asked.started, at));
                }
            }
        }
        for answers in by_status.values_mut() {
            answers.sort();
        }
        Self(by_status)
    }

    /// The same status had come to the process while it served `exchange`.
    fn passed_on(&self, connection: &Connection, exchange: &Exchange) -> bool {
        let key = exchange.status.map(|status| (connection.pid, status));
        let (Some(answers), Some(answered)) =
            (key.and_then(|key| self.0.get(&key)), exchange.first_byte)
        else {
            return false;
        };
        let from = answers.partition_point(|(asked, _)| *asked < exchange.started);
        answers
            .iter()
            .skip(from)
            .take_while(|(asked, _)| *asked <= answered)
            .any(|(_, at)| *at <= answered)
    }
}
