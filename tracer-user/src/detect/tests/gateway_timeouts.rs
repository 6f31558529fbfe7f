//! Services that answer 504 while how they gave up is not seen, and what looks like it.

use crate::model::story::goroutine;

use super::*;

const FRONT: Pid = 40;

/// Six requests that are answered with `status` after about `wait` ms, and as many quick ones, by a service with an
/// upstream.
fn front(wait: f64, status: u16) -> Story {
    let mut story = alone(wait, status);
    story.connected(1.0, FRONT, "10.0.0.1:39999", "10.0.0.7:81");
    story
}

/// The same without an upstream.
fn alone(wait: f64, status: u16) -> Story {
    let mut story = Story::new();
    story.go(FRONT, "front");
    for nth in 0..12_u16 {
        let at = 10.0 + 300.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 50_000 + nth);
        let socket = story.accepted(at - 1.0, FRONT, &client, "10.0.0.1:80");
        let late = nth % 2 == 0;
        let (wait, status) = if late {
            (wait + 0.1 * f64::from(nth), status)
        } else {
            (4.0, 200)
        };
        let asked = Asked::at(at, 90).by(FRONT, 100 + u64::from(nth));
        story.http(socket, 0, "GET /item", asked.answered(at + wait, status));
    }
    story
}

#[test]
fn a_service_that_answers_504_after_the_same_time_gave_up_on_its_upstream() {
    for limit in [490.0, 1_300.0] {
        let mut story = front(limit, 504);
        let handler = [
            "google.golang.org/grpc/internal/transport.(*Stream).waitOnHeader /go/pkg/mod/google.golang.org/grpc@v1.60.0/t.go:325",
            "main.(*Front).item /srv/front/item.go:21",
            "net/http.(*conn).serve /go/src/net/http/server.go:2145",
        ];
        let waiting = (0..3).map(|id| goroutine(100 + id, "select", &handler));
        story.goroutines(1_000.0, FRONT, waiting.collect());
        let found = found(&mut story);
        assert_eq!(rules(&found), [Rule::ProxyTimeout]);
        let gave_up = &found[0];
        assert_eq!(gave_up.severity, Severity::Critical);
        assert_eq!(gave_up.count, 6);
        let after = format!("after {:.3} s", limit / 1e3);
        assert!(gave_up.title.contains(&after), "{}", gave_up.title);
        assert_eq!(gave_up.setting, None);
        assert_eq!(gave_up.code.as_ref().unwrap().line, Some(21));
    }
}

#[test]
fn other_answers_and_504_without_a_wait_are_no_give_ups() {
    for (wait, status) in [(490.0, 500), (490.0, 200), (2.0, 504)] {
        let found = found(&mut front(wait, status));
        assert_eq!(rules(&found), [], "{wait} {status}");
    }
}

#[test]
fn a_504_that_is_passed_on_is_not_this_ones() {
    assert_eq!(rules(&found(&mut asking(504))), []);
}

#[test]
fn an_answer_that_cannot_be_read_may_be_a_504_that_is_passed_on() {
    assert_eq!(rules(&found(&mut asking(0))), []);
}

#[test]
fn another_answer_is_none_that_is_passed_on() {
    assert_eq!(rules(&found(&mut asking(200))), [Rule::ProxyTimeout]);
}

#[test]
fn where_nobody_is_seen_to_be_asked_nothing_is_concluded() {
    assert_eq!(rules(&found(&mut alone(490.0, 504))), []);
}

/// Answers 504 just after its upstream answered with this status; 0 under TLS.
fn asking(status: u16) -> Story {
    let mut story = front(490.0, 504);
    for nth in (0..12_u16).step_by(2) {
        let at = 10.0 + 300.0 * f64::from(nth);
        let ours = format!("10.0.0.1:{}", 40_000 + nth);
        let back = story.connected(at, FRONT, &ours, "10.0.0.7:81");
        let asked = Asked::at(at + 1.0, 90);
        story.exchange(back, 0, asked.answered(at + 488.0, status));
    }
    story
}
