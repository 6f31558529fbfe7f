use super::*;

#[test]
fn the_same_trace_pairs_the_legs_where_no_goroutine_does() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    let trace = "GET /a 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let child = "GET /a 00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
    story
        .http(
            legs.front,
            0,
            trace,
            Asked::at(1.0, 90).answered(1010.0, 500),
        )
        .http(legs.back, 0, child, Asked::at(2.0, 90))
        .decision(
            1002.3,
            (GATEWAY, 9),
            Decider::TransportClose,
            Some(HEADERS),
            Some(legs.back),
        )
        .local_closed(1002.5, legs.back);
    let found = found(&mut story);
    assert!(only(&found, Rule::ProxyTimeout).confidence > 0.95);
}

#[test]
fn a_pairing_that_fits_several_requests_is_less_sure() {
    let mut story = gateway();
    let one = legs(&mut story, 0.0, 1);
    let two = legs(&mut story, 0.0, 2);
    for front in [one.front, two.front] {
        story.http(front, 0, "GET /", Asked::at(1.0, 90).answered(1010.0, 502));
    }
    story
        .http(one.back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            1002.3,
            (GATEWAY, 9),
            Decider::TransportClose,
            Some(HEADERS),
            Some(one.back),
        )
        .local_closed(1002.5, one.back);
    let found = found(&mut story);
    assert!(only(&found, Rule::ProxyTimeout).confidence < 0.8);
}

#[test]
fn the_transports_writer_that_reads_the_clients_body_pairs_the_legs() {
    // The body of an upload is read from the client by the goroutine that writes it upstream, and
    // the path may be rewritten on the way.
    let mut story = gateway();
    let one = legs(&mut story, 0.0, 1);
    let other = legs(&mut story, 0.0, 2);
    story
        .http(
            one.front,
            0,
            "POST /api/a",
            Asked::at(1.0, 90_000)
                .until(9.0)
                .by(GATEWAY, 61)
                .answered(1012.0, 502),
        )
        .http(
            other.front,
            0,
            "POST /api/b",
            Asked::at(1.0, 90_000)
                .until(9.0)
                .by(GATEWAY, 62)
                .answered(1012.0, 502),
        )
        .http(
            one.back,
            0,
            "POST /a",
            Asked::at(2.0, 90_000).until(9.0).by(GATEWAY, 61),
        )
        .decision(
            1009.2,
            (GATEWAY, 5),
            Decider::TransportClose,
            Some(HEADERS),
            Some(one.back),
        )
        .local_closed(1009.4, one.back);
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert!(proxy.confidence > 0.95, "{}", proxy.confidence);
    assert_eq!(proxy.related_connections[0].client.port(), 36001);
}

#[test]
fn a_decision_whose_connection_was_not_read_belongs_to_the_close_that_follows() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "GET /",
            Asked::at(1.0, 90).by(GATEWAY, 5).answered(1003.0, 502),
        )
        .http(legs.back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            1002.4,
            (GATEWAY, 5),
            Decider::TransportClose,
            Some(HEADERS),
            None,
        )
        .local_closed(1002.6, legs.back);
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert!(
        (0.85..0.95).contains(&proxy.confidence),
        "{}",
        proxy.confidence
    );
}

#[test]
fn a_refused_connect_that_only_coincides_is_not_blamed_for_the_harm() {
    let mut story = large_uploads_fail(1000.0);
    let failing = 4000.0 + 20.0 + 1000.3;
    let socket = story.connecting(failing, GATEWAY, "127.0.0.1:59999", "127.0.0.1:4317");
    story.connect_failed(
        failing + 0.1,
        socket,
        crate::event::ConnectFailure::Refused,
        None,
    );
    let found = found(&mut story);
    assert_eq!(found[0].rule, Rule::ProxyTimeout);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    let refused = only(&found, Rule::ConnectRefused);
    assert_eq!(refused.measured.requests_harmed, None);
    assert_eq!(refused.severity, Severity::Warning);
}

/// A proxy that is not Go gives up on one of two requests in flight.
fn native_proxy(ours: &str, other: &str, passed_on: &str) -> Vec<Finding> {
    let mut story = Story::new();
    story.native(GATEWAY, "nginx").native(UPSTREAM, "httpd");
    for nth in 0..3_u16 {
        let at = 4000.0 * f64::from(nth);
        let one = legs(&mut story, at, 2 * nth);
        let two = legs(&mut story, at, 2 * nth + 1);
        let failed = Asked::at(at + 1.0, 90).answered(at + 1003.0, 504);
        let fine = Asked::at(at + 1.0, 90).answered(at + 1500.0, 200);
        story
            .http(one.front, 0, ours, failed)
            .http(two.front, 0, other, fine)
            .http(one.back, 0, passed_on, Asked::at(at + 2.0, 90))
            .http(one.far, 0, passed_on, Asked::at(at + 2.1, 90))
            .local_closed(at + 1002.5, one.back)
            .peer_closed(at + 1002.6, one.far);
    }
    found(&mut story)
}

#[test]
fn without_goroutines_the_legs_are_paired_by_method_and_path_with_a_doubt() {
    let found = native_proxy("GET /a", "GET /b", "GET /a");
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.measured.requests_harmed, Some(3));
    // Three equal waits, and a request inferred.
    assert_eq!(proxy.confidence, 0.66);
}

#[test]
fn a_trace_pairs_the_legs_of_any_program_without_a_doubt() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let found = native_proxy(
        &format!("GET /a 00-{trace}-00f067aa0ba902b7-01"),
        "GET /a 00-11111111111111111111111111111111-00f067aa0ba902b7-01",
        &format!("GET /a 00-{trace}-b7ad6b7169203331-01"),
    );
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.measured.requests_harmed, Some(3));
    assert_eq!(proxy.confidence, 0.7);
}

#[test]
fn a_rewritten_path_is_paired_by_what_failed_at_once() {
    let found = native_proxy("GET /api/a", "GET /api/b", "GET /a");
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.measured.requests_harmed, Some(3));
    assert!(proxy.confidence < 0.7, "{}", proxy.confidence);
}

#[test]
fn two_requests_alike_in_flight_are_ambiguous() {
    let found = native_proxy("GET /a", "GET /a", "GET /a");
    let proxy = only(&found, Rule::ProxyTimeout);
    assert!(proxy.confidence < 0.6, "{}", proxy.confidence);
}

#[test]
fn with_the_upstream_on_another_host_the_proxys_end_is_enough() {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    let front = story.accepted(0.0, GATEWAY, "10.0.0.9:50000", "10.0.0.1:80");
    let back = story.connected(0.5, GATEWAY, "10.0.0.1:41000", "10.0.0.2:80");
    story
        .http(
            front,
            0,
            "GET /",
            Asked::at(1.0, 90).by(GATEWAY, 5).answered(1003.0, 502),
        )
        .http(back, 0, "GET /", Asked::at(2.0, 90))
        .decision(
            1002.3,
            (GATEWAY, 5),
            Decider::TransportClose,
            Some(HEADERS),
            Some(back),
        )
        .local_closed(1002.5, back);
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.confidence, 0.97, "the decision itself was seen");
    let missing = proxy.incomplete.as_deref().unwrap();
    assert!(
        missing.contains("10.0.0.2:80 is not traced here"),
        "{missing}"
    );
}
