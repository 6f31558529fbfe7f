//! A server's own limits of time, with the deadlines that passed.

use super::*;
use crate::{
    event::{Fact, Snapshot, SnapshotSource},
    model::story::{frame, ms},
};

const SHOP: &str = "10.0.0.1:80";

fn shop() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    story
}

fn accepted(story: &mut Story, at: f64, nth: u16) -> SocketId {
    story.accepted(at, UPSTREAM, &format!("10.0.0.9:{}", 50000 + nth), SHOP)
}

/// An upload that comes slowly, until its time is over and the server answers with `status`.
fn slow_upload(story: &mut Story, at: f64, nth: u16, limit: f64, status: Option<u16>) -> SocketId {
    let socket = accepted(story, at, nth);
    let over = at + limit + 0.4;
    let upload = Asked::at(at + 1.0, 40_000)
        .until(over - 90.0)
        .by(UPSTREAM, 5);
    let upload = status.map_or(upload, |status| upload.answering(over + 0.3, status));
    let stack = match status {
        Some(_) => story.stack(&SERVE_CLOSES),
        None => story.stack(&panicked_in(&["main.abort /srv/shop/main.go:9"])),
    };
    story
        .http(socket, 0, "POST /upload", upload)
        .deadline(over, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(over + 0.5, socket, stack);
    socket
}

#[test]
fn an_upload_slower_than_read_timeout_is_told_with_its_rate() {
    for limit in [2000.0, 1350.0] {
        let mut story = shop();
        for nth in 0..3 {
            slow_upload(&mut story, 5000.0 * f64::from(nth), nth, limit, Some(400));
        }
        let found = found(&mut story);
        assert_eq!(rules(&found), [Rule::ServerTimeout]);
        let setting = found[0].setting.as_ref().unwrap();
        assert_eq!(setting.name, "net/http.Server.ReadTimeout");
        assert_eq!(setting.value_s, Some(limit / 1e3));
        assert_eq!(found[0].measured.harmed_by_status["400"], 3);
        assert_eq!(found[0].measured.requests_fine, Some(0));
        let rate = found[0].measured.request_rate_bytes.unwrap() as f64;
        assert!((rate - 40_000.0 / limit * 1e3).abs() < 100.0, "{rate}");
        assert!(found[0].explanation.contains("was still sending"));
        assert!(found[0].confidence > 0.95);
    }
}

#[test]
fn a_proxy_that_closes_with_nothing_when_its_time_to_read_is_over_is_one_story() {
    let mut story = shop();
    slow_upload(&mut story, 0.0, 1, 3000.0, None);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert_eq!(
        found[0].setting.as_ref().unwrap().name,
        "net/http.Server.ReadTimeout"
    );
    assert_eq!(found[0].measured.harmed_by_status["none"], 1);
}

#[test]
fn a_limit_counts_from_the_first_byte_of_a_later_request() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(socket, 0, "GET /", Asked::at(1.0, 90).answered(3.0, 200))
        .http(
            socket,
            1,
            "POST /upload",
            Asked::at(4000.0, 9_000)
                .until(5100.0)
                .answering(5200.6, 500),
        )
        .deadline(5200.2, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(5201.0, socket, stack);
    let found = found(&mut story);
    let setting = found[0].setting.as_ref().unwrap();
    assert_eq!(setting.value_s, Some(1.2));
}

#[test]
fn a_head_that_never_ends_is_removed_without_blame_unless_it_was_still_coming() {
    for (last_byte, severity) in [(20.0, Severity::Info), (900.0, Severity::Warning)] {
        let mut story = shop();
        let socket = accepted(&mut story, 0.0, 1);
        let stack = story.stack(&SERVE_CLOSES);
        story
            .http(
                socket,
                0,
                "GET /",
                Asked::at(1.0, 60).until(last_byte).by(UPSTREAM, 5),
            )
            .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
            .closed_at(1000.6, socket, stack);
        let found = found(&mut story);
        let head = only(&found, Rule::ServerTimeout);
        let setting = head.setting.as_ref().unwrap();
        assert_eq!(setting.name, "net/http.Server.ReadHeaderTimeout");
        assert_eq!(setting.value_s, Some(1.0));
        assert_eq!(head.severity, severity);
        assert!(found.iter().all(|finding| finding.severity <= severity));
    }
}

#[test]
fn a_header_cut_in_its_name_is_answered_by_the_server_itself() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    let asked = Asked::at(1.0, 60).until(900.0);
    story
        .http(socket, 0, "POST /", asked.answering(1000.5, 400).sized(103))
        .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(1000.6, socket, stack);
    let found = found(&mut story);
    let head = only(&found, Rule::ServerTimeout);
    let setting = head.setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.Server.ReadHeaderTimeout");
}

#[test]
fn an_answer_after_write_timeout_is_thrown_away_and_the_handler_is_named() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(
            socket,
            0,
            "GET /report",
            Asked::at(1.0, 90).by(UPSTREAM, 77),
        )
        .deadline(801.3, UPSTREAM, socket, Decider::WriteDeadline)
        .look(801.5, socket, UPSTREAM, saving())
        .closed_at(2400.0, socket, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    let setting = found[0].setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.Server.WriteTimeout");
    assert_eq!(setting.value_s, Some(0.8));
    assert_eq!(found[0].code.as_ref().unwrap().line, Some(57));
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}

#[test]
fn a_download_cut_by_write_timeout_is_told_whoever_is_the_last_to_leave() {
    let reader = ["net/http.(*connReader).backgroundRead /go/src/net/http/server.go:746"];
    for closer in [&SERVE_CLOSES[..], &reader] {
        let mut story = shop();
        let socket = accepted(&mut story, 0.0, 1);
        let stack = story.stack(closer);
        story
            .http(
                socket,
                0,
                "GET /file",
                Asked::at(1.0, 90).by(UPSTREAM, 5).answering(3.0, 200),
            )
            .deadline(1001.3, UPSTREAM, socket, Decider::WriteDeadline)
            .closed_at(1001.6, socket, stack);
        let found = found(&mut story);
        let cut = only(&found, Rule::ServerTimeout);
        let setting = cut.setting.as_ref().unwrap();
        assert_eq!(setting.name, "net/http.Server.WriteTimeout");
        assert_eq!(cut.measured.harmed_by_status["200"], 1);
        assert!(cut.explanation.contains("got a part of the response"));
        assert!(cut.confidence < 0.9, "the response may have been whole");
    }
}

#[test]
fn the_broken_upload_of_a_gateway_reaches_its_client_as_one_story() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    let upload = |at| Asked::at(at, 90_000).until(900.0);
    let stack = story.stack(&SERVE_CLOSES);
    let front = upload(1.0).by(GATEWAY, 5).answered(1002.0, 502);
    story
        .http(legs.front, 0, "GET /slow", front)
        .http(legs.back, 0, "GET /slow", upload(2.0))
        .http(legs.far, 0, "GET /slow", upload(2.1).by(UPSTREAM, 7))
        .deadline(500.0, UPSTREAM, legs.far, Decider::WriteDeadline)
        .closed_at(1001.0, legs.far, stack)
        .peer_closed(1001.1, legs.back)
        .local_closed(1001.5, legs.back);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert_eq!(
        found[0].related_connections[0].server.to_string(),
        GATEWAY_ADDRESS
    );
}

#[test]
fn an_idle_connection_may_be_closed() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    story
        .http(socket, 0, "GET /", Asked::at(1.0, 90).answered(3.0, 200))
        .deadline(2003.2, UPSTREAM, socket, Decider::ReadDeadline)
        .local_closed(2003.4, socket);
    let quiet = accepted(&mut story, 0.0, 2);
    story
        .deadline(2000.2, UPSTREAM, quiet, Decider::ReadDeadline)
        .local_closed(2000.4, quiet);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_body_that_nobody_reads_may_pass_its_deadline() {
    let mut story = shop();
    for (nth, answered, status) in [(1, 4000.0, 500), (2, 1000.8, 200)] {
        let socket = accepted(&mut story, 0.0, nth);
        let stack = story.stack(&SERVE_CLOSES);
        story
            .http(
                socket,
                0,
                "POST /ping",
                Asked::at(1.0, 90).answering(answered, status),
            )
            .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
            .closed_at(answered + 1.0, socket, stack);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn who_left_before_the_deadline_was_not_cut_off() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(socket, 0, "GET /", Asked::at(1.0, 90).by(UPSTREAM, 5))
        .peer_closed(700.0, socket)
        .deadline(1001.0, UPSTREAM, socket, Decider::WriteDeadline)
        .closed_at(1500.0, socket, stack);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_server_that_is_shut_down_is_not_accused() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    story
        .decision(900.0, (UPSTREAM, 1), Decider::ServerShutdown, None, None)
        .http(socket, 0, "POST /", Asked::at(1.0, 90).until(950.0))
        .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(1000.6, socket, stack);
    assert_eq!(found(&mut story), []);
}

#[test]
fn websockets_keep_their_own_time() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(socket, 0, "GET /ws", Asked::at(1.0, 200).answered(3.0, 101))
        .exchange(socket, 1, Asked::at(900.0, 30).until(950.0))
        .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(1000.6, socket, stack);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_server_of_its_own_kind_has_a_deadline_and_no_http_setting() {
    for head in [true, false] {
        let mut story = shop();
        let socket = accepted(&mut story, 0.0, 1);
        let stack = story.stack(&["net.(*conn).Close", "main.serve /srv/shop/serve.go:20"]);
        if head {
            story.head(1.0, socket, 0, "POST /");
        }
        story
            .exchange(socket, 0, Asked::at(1.0, 9_000).until(950.0))
            .deadline(1000.3, UPSTREAM, socket, Decider::ReadDeadline)
            .unread(1000.5, socket, 1000.4, 100)
            .aborted(1000.5, socket, stack);
        let found = found(&mut story);
        let cut = only(&found, Rule::ServerTimeout);
        assert_eq!(cut.setting.as_ref().unwrap().name, "net.Conn deadline");
        assert_eq!(cut.severity, Severity::Warning, "head: {head}");
    }
}

#[test]
fn a_sink_that_closes_silent_senders_is_not_accused() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    let stack = story.stack(&["net.(*conn).Close", "main.serve /srv/shop/serve.go:20"]);
    story
        .exchange(socket, 0, Asked::at(1.0, 9_000).until(2_000.0))
        .deadline(7000.3, UPSTREAM, socket, Decider::ReadDeadline)
        .closed_at(7000.5, socket, stack);
    assert_eq!(found(&mut story), []);
}

fn timed_out_handlers(story: &mut Story, waits: &[f64]) {
    let socket = accepted(story, 0.0, 1);
    for (nth, wait) in waits.iter().enumerate() {
        let at = 1.0 + 3000.0 * nth as f64;
        let asked = Asked::at(at, 90).by(UPSTREAM, 5).answered(at + wait, 503);
        story.http(socket, nth as u32, "GET /slow", asked);
    }
}

fn snapshot(story: &mut Story) {
    let mut goroutine = saving();
    goroutine.created_by = Some(crate::event::Creation {
        frame: frame("net/http.(*timeoutHandler).ServeHTTP /go/src/net/http/server.go:4060"),
        goroutine: Some(5),
    });
    story.tell(
        9000.0,
        Fact::Goroutines(Snapshot {
            pid: UPSTREAM,
            source: SnapshotSource::Memory,
            total: 1,
            goroutines: vec![goroutine],
        }),
    );
}

#[test]
fn a_timeout_handler_is_known_by_the_goroutine_that_works_on() {
    let mut story = shop();
    timed_out_handlers(&mut story, &[700.4, 700.9, 701.2]);
    snapshot(&mut story);
    let found = found(&mut story);
    let cut = only(&found, Rule::ServerTimeout);
    let setting = cut.setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.TimeoutHandler");
    assert_eq!(setting.value_s, Some(0.7));
    assert!(cut.explanation.contains("main.(*store).save (store.go:57)"));
    assert_eq!(cut.measured.harmed_by_status["503"], 3);
}

#[test]
fn equal_waits_for_503_alone_name_no_setting() {
    let mut story = shop();
    timed_out_handlers(&mut story, &[700.4, 700.9, 701.2, 702.0]);
    let found = found(&mut story);
    let cut = only(&found, Rule::ServerTimeout);
    assert_eq!(cut.setting, None);
    assert!(cut.confidence < 0.8);
}

#[test]
fn a_service_that_refuses_work_has_no_time_limit() {
    for waits in [[0.4, 0.5, 0.4, 0.6], [300.0, 900.0, 1800.0, 90.0]] {
        let mut story = shop();
        timed_out_handlers(&mut story, &waits);
        assert_eq!(found(&mut story), [], "{waits:?}");
    }
}

#[test]
fn a_503_that_comes_from_the_upstream_is_not_the_gateways_limit() {
    let mut story = gateway();
    for nth in 0..4 {
        let at = 2000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        let front = Asked::at(at + 1.0, 90).by(GATEWAY, 5);
        story
            .http(legs.front, 0, "GET /", front.answered(at + 700.0, 503))
            .http(
                legs.back,
                0,
                "GET /",
                Asked::at(at + 2.0, 90).answered(at + 699.0, 503),
            );
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_deadline_that_passes_at_the_end_of_the_window_is_no_verdict_yet() {
    let mut story = shop();
    let socket = accepted(&mut story, 0.0, 1);
    story
        .http(socket, 0, "GET /", Asked::at(1.0, 90).by(UPSTREAM, 5))
        .deadline(29_999.0, UPSTREAM, socket, Decider::WriteDeadline);
    assert!(ms(29_999.0) < ms(30_000.0));
    assert_eq!(found(&mut story), []);
}
