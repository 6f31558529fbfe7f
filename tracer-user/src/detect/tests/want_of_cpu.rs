//! Waits whose cause is the scheduler's, told with that cause; and those that only look like it.

use crate::{
    event::{Quota, Waiting},
    model::story::{goroutine, thread},
};

use super::*;

const IN_ACCEPT: [&str; 3] = [
    "internal/poll.(*FD).Accept /go/src/internal/poll/fd_unix.go:613",
    "net.(*TCPListener).Accept /go/src/net/tcpsock.go:380",
    "net/http.(*Server).Serve /go/src/net/http/server.go:3424",
];

/// An accept loop that has a connection in hand.
const AT_HAND: [&str; 2] = [
    "net/http.(*Server).newConn /go/src/net/http/server.go:630",
    "net/http.(*Server).Serve /go/src/net/http/server.go:3460",
];

/// The quota of 10 ms in each 100 ms, used up in `throttled` periods of 300.
fn quota(throttled: u64) -> Quota {
    Quota {
        pid: UPSTREAM,
        cgroup: "/web".into(),
        quota: Some(Duration::from_millis(10)),
        period: Duration::from_millis(100),
        periods: 300,
        throttled_periods: throttled,
        throttled: Duration::from_millis(90 * throttled),
    }
}

/// The upstream's quota stops its thread, `goroutine` on it, for the last 90 ms of each period.
fn throttle(story: &mut Story, (from, until): (f64, f64), goroutine: Option<u64>) {
    let mut at = from;
    while at < until {
        story.samples((at, at + 10.0), (UPSTREAM, goroutine), None, 1);
        story.waited(
            (at + 10.0, (at + 100.0).min(until)),
            (UPSTREAM, UPSTREAM, goroutine),
            Waiting::Throttled,
            None,
        );
        at += 100.0;
    }
}

fn limited(story: &mut Story) {
    story.thread(0.0, thread(UPSTREAM, UPSTREAM));
    story.quota(0.0, quota(0)).quota(29_900.0, quota(60));
}

/// An upload on which the gateway gives up after a second, at the upstream's goroutine 77.
fn given_up(throttled: bool) -> Vec<Finding> {
    let mut story = gateway();
    for nth in 0..4 {
        upload_answered(&mut story, 100.0 * f64::from(nth), nth);
    }
    limited(&mut story);
    upload_given_up(&mut story, 4_000.0, 4, 1_000.0);
    if throttled {
        throttle(&mut story, (4_020.0, 5_500.0), Some(77));
    } else {
        // Others of the process are stopped meanwhile; this one sleeps.
        throttle(&mut story, (4_020.0, 5_500.0), Some(9));
    }
    found(&mut story)
}

#[test]
fn an_upstream_that_its_quota_stopped_is_the_cause_of_the_proxys_timeout() {
    let found = given_up(true);
    assert_eq!(
        rules(&found),
        [Rule::CpuThrottled, Rule::ProxyTimeout, Rule::EmptyResponse]
    );
    let [quota, proxy, empty] = &found[..] else {
        panic!()
    };
    assert_eq!(quota.process.comm, "upstream");
    assert_eq!(proxy.caused_by.as_deref(), Some("f1"));
    assert_eq!(empty.caused_by.as_deref(), Some("f2"));
    // A cause is as bad as what it causes.
    assert_eq!(quota.severity, proxy.severity);
    assert!(proxy.severity >= Severity::Warning);
    assert!(
        proxy.explanation.starts_with("upstream hardly ran"),
        "{}",
        proxy.explanation
    );
    let stopped = proxy.measured.parts_s["throttled"];
    assert!((0.8..1.0).contains(&stopped), "{stopped}");
    assert!(proxy.advice[1].contains("CPU"), "{:?}", proxy.advice);
}

#[test]
fn a_handler_that_sleeps_while_others_are_stopped_is_the_proxys_own_story() {
    let found = given_up(false);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.caused_by, None);
    assert!(proxy.measured.parts_s.is_empty());
    assert!(proxy.explanation.contains("main.(*store).save"));
}

/// Requests that lie unread in the upstream's sockets for 2.9 s, until it closes them.
fn lie_unread(story: &mut Story) -> Vec<SocketId> {
    let lies = |nth: u16| {
        let client = format!("127.0.0.1:{}", 40_000 + nth);
        let at = 20_000.0 + f64::from(nth);
        let socket = story.accepted(at, UPSTREAM, &client, UPSTREAM_ADDRESS);
        story.unread(at + 2_900.0, socket, at + 1.0, 90);
        socket
    };
    (0..3).map(lies).collect()
}

/// The same, where the upstream closes them in the end, and one goroutine is there.
fn unread(story: &mut Story, serving: &[&str], state: &str) {
    for socket in lie_unread(story) {
        story.local_closed(22_905.0, socket).gone(22_906.0, socket);
    }
    story.goroutines(29_900.0, UPSTREAM, vec![goroutine(1, state, serving)]);
}

fn upstream() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "upstream");
    story
}

#[test]
fn requests_that_lie_unread_while_a_quota_stops_the_process_are_told_as_its_consequence() {
    for (frames, state) in [(&IN_ACCEPT[..], "IO wait"), (&AT_HAND[..], "runnable")] {
        let mut story = upstream();
        limited(&mut story);
        throttle(&mut story, (20_000.0, 23_000.0), Some(9));
        unread(&mut story, frames, state);
        let found = found(&mut story);
        assert_eq!(rules(&found), [Rule::CpuThrottled, Rule::NoResponse]);
        let told = only(&found, Rule::NoResponse);
        assert_eq!(told.caused_by.as_deref(), Some("f1"));
        assert!(told.title.contains("too little CPU"), "{}", told.title);
        for wrong in ["does not run", "in Accept", "SIGSTOP"] {
            assert!(!told.explanation.contains(wrong), "{}", told.explanation);
        }
        assert!(
            told.explanation
                .contains("the quota of its cgroup stopped upstream for 2.6"),
            "{}",
            told.explanation
        );
        assert_eq!(found[0].severity, told.severity);
    }
}

#[test]
fn an_accept_loop_that_stands_at_a_lock_is_stuck_whatever_the_quota_does() {
    let mut story = upstream();
    limited(&mut story);
    throttle(&mut story, (20_000.0, 23_000.0), Some(9));
    unread(&mut story, &AT_HAND, "sync.Mutex.Lock");
    let found = found(&mut story);
    let told = only(&found, Rule::NoResponse);
    assert!(
        told.title.contains("does not take its connections"),
        "{}",
        told.title
    );
}

#[test]
fn a_host_without_a_free_cpu_is_why_requests_lie_unread() {
    let mut story = upstream();
    story.thread(0.0, thread(UPSTREAM, UPSTREAM));
    for nth in 0..30 {
        let at = 20_000.0 + 100.0 * f64::from(nth);
        let thread = (UPSTREAM, UPSTREAM, None);
        let by = Some((70, "xz"));
        story.waited((at, at + 95.0), thread, Waiting::Preempted, by);
    }
    unread(&mut story, &IN_ACCEPT, "IO wait");
    let found = found(&mut story);
    let told = only(&found, Rule::NoResponse);
    assert!(
        told.explanation
            .contains("could have run, and no CPU was free"),
        "{}",
        told.explanation
    );
}

#[test]
fn an_accept_loop_that_waits_for_its_turn_is_not_said_to_be_elsewhere() {
    let mut story = upstream();
    unread(&mut story, &AT_HAND, "runnable");
    let found = found(&mut story);
    let told = only(&found, Rule::NoResponse);
    assert!(
        told.explanation.contains("has not got its turn"),
        "{}",
        told.explanation
    );
    assert!(
        !told.explanation.contains("nobody takes"),
        "{}",
        told.explanation
    );
    assert!(told.title.contains("too little CPU"), "{}", told.title);
}

#[test]
fn a_process_that_is_stopped_wants_no_cpu() {
    let mut story = upstream();
    limited(&mut story);
    throttle(&mut story, (5_000.0, 9_000.0), Some(9));
    lie_unread(&mut story);
    story.goroutines(
        29_900.0,
        UPSTREAM,
        vec![goroutine(1, "IO wait", &IN_ACCEPT)],
    );
    let found = found(&mut story);
    let told = only(&found, Rule::NoResponse);
    assert!(told.title.contains("does not run"), "{}", told.title);
    assert_eq!(told.caused_by, None);
}
