//! `close-wait-leak`: what its peer closed, and what looks like it.

use crate::model::story::goroutine;

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
