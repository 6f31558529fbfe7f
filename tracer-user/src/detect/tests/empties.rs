use crate::{event::Fact, model::story::Asked};

use super::*;

fn server() -> (Story, SocketId) {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    story.http(socket, 0, "GET /cart", Asked::at(1.0, 90).by(UPSTREAM, 5));
    (story, socket)
}

#[test]
fn a_panicking_handler_is_named_with_its_line() {
    let (mut story, socket) = server();
    let stack = story.stack(&[
        "internal/poll.(*FD).Close",
        "net.(*conn).Close",
        "net/http.(*conn).close /go/src/net/http/server.go:1780",
        "net/http.(*conn).serve.func1 /go/src/net/http/server.go:1947",
        "runtime.gopanic /go/src/runtime/panic.go:787",
        "runtime.goPanicIndex /go/src/runtime/panic.go:115",
        "main.cart /srv/shop/cart.go:42",
        "net/http.HandlerFunc.ServeHTTP",
    ]);
    story.closed_at(3.0, socket, stack);
    let found = found(&mut story);
    let empty = only(&found, Rule::EmptyResponse);
    assert_eq!(empty.code.as_ref().unwrap().line, Some(42));
    assert!(
        empty
            .explanation
            .contains("Its handler panicked in main.cart (cart.go:42)"),
        "{}",
        empty.explanation
    );
    assert_eq!(empty.process.comm, "shop");
    assert_eq!(empty.severity, Severity::Warning);
}

#[test]
fn seen_from_both_ends_it_is_one_finding() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "browser");
    let ours = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    let theirs = story.connected(0.0, CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
    story
        .http(theirs, 0, "GET /", Asked::at(0.5, 90))
        .http(ours, 0, "GET /", Asked::at(1.0, 90))
        .local_closed(50.0, ours)
        .peer_closed(50.1, theirs)
        .local_closed(50.5, theirs);
    let found = found(&mut story);
    let empty = only(&found, Rule::EmptyResponse);
    assert_eq!(found.len(), 1);
    assert_eq!(
        empty.title,
        "browser got an empty reply from shop on port 80"
    );
}

#[test]
fn a_server_whose_end_was_found_late_has_one_finding() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "browser");
    let early = story.connected(0.0, CLIENT, "10.0.0.9:49999", "10.0.0.1:80");
    story
        .http(early, 0, "GET /", Asked::at(0.5, 90))
        .peer_closed(30.0, early)
        .local_closed(30.3, early);
    let ours = story.accepted(100.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    let theirs = story.connected(100.0, CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
    story
        .http(theirs, 0, "GET /", Asked::at(100.5, 90))
        .http(ours, 0, "GET /", Asked::at(101.0, 90))
        .local_closed(150.0, ours)
        .peer_closed(150.1, theirs)
        .local_closed(150.5, theirs);
    let found = found(&mut story);
    let empty = only(&found, Rule::EmptyResponse);
    assert_eq!(found.len(), 1, "{:?}", rules(&found));
    assert_eq!(empty.count, 2);
    assert_eq!(
        empty.title,
        "browser got an empty reply from shop on port 80"
    );
    assert_eq!(empty.incomplete, None);
}

#[test]
fn a_server_elsewhere_is_judged_from_the_clients_end_with_less_confidence() {
    for reset in [false, true] {
        let mut story = Story::new();
        story.go(CLIENT, "browser");
        let socket = story.connected(0.0, CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
        story.http(socket, 0, "GET /", Asked::at(0.5, 90));
        if reset {
            story.reset(30.0, socket);
        } else {
            story.peer_closed(30.0, socket).local_closed(30.3, socket);
        }
        let found = found(&mut story);
        let empty = only(&found, Rule::EmptyResponse);
        assert!(empty.confidence < 0.95);
        assert!(
            empty
                .explanation
                .contains(if reset { "reset" } else { "closed" })
        );
        assert!(empty.incomplete.is_some());
    }
}

#[test]
fn a_client_that_left_first_is_not_harmed() {
    let (mut story, socket) = server();
    story.peer_closed(500.0, socket).local_closed(501.0, socket);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_server_that_ends_is_not_accused() {
    let (mut story, socket) = server();
    story.local_closed(500.0, socket).exited(500.5, UPSTREAM);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_request_in_flight_when_the_window_ends_is_open() {
    let (mut story, _) = server();
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_connection_without_a_request_may_end_as_it_likes() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    story.local_closed(5.0, socket);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_protocol_that_promises_no_answer_is_not_accused() {
    let mut story = Story::new();
    story.go(UPSTREAM, "logsink");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:514");
    story
        .exchange(socket, 0, Asked::at(1.0, 9_000))
        .local_closed(500.0, socket);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_request_that_meets_a_closing_connection_is_another_rules() {
    for (end, expected) in [
        (9999.9, Rule::KeepaliveRace),
        (10_000.1, Rule::KeepaliveRace),
        (10_200.0, Rule::EmptyResponse),
    ] {
        let mut story = Story::new();
        story.go(CLIENT, "browser");
        let socket = story.connected(0.0, CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
        story
            .http(socket, 0, "GET /", Asked::at(0.5, 90).answered(3.0, 200))
            .http(socket, 1, "GET /", Asked::at(10_000.0, 90))
            .peer_closed(end, socket)
            .local_closed(end + 0.5, socket)
            .gone(end + 1.0, socket);
        assert_eq!(rules(&found(&mut story)), [expected], "{end}");
    }
}

#[test]
fn the_kernels_own_reset_counts_as_ending_it() {
    let (mut story, socket) = server();
    story.tell(
        20.0,
        Fact::ResetSent {
            socket,
            reason: Some("TCP_ABORT_ON_DATA".into()),
        },
    );
    let found = found(&mut story);
    assert!(
        only(&found, Rule::EmptyResponse)
            .explanation
            .contains("reset")
    );
}

#[test]
fn a_connection_found_open_may_be_closing_already() {
    let mut story = Story::new();
    story.go(CLIENT, "browser");
    let socket = story.found(CLIENT, "10.0.0.9:50000", "10.0.0.1:80");
    story
        .http(socket, 0, "GET /", Asked::at(100.0, 90))
        .peer_closed(100.2, socket)
        .local_closed(100.5, socket);
    assert_eq!(rules(&found(&mut story)), [Rule::KeepaliveRace]);
}
