//! Connections, each with a track of its own under its process, and what went over them.

use std::io::{self, Write};

use crate::{
    event::{BootInstant, Message, Role, Stall},
    model::{Connection, Exchange, Model},
};

use super::{
    flows::Flows,
    packets::{Packets, Told, Track},
    tracks::Tracks,
};

pub(super) fn write(
    model: &Model,
    flows: &Flows,
    tracks: &mut Tracks<'_>,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    for connection in model.connections() {
        let process = tracks.process(connection.pid, packets)?;
        let track = packets.named_track(Some(process), heading(connection))?;
        lifetime(model, connection, flows, track, packets)?;
        moments(model, connection, track, packets)?;
    }
    Ok(())
}

/// By what connections stand together.
fn heading(connection: &Connection) -> String {
    match connection.role {
        Role::Client => format!("asks {}", connection.remote),
        Role::Server => format!("serves {}", connection.local),
    }
}

pub(super) fn ends(connection: &Connection) -> String {
    format!("{} → {}", connection.client(), connection.server())
}

/// When an exchange was over: unanswered, it lasts until somebody leaves.
pub(super) fn over(model: &Model, connection: &Connection, exchange: &Exchange) -> BootInstant {
    if exchange.answered() || exchange.complete {
        exchange.last_byte
    } else {
        let left = connection.ended().unwrap_or(model.now());
        left.max(exchange.last_byte)
    }
}

/// `POST /upload`, or what is known instead.
pub(super) fn asked(exchange: &Exchange) -> String {
    match &exchange.head {
        Some(head) => format!("{} {}", head.method, head.path),
        None => format!("exchange {}", exchange.number),
    }
}

fn lifetime(
    model: &Model,
    connection: &Connection,
    flows: &Flows,
    track: Track,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    packets.begin(connection.opened, track, life(connection))?;
    let mut now = connection.opened;
    for exchange in connection.exchanges() {
        let from = exchange.started.max(now);
        let until = over(model, connection, &exchange).max(from);
        let told = told(connection, &exchange);
        let told = told.flows(flows.of_exchange(connection.socket, exchange.number));
        packets.begin(from, track, told)?;
        gaps(connection, &exchange, (from, until), track, packets)?;
        packets.end(until, track)?;
        now = until;
    }
    let gone = connection.closed.map(|(at, _)| at).or(connection.ended());
    packets.end(gone.unwrap_or(model.now()).max(now), track)
}

fn life(connection: &Connection) -> Told {
    let counted = connection.closed.map(|(_, closed)| closed);
    Told::new("tcp", ends(connection))
        .text("end", format!("{:?}", connection.end()))
        .number("socket", connection.socket.0)
        .number("retransmits", connection.retransmits)
        .maybe(connection.connect_time(), |told, time| {
            told.time("connect_s", time)
        })
        .maybe(counted, |told, counted| {
            told.number("bytes_sent", counted.bytes_sent)
                .number("bytes_received", counted.bytes_received)
        })
}

/// What a slice of an exchange says.
fn told(connection: &Connection, exchange: &Exchange) -> Told {
    let unread = exchange
        .arrived
        .filter(|_| connection.role == Role::Server)
        .map(|arrived| exchange.started.since(arrived));
    let head = exchange.head.as_ref();
    let actor = exchange.actor;
    let name = match exchange.status {
        Some(status) => format!("{} {status}", asked(exchange)),
        None => asked(exchange),
    };
    Told::new("http", name)
        .number("exchange", exchange.number)
        .maybe(head, |told, head| {
            told.text("method", &head.method).text("path", &head.path)
        })
        .maybe(exchange.status, |told, status| {
            told.number("status", status)
        })
        .number("request_bytes", exchange.request_bytes)
        .number("response_bytes", exchange.response_bytes)
        .maybe(exchange.time_to_first_byte(), |told, time| {
            told.time("first_byte_s", time)
        })
        .maybe(unread, |told, time| told.time("unread_before_s", time))
        .maybe(actor, |told, actor| told.number("thread", actor.tid))
        .maybe(actor.and_then(|actor| actor.goroutine), |told, id| {
            told.number("goroutine", id)
        })
}

/// The gaps of an exchange, as slices in its own.
fn gaps(
    connection: &Connection,
    exchange: &Exchange,
    (mut now, end): (BootInstant, BootInstant),
    track: Track,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    let mut gaps: Vec<&Stall> = connection
        .stalls
        .iter()
        .filter(|gap| gap.number == exchange.number)
        .collect();
    gaps.sort_by_key(|gap| gap.from);
    for gap in gaps {
        let from = gap.from.clamp(now, end);
        let until = gap.until.clamp(from, end);
        let message = match gap.message {
            Message::Request => "request stands still",
            Message::Response => "response stands still",
        };
        let told = Told::new("tcp", message)
            .number("bytes_before", gap.bytes_before)
            .number("retransmits", gap.retransmits);
        packets.slice((from, until), track, told)?;
        now = until;
    }
    Ok(())
}

/// What happened at one moment.
fn moments(
    model: &Model,
    connection: &Connection,
    track: Track,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    if let Some(failed) = connection.connect_failed {
        let told = Told::new("tcp", format!("connect failed: {:?}", failed.why));
        packets.instant(failed.at, track, told)?;
    }
    if let Some(closed) = connection.local_closed {
        let frame = model.frames(closed.stack).first();
        let told = Told::new("tcp", "close")
            .maybe(frame, |told, frame| told.text("at", frame.to_string()));
        packets.instant(closed.at, track, told)?;
    }
    let reset_sent = connection.reset_sent.as_ref().map(|(at, _)| *at);
    let others = [
        ("peer's FIN", connection.peer_closed),
        ("RST sent", reset_sent),
        ("peer's RST", connection.reset_received),
    ];
    for (name, at) in others {
        if let Some(at) = at {
            packets.instant(at, track, Told::new("tcp", name))?;
        }
    }
    for again in &connection.retransmitted {
        packets.instant(*again, track, Told::new("tcp", "sent again"))?;
    }
    for deadline in &connection.deadlines {
        let told = Told::new("go", format!("{:?} passed", deadline.of));
        packets.instant(deadline.at, track, told)?;
    }
    Ok(())
}
