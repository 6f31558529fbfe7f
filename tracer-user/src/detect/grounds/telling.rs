//! One occurrence as proof: its events in order, its goroutines, and the filter that shows its packets.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{
    detect::{
        finding::{Evidence, Subject, Witness},
        own_code::brief,
        wording::bytes,
    },
    event::{Attribution, BootInstant, Frame, SocketId, is_host},
    model::{Connection, Decided, Exchange, Model},
};

use super::give_up::GiveUp;

/// How much older than the decision a look at the upstream's goroutine may be, and how much younger.
const LOOK_AROUND: Duration = Duration::from_millis(250);

/// Events come only almost in order.
const SLACK: Duration = Duration::from_millis(2);

/// Events of one occurrence, put in order at the end.
pub(crate) struct Timeline<'m> {
    model: &'m Model,
    on: Option<SocketId>,
    events: Vec<Told>,
}

struct Told {
    at: BootInstant,
    event: &'static str,
    detail: String,
    on: Option<SocketId>,
}

impl<'m> Timeline<'m> {
    pub(crate) fn of(model: &'m Model) -> Self {
        Self {
            model,
            on: None,
            events: Vec::new(),
        }
    }

    /// What is added from now on happens on `connection`, and its packets are looked for there.
    pub(crate) fn on(&mut self, connection: &Connection) -> &mut Self {
        self.on = Some(connection.socket);
        self
    }

    pub(crate) fn add(
        &mut self,
        at: BootInstant,
        event: &'static str,
        detail: String,
    ) -> &mut Self {
        self.events.push(Told {
            at,
            event,
            detail,
            on: self.on,
        });
        self
    }

    pub(crate) fn add_if(
        &mut self,
        at: Option<BootInstant>,
        event: &'static str,
        detail: impl FnOnce() -> String,
    ) -> &mut Self {
        if let Some(at) = at {
            self.add(at, event, detail());
        }
        self
    }

    /// A request as the process that serves it saw it begin.
    pub(crate) fn request_read(
        &mut self,
        connection: &Connection,
        exchange: &Exchange,
    ) -> &mut Self {
        let who = self.model.owner(connection);
        let detail = format!("{who} reads {} from {}", what(exchange), connection.remote);
        self.on(connection).add(exchange.started, "request", detail)
    }

    /// How the process that serves a request ended it, or what it answered.
    pub(crate) fn outcome(&mut self, connection: &Connection, exchange: &Exchange) -> &mut Self {
        let who = self.model.owner(connection);
        if let (true, Some(at)) = (exchange.answered(), exchange.first_byte) {
            let status = exchange
                .status
                .map_or_else(String::new, |status| format!(" {status}"));
            let detail = format!("{who} answers{status} to {}", connection.remote);
            return self.add_on(connection, Some(at), "response", detail);
        }
        let how = if connection.local_closed.is_some_and(|closed| closed.abort) {
            "resets"
        } else {
            "closes"
        };
        let detail = format!(
            "{who} {how} the connection of {} with no byte of a response",
            connection.remote
        );
        self.add_on(connection, connection.left(), "close", detail)
    }

    /// One event of `connection`, and none after it.
    fn add_on(
        &mut self,
        connection: &Connection,
        at: Option<BootInstant>,
        event: &'static str,
        detail: String,
    ) -> &mut Self {
        let before = self.on.replace(connection.socket);
        self.add_if(at, event, || detail);
        self.on = before;
        self
    }

    /// In the order of time, with wall-clock times.
    pub(crate) fn evidence(&mut self) -> Vec<Evidence> {
        self.events.sort_by_key(|told| told.at);
        let source = self.model.source();
        self.events
            .drain(..)
            .map(|told| Evidence {
                time: source.wall(told.at),
                event: told.event.into(),
                detail: told.detail,
                frame: None,
                socket: told.on,
            })
            .collect()
    }
}

/// `POST /upload (195.5 KiB)`, or `a request (195.5 KiB)` where its head is not known; without the size
/// where only the head is.
pub(crate) fn what(exchange: &Exchange) -> String {
    let size = bytes(exchange.request_bytes);
    match &exchange.head {
        Some(head) if exchange.request_bytes == 0 => format!("{} {}", head.method, head.path),
        Some(head) => format!("{} {} ({size})", head.method, head.path),
        None => format!("a request ({size})"),
    }
}

/// Who gave up: the process; in a packet capture the address at which it was serving meanwhile.
pub(crate) fn who(model: &Model, give_up: &GiveUp<'_>) -> String {
    let serving = give_up.serving.as_ref();
    let serves = serving.and_then(|serving| model.connection(serving.socket));
    model.owner(serves.unwrap_or(give_up.connection))
}

/// The whole occurrence of a give-up.
pub(crate) fn timeline(model: &Model, give_up: &GiveUp<'_>) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let connection = give_up.connection;
    let who = who(model, give_up);
    let upstream = connection.remote;
    let serving = give_up.serving.as_ref();
    let serves = serving.and_then(|serving| model.connection(serving.socket));
    if let (Some(serving), Some(serves)) = (serving, serves) {
        timeline.request_read(serves, &serving.exchange);
        timeline.outcome(serves, &serving.exchange);
    }
    timeline.on(connection);
    match &give_up.exchange {
        Some(exchange) => {
            timeline.add(
                exchange.started,
                "forward",
                format!("{who} sends {} to {upstream}", what(exchange)),
            );
            if exchange.request_ended > exchange.started && exchange.request_ended <= give_up.at {
                timeline.add(
                    exchange.request_ended,
                    "sent",
                    "its last byte is sent".into(),
                );
            }
            timeline.add_if(exchange.first_byte, "response", || {
                format!("the response of {upstream} begins")
            });
        }
        None if give_up.begun_before => {
            timeline.add(
                connection.opened,
                "window",
                format!("the window begins; {who} waits for {upstream} already"),
            );
        }
        None => {
            timeline.add(
                connection.opened,
                "connect",
                format!("{who} connects to {upstream}"),
            );
        }
    }
    if let Some(decided) = give_up.decision {
        timeline.add(decided.at, "decision", decision(model, decided));
    } else if give_up.exchange.is_none() && connection.connect_failed.is_none() {
        timeline.add(
            give_up.at,
            "decision",
            format!("{who} no longer waits for the connection"),
        );
    }
    timeline.add_if(
        connection.connect_failed.map(|failed| failed.at),
        "close",
        || format!("{who} abandons the connection to {upstream} before it is established"),
    );
    if connection.connect_failed.is_none() {
        let closed = connection.left();
        timeline.add_if(closed, "close", || {
            format!("{who} closes its connection to {upstream}")
        });
    }
    if let Some((late, other)) = late_answer(model, give_up) {
        let served_by = model.owner(other);
        timeline
            .on(other)
            .add(late, "late", format!("{served_by} answers, to nobody"));
    }
    timeline.evidence()
}

fn decision(model: &Model, decided: &Decided) -> String {
    let mut detail = match decided.decision.actor.goroutine {
        Some(goroutine) => format!(
            "goroutine {goroutine} of {}",
            model.name(decided.decision.actor.pid)
        ),
        None => model.name(decided.decision.actor.pid),
    };
    detail.push_str(" gives up");
    if let Some(frame) = deciding_frame(model.frames(decided.decision.stack)) {
        let _ = write!(detail, " in {}", brief(frame));
    }
    match &decided.decision.error {
        Some(error) => {
            let _ = write!(detail, ": {error}");
        }
        None => detail.push_str(": context deadline exceeded"),
    }
    detail
}

/// The frame that decided: the one that called the transport's own closing functions.
pub(crate) fn deciding_frame(frames: &[Frame]) -> Option<&Frame> {
    const CARRY_OUT: [&str; 3] = [
        "net/http.(*persistConn).closeLocked",
        "net/http.(*persistConn).close",
        "net/http.(*persistConn).cancelRequest",
    ];
    frames
        .iter()
        .find(|frame| !CARRY_OUT.contains(&frame.function.as_str()))
}

/// When the upstream answered after all, and its end of the connection.
pub(crate) fn late_answer<'m>(
    model: &'m Model,
    give_up: &GiveUp<'_>,
) -> Option<(BootInstant, &'m Connection)> {
    let other = model.other_end(give_up.connection)?;
    let asked = give_up.exchange.as_ref()?;
    let late = other
        .exchanges()
        .into_iter()
        .rfind(|served| {
            served.started.plus(SLACK) >= asked.started && served.started <= give_up.at
        })?
        .first_byte?;
    (late > give_up.at).then_some((late, other))
}

/// The goroutine that gave up, with the frames of its decision.
pub(crate) fn decider(model: &Model, give_up: &GiveUp<'_>) -> Option<Witness> {
    let decided = &give_up.decision?.decision;
    Witness::acting(model, decided.actor, model.frames(decided.stack))
}

/// The upstream's goroutine that was to answer, as it was when its client gave up.
pub(crate) fn still_at_work(model: &Model, give_up: &GiveUp<'_>) -> Option<Witness> {
    let other = model.other_end(give_up.connection)?;
    let subject = Subject::owner(model, other);
    let nearest = other
        .looks
        .iter()
        .min_by_key(|(at, _)| at.since(give_up.at).max(give_up.at.since(*at)));
    if let Some((_, goroutine)) = nearest {
        let how = if is_host(other.pid) {
            // From a dump, which names no connection.
            Attribution::Inferred
        } else {
            Attribution::LastOwner
        };
        return Some(Witness::looked_at(subject, goroutine, how));
    }
    let actor = other.exchanges().pop()?.actor?;
    let from = give_up.at.minus(LOOK_AROUND);
    let (_, goroutine) = model.look(
        other.pid,
        actor.goroutine?,
        from,
        give_up.at.plus(LOOK_AROUND),
    )?;
    Some(Witness::looked_at(
        subject,
        goroutine,
        Attribution::Inferred,
    ))
}

/// The goroutine of the one who gave up that waits for the upstream, where a dump shows it.
pub(crate) fn waits_in_dump(model: &Model, give_up: &GiveUp<'_>) -> Option<Witness> {
    let serves = model.connection(give_up.serving.as_ref()?.socket)?;
    let (_, goroutine) = serves.looks.first().filter(|_| is_host(serves.pid))?;
    let subject = Subject::owner(model, serves);
    Some(Witness::looked_at(
        subject,
        goroutine,
        Attribution::Inferred,
    ))
}

/// A display filter that shows these connections: in the capture they were read from, else in any
/// capture of them.
pub(crate) fn wireshark_filter<'c>(
    connections: impl Iterator<Item = &'c Connection>,
) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for connection in connections {
        let part = if is_host(connection.pid) {
            format!("tcp.stream eq {}", connection.socket.stream())
        } else {
            one(connection.client(), connection.server())
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    (!parts.is_empty()).then(|| parts.join(" || "))
}

fn one(client: SocketAddr, server: SocketAddr) -> String {
    let family = if client.is_ipv4() { "ip" } else { "ipv6" };
    let mut addresses = format!("{family}.addr=={}", client.ip());
    if server.ip() != client.ip() {
        let _ = write!(addresses, " && {family}.addr=={}", server.ip());
    }
    format!(
        "({addresses} && tcp.port=={} && tcp.port=={})",
        client.port(),
        server.port()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_both_ends() {
        let filter = one(
            "10.0.0.1:5000".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
        );
        assert_eq!(
            filter,
            "(ip.addr==10.0.0.1 && ip.addr==10.0.0.2 && tcp.port==5000 && tcp.port==80)"
        );
        let local = one("[::1]:5000".parse().unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(local, "(ipv6.addr==::1 && tcp.port==5000 && tcp.port==80)");
    }
}
