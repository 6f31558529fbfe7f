//! Gaps in the middle of messages, each with who was silent.
//!
//! In come the gaps that the two ends of a connection saw, each by its own calls; out comes each gap
//! once. One end alone often cannot tell: a sender that finds its buffer full may face a receiver that
//! reads little by little and never stops, so a gap in its calls is none in the flow. Only what the
//! receiver's own calls show, or a sender that had nothing to send, is a gap.

use std::time::Duration;

use crate::{
    event::{BootInstant, Message, Role, Stall},
    model::{Connection, Exchange, Model},
};

/// Events come only almost in order.
const SLACK: Duration = Duration::from_millis(10);

/// Who was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Silent {
    /// The sender had nothing to send.
    Sender,
    /// The receiver did not read what lay in its socket.
    Receiver,
    /// Packets were lost and had to be sent again.
    Lost,
    /// The sender had sent, the receiver waited, and nothing was lost.
    Path,
    /// The sender or the way: the sender is not traced.
    Beyond,
}

/// A gap.
#[derive(Clone, Debug)]
pub(crate) struct Gap<'m> {
    /// The end that serves, or the only one that is traced.
    pub(crate) connection: &'m Connection,
    /// The exchange as that end saw it.
    pub(crate) exchange: Exchange,
    /// Who sends the message, where traced.
    pub(crate) sender: Option<&'m Connection>,
    /// Who receives it, where traced.
    pub(crate) receiver: Option<&'m Connection>,
    pub(crate) message: Message,
    pub(crate) from: BootInstant,
    pub(crate) until: BootInstant,
    /// Bytes flowed again.
    pub(crate) resumed: bool,
    /// Bytes of the message before it.
    pub(crate) bytes_before: u64,
    pub(crate) silent: Silent,
}

impl<'m> Gap<'m> {
    pub(crate) fn length(&self) -> Duration {
        self.until.since(self.from)
    }

    /// The end of whoever was silent, where that is traced.
    pub(crate) fn culprit(&self) -> Option<&'m Connection> {
        match self.silent {
            Silent::Sender => self.sender,
            Silent::Receiver => self.receiver,
            Silent::Lost | Silent::Path | Silent::Beyond => None,
        }
    }

    /// Most of this gap lies within the time of `other`.
    fn within(&self, other: &Self) -> bool {
        let from = self.from.max(other.from);
        let until = self.until.min(other.until);
        until.since(from) >= self.length().mul_f64(0.8)
    }

    /// The silent one was itself kept waiting by what happened on another of its connections: it passes
    /// on what it receives, or reads no faster than it can pass on.
    pub(crate) fn passed_on_by<'g>(&self, all: &'g [Gap<'m>]) -> Option<&'g Gap<'m>> {
        let culprit = self.culprit()?;
        all.iter().find(|other| {
            let end = match self.silent {
                Silent::Sender => other.receiver,
                _ => other.sender,
            };
            let it_waits = end.is_some_and(|end| {
                end.pid == culprit.pid && !self.is_on(end) && other.silent != Silent::Path
            });
            let its_own = other.culprit().is_some_and(|c| c.pid == culprit.pid);
            it_waits && !its_own && self.within(other)
        })
    }

    fn is_on(&self, end: &Connection) -> bool {
        [self.sender, self.receiver]
            .into_iter()
            .flatten()
            .any(|own| own.socket == end.socket)
    }
}

/// All of them, in the order of time.
pub(crate) fn all(model: &Model) -> Vec<Gap<'_>> {
    let mut all: Vec<Gap<'_>> = model
        .connections()
        .filter(|connection| connection.role == Role::Server || connection.other_end.is_none())
        .flat_map(|connection| on(model, connection))
        .collect();
    all.sort_by_key(|gap| gap.from);
    all
}

/// Those on one connection, by what both ends saw.
fn on<'m>(model: &'m Model, connection: &'m Connection) -> Vec<Gap<'m>> {
    let other = model.other_end(connection);
    let mut found = Vec::new();
    for message in [Message::Request, Message::Response] {
        let (sender, receiver) = ends(connection, other, message);
        let mut sent = stalls(sender, message);
        for received in stalls(receiver, message) {
            let twin = sent
                .iter()
                .position(|sent| overlap(sent, &received))
                .map(|place| sent.swap_remove(place));
            found.extend(gap(
                model,
                connection,
                sender,
                receiver,
                twin,
                Some(received),
            ));
        }
        for alone in sent {
            found.extend(gap(model, connection, sender, receiver, Some(alone), None));
        }
    }
    found
}

fn ends<'m>(
    connection: &'m Connection,
    other: Option<&'m Connection>,
    message: Message,
) -> (Option<&'m Connection>, Option<&'m Connection>) {
    if sends(connection.role, message) {
        (Some(connection), other)
    } else {
        (other, Some(connection))
    }
}

/// Who has this role sends this message.
fn sends(role: Role, message: Message) -> bool {
    (role == Role::Client) == (message == Message::Request)
}

fn stalls(end: Option<&Connection>, message: Message) -> Vec<Stall> {
    end.map_or(&[][..], |end| &end.stalls)
        .iter()
        .filter(|stall| stall.message == message)
        .copied()
        .collect()
}

fn overlap(one: &Stall, other: &Stall) -> bool {
    let both = one.until.min(other.until).since(one.from.max(other.from));
    let shorter = length(one).min(length(other));
    !both.is_zero() && both * 2 >= shorter
}

fn length(stall: &Stall) -> Duration {
    stall.until.since(stall.from)
}

fn gap<'m>(
    model: &Model,
    connection: &'m Connection,
    sender: Option<&'m Connection>,
    receiver: Option<&'m Connection>,
    sent: Option<Stall>,
    received: Option<Stall>,
) -> Option<Gap<'m>> {
    let silent = silent(model, (sender, receiver), sent, received)?;
    let seen = match silent {
        Silent::Sender => sent.or(received),
        _ => received.or(sent),
    }?;
    let stalled_end = [sender, receiver]
        .into_iter()
        .flatten()
        .find(|end| end.socket == seen.socket)?;
    let number = |exchange: &Exchange| {
        (exchange.number..=exchange.number + exchange.continuations).contains(&seen.number)
    };
    let exchange = stalled_end.exchanges().into_iter().find(number)?;
    Some(Gap {
        exchange: of_end(connection, stalled_end, exchange)?,
        connection,
        sender,
        receiver,
        message: seen.message,
        from: seen.from,
        until: seen.until,
        resumed: seen.resumed,
        bytes_before: seen.bytes_before,
        silent,
    })
}

/// The exchange as `connection` saw it, where its other end saw `exchange`.
fn of_end(connection: &Connection, seen_by: &Connection, exchange: Exchange) -> Option<Exchange> {
    if connection.socket == seen_by.socket {
        return Some(exchange);
    }
    connection
        .exchanges()
        .into_iter()
        .min_by_key(|own| {
            let apart = own.started.since(exchange.started);
            apart.max(exchange.started.since(own.started))
        })
        .filter(|own| own.head.is_some() || exchange.head.is_none())
}

/// Who was silent; `None` where there was no gap in the flow, or that is not known.
fn silent(
    model: &Model,
    (sender, receiver): (Option<&Connection>, Option<&Connection>),
    sent: Option<Stall>,
    received: Option<Stall>,
) -> Option<Silent> {
    if received.is_some_and(|received| lay_unread(&received)) {
        return Some(Silent::Receiver);
    }
    match (sent, received) {
        // A sender that falls silent for ever may simply have said all.
        (Some(sent), Some(_)) if had_nothing_to_send(&sent) => {
            sent.resumed.then_some(Silent::Sender)
        }
        (Some(sent), None) if had_nothing_to_send(&sent) => {
            let shows = receiver.is_none() && sender.is_some_and(|end| never_blocks(model, end));
            (shows && sent.resumed).then_some(Silent::Sender)
        }
        // A window that is small for a reader who waits is not what holds the sender up.
        (Some(sent), Some(received))
            if received.arrived.is_none() && sent.retransmits == 0 && window_closed(&sent) =>
        {
            Some(Silent::Receiver)
        }
        (_, Some(received)) => match sender {
            Some(sender) if sent_again(sender, &received) => Some(Silent::Lost),
            Some(sender) if sent.is_some() || said_all(sender, &received) => {
                received.resumed.then_some(Silent::Path)
            }
            Some(_) => None,
            None => received.resumed.then_some(Silent::Beyond),
        },
        // It could not send. Where the other end does not read at all, it is the receiver; where that
        // reads slowly and steadily, this is how it looks as well.
        (Some(sent), None) if !sent.resumed => match receiver {
            Some(receiver) => reads_no_more(receiver, &sent),
            None => window_closed(&sent),
        }
        .then_some(Silent::Receiver),
        (Some(sent), None) if receiver.is_none() && window_closed(&sent) => sender
            .is_some_and(|sender| flowed_otherwise(sender, &sent))
            .then_some(Silent::Receiver),
        _ => None,
    }
}

/// The only gap of its message, and behind it flowed about as much as had before without another. A
/// reader that is slow all the time lets a sender on by a third of its buffer at a time.
fn flowed_otherwise(sender: &Connection, sent: &Stall) -> bool {
    let of_message = |stall: &&Stall| (stall.number, stall.message) == (sent.number, sent.message);
    let bytes = sender
        .exchanges()
        .iter()
        .find(|exchange| exchange.number == sent.number)
        .map_or(0, |exchange| match sent.message {
            Message::Request => exchange.request_bytes,
            Message::Response => exchange.response_bytes,
        });
    let alone = sender.stalls.iter().filter(of_message).count() == 1;
    alone && bytes.saturating_sub(sent.bytes_before) >= sent.bytes_before / 5 * 3
}

/// A call of a Go program that sends never waits for room: the program does. One of another program may
/// wait within the call, and that looks as if there had been nothing to send.
fn never_blocks(model: &Model, sender: &Connection) -> bool {
    model.is_go(sender.pid)
}

/// For most of the time that the sender could not send, the receiver's window did not let it.
fn window_closed(sent: &Stall) -> bool {
    sent.window_limited * 2 >= blocked(sent)
}

/// Bytes lie in the receiver's socket to its end, and for most of the gap.
fn reads_no_more(receiver: &Connection, sent: &Stall) -> bool {
    receiver
        .unread
        .is_some_and(|(since, _)| sent.until.since(since.max(sent.from)) * 2 >= length(sent))
}

/// For most of the gap there was something to read.
fn lay_unread(received: &Stall) -> bool {
    received.arrived.is_some_and(|arrived| {
        received.until.since(arrived.max(received.from)) * 2 >= length(received)
    })
}

/// For how long of the gap the sender wanted to send and could not.
fn blocked(sent: &Stall) -> Duration {
    sent.buffer_full
        .map_or(Duration::ZERO, |full| sent.until.since(full.max(sent.from)))
}

/// It had room for most of the gap, and nothing of what was sent before stood in the way.
fn had_nothing_to_send(sent: &Stall) -> bool {
    let in_the_way = sent.retransmits > 0 || sent.window_limited * 2 >= length(sent);
    blocked(sent) * 2 < length(sent) && !in_the_way
}

fn sent_again(sender: &Connection, received: &Stall) -> bool {
    sender
        .retransmitted
        .iter()
        .any(|at| (received.from..received.until.plus(SLACK)).contains(at))
}

/// The sender had handed all of the message to its kernel when the gap began.
fn said_all(sender: &Connection, received: &Stall) -> bool {
    let ended = |exchange: &Exchange| match received.message {
        Message::Request => exchange.request_ended,
        Message::Response => exchange.last_byte,
    };
    sender
        .exchanges()
        .iter()
        .rfind(|exchange| exchange.started <= received.until)
        .is_some_and(|exchange| ended(exchange) <= received.from.plus(SLACK))
}
