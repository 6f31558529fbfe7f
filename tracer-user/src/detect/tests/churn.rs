//! `connection-churn`: connections where fewer would do, and what looks like them.

use crate::{
    event::{Decision, Fact},
    model::story::actor,
};

use super::*;

fn shop() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "client");
    story
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

/// Connections on which a message got no answer, closed `after` ms.
fn unanswered(after: f64) -> Vec<Finding> {
    let mut story = shop();
    let stack = story.stack(&PUBLISHES);
    for nth in 0..100_u16 {
        let at = 100.0 + 300.0 * f64::from(nth);
        let client = format!("10.0.0.1:{}", 20_000 + nth);
        let socket = story.dialled(at, (UPSTREAM, 9), &client, BROKER, stack);
        story
            .exchange(socket, 0, Asked::at(at + 0.2, 60))
            .local_closed(at + after, socket)
            .gone(at + after + 0.2, socket);
    }
    found(&mut story)
}

#[test]
fn messages_that_want_no_answer_are_churn_and_waits_for_one_in_vain_are_none() {
    only(&unanswered(1.0), Rule::ConnectionChurn);
    for waited in [120.0, 250.0] {
        assert!(!rules(&unanswered(waited)).contains(&Rule::ConnectionChurn));
    }
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
    let stack = story.stack(&PUBLISHES);
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
