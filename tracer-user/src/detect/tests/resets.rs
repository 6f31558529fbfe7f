//! Connections that were reset, and those that may be.

use super::*;

const HIJACKED: [&str; 3] = [
    "net.(*conn).Close /go/src/net/net.go:202",
    "main.drop /srv/shop/drop.go:31",
    "net/http.(*conn).serve /go/src/net/http/server.go:2145",
];

/// A server with a request that it has read.
fn server() -> (Story, SocketId) {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    story.http(socket, 0, "POST /cart", Asked::at(1.0, 900).by(UPSTREAM, 5));
    (story, socket)
}

#[test]
fn a_close_with_data_unread_names_the_reader_and_its_line() {
    let (mut story, socket) = server();
    let stack = story.stack(&HIJACKED);
    story
        .unread(30.0, socket, 2.0, 60_000)
        .aborted(30.0, socket, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectionReset, Rule::EmptyResponse]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert_eq!(found[0].process.comm, "shop");
    assert_eq!(found[0].code.as_ref().unwrap().line, Some(31));
    assert_eq!(found[0].measured.unread_bytes, Some(60_000));
    assert!(found[0].explanation.contains("unread"));
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn a_close_with_linger_0_is_told_from_one_with_data_unread_by_the_kernels_word() {
    for (reason, word) in [
        (Some("TCP_DISCONNECT_WITH_DATA"), "SetLinger(0)"),
        (Some("TCP_ABORT_ON_CLOSE"), "unread"),
        (None, "either"),
    ] {
        let (mut story, socket) = server();
        let stack = story.stack(&HIJACKED);
        story.aborted(30.0, socket, stack);
        if reason.is_some() {
            story.reset_sent(30.01, socket, reason);
        }
        let found = found(&mut story);
        let reset = only(&found, Rule::ConnectionReset);
        assert!(reset.explanation.contains(word), "{}", reset.explanation);
        assert_eq!(reset.incomplete.is_some(), reason.is_none());
    }
}

#[test]
fn an_abort_with_nothing_unread_is_linger_0_where_arrivals_are_watched() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    let stack = story.stack(&HIJACKED);
    story
        .http(socket, 0, "POST /cart", Asked::at(1.0, 900).arrived(0.9))
        .aborted(30.0, socket, stack);
    let found = found(&mut story);
    let reset = only(&found, Rule::ConnectionReset);
    assert!(reset.explanation.contains("SetLinger(0)"));
    assert_eq!(reset.incomplete, None);
}

#[test]
fn requests_that_fail_one_right_after_the_other_are_one_story() {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    for nth in 0..5_u16 {
        let at = 2.0 * f64::from(nth);
        let front = format!("127.0.0.1:{}", 36000 + nth);
        let back = format!("127.0.0.1:{}", 53000 + nth);
        let front = story.accepted(at, GATEWAY, &front, GATEWAY_ADDRESS);
        let back = story.connected(at + 0.2, GATEWAY, &back, UPSTREAM_ADDRESS);
        story
            .http(front, 0, "GET /", Asked::at(at + 0.1, 90).by(GATEWAY, 5))
            .http(back, 0, "GET /", Asked::at(at + 0.4, 90))
            .reset(at + 1.0, back)
            .local_closed(at + 1.1, back)
            .local_closed(at + 1.3, front);
    }
    let found = found(&mut story);
    assert_eq!(found[0].rule, Rule::ConnectionReset);
    assert!(found[1..].iter().all(|finding| finding.caused_by.is_some()));
}

#[test]
fn a_panic_with_the_body_unread_is_a_panic() {
    let (mut story, socket) = server();
    let stack = story.stack(&panicked_in(&["main.cart /srv/shop/cart.go:42"]));
    story
        .unread(30.0, socket, 2.0, 60_000)
        .aborted(30.0, socket, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::EmptyResponse]);
    assert!(found[0].explanation.contains("panicked in main.cart"));
    assert!(found[0].explanation.contains("ErrAbortHandler"));
}

#[test]
fn a_reset_of_the_upstream_that_fails_the_gateways_request_is_one_story() {
    for traced in [false, true] {
        let mut story = Story::new();
        story.go(GATEWAY, "gateway");
        let front = story.accepted(0.0, GATEWAY, "127.0.0.1:36000", GATEWAY_ADDRESS);
        let back = story.connected(0.5, GATEWAY, "127.0.0.1:53000", UPSTREAM_ADDRESS);
        story
            .http(front, 0, "GET /", Asked::at(1.0, 90).by(GATEWAY, 5))
            .http(back, 0, "GET /", Asked::at(2.0, 90));
        if traced {
            story.go(UPSTREAM, "shop");
            let far = story.accepted(0.6, UPSTREAM, "127.0.0.1:53000", UPSTREAM_ADDRESS);
            story
                .http(far, 0, "GET /", Asked::at(2.1, 90).by(UPSTREAM, 9))
                .aborted(300.0, far, None)
                .reset_sent(300.0, far, Some("TCP_DISCONNECT_WITH_DATA"));
        }
        let stack = story.stack(&panicked_in(&[
            "main.upstreamFailed /srv/gateway/main.go:9",
        ]));
        story
            .reset(300.1, back)
            .local_closed(300.2, back)
            .closed_at(300.6, front, stack);
        let found = found(&mut story);
        assert_eq!(found[0].rule, Rule::ConnectionReset);
        let stories = found.iter().filter(|finding| finding.caused_by.is_none());
        assert_eq!(stories.count(), 1, "{:?}", rules(&found));
        let empty = found.iter().any(|finding| {
            finding.rule == Rule::EmptyResponse && finding.process.comm == "gateway"
        });
        assert!(empty);
        assert_eq!(
            found[0].related_connections[0].server.to_string(),
            GATEWAY_ADDRESS
        );
    }
}

#[test]
fn a_reset_that_neither_end_sent_came_from_between() {
    let mut story = Story::new();
    story.go(CLIENT, "worker").go(UPSTREAM, "shop");
    let theirs = story.connected(0.0, CLIENT, "10.0.0.9:40000", UPSTREAM_ADDRESS);
    let ours = story.accepted(0.1, UPSTREAM, "10.0.0.9:40000", UPSTREAM_ADDRESS);
    story
        .http(theirs, 0, "GET /", Asked::at(1.0, 90))
        .http(ours, 0, "GET /", Asked::at(1.1, 90))
        .reset(900.0, theirs)
        .local_closed(900.1, theirs);
    let found = found(&mut story);
    let reset = only(&found, Rule::ConnectionReset);
    assert!(reset.title.contains("something between"), "{}", reset.title);
}

#[test]
fn a_client_that_resets_is_named_and_worth_no_more_than_knowing() {
    let (mut story, socket) = server();
    story.reset(500.0, socket).local_closed(700.0, socket);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectionReset]);
    assert_eq!(found[0].severity, Severity::Info);
    assert!(
        found[0].title.contains("client 10.0.0.9"),
        "{}",
        found[0].title
    );
}

#[test]
fn a_client_that_closed_before_its_kernel_sent_rst_has_left_and_not_reset() {
    let (mut story, socket) = server();
    story
        .peer_closed(1_001.0, socket)
        .reset(2_000.0, socket)
        .local_closed(2_001.0, socket);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectionReset]);
    assert_eq!(found[0].severity, Severity::Info);
    assert!(
        found[0].title.contains("client 10.0.0.9 left 1 connection"),
        "{}",
        found[0].title
    );
    let told = &found[0].explanation;
    assert!(told.contains("1.000 s after its request"), "{told}");
    assert!(!told.contains("unread"), "{told}");
}

#[test]
fn resets_of_nothing_in_flight_are_healthy() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "worker");
    // A health check of a load balancer.
    let check = story.accepted(0.0, UPSTREAM, "10.0.0.2:50000", "10.0.0.1:80");
    story.reset(0.4, check).local_closed(0.6, check);
    // The same the other way round.
    let probed = story.accepted(10.0, UPSTREAM, "10.0.0.2:50001", "10.0.0.1:80");
    story.aborted(12.0, probed, None);
    // A client that has its answer.
    let done = story.accepted(20.0, UPSTREAM, "10.0.0.2:50002", "10.0.0.1:80");
    story
        .http(done, 0, "GET /", Asked::at(21.0, 90).answering(23.0, 200))
        .reset(23.3, done)
        .local_closed(23.5, done);
    // A server that spares itself TIME_WAIT.
    let spared = story.accepted(30.0, UPSTREAM, "10.0.0.2:50003", "10.0.0.1:80");
    story
        .http(spared, 0, "GET /", Asked::at(31.0, 90).answering(33.0, 200))
        .aborted(33.2, spared, None);
    // An idle connection of a pool.
    let pooled = story.connected(40.0, CLIENT, "10.0.0.1:41000", "10.0.0.7:5432");
    story
        .exchange(pooled, 0, Asked::at(41.0, 90).answered(43.0, 0))
        .reset(9000.0, pooled)
        .local_closed(9000.1, pooled);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_server_that_ends_with_data_unread_is_not_accused() {
    let (mut story, socket) = server();
    story
        .unread(30.0, socket, 2.0, 60_000)
        .aborted(30.0, socket, None)
        .exited(30.4, UPSTREAM);
    assert_eq!(found(&mut story), []);
}

#[test]
fn an_answer_that_arrived_before_the_reset_is_an_answer() {
    for (read, expected) in [(true, 0), (false, 1)] {
        let mut story = Story::new();
        story.go(UPSTREAM, "shop").go(CLIENT, "worker");
        let theirs = story.connected(0.0, CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
        let ours = story.accepted(0.1, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
        let upload = Asked::at(1.0, 900_000).until(30.0);
        story
            .http(
                theirs,
                0,
                "POST /",
                if read {
                    upload.answering(31.0, 413)
                } else {
                    upload
                },
            )
            .http(
                ours,
                0,
                "POST /",
                Asked::at(1.1, 9_000).answering(29.0, 413),
            )
            .unread(30.5, ours, 29.5, 60_000)
            .aborted(30.5, ours, None)
            .reset(30.6, theirs);
        let resets = found(&mut story)
            .iter()
            .filter(|finding| finding.rule == Rule::ConnectionReset)
            .count();
        assert_eq!(resets, expected, "read: {read}");
    }
}

#[test]
fn who_speaks_another_protocol_and_loses_bytes_is_harmed() {
    let mut story = Story::new();
    story.go(UPSTREAM, "queue");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:7000");
    let stack = story.stack(&["net.(*conn).Close", "main.serve /srv/queue/serve.go:20"]);
    story
        .exchange(socket, 0, Asked::at(1.0, 100))
        .unread(30.0, socket, 2.0, 900)
        .aborted(30.0, socket, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectionReset]);
    assert_eq!(found[0].severity, Severity::Warning);
}
