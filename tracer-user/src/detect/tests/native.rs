use super::*;

/// nginx, haproxy: no decision is seen.
fn native_proxy(waits: &[f64], status: Option<u16>) -> Story {
    let mut story = Story::new();
    story.native(GATEWAY, "nginx").go(UPSTREAM, "upstream");
    for (nth, wait) in waits.iter().enumerate() {
        let at = 4000.0 * nth as f64;
        let legs = legs(&mut story, at, nth as u16);
        let front = Asked::at(at + 1.0, 90);
        let given_up = at + 2.0 + wait;
        let front = status.map_or(front, |status| front.answered(given_up + 0.5, status));
        story
            .http(legs.front, 0, "GET /slow", front)
            .http(legs.back, 0, "GET /slow", Asked::at(at + 2.0, 90))
            .http(legs.far, 0, "GET /slow", Asked::at(at + 2.1, 90))
            .local_closed(given_up, legs.back)
            .peer_closed(given_up, legs.far);
        if status.is_none() {
            story.local_closed(given_up + 0.6, legs.front);
        }
    }
    story
}

#[test]
fn equal_waits_of_a_program_that_is_not_go_are_a_time_limit_without_a_setting() {
    let found = found(&mut native_proxy(
        &[1000.3, 1001.0, 1000.8, 1003.0],
        Some(504),
    ));
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(proxy.setting, None, "no Go setting is invented");
    assert_eq!(proxy.count, 4);
    assert!(
        (0.6..0.85).contains(&proxy.confidence),
        "{}",
        proxy.confidence
    );
    assert_eq!(proxy.severity, Severity::Critical);
    assert!(proxy.incomplete.as_ref().unwrap().contains("No decision"));
}

#[test]
fn a_listener_that_workers_share_gives_a_connection_to_the_worker_that_reads_it() {
    const OTHER: Pid = GATEWAY + 1;
    let mut story = Story::new();
    story.native(OTHER, "nginx").native(GATEWAY, "nginx");
    for nth in 0..4_u16 {
        let at = 4000.0 * f64::from(nth);
        let client = format!("127.0.0.1:{}", 36000 + nth);
        let front = story.accepted(at, OTHER, &client, GATEWAY_ADDRESS);
        let back = format!("127.0.0.1:{}", 53000 + nth);
        let back = story.connected(at + 0.5, GATEWAY, &back, UPSTREAM_ADDRESS);
        let asked = Asked::at(at + 1.0, 90).by(GATEWAY, 0);
        story
            .http(front, 0, "GET /slow", asked.answered(at + 1003.0, 504))
            .http(back, 0, "GET /slow", Asked::at(at + 2.0, 90))
            .local_closed(at + 1002.0, back);
    }
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!((proxy.process.pid, proxy.count), (GATEWAY, 4));
}

#[test]
fn one_give_up_without_a_decision_is_told_only_where_it_harmed_and_with_low_confidence() {
    let harmed = found(&mut native_proxy(&[1000.3], Some(504)));
    let proxy = only(&harmed, Rule::ProxyTimeout);
    assert!(proxy.confidence <= 0.5);
    let saved = found(&mut native_proxy(&[1000.3], Some(200)));
    assert_eq!(saved, []);
}

#[test]
fn an_empty_reply_of_a_native_proxy_is_a_consequence_of_its_giving_up() {
    let found = found(&mut native_proxy(&[1000.3, 1000.9, 1001.4], None));
    assert_eq!(rules(&found), [Rule::ProxyTimeout, Rule::EmptyResponse]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}

#[test]
fn a_response_received_unseen_is_no_silence() {
    let mut story = Story::new();
    story.native(GATEWAY, "haproxy");
    for nth in 0..5_u16 {
        let at = 2000.0 * f64::from(nth);
        let socket = story.connected(
            at,
            GATEWAY,
            &format!("10.0.0.1:{}", 40000 + nth),
            "10.0.0.2:80",
        );
        story
            .http(socket, 0, "GET /", Asked::at(at + 0.3, 90))
            .local_closed(at + 1000.0, socket);
        story.tell(
            at + 1001.0,
            crate::event::Fact::Closed(crate::event::Closed {
                socket,
                bytes_sent: 90,
                bytes_received: 4_000,
                srtt: None,
                retransmits: 0,
            }),
        );
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_guess_is_never_critical() {
    let found = found(&mut native_proxy(&[1000.3], Some(504)));
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn a_client_that_leaves_with_the_failure_in_hand_had_not_left_before() {
    let mut story = Story::new();
    story.native(GATEWAY, "haproxy");
    for nth in 0..4_u16 {
        let at = 4000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        let front = Asked::at(at + 1.0, 90).answered(at + 802.5, 504);
        story
            .http(legs.front, 0, "GET /slow", front)
            .http(legs.back, 0, "GET /slow", Asked::at(at + 2.0, 90))
            .peer_closed(at + 802.8, legs.front)
            .local_closed(at + 803.0, legs.back);
    }
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ProxyTimeout).count, 4);
}

#[test]
fn the_more_equal_waits_the_surer_and_unequal_ones_tell_no_time() {
    let waits =
        |number: u16| -> Vec<f64> { (0..number).map(|nth| 873.2 + f64::from(nth % 5)).collect() };
    let sure = |number: u16| {
        let found = found(&mut native_proxy(&waits(number), Some(504)));
        only(&found, Rule::ProxyTimeout).confidence
    };
    assert!(sure(3) < sure(5) && sure(5) < sure(7), "{}", sure(3));
    assert!(sure(7) < 0.85);
    let found = found(&mut native_proxy(&[400.0, 900.0, 1700.0], Some(504)));
    for finding in &found {
        assert!(finding.confidence <= 0.5, "{}", finding.confidence);
        assert_eq!(finding.setting, None);
    }
}
