use crate::{event::Fact, model::story::goroutine};

use super::*;

/// The frames of a handler of net/http that waits in the runtime.
const HANDLER: [&str; 5] = [
    "runtime.gopark /go/src/runtime/proc.go:424",
    "main.(*board).wait /srv/shop/board.go:40",
    "main.main.func1 /srv/shop/main.go:12",
    "net/http.HandlerFunc.ServeHTTP /go/src/net/http/server.go:2322",
    "net/http.(*conn).serve /go/src/net/http/server.go:2100",
];

const IN_ACCEPT: [&str; 4] = [
    "internal/poll.(*FD).Accept /go/src/internal/poll/fd_unix.go:613",
    "net.(*netFD).accept /go/src/net/fd_unix.go:161",
    "net.(*TCPListener).Accept /go/src/net/tcpsock.go:380",
    "net/http.(*Server).Serve /go/src/net/http/server.go:3424",
];

const READING: [&str; 3] = [
    "internal/poll.(*FD).Read /go/src/internal/poll/fd_unix.go:165",
    "net/http.(*connReader).Read /go/src/net/http/server.go:800",
    "net/http.(*conn).serve /go/src/net/http/server.go:2050",
];

fn shop() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "client");
    story
}

/// A client's connection and the shop's end of it.
fn pair(story: &mut Story, at: f64, nth: u16) -> (SocketId, SocketId) {
    let address = format!("127.0.0.1:{}", 40_000 + nth);
    (
        story.connected(at, CLIENT, &address, UPSTREAM_ADDRESS),
        story.accepted(at + 0.1, UPSTREAM, &address, UPSTREAM_ADDRESS),
    )
}

/// A request that the shop reads and does not answer; its goroutine is `100 + nth`.
fn taken(story: &mut Story, at: f64, nth: u16, path: &str) -> (SocketId, SocketId) {
    let (theirs, ours) = pair(story, at, nth);
    let asked = Asked::at(at + 0.3, 90);
    let goroutine = 100 + u64::from(nth);
    story.http(theirs, 0, path, asked).http(
        ours,
        0,
        path,
        Asked::at(at + 0.4, 90).by(UPSTREAM, goroutine),
    );
    (theirs, ours)
}

/// Requests that are answered within `took`.
fn answered(story: &mut Story, number: u16, path: &str, took: f64) {
    for nth in 0..number {
        let at = 10.0 * f64::from(nth);
        let (theirs, ours) = pair(story, at, 1_000 + nth);
        let done = at + 0.5 + took;
        story
            .http(theirs, 0, path, Asked::at(at + 0.3, 90).answered(done, 200))
            .http(
                ours,
                0,
                path,
                Asked::at(at + 0.4, 90).by(UPSTREAM, 7).answered(done, 200),
            )
            .local_closed(done + 1.0, ours)
            .gone(done + 1.1, ours);
    }
}

/// At the end of the window these goroutines serve the connections left open.
fn standing(story: &mut Story, ids: &[u64], state: &str) {
    let all = ids
        .iter()
        .map(|id| goroutine(*id, state, &HANDLER))
        .chain([goroutine(1, "IO wait", &IN_ACCEPT)])
        .collect();
    story.goroutines(29_900.0, UPSTREAM, all);
}

/// The client closes after `patience` of its `http.Client`.
fn gives_up(story: &mut Story, at: f64, theirs: SocketId, ours: SocketId) {
    let id = 5;
    story
        .decision(
            at,
            (CLIENT, id),
            Decider::TransportCancel,
            None,
            Some(theirs),
        )
        .decision(
            at + 0.2,
            (CLIENT, id),
            Decider::ClientTimeoutChecked,
            None,
            None,
        )
        .local_closed(at + 0.3, theirs)
        .peer_closed(at + 0.4, ours)
        .gone(at + 0.5, theirs);
}

#[test]
fn a_handler_stuck_at_a_lock_is_named_where_others_are_answered_at_once() {
    for state in [
        "sync.Mutex.Lock",
        "chan send",
        "sync.WaitGroup.Wait",
        "select (no cases)",
    ] {
        let mut story = shop();
        answered(&mut story, 20, "GET /fast", 3.0);
        taken(&mut story, 2_000.0, 1, "POST /order");
        standing(&mut story, &[101], state);
        let found = found(&mut story);
        let finding = only(&found, Rule::NoResponse);
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.title,
            "shop took a request on port 9001 and never answered"
        );
        assert_eq!(
            finding.code.as_ref().unwrap().function,
            "main.(*board).wait"
        );
        assert_eq!(finding.goroutines[0].id, 101);
        assert!(
            finding
                .explanation
                .contains("another goroutine must let it go on")
        );
    }
}

#[test]
fn a_receive_that_nobody_serves_is_told_by_its_own_path() {
    for (path, severity) in [
        ("GET /order", Severity::Warning),
        ("GET /poll", Severity::Info),
    ] {
        let mut story = shop();
        answered(&mut story, 20, "GET /order", 3.0);
        taken(&mut story, 2_000.0, 1, path);
        standing(&mut story, &[101], "chan receive");
        assert_eq!(
            only(&found(&mut story), Rule::NoResponse).severity,
            severity
        );
    }
}

#[test]
fn a_client_that_gave_up_on_a_stuck_handler_tells_its_consequence() {
    for state in ["chan receive", "select", "sync.Mutex.Lock"] {
        let mut story = shop();
        let (theirs, ours) = taken(&mut story, 2_000.0, 1, "GET /order");
        gives_up(&mut story, 4_500.0, theirs, ours);
        standing(&mut story, &[101], state);
        let found = found(&mut story);
        assert_eq!(
            rules(&found),
            [Rule::NoResponse, Rule::ClientTimeout],
            "{state}"
        );
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
        assert_eq!(
            found[1].setting.as_ref().unwrap().name,
            "net/http.Client.Timeout"
        );
    }
}

#[test]
fn a_handler_that_sleeps_or_computes_is_slow_and_not_stuck() {
    for state in ["sleep", "running", "runnable", "syscall", "IO wait"] {
        let mut story = shop();
        answered(&mut story, 20, "GET /order", 3.0);
        let (theirs, ours) = taken(&mut story, 2_000.0, 1, "GET /order");
        gives_up(&mut story, 4_500.0, theirs, ours);
        standing(&mut story, &[101], state);
        assert_eq!(rules(&found(&mut story)), [Rule::ClientTimeout], "{state}");
    }
}

#[test]
fn a_handler_that_waits_for_its_own_upstream_is_not_stuck() {
    let mut story = shop();
    answered(&mut story, 20, "GET /order", 3.0);
    taken(&mut story, 2_000.0, 1, "GET /order");
    let database = story.connected(100.0, UPSTREAM, "10.0.0.1:50000", "10.0.0.9:5432");
    story.exchange(database, 0, Asked::at(2_001.0, 60));
    standing(&mut story, &[101], "sync.WaitGroup.Wait");
    assert_eq!(found(&mut story), []);
}

#[test]
fn long_polls_and_streams_that_are_quiet_are_no_warning() {
    for state in [
        "select",
        "chan receive",
        "sync.Cond.Wait",
        "IO wait",
        "sleep",
    ] {
        let mut story = shop();
        // Some polls are answered at once, for there was news.
        answered(&mut story, 20, "GET /news", 3.0);
        for nth in 0..10 {
            taken(&mut story, 2_000.0, nth, "GET /poll");
        }
        let socket = pair(&mut story, 100.0, 50).1;
        story
            .http(
                socket,
                0,
                "GET /ws",
                Asked::at(101.0, 200).by(UPSTREAM, 150).answered(103.0, 101),
            )
            .exchange(socket, 1, Asked::at(9_000.0, 6).by(UPSTREAM, 150));
        standing(&mut story, &(100..151).collect::<Vec<_>>(), state);
        let found = found(&mut story);
        assert_eq!(warnings(&found), Vec::<&Finding>::new(), "{state}");
    }
}

#[test]
fn polls_of_one_path_of_which_some_have_news_are_no_warning() {
    let mut story = shop();
    answered(&mut story, 20, "GET /poll", 3.0);
    for nth in 0..10 {
        taken(&mut story, 2_000.0, nth, "GET /poll");
    }
    standing(&mut story, &(100..110).collect::<Vec<_>>(), "select");
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_poller_whose_client_leaves_and_comes_again_is_no_warning() {
    let mut story = shop();
    for nth in 0..10 {
        let at = 2_000.0 + 1_000.0 * f64::from(nth);
        let (theirs, ours) = taken(&mut story, at, nth, "GET /poll");
        story.local_closed(at + 700.0 + 37.0 * f64::from(nth), theirs);
        story.peer_closed(at + 700.1 + 37.0 * f64::from(nth), ours);
    }
    standing(&mut story, &(100..110).collect::<Vec<_>>(), "chan receive");
    let found = found(&mut story);
    assert!(!rules(&found).contains(&Rule::NoResponse));
}

#[test]
fn queueing_for_a_lock_that_is_handed_on_is_not_stuck() {
    let mut story = shop();
    for nth in 0..20_u16 {
        let (_, ours) = pair(&mut story, 0.0, 1_000 + nth);
        let done = 1_400.0 * f64::from(nth + 1);
        story.http(
            ours,
            0,
            "GET /order",
            Asked::at(1.0, 90).by(UPSTREAM, 7).answered(done, 200),
        );
    }
    taken(&mut story, 20_000.0, 1, "GET /order");
    standing(&mut story, &[101], "sync.Mutex.Lock");
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_protocol_that_promises_no_answer_is_not_held_to_one() {
    let mut story = shop();
    let (_, ours) = pair(&mut story, 0.0, 1);
    story.exchange(ours, 0, Asked::at(1.0, 9_000).by(UPSTREAM, 101));
    standing(&mut story, &[101], "chan send");
    assert_eq!(found(&mut story), []);
}

/// A connection on which a request lies unread since `at`.
fn unread(story: &mut Story, at: f64, nth: u16) -> (SocketId, SocketId) {
    let (theirs, ours) = pair(story, at, nth);
    story
        .http(theirs, 0, "GET /", Asked::at(at + 0.3, 90))
        .head(at + 0.4, ours, 0, "GET /")
        .unread(30_000.0, ours, at + 0.4, 90);
    (theirs, ours)
}

#[test]
fn a_process_that_does_not_run_leaves_requests_unread_and_is_told_so() {
    let mut story = shop();
    answered(&mut story, 5, "GET /", 3.0);
    for nth in 0..3 {
        unread(&mut story, 20_000.0 + f64::from(nth) * 500.0, nth);
    }
    story.goroutines(
        29_900.0,
        UPSTREAM,
        vec![goroutine(1, "IO wait", &IN_ACCEPT)],
    );
    let found = found(&mut story);
    let finding = only(&found, Rule::NoResponse);
    assert!(finding.severity >= Severity::Warning);
    assert_eq!(
        finding.title,
        "shop does not run: it left 3 requests on port 9001 unread"
    );
    assert!(
        finding.explanation.contains("SIGSTOP"),
        "{}",
        finding.explanation
    );
    assert!(finding.advice[0].contains("/proc/30/status"));
    assert_eq!(finding.measured.unread_bytes, Some(90));
}

#[test]
fn a_kept_connection_whose_next_request_is_unread_shows_a_stopped_process() {
    let mut story = shop();
    let (theirs, ours) = pair(&mut story, 0.0, 1);
    for (number, at) in [(0, 100.0), (1, 20_000.0)] {
        story.http(
            theirs,
            number,
            "GET /",
            if number == 0 {
                Asked::at(at, 90).answered(at + 2.0, 200)
            } else {
                Asked::at(at, 90)
            },
        );
    }
    story
        .http(
            ours,
            0,
            "GET /",
            Asked::at(100.1, 90).by(UPSTREAM, 101).answered(101.9, 200),
        )
        .unread(30_000.0, ours, 20_000.1, 90)
        .goroutines(
            29_900.0,
            UPSTREAM,
            vec![goroutine(101, "IO wait", &READING)],
        );
    let found = found(&mut story);
    assert!(
        only(&found, Rule::NoResponse)
            .title
            .starts_with("shop does not run")
    );
}

#[test]
fn an_accept_loop_that_is_elsewhere_is_named_with_its_line() {
    let mut story = shop();
    for nth in 0..3 {
        unread(&mut story, 20_000.0 + f64::from(nth) * 500.0, nth);
    }
    // Others, accepted before, are served on.
    let old = story.found_accepted(UPSTREAM, "127.0.0.1:39000", UPSTREAM_ADDRESS);
    story.http(
        old,
        3,
        "GET /",
        Asked::at(25_000.0, 90)
            .by(UPSTREAM, 9)
            .answered(25_001.0, 200),
    );
    story.goroutines(
        29_900.0,
        UPSTREAM,
        vec![goroutine(
            1,
            "chan receive",
            &[
                "main.(*limiter).Accept /srv/shop/limit.go:22",
                "net/http.(*Server).Serve /go/src/net/http/server.go:3424",
            ],
        )],
    );
    let found = found(&mut story);
    let finding = only(&found, Rule::NoResponse);
    assert!(finding.severity >= Severity::Warning);
    assert_eq!(
        finding.code.as_ref().unwrap().function,
        "main.(*limiter).Accept"
    );
    assert!(
        finding.title.contains("does not take its connections"),
        "{}",
        finding.title
    );
}

#[test]
fn read_and_never_read_are_two_findings() {
    let mut story = shop();
    answered(&mut story, 20, "GET /fast", 3.0);
    taken(&mut story, 2_000.0, 1, "POST /order");
    let admin = "127.0.0.1:9100";
    let theirs = story.connected(20_000.0, CLIENT, "127.0.0.1:41000", admin);
    let ours = story.accepted(20_000.1, UPSTREAM, "127.0.0.1:41000", admin);
    story
        .http(theirs, 0, "GET /", Asked::at(20_000.3, 90))
        .unread(30_000.0, ours, 20_000.4, 90);
    standing(&mut story, &[101], "chan send");
    let found = found(&mut story);
    let titles: Vec<&str> = found.iter().map(|finding| finding.title.as_str()).collect();
    assert_eq!(found.len(), 2, "{titles:?}");
    assert!(titles.iter().any(|title| title.contains("never answered")));
    assert!(titles.iter().any(|title| title.contains("unread")));
}

#[test]
fn a_server_that_takes_one_after_the_other_gets_more_time() {
    let mut story = Story::new();
    story.native(UPSTREAM, "single").go(CLIENT, "client");
    // It works on one request, while others wait.
    taken(&mut story, 25_000.0, 1, "GET /slow");
    for nth in 2..5 {
        unread(&mut story, 26_000.0, nth);
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn bytes_unread_for_a_moment_or_within_a_stream_are_no_finding() {
    let mut story = shop();
    unread(&mut story, 29_000.0, 1);
    // A websocket whose server never reads.
    let (_, ws) = pair(&mut story, 100.0, 2);
    story
        .http(
            ws,
            0,
            "GET /ws",
            Asked::at(101.0, 200).by(UPSTREAM, 102).answered(103.0, 101),
        )
        .unread(30_000.0, ws, 5_000.0, 6);
    // The body of an upload whose handler has not come to it.
    let (_, body) = pair(&mut story, 100.0, 3);
    story
        .http(
            body,
            0,
            "POST /upload",
            Asked::at(101.0, 200).by(UPSTREAM, 103),
        )
        .unread(30_000.0, body, 5_000.0, 60_000);
    // A process that went away.
    let gone = 31;
    story.go(gone, "gone");
    let left = story.accepted(10.0, gone, "127.0.0.1:45000", "127.0.0.1:9200");
    story
        .unread(20_000.0, left, 15_000.0, 60)
        .local_closed(20_000.0, left)
        .exited(20_000.0, gone);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_stopped_process_that_overflows_its_queue_is_one_story() {
    let mut story = shop();
    story.listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 2, 0));
    for nth in 0..3 {
        unread(&mut story, 20_000.0 + f64::from(nth), nth);
    }
    let late = story.connecting(20_010.0, CLIENT, "127.0.0.1:42000", UPSTREAM_ADDRESS);
    story
        .tell(
            21_020.0,
            Fact::Retransmitted {
                socket: late,
                syn: true,
            },
        )
        .listening(21_020.0, UPSTREAM, UPSTREAM_ADDRESS, (3, 2, 2))
        .goroutines(
            29_900.0,
            UPSTREAM,
            vec![goroutine(1, "IO wait", &IN_ACCEPT)],
        );
    let found = found(&mut story);
    assert_eq!(
        rules(&found),
        [Rule::AcceptBacklog, Rule::NoResponse, Rule::ConnectTimeout]
    );
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert_eq!(found[2].caused_by.as_deref(), Some("f1"));
}
