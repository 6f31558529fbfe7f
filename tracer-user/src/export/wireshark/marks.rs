//! What is to be written on packets, and how each of these packets is known.
//!
//! In: the model and its findings. Out: notes, each with the [`Want`] that finds its packet. Findings come
//! first, then the processes at both ends of each connection, then the goroutines of requests; what finds no
//! room within [`MOST`] is left out.

use std::net::SocketAddr;

use crate::{
    detect::{Evidence, Finding, brief, own_frame, wording::bytes},
    event::{Actor, BootInstant, Frame, Origin, Role, SocketId},
    model::{Connection, Exchange, Model},
    plain::clean,
};

use super::{
    cut_short,
    proofs::Place,
    search::{Ends, Side, Sought, Want},
    wall,
};

/// Notes kept; some 300 bytes each.
const MOST: usize = 200_000;

/// How long after its end packets of a connection may still come, in nanoseconds.
const AFTERMATH: u64 = 5_000_000_000;

/// How long before a connection is known its handshake may begin, in nanoseconds.
const BEFORE: u64 = 10_000_000_000;

/// What a packet is wanted for.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// It proves a finding.
    Proof(Place),
    /// A comment of its own.
    Comment(String),
}

/// Notes and their wants, in pairs.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) wants: Vec<Want>,
    pub(super) notes: Vec<Note>,
}

impl Marks {
    /// What proves the findings.
    pub(super) fn of_findings(model: &Model, findings: &[Finding]) -> Self {
        let mut marks = Self::default();
        for (number, finding) in findings.iter().enumerate() {
            for (place, evidence) in finding.evidence.iter().enumerate() {
                if let Some(want) = proof(model, finding, evidence) {
                    marks.add(want, Note::Proof((number, place)));
                }
            }
        }
        marks
    }

    /// The same, and who is at work on each connection.
    pub(super) fn of_everything(model: &Model, findings: &[Finding]) -> Self {
        let mut marks = Self::of_findings(model, findings);
        for connection in model.connections() {
            let want = want(model, connection, connection.opened, Sought::First);
            marks.add(want, Note::Comment(owner(model, connection)));
        }
        for connection in model.connections() {
            for exchange in connection.exchanges() {
                let Some(comment) = worker(model, connection, &exchange) else {
                    continue;
                };
                let (at, sought) = match connection.role {
                    Role::Client => (exchange.started, Sought::Sent(Side::Client)),
                    Role::Server => (
                        exchange.arrived.unwrap_or(exchange.started),
                        Sought::Read(Side::Client),
                    ),
                };
                let want = want(model, connection, at, sought);
                marks.add(want, Note::Comment(comment));
            }
        }
        marks
    }

    /// Each note with what was found for its want.
    pub(super) fn with<T>(
        &self,
        found: impl Iterator<Item = Option<T>>,
    ) -> impl Iterator<Item = (T, &Note)> {
        found
            .zip(&self.notes)
            .filter_map(|(found, note)| Some((found?, note)))
    }

    fn add(&mut self, want: Want, note: Note) {
        if self.notes.len() < MOST {
            self.wants.push(want);
            self.notes.push(note);
        }
    }
}

/// The packet that an event of an occurrence came with; `None` where none ever does.
fn proof(model: &Model, finding: &Finding, evidence: &Evidence) -> Option<Want> {
    let connection = evidence
        .socket
        .and_then(|socket: SocketId| model.connection(socket));
    let ours = connection.map(|connection| match connection.role {
        Role::Client => Side::Client,
        Role::Server => Side::Server,
    });
    let message = |side: Side| match ours {
        Some(ours) if ours != side => Sought::Read(side),
        _ => Sought::Sent(side),
    };
    let sought = match evidence.event.as_str() {
        // Not of a connection, or of the window's bounds: a row may tell it, no packet does.
        "window" | "waiting" | "queue" | "overflow" | "descriptors" | "refused" => return None,
        "request" | "forward" | "ask" | "begin" => message(Side::Client),
        "response" | "answer" | "late" => message(Side::Server),
        "sent" => Sought::Payload(Some(ours.unwrap_or(Side::Client))),
        "arrived" | "idle" | "last" | "stop" | "go on" => Sought::Payload(None),
        "open" | "connect" | "established" => Sought::Opening,
        "close" | "left" => Sought::Leaving(ours),
        "end" => Sought::Leaving(ours.map(Side::other)),
        "reset" => Sought::Reset,
        _ => Sought::Any,
    };
    let at = u64::try_from(evidence.time.as_nanosecond()).ok()?;
    Some(match connection {
        Some(connection) => Want {
            at,
            ..want(model, connection, connection.opened, sought)
        },
        None => Want {
            ends: finding
                .connection
                .iter()
                .chain(&finding.related_connections)
                .map(|ends| (ends.client, ends.server))
                .collect(),
            at,
            during: (0, u64::MAX),
            sought,
        },
    })
}

fn want(model: &Model, connection: &Connection, at: BootInstant, sought: Sought) -> Want {
    let began = match connection.origin {
        Origin::Found => 0,
        Origin::Connected | Origin::Accepted => {
            wall(model.source(), connection.opened).saturating_sub(BEFORE)
        }
    };
    let gone = connection.closed.map(|(at, _)| at).or(connection.ended());
    let ended = gone.map_or(u64::MAX, |at| wall(model.source(), at) + AFTERMATH);
    let found = connection.origin == Origin::Found && sought == Sought::First;
    Want {
        ends: vec![ends(connection)],
        // One from before the window has its first packet anywhere in it.
        at: if found { 0 } else { wall(model.source(), at) },
        during: (began, ended),
        sought,
    }
}

fn ends(connection: &Connection) -> Ends {
    (connection.client(), connection.server())
}

/// `gateway (pid 2585), client of 127.0.0.1:9001`.
fn owner(model: &Model, connection: &Connection) -> String {
    let (part, other): (&str, SocketAddr) = match connection.role {
        Role::Client => ("client", connection.server()),
        Role::Server => ("server", connection.client()),
    };
    let name = clean(&model.name(connection.pid));
    // The name last among what is cut: what follows it is what programs read.
    format!(
        "{} (pid {}), {part} of {other}",
        cut_short(&name),
        connection.pid
    )
}

/// `goroutine 34 (pid 2586) of upload: POST /upload (195.4 KiB), main.(*Archive).store (archive.go:35)`.
fn worker(model: &Model, connection: &Connection, exchange: &Exchange) -> Option<String> {
    let actor = exchange.actor?;
    let goroutine = actor.goroutine?;
    let mut told = format!(
        "goroutine {goroutine} (pid {}) of {}: ",
        actor.pid,
        model.name(actor.pid)
    );
    match &exchange.head {
        Some(head) => told.extend([&head.method, " ", &head.path]),
        None => told.push_str("a request"),
    }
    told.push_str(&format!(" ({})", bytes(exchange.request_bytes)));
    if let Some(frame) = at_work(model, connection, exchange, actor) {
        told.extend([", ", &brief(frame)]);
    }
    Some(cut_short(&clean(&told)).to_owned())
}

/// Where the goroutine was when it was looked at during the exchange.
fn at_work<'m>(
    model: &'m Model,
    connection: &'m Connection,
    exchange: &Exchange,
    actor: Actor,
) -> Option<&'m Frame> {
    let id = actor.goroutine?;
    let end = if exchange.answered() {
        exchange.last_byte
    } else {
        connection.ended().unwrap_or(model.now())
    };
    let during = exchange.started..=end.max(exchange.last_byte);
    let looked = connection
        .looks
        .iter()
        .find(|(at, goroutine)| goroutine.id == id && during.contains(at))
        .map(|(_, goroutine)| goroutine)
        .or_else(|| {
            let look = model.look(actor.pid, id, *during.start(), *during.end());
            look.map(|(_, goroutine)| goroutine)
        })?;
    own_frame(&looked.frames).or(looked.frames.first())
}
