//! Requests and their responses, as one connection saw them.
//!
//! In come the exchanges and request heads that a source tells of one socket; out come whole
//! exchanges, oldest first. An interim response (`100 Continue`) turns the direction twice within one
//! request, so what follows it without a head of its own is put together with what went before.
//! The number kept one by one is bounded; the rest lives on in a [`Tally`].

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::event::{self, Actor, BootInstant, RequestHead};

use super::traffic::Tally;

/// Exchanges kept of each connection whatever became of them; the last ones.
const RECENT: usize = 32;

/// Exchanges kept of each connection, older than the recent ones, because they went wrong or were slow.
const NOTABLE: usize = 256;

/// An exchange that took this long is slow.
const SLOW: Duration = Duration::from_millis(400);

/// Heads kept while their exchange is not told yet. More than one only where records were lost.
const HEADS: usize = 8;

/// Length of `HTTP/1.1 100 Continue\r\n\r\n`, by which it is known where the status was not read.
const CONTINUE_BYTES: u64 = 25;

/// One request and its response.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Counted from 0 on each connection.
    pub number: u32,
    /// How many turns of direction it took beyond the ordinary one (an interim response takes one).
    pub continuations: u32,
    /// First byte of the request sent (client) or read (server).
    pub started: BootInstant,
    /// Last byte of the request so far.
    pub request_ended: BootInstant,
    /// First byte of the final response read (client) or sent (server).
    pub first_byte: Option<BootInstant>,
    /// Last byte either way.
    pub last_byte: BootInstant,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the response.
    pub response_bytes: u64,
    /// Bytes of interim responses before it.
    pub interim_bytes: u64,
    /// HTTP/1 status of the response.
    pub status: Option<u16>,
    /// Who last sent or read the request.
    pub actor: Option<Actor>,
    /// A later exchange followed on the connection.
    pub complete: bool,
    /// When the first byte of what we receive lay in the socket for us to read.
    pub arrived: Option<BootInstant>,
    /// Smoothed round-trip time when it was told.
    pub round_trip: Option<Duration>,
    /// The request's head, for HTTP/1 in the clear.
    pub head: Option<RequestHead>,
}

impl Exchange {
    fn told(told: &event::Exchange, head: Option<RequestHead>) -> Self {
        Self {
            number: told.number,
            continuations: 0,
            started: told.started,
            request_ended: told.request_ended,
            first_byte: told.first_byte,
            last_byte: told.last_byte,
            request_bytes: told.request_bytes,
            response_bytes: told.response_bytes,
            interim_bytes: 0,
            status: told.status,
            actor: told.actor,
            complete: told.complete,
            arrived: told.arrived,
            round_trip: told.round_trip,
            head,
        }
    }

    /// A request whose head is all that is known of it so far.
    fn begun(number: u32, at: BootInstant, head: RequestHead) -> Self {
        Self {
            number,
            continuations: 0,
            started: at,
            request_ended: at,
            first_byte: None,
            last_byte: at,
            request_bytes: 0,
            response_bytes: 0,
            interim_bytes: 0,
            status: None,
            actor: None,
            complete: false,
            arrived: None,
            round_trip: None,
            head: Some(head),
        }
    }

    /// At least one byte of the final response went over the connection.
    #[must_use]
    pub fn answered(&self) -> bool {
        !self.interim() && (self.first_byte.is_some() || self.response_bytes > 0)
    }

    /// The response says that the server, or a gateway on the way, failed (status 500 and above).
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status.is_some_and(|status| status >= 500)
    }

    /// Answered, and not with a failure.
    #[must_use]
    pub fn fine(&self) -> bool {
        self.answered() && !self.failed()
    }

    /// From the first byte of the request to the first byte of the response.
    #[must_use]
    pub fn time_to_first_byte(&self) -> Option<Duration> {
        Some(self.first_byte?.since(self.started))
    }

    /// From the last byte of the request to the first byte of the response: what answering took, however
    /// slowly the request came. Nothing where the response began before the request had ended.
    #[must_use]
    pub fn answer_time(&self) -> Option<Duration> {
        let first_byte = self.first_byte.filter(|_| self.answered())?;
        Some(first_byte.since(self.request_ended))
    }

    /// From the first byte to the last so far.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.last_byte.since(self.started)
    }

    /// All that was answered is an interim response: 100, 102 and 103 announce the real one.
    /// (101 is final: the connection speaks another protocol from then on.)
    fn interim(&self) -> bool {
        match self.status {
            Some(status) => matches!(status, 100 | 102 | 103),
            None => self.head.is_some() && self.response_bytes == CONTINUE_BYTES,
        }
    }

    /// `next` is not a request of its own but more of this one: it has no head on a connection that
    /// speaks HTTP/1, and this one's response had begun.
    fn goes_on_with(&self, next: &Self) -> bool {
        self.head.is_some()
            && next.head.is_none()
            && (self.first_byte.is_some() || self.response_bytes > 0)
            && next.number == self.number + self.continuations + 1
    }

    fn go_on(&mut self, next: Self) {
        if self.interim() {
            self.interim_bytes += self.response_bytes;
            self.arrived = next.arrived.or(self.arrived);
            self.first_byte = next.first_byte;
            self.response_bytes = next.response_bytes;
            self.status = next.status;
        } else {
            self.response_bytes += next.response_bytes;
        }
        self.continuations += 1;
        self.request_bytes += next.request_bytes;
        self.request_ended = self.request_ended.max(next.request_ended);
        self.last_byte = self.last_byte.max(next.last_byte);
        self.actor = next.actor.or(self.actor);
        self.round_trip = next.round_trip.or(self.round_trip);
        self.complete = next.complete;
    }
}

/// The exchanges of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchanges {
    /// Whole ones, oldest first.
    settled: VecDeque<Exchange>,
    /// The one told last. Its head may still come, so it is not known yet whether it goes on with
    /// the one before.
    latest: Option<Exchange>,
    /// Heads of requests not told yet: they are in flight.
    heads: BTreeMap<u32, (BootInstant, RequestHead)>,
    /// Those no longer kept one by one.
    folded: Option<Box<Tally>>,
    /// How many of the folded ones had gone wrong.
    forgotten: u64,
    /// The number after the highest one told.
    next: u32,
    /// From then on an exchange may have had a head that was not told.
    headless: Option<BootInstant>,
    /// From then on an exchange may have been told in vain.
    unsure: bool,
    /// Numbers that were passed over: quick exchanges of a busy connection, which the kernel half does
    /// not tell one by one.
    quiet: u32,
}

impl Exchanges {
    /// Heads of requests are not seen from then on, or not all of them.
    pub(super) fn lacks_heads_from(&mut self, from: BootInstant) {
        let known = self.headless.get_or_insert(from);
        *known = from.min(*known);
    }

    /// Records are lost from then on.
    pub(super) fn may_lack_records_from(&mut self, from: BootInstant) {
        self.lacks_heads_from(from);
        self.unsure = true;
    }

    /// The head of request `number` was seen.
    pub(super) fn head(&mut self, at: BootInstant, number: u32, head: RequestHead) {
        if let Some(exchange) = self.find(number) {
            exchange.head.get_or_insert(head);
            return;
        }
        self.heads.insert(number, (at, head));
        if self.heads.len() > HEADS {
            self.heads.pop_first();
        }
    }

    /// An exchange is told; a second time replaces the first.
    pub(super) fn tell(&mut self, told: &event::Exchange) {
        let head = self.heads.remove(&told.number).map(|(_, head)| head);
        if let Some(known) = self.find(told.number) {
            let head = head.or_else(|| known.head.take());
            *known = Exchange::told(told, head);
            return;
        }
        if told.number >= self.next {
            self.quiet += told.number - self.next;
            self.next = told.number.saturating_add(1);
        } else {
            self.quiet = self.quiet.saturating_sub(1);
        }
        let exchange = Exchange::told(told, head);
        match &self.latest {
            Some(latest) if told.number < latest.number => self.insert(exchange),
            _ => {
                if let Some(earlier) = self.latest.replace(exchange) {
                    self.settle(earlier);
                }
            }
        }
    }

    /// Every exchange still kept, oldest first; requests in flight are the last.
    pub(super) fn list(&self) -> Vec<Exchange> {
        let mut list: Vec<Exchange> = self.settled.iter().cloned().collect();
        if let Some(latest) = &self.latest {
            append(&mut list, latest.clone(), self.headless);
        }
        // What is in flight is told as it stands at the latest when its socket or the window ends.
        let begun = self.heads.iter().filter(|_| !self.unsure);
        for (number, (at, head)) in begun {
            if list.iter().all(|known| known.number < *number) {
                list.push(Exchange::begun(*number, *at, head.clone()));
            }
        }
        list
    }

    /// All exchanges ever told, counted.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.count_into(&mut tally);
        tally
    }

    /// Adds all exchanges ever told to `tally`.
    pub(super) fn count_into(&self, tally: &mut Tally) {
        if let Some(folded) = &self.folded {
            tally.add(folded);
        }
        tally.count_quiet(u64::from(self.quiet));
        let whole = match (self.settled.back(), &self.latest) {
            (Some(last), Some(latest)) => !goes_on(last, latest, self.headless),
            _ => true,
        };
        if whole && self.heads.is_empty() {
            // Nothing to put together, so nothing to copy: most connections by far.
            for exchange in self.settled.iter().chain(&self.latest) {
                tally.count_of_peer(exchange);
            }
        } else {
            for exchange in self.list() {
                tally.count_of_peer(&exchange);
            }
        }
    }

    /// Exchanges that went wrong and of which only the count is left.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Something here went wrong, or is not over.
    pub(super) fn went_wrong(&self) -> bool {
        let wrong = |exchange: &Exchange| !exchange.fine();
        let begun = !self.heads.is_empty() && !self.unsure;
        self.latest.iter().chain(&self.settled).any(wrong) || begun
    }

    /// Something here went well, and slowly.
    pub(super) fn slow(&self) -> bool {
        self.latest.iter().chain(&self.settled).any(slow)
    }

    fn find(&mut self, number: u32) -> Option<&mut Exchange> {
        self.latest
            .iter_mut()
            .chain(&mut self.settled)
            .find(|exchange| exchange.number == number)
    }

    fn settle(&mut self, exchange: Exchange) {
        let headless = self.headless;
        match self.settled.back_mut() {
            Some(last) if goes_on(last, &exchange, headless) => last.go_on(exchange),
            _ => self.settled.push_back(exchange),
        }
        self.make_room();
    }

    fn insert(&mut self, exchange: Exchange) {
        let place = self
            .settled
            .partition_point(|known| known.number < exchange.number);
        self.settled.insert(place, exchange);
        self.make_room();
    }

    fn make_room(&mut self) {
        let Some(leaving) = self.settled.len().checked_sub(RECENT + 1) else {
            return;
        };
        let out = if self.settled.get(leaving).is_some_and(notable) {
            if self.settled.len() <= RECENT + NOTABLE {
                return;
            }
            self.settled.pop_front()
        } else {
            self.settled.remove(leaving)
        };
        if let Some(out) = out {
            self.forgotten += u64::from(!out.fine());
            self.folded.get_or_insert_default().count(&out);
        }
    }
}

/// Kept longer than others, because a rule will want to see it.
fn notable(exchange: &Exchange) -> bool {
    !exchange.fine() || slow(exchange)
}

fn slow(exchange: &Exchange) -> bool {
    let unread = exchange
        .arrived
        .map_or(Duration::ZERO, |arrived| exchange.started.since(arrived));
    exchange.duration() + unread >= SLOW
}

/// `next` goes on with `last`, and that it has no head does not come from heads' not being seen. (After an
/// interim response nothing else can follow.)
fn goes_on(last: &Exchange, next: &Exchange, headless: Option<BootInstant>) -> bool {
    let seen = headless.is_none_or(|from| next.started < from);
    (seen || last.interim()) && last.goes_on_with(next)
}

fn append(list: &mut Vec<Exchange>, exchange: Exchange, headless: Option<BootInstant>) {
    match list.last_mut() {
        Some(last) if goes_on(last, &exchange, headless) => last.go_on(exchange),
        _ => list.push(exchange),
    }
}

#[cfg(test)]
mod tests;
