//! `close-wait-leak` and `connection-churn`.

use crate::{
    event::{Decision, Fact},
    model::story::{actor, goroutine},
};

use super::*;

const FEED: &str = "10.0.0.2:7000";

fn shop() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "client");
    story
}

/// Own code that dials itself.
const DIALS: [&str; 4] = [
    "net.(*netFD).connect /go/src/net/fd_unix.go:118",
    "net.(*sysDialer).dialSingle /go/src/net/dial.go:653",
    "net.(*Dialer).DialContext /go/src/net/dial.go:570",
    "main.(*feed).open /srv/shop/feed.go:21",
];

/// Connections to the feed, the `nth` opened at `when(nth)`.
fn feeds(story: &mut Story, number: u16, when: impl Fn(f64) -> f64) -> Vec<SocketId> {
    let stack = story.stack(&DIALS);
    (0..number)
        .map(|nth| {
            let at = when(f64::from(nth));
            let client = format!("10.0.0.1:{}", 40_000 + nth);
            let socket = story.dialled(at, (UPSTREAM, 9), &client, FEED, stack);
            story.exchange(socket, 0, Asked::at(at + 1.0, 60).answered(at + 2.0, 0));
            socket
        })
        .collect()
}

#[test]
fn connections_kept_after_their_peers_closed_are_told_with_who_opened_them() {
    let mut story = shop();
    for (nth, socket) in feeds(&mut story, 20, |nth| 500.0 * nth)
        .into_iter()
        .enumerate()
    {
        story.peer_closed(500.0 * nth as f64 + 50.0, socket);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::CloseWaitLeak);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.count, 20);
    assert_eq!(
        finding.title,
        "shop keeps 20 connections to 10.0.0.2:7000 that their peers have closed"
    );
    assert_eq!(finding.code.as_ref().unwrap().function, "main.(*feed).open");
    assert!(finding.measured.growth_per_s.unwrap() > 0.5);
}

#[test]
fn a_server_that_keeps_what_its_clients_closed_is_told_with_where_it_stands() {
    let mut story = shop();
    for nth in 0..8_u16 {
        let at = 1_000.0 * f64::from(nth);
        let client = format!("10.0.0.7:{}", 40_000 + nth);
        let ours = story.accepted(at, UPSTREAM, &client, "10.0.0.1:9001");
        story
            .exchange(
                ours,
                0,
                Asked::at(at + 1.0, 60)
                    .by(UPSTREAM, 200 + u64::from(nth))
                    .answered(at + 2.0, 0),
            )
            .peer_closed(at + 100.0, ours);
    }
    let all = (200..208)
        .map(|id| {
            goroutine(
                id,
                "chan receive",
                &["runtime.gopark", "main.hold /srv/shop/hold.go:9"],
            )
        })
        .collect();
    story.goroutines(29_900.0, UPSTREAM, all);
    let found = found(&mut story);
    let finding = only(&found, Rule::CloseWaitLeak);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding
            .explanation
            .contains("8 at main.hold (hold.go:9) (chan receive)"),
        "{}",
        finding.explanation
    );
}

#[test]
fn what_was_leaked_before_the_window_counts() {
    let mut story = shop();
    for nth in 0..120_u16 {
        let socket = story.found(UPSTREAM, &format!("10.0.0.1:{}", 40_000 + nth), FEED);
        story.peer_closed(0.0, socket);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::CloseWaitLeak);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.measured.growth_per_s, Some(0.0));
    assert!(finding.incomplete.is_some());
}

#[test]
fn a_pool_whose_idle_connections_their_server_closed_is_no_warning() {
    // All at once, one after the other, and found so.
    for (spread, idle) in [(0.0, 6_000.0), (300.0, 6_000.0)] {
        let mut story = shop();
        for (nth, socket) in feeds(&mut story, 10, |nth| nth).into_iter().enumerate() {
            story.peer_closed(idle + spread * nth as f64, socket);
        }
        for nth in 0..10_u16 {
            let socket = story.found(
                UPSTREAM,
                &format!("10.0.0.1:{}", 50_000 + nth),
                "10.0.0.3:3306",
            );
            story.peer_closed(0.0, socket);
        }
        let found = found(&mut story);
        assert_eq!(warnings(&found), Vec::<&Finding>::new());
    }
}

#[test]
fn a_pool_whose_server_restarts_is_no_warning() {
    let mut story = shop();
    for (nth, socket) in feeds(&mut story, 10, |nth| 4_900.0 + nth)
        .into_iter()
        .enumerate()
    {
        story.peer_closed(5_000.0 + 0.1 * nth as f64, socket);
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_few_or_a_moment_are_no_leak() {
    let mut story = shop();
    for socket in feeds(&mut story, 4, |nth| 100.0 * nth) {
        story.peer_closed(1_000.0, socket);
    }
    assert_eq!(found(&mut story), []);
    let mut story = shop();
    for socket in feeds(&mut story, 30, |nth| 28_000.0 + nth) {
        story.peer_closed(28_500.0, socket);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_peer_that_only_ended_its_sending_is_served_on() {
    let mut story = shop();
    for nth in 0..10_u16 {
        let client = format!("127.0.0.1:{}", 40_000 + nth);
        let theirs = story.connected(10.0, CLIENT, &client, UPSTREAM_ADDRESS);
        let ours = story.accepted(10.1, UPSTREAM, &client, UPSTREAM_ADDRESS);
        // Its socket is not gone: it waits for the answer.
        story.local_closed(20.0, theirs).peer_closed(20.1, ours);
        story.exchange(ours, 0, Asked::at(11.0, 60).by(UPSTREAM, 7));
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn clients_that_gave_up_on_stuck_handlers_and_their_sockets_are_one_story() {
    let mut story = shop();
    let ids: Vec<u64> = (100..108).collect();
    for (nth, id) in ids.iter().enumerate() {
        let at = 1_000.0 * nth as f64;
        let client = format!("127.0.0.1:{}", 40_000 + nth);
        let theirs = story.connected(at, CLIENT, &client, UPSTREAM_ADDRESS);
        let ours = story.accepted(at + 0.1, UPSTREAM, &client, UPSTREAM_ADDRESS);
        story
            .http(theirs, 0, "GET /order", Asked::at(at + 0.3, 90))
            .http(
                ours,
                0,
                "GET /order",
                Asked::at(at + 0.4, 90).by(UPSTREAM, *id),
            )
            .decision(
                at + 2_000.0,
                (CLIENT, 5),
                Decider::TransportCancel,
                None,
                Some(theirs),
            )
            .local_closed(at + 2_000.1, theirs)
            .peer_closed(at + 2_000.2, ours)
            .gone(at + 2_000.3, theirs);
    }
    let stuck = [
        "main.(*board).wait /srv/board.go:40",
        "net/http.(*conn).serve /go/s.go:2100",
    ];
    let all = ids
        .iter()
        .map(|id| goroutine(*id, "chan send", &stuck))
        .collect();
    story.goroutines(29_900.0, UPSTREAM, all);
    let found = found(&mut story);
    assert_eq!(
        rules(&found),
        [Rule::NoResponse, Rule::CloseWaitLeak, Rule::ClientTimeout]
    );
    assert!(
        found[1..]
            .iter()
            .all(|finding| finding.caused_by.as_deref() == Some("f1"))
    );
}

const PUBLISHES: [&str; 3] = [
    "net.(*netFD).connect /go/src/net/fd_unix.go:118",
    "net.(*Dialer).DialContext /go/src/net/dial.go:570",
    "main.publish /srv/shop/publish.go:33",
];

const BROKER: &str = "10.0.0.5:5672";

/// One short connection at `at`, closed by the shop after one message.
fn published(story: &mut Story, at: f64, nth: u16, stack: Option<crate::event::StackId>) {
    let client = format!("10.0.0.1:{}", 20_000 + nth);
    let socket = story.dialled(at, (UPSTREAM, 9), &client, BROKER, stack);
    story
        .exchange(socket, 0, Asked::at(at + 0.2, 60).answered(at + 0.5, 0))
        .local_closed(at + 0.6, socket)
        .gone(at + 0.8, socket);
}

#[test]
fn a_connection_for_every_message_is_told_with_the_function_that_opens_them() {
    for every in [10.0, 50.0, 150.0] {
        let mut story = shop();
        let stack = story.stack(&PUBLISHES);
        for nth in 0..100_u16 {
            published(&mut story, 100.0 + every * f64::from(nth), nth, stack);
        }
        let found = found(&mut story);
        let finding = only(&found, Rule::ConnectionChurn);
        assert_eq!(finding.severity, Severity::Warning, "{every}");
        assert_eq!(finding.count, 100);
        assert_eq!(finding.code.as_ref().unwrap().function, "main.publish");
        assert!(finding.title.contains("main.publish"), "{}", finding.title);
        assert!(
            finding.title.ends_with("where 1 would do"),
            "{}",
            finding.title
        );
        assert_eq!(finding.measured.requests_per_connection, Some(1.0));
    }
}

#[test]
fn a_program_that_is_not_go_is_not_told_of_gos_clients() {
    let mut story = Story::new();
    story.native(UPSTREAM, "nginx");
    for nth in 0..100_u16 {
        published(&mut story, 100.0 + 50.0 * f64::from(nth), nth, None);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectionChurn);
    assert_eq!(finding.severity, Severity::Info);
    assert!(!finding.advice.concat().contains("net/http"), "{finding:?}");
}

#[test]
fn health_checks_and_timers_are_no_churn() {
    let mut story = shop();
    let stack = story.stack(&PUBLISHES);
    for nth in 0..28_u16 {
        published(&mut story, 100.0 + 1_050.0 * f64::from(nth), nth, stack);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_burst_side_by_side_is_no_churn() {
    let mut story = shop();
    let stack = story.stack(&PUBLISHES);
    for nth in 0..100_u16 {
        published(&mut story, 100.0 + 0.001 * f64::from(nth), nth, stack);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_load_generator_that_is_no_target_is_no_warning() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").peer(CLIENT, "hey");
    let stack = story.stack(&[
        "net.(*Dialer).DialContext",
        "main.(*Work).run /srv/hey.go:3",
    ]);
    for nth in 0..2_000_u16 {
        let at = 10.0 * f64::from(nth);
        let client = format!("127.0.0.1:{}", 20_000 + nth);
        let theirs = story.dialled(at, (CLIENT, 9), &client, UPSTREAM_ADDRESS, stack);
        story
            .http(
                theirs,
                0,
                "GET /",
                Asked::at(at + 0.2, 60).answered(at + 0.5, 200),
            )
            .local_closed(at + 0.6, theirs)
            .gone(at + 0.8, theirs);
    }
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ConnectionChurn).severity, Severity::Info);
}

#[test]
fn a_native_proxy_whose_upstream_keeps_none_open_is_no_warning() {
    let mut story = Story::new();
    story.native(GATEWAY, "nginx");
    for nth in 0..3_000_u16 {
        let at = 5.0 * f64::from(nth);
        let front = story.accepted(
            at,
            GATEWAY,
            &format!("10.9.0.1:{}", 20_000 + nth),
            GATEWAY_ADDRESS,
        );
        let back = story.connected(
            at + 0.1,
            GATEWAY,
            &format!("127.0.0.1:{}", 20_000 + nth),
            UPSTREAM_ADDRESS,
        );
        story
            .http(front, 0, "GET /", Asked::at(at, 90).answered(at + 1.0, 200))
            .http(
                back,
                0,
                "GET /",
                Asked::at(at + 0.3, 90).answered(at + 0.8, 200),
            )
            .peer_closed(at + 0.9, back)
            .local_closed(at + 0.95, back)
            .gone(at + 1.0, back)
            .local_closed(at + 1.1, front)
            .gone(at + 1.2, front);
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn retries_against_a_service_that_resets_are_no_churn() {
    let mut story = shop();
    let stack = story.stack(&PUBLISHES);
    for nth in 0..200_u16 {
        let at = 50.0 * f64::from(nth);
        let client = format!("10.0.0.1:{}", 20_000 + nth);
        let socket = story.dialled(at, (UPSTREAM, 9), &client, BROKER, stack);
        story
            .exchange(socket, 0, Asked::at(at + 0.2, 60))
            .reset(at + 0.4, socket)
            .gone(at + 0.5, socket);
    }
    let found = found(&mut story);
    assert!(!rules(&found).contains(&Rule::ConnectionChurn));
}

#[test]
fn a_pool_that_is_too_small_is_told_by_its_setting() {
    let mut story = shop();
    let stack = story.stack(&[
        "net.(*netFD).connect /go/src/net/fd_unix.go:118",
        "net/http.(*Transport).dialConn /go/src/net/http/transport.go:1700",
        "net/http.(*Transport).dialConnFor /go/src/net/http/transport.go:1500",
    ]);
    for nth in 0..3_000_u16 {
        let at = 5.0 * f64::from(nth);
        let client = format!("10.0.0.1:{}", 20_000 + nth);
        let socket = story.dialled(at, (UPSTREAM, 9), &client, "10.0.0.5:80", stack);
        story
            .http(
                socket,
                0,
                "GET /",
                Asked::at(at + 0.2, 60).answered(at + 8.0, 200),
            )
            .decision(
                at + 8.1,
                (UPSTREAM, 10),
                Decider::TransportClose,
                Some("http: putIdleConn: too many idle connections for host"),
                Some(socket),
            )
            .local_closed(at + 8.2, socket)
            .gone(at + 8.4, socket);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectionChurn);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.setting.as_ref().unwrap().name,
        "net/http.Transport.MaxIdleConnsPerHost"
    );
}

#[test]
fn who_asks_the_transport_for_connections_is_named() {
    let mut story = shop();
    let opens = story.stack(&[
        "net.(*netFD).connect /go/src/net/fd_unix.go:118",
        "net/http.(*Transport).dialConn /go/src/net/http/transport.go:1700",
    ]);
    let asks = story.stack(&[
        "net/http.(*Transport).queueForDial /go/src/net/http/transport.go:1661",
        "net/http.(*Client).Get /go/src/net/http/client.go:480",
        "main.post /srv/shop/publish.go:70",
    ]);
    for nth in 0..100_u16 {
        let at = 100.0 * f64::from(nth);
        story.tell(
            at,
            Fact::Decision(Decision {
                decider: Decider::TransportDial,
                socket: None,
                actor: actor(UPSTREAM, 12),
                error: None,
                stack: asks,
            }),
        );
        let client = format!("10.0.0.1:{}", 20_000 + nth);
        let socket = story.dialled(at + 0.1, (UPSTREAM, 9), &client, BROKER, opens);
        story
            .http(
                socket,
                0,
                "GET /",
                Asked::at(at + 0.3, 60).answered(at + 1.0, 200),
            )
            .local_closed(at + 1.1, socket)
            .gone(at + 1.2, socket);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectionChurn);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.code.as_ref().unwrap().function, "main.post");
}

#[test]
fn kept_connections_under_load_are_no_churn() {
    let mut story = shop();
    let stack = story.stack(&DIALS);
    for nth in 0..40_u16 {
        let client = format!("10.0.0.1:{}", 20_000 + nth);
        let socket = story.dialled(f64::from(nth), (UPSTREAM, 9), &client, "10.0.0.5:80", stack);
        for number in 0..20 {
            let at = 100.0 + 40.0 * f64::from(number);
            story.http(
                socket,
                number,
                "GET /",
                Asked::at(at, 60).answered(at + 8.0, 200),
            );
        }
        story.local_closed(1_500.0, socket).gone(1_500.1, socket);
    }
    assert_eq!(found(&mut story), []);
}
