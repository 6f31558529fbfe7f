use std::time::Duration;

use crate::event::{ConnectFailure, Decider, Fact, Network, SocketId};

use super::{
    End,
    story::{Asked, Story, ms},
};

const CLIENT: u32 = 10;
const SERVER: u32 = 30;

#[test]
fn both_ends_of_a_connection_on_this_host_know_each_other() {
    let mut story = Story::new();
    let theirs = story.connected(0.0, CLIENT, "127.0.0.1:5000", "127.0.0.1:80");
    let ours = story.accepted(0.1, SERVER, "127.0.0.1:5000", "127.0.0.1:80");
    let model = story.model(10.0);
    assert_eq!(model.connection(theirs).unwrap().other_end, Some(ours));
    assert_eq!(model.connection(ours).unwrap().other_end, Some(theirs));
}

#[test]
fn a_port_used_again_is_another_connection() {
    let mut story = Story::new();
    let old = story.connected(0.0, CLIENT, "127.0.0.1:5000", "127.0.0.1:80");
    story.gone(5.0, old);
    let new = story.accepted(5_000.0, SERVER, "127.0.0.1:5000", "127.0.0.1:80");
    let model = story.model(6_000.0);
    assert_eq!(model.connection(new).unwrap().other_end, None);
}

#[test]
fn a_socket_that_dialled_and_one_that_accepted_are_ends_but_two_alike_are_not() {
    let mut story = Story::new();
    story.connected(0.0, CLIENT, "127.0.0.1:5000", "127.0.0.1:80");
    let same = story.connected(0.1, SERVER, "127.0.0.1:80", "127.0.0.1:5000");
    let model = story.model(10.0);
    assert_eq!(model.connection(same).unwrap().other_end, None);
}

#[test]
fn how_a_connection_ended_is_told_by_who_was_first() {
    let mut story = Story::new();
    let mut next = |port: u16| story_socket(&mut story, port);
    let [ours, theirs, reset, open] = [1, 2, 3, 4].map(&mut next);
    let refused = story.connecting(0.0, CLIENT, "127.0.0.1:9", "127.0.0.1:80");
    story
        .local_closed(5.0, ours)
        .peer_closed(6.0, ours)
        .peer_closed(5.0, theirs)
        .local_closed(6.0, theirs)
        .reset(5.0, reset)
        .local_closed(6.0, reset)
        .connect_failed(5.0, refused, ConnectFailure::Refused, None);
    let model = story.model(10.0);
    let end = |socket| model.connection(socket).unwrap().end();
    assert_eq!(end(ours), End::FinLocal);
    assert_eq!(end(theirs), End::FinRemote);
    assert_eq!(end(reset), End::ResetRemote);
    assert_eq!(end(refused), End::Refused);
    assert_eq!(end(open), End::Open);
}

fn story_socket(story: &mut Story, port: u16) -> SocketId {
    story.connected(0.0, CLIENT, &format!("127.0.0.1:{port}"), "127.0.0.1:80")
}

#[test]
fn a_long_stream_stays_small_and_every_connection_is_counted() {
    let mut story = Story::new();
    let number = 30_000_u32;
    for nth in 0..number {
        let at = f64::from(nth);
        let address = format!("10.0.{}.1:{}", nth / 60_000, 1 + nth % 60_000);
        let socket = story.connected(at, CLIENT, &address, "10.1.0.1:80");
        let status = if nth == 5 { 502 } else { 200 };
        story
            .http(
                socket,
                0,
                "GET /",
                Asked::at(at + 0.2, 100).answered(at + 0.4, status),
            )
            .local_closed(at + 0.5, socket)
            .gone(at + 0.6, socket);
    }
    let model = story.model(f64::from(number));
    let kept = model.connections().count();
    assert!(kept < 5_000, "{kept}");
    assert_eq!(
        kept as u64 + model.connections_left_out(),
        u64::from(number)
    );
    assert!(
        model.connection(SocketId(6)).is_some(),
        "what went wrong is kept"
    );
    let traffic = model.traffic().into_values().next().unwrap();
    assert_eq!(traffic.connections, u64::from(number));
    assert_eq!(traffic.exchanges.exchanges, u64::from(number));
    assert_eq!(traffic.exchanges.failed, 1);
    assert_eq!(model.forgotten(), 0);
}

#[test]
fn a_decision_told_after_its_close_still_finds_it() {
    let mut story = Story::new();
    let socket = story_socket(&mut story, 1);
    story.decision(
        99.5,
        (CLIENT, 5),
        Decider::TransportClose,
        Some("timeout"),
        None,
    );
    story.local_closed(100.0, socket);
    let in_order = story.model(200.0);
    let late = story.model_in_order_of(200.0, |event| match event.fact {
        Fact::Decision(_) => Duration::from_millis(3),
        _ => Duration::ZERO,
    });
    for model in [in_order, late] {
        let decisions = &model.connection(socket).unwrap().decisions;
        assert_eq!(decisions.len(), 1);
        assert_eq!(decisions[0].at, ms(99.5));
    }
}

#[test]
fn a_decision_long_before_a_close_is_not_its_reason() {
    let mut story = Story::new();
    let socket = story_socket(&mut story, 1);
    story
        .decision(
            10.0,
            (CLIENT, 5),
            Decider::TransportClose,
            Some("timeout"),
            None,
        )
        .local_closed(100.0, socket);
    assert_eq!(story.model(200.0).connection(socket).unwrap().decisions, []);
}

#[test]
fn what_is_told_of_a_socket_before_its_opening_is_not_lost() {
    let mut story = Story::new();
    let socket = story_socket(&mut story, 1);
    story.http(socket, 0, "GET /", Asked::at(0.2, 90).answered(0.5, 200));
    let model = story.model_in_order_of(10.0, |event| match event.fact {
        Fact::Opened(_) => Duration::from_millis(4),
        _ => Duration::ZERO,
    });
    assert_eq!(model.strays(), 0);
    let exchanges = model.connection(socket).unwrap().exchanges();
    assert_eq!(exchanges[0].head.as_ref().unwrap().path, "/");
}

/// Each network has a loopback of its own, so the same addresses may be in use twice.
#[test]
fn the_ends_of_a_loopback_connection_are_in_one_network() {
    let mut story = Story::new();
    for (pid, namespace) in [(1, 100), (2, 100), (3, 200), (4, 200)] {
        story.tell(0.0, Fact::Network(Network { pid, namespace }));
    }
    let (client, server) = ("127.0.0.1:4000", "127.0.0.1:80");
    let [one, two] = [1, 3].map(|pid| story.found(pid, client, server));
    let [first, second] = [2, 4].map(|pid| story.accepted(1.0, pid, client, server));
    let gone = story.connected(2.0, 9, "127.0.0.1:4001", server);
    let asked_by_it = story.accepted(2.1, 2, "127.0.0.1:4001", server);
    let far = story.connected(3.0, 1, "10.0.0.1:4000", "10.0.0.2:80");
    let near = story.accepted(3.1, 3, "10.0.0.1:4000", "10.0.0.2:80");
    let model = story.model(10.0);
    for (one, other) in [
        (one, first),
        (two, second),
        (gone, asked_by_it),
        (far, near),
    ] {
        let ends = [one, other].map(|end| model.connection(end).unwrap().other_end);
        assert_eq!(ends, [Some(other), Some(one)]);
    }
}

#[test]
fn losses_are_those_told_last_and_only_where_there_are_any() {
    let mut story = Story::new();
    for (at, count) in [(1.0, 3), (2.0, 8)] {
        story.tell(
            at,
            Fact::Lost {
                probe: "exchanges".into(),
                count,
            },
        );
    }
    story.tell(
        1.0,
        Fact::Lost {
            probe: "closes".into(),
            count: 0,
        },
    );
    let model = story.model(10.0);
    assert_eq!(model.losses(), [("exchanges", 8)].into());
}

#[test]
fn slow_exchanges_are_kept_like_those_that_went_wrong_and_are_none_of_them() {
    let mut story = Story::new();
    let socket = story_socket(&mut story, 1);
    for number in 0..1_000 {
        let at = 1.0 + 2.0 * f64::from(number);
        let last = if number == 5 { at + 600.0 } else { at + 1.0 };
        let answered = Asked::at(at, 90).answered(at + 1.0, 200);
        story.http(socket, number, "GET /", answered.through(last, 10));
    }
    let model = story.model(5_000.0);
    let exchanges = model.connection(socket).unwrap().exchanges();
    assert_eq!(exchanges[0].number, 5);
    assert!(exchanges.len() < 50, "{}", exchanges.len());
    assert_eq!(model.forgotten(), 0);
    let traffic = model.traffic().into_values().next().unwrap();
    let kind = super::Kind::of(&exchanges[0]).unwrap();
    let pace = traffic.exchanges.paces.of(&kind).unwrap();
    assert_eq!(pace.number(), 1_000, "the usual ones are counted");
}
