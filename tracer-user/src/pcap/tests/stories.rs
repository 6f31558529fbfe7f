//! Connections as packets show them, and the facts that come of them.

use std::time::Duration;

use super::{ASKING, BEGUN, MILLISECOND, Play, SERVING, follow, read};
use crate::event::{
    BootInstant, ConnectFailure, Exchange, Fact, Message, Origin, Role, SocketId, Stall,
};

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn at(ms: f64) -> BootInstant {
    BootInstant(BEGUN + (ms * MILLISECOND as f64) as u64)
}

fn client() -> SocketId {
    SocketId::of_stream(0, Role::Client)
}

fn server() -> SocketId {
    SocketId::of_stream(0, Role::Server)
}

fn exchanges(told: &[Fact], of: SocketId) -> Vec<Exchange> {
    let all = told.iter().filter_map(|fact| match fact {
        Fact::Exchange(exchange) => Some(exchange.clone()),
        _ => None,
    });
    all.filter(|exchange| exchange.socket == of).collect()
}

fn stalls(told: &[Fact]) -> Vec<Stall> {
    let all = told.iter().filter_map(|fact| match fact {
        Fact::Stalled(stall) => Some(*stall),
        _ => None,
    });
    all.collect()
}

#[test]
fn both_ends_of_a_connection_are_told_with_their_exchange() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(5.0, SERVING, OK)
        .fin(6.0, ASKING)
        .fin(7.0, SERVING)
        .data(8.0, ASKING, b"");
    let told = play.told();
    let opened: Vec<_> = told
        .iter()
        .filter_map(|fact| match fact {
            Fact::Opened(opened) => Some((opened.socket, opened.role, opened.origin)),
            _ => None,
        })
        .collect();
    assert_eq!(
        opened,
        [
            (client(), Role::Client, Origin::Connected),
            (server(), Role::Server, Origin::Accepted)
        ]
    );
    for side in [client(), server()] {
        let all = exchanges(&told, side);
        let exchange = &all[0];
        assert_eq!(all.len(), 1);
        assert_eq!(exchange.started, at(1.0));
        assert_eq!(exchange.first_byte, Some(at(5.0)));
        assert_eq!(exchange.request_bytes, GET.len() as u64);
        assert_eq!(exchange.response_bytes, OK.len() as u64);
        assert_eq!(exchange.status, Some(200));
    }
    assert!(told.iter().any(|fact| matches!(fact,
        Fact::Request { head, .. } if head.method == "GET" && head.path == "/a")));
    assert!(told.contains(&Fact::PeerClosed { socket: server() }));
    let closed = told.iter().filter(|fact| matches!(fact, Fact::Closed(_)));
    assert_eq!(closed.count(), 2);
}

#[test]
fn a_refused_connect_has_no_server() {
    let mut play = Play::new();
    play.send(0.0, ASKING, 2, b"").rst(0.1, SERVING);
    let told = play.told();
    assert!(told.iter().any(|fact| matches!(
        fact,
        Fact::ConnectFailed {
            why: ConnectFailure::Refused,
            ..
        }
    )));
    let opened = told.iter().filter(|fact| matches!(fact, Fact::Opened(_)));
    assert_eq!(opened.count(), 1);
}

#[test]
fn an_unanswered_syn_stays_unanswered() {
    let mut play = Play::new();
    play.send(0.0, ASKING, 2, b"").again(1_000.0).again(3_000.0);
    let told = play.told();
    let again = Fact::Retransmitted {
        socket: client(),
        syn: true,
    };
    assert_eq!(told.iter().filter(|fact| **fact == again).count(), 2);
    assert!(
        !told
            .iter()
            .any(|fact| matches!(fact, Fact::Established { .. } | Fact::ConnectFailed { .. }))
    );
}

#[test]
fn what_comes_after_a_client_left_reached_nobody() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .fin(1_000.0, ASKING)
        .data(1_500.0, SERVING, OK)
        .rst(1_500.1, ASKING);
    let told = play.told();
    assert_eq!(exchanges(&told, client())[0].first_byte, None);
    assert_eq!(exchanges(&told, server())[0].first_byte, Some(at(1_500.0)));
}

#[test]
fn a_client_that_closed_only_its_half_still_hears_the_response() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .fin(2.0, ASKING)
        .data(500.0, SERVING, OK)
        .fin(501.0, SERVING)
        .data(502.0, ASKING, b"");
    let told = play.told();
    assert_eq!(exchanges(&told, client())[0].first_byte, Some(at(500.0)));
}

#[test]
fn a_request_that_crossed_the_servers_fin_was_never_served() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(2.0, SERVING, OK)
        .data(5_000.0, ASKING, GET);
    // The FIN does not acknowledge the request: it was sent before that arrived.
    let request = play.sent.pop().unwrap();
    play.acked[SERVING] -= GET.len() as u32;
    play.fin(5_000.1, SERVING);
    play.sent.insert(play.sent.len() - 1, request);
    play.rst(5_000.2, SERVING);
    let told = play.told();
    assert_eq!(exchanges(&told, client()).len(), 2);
    assert_eq!(exchanges(&told, server()).len(), 1, "{told:#?}");
}

#[test]
fn a_response_told_before_its_request_makes_one_exchange() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(1.2, SERVING, OK)
        .data(2.0, ASKING, GET)
        .data(2.2, SERVING, OK);
    play.sent.swap(3, 4);
    play.sent.swap(5, 6);
    let told = play.told();
    let all = exchanges(&told, client());
    assert_eq!(all.len(), 2, "{all:#?}");
    for (exchange, started) in all.iter().zip([1.0, 2.0]) {
        assert_eq!(exchange.started, at(started));
        assert_eq!(exchange.request_bytes, GET.len() as u64);
        assert!(exchange.first_byte.is_some());
    }
    let heads = told
        .iter()
        .filter(|fact| matches!(fact, Fact::Request { .. }));
    assert_eq!(heads.count(), 4);
}

#[test]
fn a_request_that_the_capture_lost_is_known_by_its_acknowledgement() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(2.0, SERVING, OK);
    play.sent.remove(3);
    let exchange = &exchanges(&play.told(), server())[0];
    assert_eq!(exchange.request_bytes, GET.len() as u64);
    assert_eq!(exchange.response_bytes, OK.len() as u64);
}

#[test]
fn a_connection_found_open_is_told_by_who_asks() {
    for (first, second) in [(ASKING, SERVING), (SERVING, ASKING)] {
        let mut play = Play::between(([10, 0, 0, 1], 9_000), ([10, 0, 0, 2], 40_000));
        let payload = |side| if side == ASKING { GET } else { OK };
        play.data(0.0, first, payload(first))
            .data(1.0, second, payload(second));
        let told = play.told();
        let opened = told.iter().find_map(|fact| match fact {
            Fact::Opened(opened) if opened.role == Role::Client => Some(opened.clone()),
            _ => None,
        });
        let opened = opened.unwrap();
        assert_eq!(opened.origin, Origin::Found);
        assert_eq!(opened.local, "10.0.0.1:9000".parse().unwrap());
    }
}

#[test]
fn the_same_ports_once_more_are_another_connection() {
    let mut play = Play::new();
    play.handshake(0.0).data(1.0, ASKING, GET);
    let mut next = Play::new();
    next.next = [77_000, 88_000];
    next.handshake(10.0);
    play.sent.append(&mut next.sent);
    let opened: Vec<_> = follow(&play.sent)
        .into_iter()
        .filter_map(|event| match event.fact {
            Fact::Opened(opened) => Some(opened.socket.stream()),
            _ => None,
        })
        .collect();
    assert_eq!(opened, [0, 0, 1, 1]);
}

#[test]
fn a_silent_sender_stalls_its_message_and_nobody_else_is_held_to_it() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(2.0, SERVING, OK)
        .data(2.1, ASKING, b"")
        .data(402.0, SERVING, b"more");
    let told = stalls(&play.told());
    assert_eq!(told.len(), 2);
    for stall in told {
        assert_eq!((stall.from, stall.until), (at(2.0), at(402.0)));
        assert_eq!(stall.message, Message::Response);
        assert_eq!(
            (stall.retransmits, stall.window_limited),
            (0, Duration::ZERO)
        );
        assert_eq!(stall.bytes_before, OK.len() as u64);
        assert!(stall.resumed);
        let arrived = (stall.socket == client()).then_some(at(402.0));
        assert_eq!(stall.arrived, arrived);
    }
}

#[test]
fn a_pause_between_exchanges_is_no_stall() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(900.0, SERVING, OK)
        .data(2_000.0, ASKING, GET)
        .data(2_001.0, SERVING, OK);
    assert_eq!(stalls(&play.told()), []);
}

#[test]
fn a_closed_window_is_the_receivers_silence() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(2.0, SERVING, OK);
    play.windows[ASKING] = 0;
    play.data(3.0, ASKING, b"");
    play.windows[ASKING] = 60_000;
    play.data(903.0, ASKING, b"").data(904.0, SERVING, b"more");
    let told = stalls(&play.told());
    let sender = told.iter().find(|stall| stall.socket == server()).unwrap();
    assert_eq!(sender.window_limited, Duration::from_millis(900));
    let receiver = told.iter().find(|stall| stall.socket == client()).unwrap();
    assert_eq!(
        receiver.arrived,
        Some(at(2.0)),
        "it lay there and was not read"
    );
}

#[test]
fn a_window_that_stays_closed_leaves_bytes_unread() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, GET)
        .data(2.0, SERVING, OK);
    play.windows[ASKING] = 0;
    play.data(3.0, ASKING, b"").data(2_000.0, ASKING, b"");
    let told = play.told();
    assert!(told.contains(&Fact::Unread {
        socket: client(),
        since: at(3.0),
        bytes: None
    }));
    assert!(stalls(&told).iter().all(|stall| !stall.resumed));
}

#[test]
fn quick_exchanges_of_a_busy_connection_are_told_by_their_number() {
    let mut play = Play::new();
    play.handshake(0.0);
    for number in 0..500 {
        let ms = 1.0 + f64::from(number);
        play.data(ms, ASKING, GET);
        let slow = if number == 300 { 0.9 } else { 0.1 };
        let payload = if number == 200 {
            b"HTTP/1.1 503 no".as_slice()
        } else {
            OK
        };
        play.data(ms + slow, SERVING, payload);
    }
    let told = exchanges(&play.told(), client());
    let numbers: Vec<u32> = told.iter().map(|exchange| exchange.number).collect();
    assert_eq!(numbers[..64], (0..64).collect::<Vec<_>>());
    assert_eq!(numbers[64..], [200, 499]);
    assert_eq!(told[64].status, Some(503));
}

#[test]
fn a_snap_length_that_cuts_the_payload_loses_no_byte_of_the_count() {
    let mut play = Play::new();
    play.handshake(0.0)
        .data(1.0, ASKING, &[GET, &[b'x'; 1_000]].concat())
        .data(2.0, SERVING, OK);
    let mut file = super::pcap(&[]);
    for packet in &play.sent {
        let kept = packet.bytes.len().min(96);
        let (seconds, rest) = (packet.at / 1_000_000_000, packet.at % 1_000_000_000);
        for word in [
            seconds as u32,
            rest as u32,
            kept as u32,
            packet.bytes.len() as u32,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(&packet.bytes[..kept]);
    }
    let told: Vec<Fact> = read(&file)
        .events
        .into_iter()
        .map(|event| event.fact)
        .collect();
    let exchange = &exchanges(&told, server())[0];
    assert_eq!(exchange.request_bytes, 1_000 + GET.len() as u64);
    assert!(told.iter().any(|fact| matches!(fact, Fact::Request { .. })));
}
