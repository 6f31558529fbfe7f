//! Requests that cross the close of a pooled connection.

use super::*;

const POOLED: &str = "127.0.0.1:40000";

/// A client and a server that closes an idle connection after `limit`; the client sends `request` on
/// it `after` that, in milliseconds, which may be negative.
fn race(limit: f64, after: f64, request: &str) -> (Story, SocketId, SocketId) {
    let mut story = Story::new();
    story.go(CLIENT, "worker").go(UPSTREAM, "shop");
    let theirs = story.connected(0.0, CLIENT, POOLED, UPSTREAM_ADDRESS);
    let ours = story.accepted(0.1, UPSTREAM, POOLED, UPSTREAM_ADDRESS);
    let closed = 10.0 + limit + 0.3;
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(theirs, 0, "GET /", Asked::at(1.0, 90).answered(10.1, 200))
        .http(ours, 0, "GET /", Asked::at(1.1, 90).answered(10.0, 200))
        .deadline(closed - 0.1, UPSTREAM, ours, Decider::ReadDeadline)
        .closed_at(closed, ours, stack)
        .peer_closed(closed + 0.05, theirs)
        .http(theirs, 1, request, Asked::at(closed + after, 400))
        .reset(closed + after.max(0.0) + 0.1, theirs)
        .local_closed(closed + after.max(0.0) + 0.2, theirs);
    (story, theirs, ours)
}

#[test]
fn a_post_on_a_connection_that_idle_timeout_closes_is_lost_and_both_idle_times_are_named() {
    for (limit, after) in [(2000.0, -0.2), (1300.0, 0.1), (2750.0, 40.0)] {
        let (mut story, _, _) = race(limit, after, "POST /orders");
        let found = found(&mut story);
        assert_eq!(rules(&found), [Rule::KeepaliveRace], "{limit} {after}");
        let race = &found[0];
        assert_eq!(race.severity, Severity::Warning);
        let setting = race.setting.as_ref().unwrap();
        assert_eq!(setting.name, "net/http.Server.IdleTimeout");
        assert_eq!(setting.value_s, Some(limit / 1e3));
        let client = race.measured.client_idle_s.unwrap();
        assert!(
            (client - (limit + 0.2 + after) / 1e3).abs() < 1e-3,
            "{client}"
        );
        let server = race.measured.server_idle_s.unwrap();
        assert!((server - limit / 1e3).abs() < 1e-3, "{server}");
        assert_eq!(race.measured.requests_harmed, Some(1));
        assert!(race.advice[0].contains("IdleConnTimeout"));
    }
}

#[test]
fn a_request_that_is_reset_before_its_call_returns_is_known_by_its_head() {
    let mut story = Story::new();
    story.go(CLIENT, "worker").go(UPSTREAM, "shop");
    let theirs = story.connected(0.0, CLIENT, POOLED, UPSTREAM_ADDRESS);
    story
        .http(theirs, 0, "GET /", Asked::at(1.0, 90).answered(10.1, 200))
        .peer_closed(2010.0, theirs)
        .head(2040.0, theirs, 1, "POST /orders")
        .reset(2040.1, theirs)
        .gone(2040.1, theirs);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::KeepaliveRace]);
    assert!(found[0].explanation.contains("worker sent POST /orders on"));
    assert!((found[0].measured.client_idle_s.unwrap() - 2.03).abs() < 1e-3);
}

#[test]
fn a_request_that_the_client_sends_again_is_only_worth_knowing() {
    let (mut story, _, _) = race(2000.0, 0.1, "GET /stock");
    let again = story.connected(2011.0, CLIENT, "127.0.0.1:40001", UPSTREAM_ADDRESS);
    story.http(
        again,
        0,
        "GET /stock",
        Asked::at(2011.5, 400).answered(2015.0, 200),
    );
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::KeepaliveRace]);
    assert_eq!(found[0].severity, Severity::Info);
    assert_eq!(found[0].measured.retried, Some(1));
}

#[test]
fn another_post_of_its_kind_is_no_second_try() {
    let (mut story, _, _) = race(2000.0, 0.1, "POST /orders");
    let other = story.connected(2011.0, CLIENT, "127.0.0.1:40001", UPSTREAM_ADDRESS);
    story.http(
        other,
        0,
        "POST /orders",
        Asked::at(2011.5, 400).answered(2015.0, 200),
    );
    assert_eq!(found(&mut story)[0].severity, Severity::Warning);
}

#[test]
fn the_gateways_failed_answer_is_the_races_consequence() {
    let mut story = gateway();
    let front = story.accepted(0.0, GATEWAY, "127.0.0.1:36000", GATEWAY_ADDRESS);
    let back = story.connected(0.0, GATEWAY, POOLED, UPSTREAM_ADDRESS);
    story
        .http(back, 0, "POST /", Asked::at(1.0, 90).answered(10.0, 200))
        .peer_closed(2010.0, back)
        .http(back, 1, "POST /", Asked::at(2010.1, 90))
        .reset(2010.3, back)
        .local_closed(2010.5, back)
        .http(front, 0, "POST /", Asked::at(2009.8, 90).by(GATEWAY, 5))
        .local_closed(2011.0, front);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::KeepaliveRace, Rule::EmptyResponse]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}

#[test]
fn from_the_servers_end_alone_a_lost_post_is_likely() {
    for (request, severity) in [("POST /", Severity::Warning), ("GET /", Severity::Info)] {
        let mut story = Story::new();
        story.go(UPSTREAM, "shop");
        let ours = story.accepted(0.0, UPSTREAM, "10.0.0.9:40000", "10.0.0.1:80");
        let stack = story.stack(&SERVE_CLOSES);
        story
            .http(ours, 0, "GET /", Asked::at(1.0, 90).answered(10.0, 200))
            .deadline(2010.2, UPSTREAM, ours, Decider::ReadDeadline)
            .head(2010.25, ours, 1, request)
            .unread(2010.3, ours, 2010.25, 90)
            .aborted(2010.3, ours, stack);
        let found = found(&mut story);
        assert_eq!(rules(&found), [Rule::KeepaliveRace]);
        assert_eq!(found[0].severity, severity);
    }
}

#[test]
fn a_server_that_ends_loses_requests_for_that_reason() {
    for shut_down in [false, true] {
        let (mut story, _, _) = race(2000.0, 0.1, "POST /orders");
        if shut_down {
            story.decision(2010.0, (UPSTREAM, 1), Decider::ServerShutdown, None, None);
        } else {
            story.exited(2010.4, UPSTREAM);
        }
        assert_eq!(found(&mut story), [], "{shut_down}");
    }
}

#[test]
fn idle_connections_that_are_closed_in_peace_are_healthy() {
    let mut story = Story::new();
    story.go(CLIENT, "worker").go(UPSTREAM, "shop");
    for nth in 0..20_u16 {
        let at = 100.0 * f64::from(nth);
        let client = format!("127.0.0.1:{}", 40000 + nth);
        let theirs = story.connected(at, CLIENT, &client, UPSTREAM_ADDRESS);
        let ours = story.accepted(at, UPSTREAM, &client, UPSTREAM_ADDRESS);
        story
            .http(
                theirs,
                0,
                "POST /",
                Asked::at(at + 1.0, 90).answered(at + 5.0, 200),
            )
            .http(
                ours,
                0,
                "POST /",
                Asked::at(at + 1.1, 90).answered(at + 4.9, 200),
            )
            .deadline(at + 505.0, UPSTREAM, ours, Decider::ReadDeadline)
            .local_closed(at + 505.1, ours)
            .peer_closed(at + 505.2, theirs)
            .local_closed(at + 505.3, theirs);
    }
    assert_eq!(found(&mut story), []);
}
