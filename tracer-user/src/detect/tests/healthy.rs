use crate::event::Fact;

use super::*;

#[test]
fn a_keep_alive_service_under_load_is_healthy() {
    let mut story = gateway();
    story.go(CLIENT, "client");
    let ours = story.accepted(0.0, GATEWAY, "127.0.0.1:36000", GATEWAY_ADDRESS);
    let theirs = story.connected(0.0, CLIENT, "127.0.0.1:36000", GATEWAY_ADDRESS);
    for number in 0..2_000 {
        let at = 1.0 + f64::from(number) * 2.0;
        story
            .http(
                theirs,
                number,
                "GET /",
                Asked::at(at, 90).answered(at + 1.0, 200),
            )
            .http(
                ours,
                number,
                "GET /",
                Asked::at(at + 0.1, 90).answered(at + 0.8, 200),
            );
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_load_generator_that_stops_in_the_middle_is_healthy() {
    let mut story = Story::new();
    story.native(CLIENT, "wrk").go(UPSTREAM, "shop");
    for nth in 0..32_u16 {
        let address = format!("127.0.0.1:{}", 40000 + nth);
        let theirs = story.connected(0.0, CLIENT, &address, UPSTREAM_ADDRESS);
        let ours = story.accepted(0.1, UPSTREAM, &address, UPSTREAM_ADDRESS);
        for number in 0..5 {
            let at = 1.0 + f64::from(number) * 1000.0;
            let asked = Asked::at(at, 90);
            let served = Asked::at(at + 0.2, 90).by(UPSTREAM, u64::from(nth));
            if number < 4 {
                story
                    .http(theirs, number, "GET /slow", asked.answered(at + 990.0, 200))
                    .http(ours, number, "GET /slow", served.answered(at + 989.0, 200));
            } else {
                story.http(theirs, number, "GET /slow", asked).http(
                    ours,
                    number,
                    "GET /slow",
                    served,
                );
            }
        }
        let stop = 4800.0 + f64::from(nth) * 0.01;
        story
            .local_closed(stop, theirs)
            .peer_closed(stop, ours)
            .local_closed(stop + 500.0, ours);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn quiet_long_polls_and_websockets_are_healthy() {
    let mut story = gateway();
    let poll = legs(&mut story, 0.0, 1);
    story
        .http(
            poll.front,
            0,
            "GET /poll",
            Asked::at(1.0, 90).by(GATEWAY, 5),
        )
        .http(poll.back, 0, "GET /poll", Asked::at(2.0, 90));
    let socket = legs(&mut story, 0.0, 2);
    story
        .http(
            socket.front,
            0,
            "GET /ws",
            Asked::at(1.0, 200).answered(3.0, 101),
        )
        .exchange(socket.front, 1, Asked::at(9_000.0, 6).answered(9_001.0, 0))
        .exchange(socket.front, 2, Asked::at(20_000.0, 6))
        .local_closed(25_000.0, socket.front);
    assert_eq!(found(&mut story), []);
}

#[test]
fn slow_but_answered_is_not_given_up_on() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "GET /",
            Asked::at(1.0, 90).by(GATEWAY, 5).answered(9_010.0, 200),
        )
        .http(
            legs.back,
            0,
            "GET /",
            Asked::at(2.0, 90).answered(9_000.0, 200),
        )
        .local_closed(9_500.0, legs.back)
        .local_closed(9_500.0, legs.front);
    assert_eq!(found(&mut story), []);
}

#[test]
fn protocols_with_a_farewell_message_give_up_on_nobody() {
    let mut story = Story::new();
    story.go(CLIENT, "worker");
    for nth in 0..10_u16 {
        let at = 1000.0 * f64::from(nth);
        let socket = story.connected(
            at,
            CLIENT,
            &format!("10.0.0.1:{}", 40000 + nth),
            "10.0.0.2:5432",
        );
        story
            .exchange(socket, 0, Asked::at(at + 1.0, 60).answered(at + 2.0, 0))
            .exchange(socket, 1, Asked::at(at + 300.0, 5))
            .local_closed(at + 360.0, socket);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_rolling_restart_is_healthy() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "worker");
    let ours = story.accepted(0.0, UPSTREAM, "127.0.0.1:40000", UPSTREAM_ADDRESS);
    let theirs = story.connected(0.0, CLIENT, "127.0.0.1:40000", UPSTREAM_ADDRESS);
    story
        .http(theirs, 0, "GET /", Asked::at(1.0, 90).answered(2.0, 200))
        .http(ours, 0, "GET /", Asked::at(1.1, 90).answered(1.9, 200))
        .local_closed(5000.0, ours)
        .peer_closed(5000.1, theirs)
        .exited(5000.5, UPSTREAM)
        .local_closed(5000.6, theirs);
    for nth in 0..5 {
        let at = 5100.0 + 200.0 * f64::from(nth);
        let socket = story.connecting(at, CLIENT, "127.0.0.1:40001", UPSTREAM_ADDRESS);
        story.connect_failed(
            at + 0.1,
            socket,
            crate::event::ConnectFailure::Refused,
            None,
        );
    }
    story.go(UPSTREAM + 1, "shop");
    story.connected(6200.0, CLIENT, "127.0.0.1:40002", UPSTREAM_ADDRESS);
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn facts_about_unknown_sockets_are_counted_and_harm_nothing() {
    let mut story = Story::new();
    let socket = SocketId(4711);
    story
        .tell(1.0, Fact::ResetReceived { socket })
        .local_closed(2.0, socket);
    let model = story.model(10.0);
    assert_eq!(model.strays(), 2);
    assert_eq!(findings(&model), []);
}
