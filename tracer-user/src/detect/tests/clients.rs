use crate::event::{ConnectFailure, Fact};

use super::*;

fn client(version: &str) -> Story {
    let mut story = Story::new();
    story.process(CLIENT, "client", Some(version));
    story
}

/// A request given up on by cancelling it.
fn cancelled(story: &mut Story, nth: u16, wait: f64, error: Option<&str>, client_timeout: bool) {
    let at = 2000.0 * f64::from(nth);
    let address = format!("10.0.0.1:{}", 40000 + nth);
    let socket = story.connected(at, CLIENT, &address, "10.0.0.2:80");
    let goroutine = 30 + u64::from(nth);
    story
        .http(socket, 0, "GET /report", Asked::at(at + 0.3, 90))
        .decision(
            at + wait,
            (CLIENT, goroutine),
            Decider::TransportCancel,
            error,
            Some(socket),
        )
        .local_closed(at + wait + 0.3, socket);
    if client_timeout {
        story.decision(
            at + wait + 0.5,
            (CLIENT, goroutine),
            Decider::ClientTimeoutChecked,
            None,
            None,
        );
    }
}

#[test]
fn client_timeout_and_context_deadline_are_told_apart() {
    for (checked, name) in [
        (true, "net/http.Client.Timeout"),
        (false, "context deadline"),
    ] {
        for limit in [500.0, 730.0] {
            let mut story = client("go1.27.3");
            for nth in 0..3 {
                cancelled(
                    &mut story,
                    nth,
                    limit + 0.1 + f64::from(nth) * 0.3,
                    None,
                    checked,
                );
            }
            let found = found(&mut story);
            let finding = only(&found, Rule::ClientTimeout);
            let setting = finding.setting.as_ref().unwrap();
            assert_eq!(setting.name, name);
            assert_eq!(setting.value_s, Some(limit / 1e3));
            assert_eq!(finding.count, 3);
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.confidence > 0.9);
        }
    }
}

#[test]
fn a_context_deadline_told_in_words_is_surer() {
    let of = |error| {
        let mut story = client("go1.27.3");
        cancelled(&mut story, 0, 500.2, error, false);
        only(&found(&mut story), Rule::ClientTimeout).confidence
    };
    assert!(of(Some("context deadline exceeded")) > of(None));
}

#[test]
fn deadlines_that_differ_are_one_finding_without_a_value() {
    let mut story = client("go1.27.3");
    for (nth, wait) in [200.0, 480.0, 900.0].into_iter().enumerate() {
        cancelled(
            &mut story,
            nth as u16,
            wait,
            Some("context deadline exceeded"),
            false,
        );
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ClientTimeout);
    assert_eq!(finding.count, 3);
    assert_eq!(finding.setting.as_ref().unwrap().value_s, None);
    assert_eq!(finding.measured.waited_max_s, Some(0.9));
}

#[test]
fn a_cancelled_request_is_not_a_timeout() {
    let mut story = client("go1.27.3");
    cancelled(&mut story, 0, 500.0, Some("context canceled"), true);
    cancelled(
        &mut story,
        1,
        500.0,
        Some("net/http: request canceled"),
        false,
    );
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_stream_left_by_its_deadline_is_only_worth_knowing() {
    let mut story = client("go1.27.3");
    let socket = story.connected(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:80");
    story
        .http(
            socket,
            0,
            "GET /watch",
            Asked::at(0.3, 90).answering(2.0, 200),
        )
        .decision(
            3000.0,
            (CLIENT, 30),
            Decider::TransportCancel,
            None,
            Some(socket),
        )
        .local_closed(3000.3, socket);
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ClientTimeout).severity, Severity::Info);
}

#[test]
fn client_timeout_in_mid_body_is_found_though_another_goroutine_looks() {
    let mut story = client("go1.27.3");
    let socket = story.connected(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:80");
    let stack = story.stack(&[
        "net/http.(*persistConn).cancelRequest /go/src/net/http/transport.go:2332",
        "net/http.(*persistConn).readLoop /go/src/net/http/transport.go:2640",
    ]);
    story
        .http(
            socket,
            0,
            "GET /big",
            Asked::at(0.3, 90).answering(2.0, 200),
        )
        .tell(
            1000.2,
            Fact::Decision(crate::event::Decision {
                decider: Decider::TransportCancel,
                socket: Some(socket),
                actor: crate::model::story::actor(CLIENT, 44),
                error: None,
                stack,
            }),
        )
        .decision(
            1000.6,
            (CLIENT, 30),
            Decider::ClientTimeoutChecked,
            None,
            None,
        )
        .local_closed(1000.7, socket);
    let found = found(&mut story);
    let finding = only(&found, Rule::ClientTimeout);
    assert_eq!(
        finding.setting.as_ref().unwrap().name,
        "net/http.Client.Timeout"
    );
    assert_eq!(finding.severity, Severity::Warning);
}

const DIAL: [&str; 5] = [
    "internal/poll.(*FD).Close /go/src/internal/poll/fd_unix.go:110",
    "net.(*netFD).Close /go/src/net/fd_posix.go:44",
    "net.socket /go/src/net/sock_posix.go:75",
    "net.(*sysDialer).doDialTCPProto /go/src/net/tcpsock_posix.go:85",
    "net.(*sysDialer).dialSingle /go/src/net/dial.go:680",
];

fn dial(story: &mut Story, above: &[&str], wait: f64) -> SocketId {
    let mut stack = DIAL.to_vec();
    stack.extend(above);
    let stack = story.stack(&stack);
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    story.connect_failed(wait, socket, ConnectFailure::Abandoned, stack);
    socket
}

#[test]
fn a_dialers_timeout_is_named_where_nothing_else_can_bound_the_dial() {
    for above in [
        vec![
            "net.(*Dialer).DialContext",
            "net.(*Dialer).Dial",
            "net.DialTimeout",
            "main.main",
        ],
        vec![
            "net.(*Dialer).DialContext",
            "net/http.(*Transport).dialConn",
            "net/http.(*Transport).dialConnFor",
        ],
    ] {
        let mut story = client("go1.27.3");
        dial(&mut story, &above, 400.1);
        let found = found(&mut story);
        let finding = only(&found, Rule::ClientTimeout);
        let setting = finding.setting.as_ref().unwrap();
        assert_eq!(setting.name, "net.Dialer.Timeout");
        assert_eq!(setting.value_s, Some(0.4));
    }
}

#[test]
fn a_dial_that_a_context_may_have_ended_names_no_setting_but_both_possibilities() {
    let mut story = client("go1.27.3");
    dial(
        &mut story,
        &["net.(*Dialer).DialContext", "main.connect"],
        400.1,
    );
    let found = found(&mut story);
    let finding = only(&found, Rule::ClientTimeout);
    assert_eq!(finding.setting, None);
    assert_eq!(
        finding.severity,
        Severity::Info,
        "it may have been called off"
    );
    for possibility in ["net.Dialer.Timeout", "http.Client.Timeout"] {
        assert!(
            finding.explanation.contains(possibility),
            "{}",
            finding.explanation
        );
    }
}

#[test]
fn dials_under_a_context_that_end_alike_were_ended_by_a_timer() {
    let mut story = client("go1.22.1");
    let stack = story.stack(&[DIAL[4], "net/http.(*Transport).dialConnFor"]);
    for nth in 0..4_u16 {
        let at = 1000.0 * f64::from(nth);
        let socket = story.connecting(
            at,
            CLIENT,
            &format!("10.0.0.1:{}", 40000 + nth),
            "10.9.9.9:80",
        );
        story.connect_failed(at + 350.2, socket, ConnectFailure::Abandoned, stack);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ClientTimeout);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.setting, None);
    assert!(finding.confidence > 0.8);
}

#[test]
fn a_dial_whose_stack_was_cut_is_ended_by_what_ended_another_as_late() {
    let mut story = client("go1.27.3");
    let whole = story.stack(&[DIAL[4], "net/http.(*Transport).dialConnFor"]);
    let cut = story.stack(&DIAL[..4]);
    for (nth, wait, stack) in [(0, 350.2, cut), (1, 350.1, whole), (2, 700.0, cut)] {
        let at = 1000.0 * f64::from(nth);
        let ours = format!("10.0.0.1:{}", 40000 + nth);
        let socket = story.connecting(at, CLIENT, &ours, "10.9.9.9:80");
        story.connect_failed(at + wait, socket, ConnectFailure::Abandoned, stack);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ClientTimeout; 2]);
    let counts: Vec<_> = found
        .iter()
        .map(|finding| (finding.setting.is_some(), finding.count))
        .collect();
    assert_eq!(counts, [(true, 2), (false, 1)]);
}

#[test]
fn an_unanswered_syn_is_the_cause_and_the_dialers_timeout_its_consequence() {
    let mut story = client("go1.27.3");
    let socket = dial(
        &mut story,
        &["net.(*Dialer).DialContext", "net.(*Dialer).Dial"],
        2000.1,
    );
    story.tell(1010.0, Fact::Retransmitted { socket, syn: true });
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectTimeout, Rule::ClientTimeout]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert_eq!(found[1].setting.as_ref().unwrap().value_s, Some(2.0));
}

#[test]
fn client_timeout_runs_out_while_the_dial_goes_on_behind_it() {
    let mut story = client("go1.27.3");
    let socket = story.connecting(100.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    let stack = story.stack(&[DIAL[4], "net/http.(*Transport).dialConnFor"]);
    story
        .tell(1100.0, Fact::Retransmitted { socket, syn: true })
        .decision(
            1599.9,
            (CLIENT, 7),
            Decider::ClientTimeoutChecked,
            None,
            None,
        )
        .connect_failed(10_100.0, socket, ConnectFailure::Abandoned, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectTimeout, Rule::ClientTimeout]);
    let setting = found[1].setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.Client.Timeout");
    assert_eq!(setting.value_s, Some(1.5));
}

#[test]
fn a_look_at_the_timeout_after_another_error_blames_no_dial() {
    let mut story = client("go1.27.3");
    story.connecting(900.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    let refused = story.connecting(999.0, CLIENT, "10.0.0.1:40001", "10.9.9.8:80");
    story
        .connect_failed(999.2, refused, ConnectFailure::Refused, None)
        .decision(
            999.5,
            (CLIENT, 7),
            Decider::ClientTimeoutChecked,
            None,
            None,
        );
    let found = findings(&story.model(1500.0));
    assert_eq!(rules(&found), [Rule::ConnectRefused]);
}

#[test]
fn equal_waits_without_a_decision_make_a_client_timeout() {
    let mut story = Story::new();
    story.native(CLIENT, "worker");
    for nth in 0..5_u16 {
        let at = 3000.0 * f64::from(nth);
        let socket = story.connected(
            at,
            CLIENT,
            &format!("10.0.0.1:{}", 40000 + nth),
            "10.0.0.2:80",
        );
        story
            .http(socket, 0, "GET /", Asked::at(at + 0.3, 90))
            .local_closed(at + 2000.9 + f64::from(nth), socket);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ClientTimeout);
    assert_eq!(finding.setting, None);
    assert_eq!(finding.count, 5);
    assert!(finding.confidence < 0.8);
}

#[test]
fn leaving_once_without_a_seen_reason_is_no_timeout() {
    let mut story = Story::new();
    story.native(CLIENT, "curl");
    let socket = story.connected(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:80");
    story
        .http(socket, 0, "GET /", Asked::at(0.3, 90))
        .local_closed(2000.0, socket);
    assert_eq!(found(&mut story), []);
}

#[test]
fn who_leaves_at_once_again_and_again_had_another_reason_than_time() {
    let mut story = Story::new();
    story.native(CLIENT, "prober");
    for nth in 0..10_u16 {
        let at = 1000.0 * f64::from(nth);
        let address = format!("10.0.0.1:{}", 40000 + nth);
        let socket = story.connected(at, CLIENT, &address, "10.0.0.2:80");
        story
            .http(socket, 0, "GET /", Asked::at(at + 0.3, 90))
            .local_closed(at + 5.0, socket);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_clients_timeout_that_only_coincides_with_a_served_failure_is_no_proxys() {
    let mut story = large_uploads_fail(1000.0);
    let failing = 4000.0 + 20.0 + 1000.3;
    let socket = story.connected(4_100.0, GATEWAY, "127.0.0.1:59999", "127.0.0.1:4317");
    let deadline = Some("context deadline exceeded");
    story
        .http(socket, 0, "POST /v1/traces", Asked::at(4_100.3, 90))
        .decision(
            failing - 0.2,
            (GATEWAY, 999),
            Decider::TransportCancel,
            deadline,
            Some(socket),
        )
        .local_closed(failing - 0.1, socket);
    let found = found(&mut story);
    let exporter = only(&found, Rule::ClientTimeout);
    assert_eq!(exporter.setting.as_ref().unwrap().name, "context deadline");
    assert_eq!(
        only(&found, Rule::ProxyTimeout).measured.requests_harmed,
        Some(3)
    );
}
