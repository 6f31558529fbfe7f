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
        arrived: None,
        round_trip: None,
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
