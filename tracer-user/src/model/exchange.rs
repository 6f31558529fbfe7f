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

/// Exchanges kept of each connection, older than the recent ones, because they went wrong.
const NOTABLE: usize = 256;

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
    folded: Tally,
    /// How many of the folded ones had gone wrong.
    forgotten: u64,
    /// The number after the highest one told.
    next: u32,
    /// Numbers that were passed over: quick exchanges of a busy connection, which the kernel half does
    /// not tell one by one.
    quiet: u32,
}

impl Exchanges {
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
            append(&mut list, latest.clone());
        }
        for (number, (at, head)) in &self.heads {
            if list.iter().all(|known| known.number < *number) {
                list.push(Exchange::begun(*number, *at, head.clone()));
            }
        }
        list
    }

    /// All exchanges ever told, counted.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = self.folded.clone();
        tally.count_quiet(u64::from(self.quiet));
        for exchange in self.list() {
            tally.count(&exchange);
        }
        tally
    }

    /// Exchanges that went wrong and of which only the count is left.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Something here went wrong, or is not over.
    pub(super) fn remarkable(&self) -> bool {
        self.latest.iter().chain(&self.settled).any(notable) || !self.heads.is_empty()
    }

    fn find(&mut self, number: u32) -> Option<&mut Exchange> {
        self.latest
            .iter_mut()
            .chain(&mut self.settled)
            .find(|exchange| exchange.number == number)
    }

    fn settle(&mut self, exchange: Exchange) {
        match self.settled.back_mut() {
            Some(last) if last.goes_on_with(&exchange) => last.go_on(exchange),
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
            self.forgotten += 1;
            self.settled.pop_front()
        } else {
            self.settled.remove(leaving)
        };
        if let Some(out) = out {
            self.folded.count(&out);
        }
    }
}

/// Kept longer than others, because a rule will want to see it.
fn notable(exchange: &Exchange) -> bool {
    !exchange.fine()
}

fn append(list: &mut Vec<Exchange>, exchange: Exchange) {
    match list.last_mut() {
        Some(last) if last.goes_on_with(&exchange) => last.go_on(exchange),
        _ => list.push(exchange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SocketId;

    fn told(number: u32, request: u64, response: Option<(u16, u64)>) -> event::Exchange {
        let at = |ms: u64| BootInstant((u64::from(number) * 100 + ms) * 1_000_000);
        event::Exchange {
            socket: SocketId(1),
            number,
            started: at(0),
            request_ended: at(10),
            first_byte: response.map(|_| at(20)),
            last_byte: at(if response.is_some() { 30 } else { 10 }),
            request_bytes: request,
            response_bytes: response.map_or(0, |(_, bytes)| bytes),
            status: response.map(|(status, _)| status),
            actor: None,
            complete: response.is_some(),
        }
    }

    fn post() -> RequestHead {
        RequestHead {
            method: "POST".into(),
            path: "/upload".into(),
            traceparent: None,
        }
    }

    #[test]
    fn numbers_passed_over_are_quick_exchanges() {
        let mut exchanges = Exchanges::default();
        for number in [0, 1, 5_000, 4_000] {
            exchanges.tell(&told(number, 10, Some((200, 10))));
        }
        let tally = exchanges.tally();
        assert_eq!((tally.exchanges, tally.fine()), (5_001, 5_001));
    }

    #[test]
    fn a_body_after_100_continue_belongs_to_the_request_before() {
        let mut exchanges = Exchanges::default();
        exchanges.head(BootInstant(0), 0, post());
        exchanges.tell(&told(0, 180, Some((100, 25))));
        exchanges.tell(&told(1, 200_000, Some((200, 120))));
        let list = exchanges.list();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].request_bytes, 200_180);
        assert_eq!(list[0].response_bytes, 120);
        assert_eq!(list[0].status, Some(200));
        assert_eq!(exchanges.tally().exchanges, 1);
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let mut exchanges = Exchanges::default();
        exchanges.head(BootInstant(0), 0, post());
        exchanges.tell(&told(0, 180, Some((100, 25))));
        assert!(!exchanges.list()[0].answered());
        exchanges.tell(&told(1, 200_000, None));
        let list = exchanges.list();
        assert!(!list[0].answered());
        assert_eq!(list[0].first_byte, None);
        assert_eq!(list[0].request_ended, BootInstant(110_000_000));
    }

    #[test]
    fn a_request_after_the_continued_one_stands_alone() {
        let mut exchanges = Exchanges::default();
        for number in [0, 2] {
            exchanges.head(BootInstant(0), number, post());
        }
        exchanges.tell(&told(0, 180, Some((100, 25))));
        exchanges.tell(&told(1, 200_000, Some((200, 120))));
        exchanges.tell(&told(2, 90, Some((200, 120))));
        let numbers: Vec<_> = exchanges.list().iter().map(|e| e.number).collect();
        assert_eq!(numbers, [0, 2]);
    }

    #[test]
    fn without_heads_every_turn_is_an_exchange() {
        let mut exchanges = Exchanges::default();
        for number in 0..3 {
            exchanges.tell(&told(number, 10, Some((200, 10))));
        }
        assert_eq!(exchanges.list().len(), 3);
    }

    #[test]
    fn a_head_that_comes_late_still_finds_its_exchange() {
        let mut exchanges = Exchanges::default();
        exchanges.head(BootInstant(0), 0, post());
        exchanges.tell(&told(0, 90, Some((200, 120))));
        exchanges.tell(&told(1, 90, Some((200, 120))));
        exchanges.head(BootInstant(0), 1, post());
        assert_eq!(exchanges.list().len(), 2);
    }

    #[test]
    fn a_request_whose_head_is_all_that_was_seen_is_in_flight() {
        let mut exchanges = Exchanges::default();
        exchanges.head(BootInstant(7), 0, post());
        let list = exchanges.list();
        assert_eq!(list[0].started, BootInstant(7));
        assert!(!list[0].answered());
    }

    #[test]
    fn a_busy_connection_stays_small_and_keeps_what_went_wrong() {
        let mut exchanges = Exchanges::default();
        for number in 0..10_000 {
            let status = if number == 50 { 502 } else { 200 };
            exchanges.tell(&told(number, 10, Some((status, 10))));
        }
        let list = exchanges.list();
        assert!(list.len() <= RECENT + 2, "{}", list.len());
        assert_eq!(list[0].number, 50);
        let tally = exchanges.tally();
        assert_eq!(tally.exchanges, 10_000);
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn even_what_went_wrong_is_bounded_and_counted() {
        let mut exchanges = Exchanges::default();
        for number in 0..1_000 {
            exchanges.tell(&told(number, 10, Some((503, 10))));
        }
        assert!(exchanges.list().len() <= RECENT + NOTABLE + 1);
        assert_eq!(exchanges.tally().failed, 1_000);
        assert!(exchanges.forgotten() > 0);
    }

    #[test]
    fn a_second_telling_replaces_the_first() {
        let mut exchanges = Exchanges::default();
        exchanges.tell(&told(0, 10, None));
        exchanges.tell(&told(0, 20, Some((200, 5))));
        let list = exchanges.list();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].request_bytes, 20);
        assert!(list[0].answered());
    }
}
