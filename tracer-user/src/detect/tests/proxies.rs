use crate::event::Attribution;

use super::*;

#[test]
fn a_response_header_timeout_is_one_story_with_the_setting_the_line_and_the_harm() {
    for limit in [1000.0, 873.0, 2500.0] {
        let found = found(&mut large_uploads_fail(limit));
        assert_eq!(rules(&found), [Rule::ProxyTimeout, Rule::EmptyResponse]);
        let [proxy, empty] = &found[..] else { panic!() };
        assert_eq!(proxy.id, "f1");
        assert_eq!(proxy.process.comm, "gateway");
        assert_eq!(proxy.count, 3);
        assert_eq!(proxy.severity, Severity::Critical);
        assert!(proxy.confidence > 0.95, "{}", proxy.confidence);
        let setting = proxy.setting.as_ref().unwrap();
        assert_eq!(setting.name, "net/http.Transport.ResponseHeaderTimeout");
        assert_eq!(setting.value_s, Some(limit / 1e3));
        assert_eq!(
            proxy.code.as_ref().unwrap().function,
            "net/http.(*persistConn).roundTrip"
        );
        assert_eq!(proxy.measured.requests_harmed, Some(3));
        assert_eq!(proxy.measured.requests, Some(7));
        assert_eq!(proxy.measured.requests_fine, Some(4));
        assert_eq!(proxy.measured.harmed_by_status["none"], 3);
        assert_eq!(
            proxy.connection.unwrap().server.to_string(),
            UPSTREAM_ADDRESS
        );
        assert_eq!(
            proxy.related_connections[0].server.to_string(),
            GATEWAY_ADDRESS
        );
        assert_eq!(empty.caused_by.as_deref(), Some("f1"));
        assert_eq!(empty.count, 3);
        assert_eq!(empty.measured.requests_harmed, None, "harm is counted once");
    }
}

#[test]
fn the_upstreams_handler_still_at_work_is_named_with_its_line() {
    let found = found(&mut large_uploads_fail(1000.0));
    let proxy = &found[0];
    let upstream = proxy
        .goroutines
        .iter()
        .find(|g| g.process.comm == "upstream")
        .unwrap();
    assert_eq!(upstream.state, "sleep");
    assert_eq!(upstream.id, 77);
    assert!(
        proxy
            .explanation
            .contains("main.(*store).save (store.go:57)"),
        "{}",
        proxy.explanation
    );
    assert!(
        proxy.explanation.contains("0.500 s later, to nobody"),
        "{}",
        proxy.explanation
    );
    let gateway = proxy
        .goroutines
        .iter()
        .find(|g| g.process.comm == "gateway")
        .unwrap();
    assert_eq!(gateway.attribution, Attribution::Direct);
}

#[test]
fn small_requests_that_pass_are_told_apart_from_large_ones_that_do_not() {
    let found = found(&mut large_uploads_fail(1000.0));
    assert!(
        found[0].explanation.contains(
            "Small requests were answered (up to 900 bytes); the harmed ones had 195.5 KiB or more."
        ),
        "{}",
        found[0].explanation
    );
}

#[test]
fn the_evidence_is_one_occurrence_in_order_of_time() {
    let found = found(&mut large_uploads_fail(1000.0));
    let evidence = &found[0].evidence;
    assert!(evidence.is_sorted_by_key(|event| event.time));
    let events: Vec<_> = evidence.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(
        events,
        [
            "request", "forward", "sent", "decision", "close", "close", "late"
        ]
    );
    assert_eq!(
        found[0].wireshark_filter.as_deref(),
        Some(
            "(ip.addr==127.0.0.1 && tcp.port==53004 && tcp.port==9001) || (ip.addr==127.0.0.1 && tcp.port==36004 && tcp.port==9000)"
        )
    );
}

#[test]
fn a_gateway_that_answers_502_leaves_no_empty_response() {
    let mut story = gateway();
    for nth in 0..3 {
        let at = 1000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        story
            .http(
                legs.front,
                0,
                "GET /",
                Asked::at(at + 1.0, 90)
                    .by(GATEWAY, 5)
                    .answered(at + 803.0, 502),
            )
            .http(legs.back, 0, "GET /", Asked::at(at + 2.0, 90))
            .decision(
                at + 802.4,
                (GATEWAY, 5),
                Decider::TransportClose,
                Some(HEADERS),
                Some(legs.back),
            )
            .local_closed(at + 802.6, legs.back);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ProxyTimeout]);
    assert_eq!(found[0].measured.harmed_by_status["502"], 3);
    assert_eq!(found[0].setting.as_ref().unwrap().value_s, Some(0.8));
    assert!(found[0].explanation.contains("the client got status 502"));
}

#[test]
fn several_tries_for_one_request_harm_one_request() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story.http(
        legs.front,
        0,
        "GET /",
        Asked::at(1.0, 90).by(GATEWAY, 5).answered(2020.0, 504),
    );
    for (socket, at) in [
        (legs.back, 2.0),
        (
            story.connected(1004.0, GATEWAY, "127.0.0.1:53999", UPSTREAM_ADDRESS),
            1005.0,
        ),
    ] {
        story
            .http(socket, 0, "GET /", Asked::at(at, 90))
            .decision(
                at + 1000.3,
                (GATEWAY, 5),
                Decider::TransportClose,
                Some(HEADERS),
                Some(socket),
            )
            .local_closed(at + 1000.5, socket);
    }
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.count, 2);
    assert_eq!(proxy.measured.requests_harmed, Some(1));
}

#[test]
fn a_retry_that_saves_the_request_is_only_worth_knowing() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "GET /",
            Asked::at(1.0, 90).by(GATEWAY, 5).answered(1020.0, 200),
        )
        .http(legs.back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            1002.3,
            (GATEWAY, 5),
            Decider::TransportClose,
            Some(HEADERS),
            Some(legs.back),
        )
        .local_closed(1002.5, legs.back);
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ProxyTimeout).severity, Severity::Info);
}

#[test]
fn a_gateway_whose_client_left_first_is_not_accused() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(legs.front, 0, "GET /", Asked::at(1.0, 90).by(GATEWAY, 5))
        .http(legs.back, 0, "GET /", Asked::at(2.0, 90))
        .peer_closed(700.0, legs.front)
        .decision(
            700.2,
            (GATEWAY, 5),
            Decider::TransportCancel,
            Some("context canceled"),
            Some(legs.back),
        )
        .local_closed(700.4, legs.back)
        .local_closed(700.6, legs.front);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_client_that_timed_out_is_the_cause_and_the_gateway_is_not() {
    let mut story = gateway();
    story.go(CLIENT, "client");
    let legs = legs(&mut story, 0.0, 1);
    let asking = story.connected(0.0, CLIENT, "127.0.0.1:36001", GATEWAY_ADDRESS);
    story
        .http(asking, 0, "GET /", Asked::at(0.3, 90))
        .http(legs.front, 0, "GET /", Asked::at(1.0, 90).by(GATEWAY, 5))
        .http(legs.back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            700.1,
            (CLIENT, 1),
            Decider::TransportCancel,
            None,
            Some(asking),
        )
        .decision(
            700.2,
            (CLIENT, 1),
            Decider::ClientTimeoutChecked,
            None,
            None,
        )
        .local_closed(700.3, asking)
        .peer_closed(700.3, legs.front)
        .decision(
            700.5,
            (GATEWAY, 5),
            Decider::TransportCancel,
            Some("context canceled"),
            Some(legs.back),
        )
        .local_closed(700.7, legs.back)
        .local_closed(700.9, legs.front);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ClientTimeout]);
    assert_eq!(found[0].process.comm, "client");
    assert_eq!(
        found[0].setting.as_ref().unwrap().name,
        "net/http.Client.Timeout"
    );
}

#[test]
fn a_request_cancelled_because_another_answer_won_is_not_a_timeout() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "GET /",
            Asked::at(1.0, 90).by(GATEWAY, 5).answered(310.0, 200),
        )
        .http(legs.back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            300.0,
            (GATEWAY, 6),
            Decider::TransportCancel,
            Some("context canceled"),
            Some(legs.back),
        )
        .local_closed(300.2, legs.back);
    assert_eq!(found(&mut story), []);
}

#[test]
fn ordinary_closes_of_pooled_connections_are_not_timeouts() {
    for error in [
        "http: idle connection timeout",
        "http: server closed idle connection",
        "http: CloseIdleConnections called",
        "http: putIdleConn: too many idle connections for host",
        "read tcp 127.0.0.1:53001->127.0.0.1:9001: read: connection reset by peer",
        "http: persistConn.readLoop exiting",
        "write error: broken pipe",
    ] {
        let mut story = gateway();
        let legs = legs(&mut story, 0.0, 1);
        story
            .http(
                legs.front,
                0,
                "GET /",
                Asked::at(1.0, 90).by(GATEWAY, 5).answered(10.0, 200),
            )
            .http(legs.back, 0, "GET /", Asked::at(2.0, 90).answered(9.0, 200))
            .decision(
                9000.0,
                (GATEWAY, 8),
                Decider::TransportClose,
                Some(error),
                Some(legs.back),
            )
            .local_closed(9000.2, legs.back);
        assert_eq!(found(&mut story), [], "{error}");
    }
}

#[test]
fn a_context_deadline_that_harms_a_served_request_is_a_proxys() {
    let mut story = gateway();
    for nth in 0..2 {
        let at = 1000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        story
            .http(
                legs.front,
                0,
                "GET /",
                Asked::at(at + 1.0, 90)
                    .by(GATEWAY, 5)
                    .answered(at + 403.0, 503),
            )
            .http(legs.back, 0, "GET /", Asked::at(at + 2.0, 90))
            .decision(
                at + 402.2,
                (GATEWAY, 5),
                Decider::TransportCancel,
                Some("context deadline exceeded"),
                Some(legs.back),
            )
            .local_closed(at + 402.6, legs.back);
    }
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.setting.as_ref().unwrap().name, "context deadline");
    assert_eq!(proxy.count, 2);
}

#[test]
fn two_settings_of_one_process_are_two_findings() {
    let mut story = gateway();
    for nth in 0..6 {
        let limit = if nth % 2 == 0 { 500.2 } else { 1500.3 };
        upload_given_up(&mut story, 3000.0 * f64::from(nth), nth, limit);
    }
    let found = found(&mut story);
    let mut values: Vec<_> = found
        .iter()
        .filter(|finding| finding.rule == Rule::ProxyTimeout)
        .map(|finding| finding.setting.as_ref().unwrap().value_s.unwrap())
        .collect();
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [0.5, 1.5]);
}

#[test]
fn losses_lower_the_confidence_and_are_told() {
    let mut story = large_uploads_fail(1000.0);
    story.tell(
        50.0,
        crate::event::Fact::Lost {
            probe: "exchanges".into(),
            count: 12,
        },
    );
    let found = found(&mut story);
    assert!(found[0].confidence < 0.9);
    assert!(
        found[0]
            .incomplete
            .as_ref()
            .unwrap()
            .contains("12 records were lost")
    );
}

#[test]
fn an_upload_after_100_continue_is_given_up_on_all_the_same() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "POST /upload",
            Asked::at(1.0, 200).by(GATEWAY, 5).answered(3.0, 100),
        )
        .exchange(
            legs.front,
            1,
            Asked::at(4.0, 200_000).until(20.0).by(GATEWAY, 5),
        )
        .http(
            legs.back,
            0,
            "POST /upload",
            Asked::at(2.0, 200).answered(3.5, 100),
        )
        .exchange(legs.back, 1, Asked::at(5.0, 200_000).until(21.0))
        .decision(
            1021.4,
            (GATEWAY, 5),
            Decider::TransportClose,
            Some(HEADERS),
            Some(legs.back),
        )
        .local_closed(1021.6, legs.back)
        .local_closed(1021.8, legs.front);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ProxyTimeout, Rule::EmptyResponse]);
    assert_eq!(found[0].measured.request_bytes, Some(200_200));
    assert_eq!(found[0].setting.as_ref().unwrap().value_s, Some(1.0));
}

#[test]
fn whatever_cancelled_upstream_a_client_that_had_left_was_not_kept_waiting() {
    for (native, left) in [(false, 700.0), (true, 700.0)] {
        let mut story = if native { Story::new() } else { gateway() };
        story.native(GATEWAY, "proxy");
        for nth in 0..4_u16 {
            let at = 2000.0 * f64::from(nth);
            let legs = legs(&mut story, at, nth);
            let front = Asked::at(at + 1.0, 90).by(GATEWAY, 5);
            story
                .http(legs.front, 0, "GET /", front)
                .http(legs.back, 0, "GET /", Asked::at(at + 2.0, 90))
                .peer_closed(at + left, legs.front)
                .local_closed(at + left + 0.4, legs.back)
                .local_closed(at + left + 0.6, legs.front);
            if !native {
                let cancel = Decider::TransportCancel;
                story.decision(at + left + 0.2, (GATEWAY, 5), cancel, None, Some(legs.back));
            }
        }
        assert_eq!(found(&mut story), [], "native: {native}");
    }
}
