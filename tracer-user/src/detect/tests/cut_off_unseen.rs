//! A server's own limits of time where no deadline is seen: by the order of events.

use super::*;

/// Requests to a server that closes each after `waits` without an answer; one byte in three comes late.
fn closing_server(go: bool, waits: &[f64]) -> Story {
    let mut story = Story::new();
    if go {
        story.go(UPSTREAM, "server");
    } else {
        story.native(UPSTREAM, "nginx");
    }
    for (nth, wait) in waits.iter().enumerate() {
        let at = 4000.0 * nth as f64;
        let client = format!("10.0.0.9:{}", 50000 + nth);
        let socket = story.accepted(at, UPSTREAM, &client, "10.0.0.1:80");
        let sent = at + 30.0 + 100.0 * nth as f64;
        story
            .http(
                socket,
                0,
                "POST /upload",
                Asked::at(at + 1.0, 9_000).until(sent),
            )
            .local_closed(sent + wait, socket);
    }
    story
}

#[test]
fn equal_silences_before_a_native_server_closes_are_its_limit_without_a_setting() {
    let found = found(&mut closing_server(
        false,
        &[1500.2, 1501.0, 1500.7, 1502.0],
    ));
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    assert_eq!(found[0].setting, None, "no Go setting is invented");
    assert!(found[0].confidence < 0.8);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    let waited = found[0].measured.waited_s.unwrap();
    assert!((1.49..1.51).contains(&waited), "{waited}");
}

#[test]
fn a_native_server_that_closes_after_all_kinds_of_times_has_no_limit() {
    let found = found(&mut closing_server(false, &[300.0, 1500.0, 2200.0, 700.0]));
    assert!(
        found
            .iter()
            .all(|finding| finding.rule == Rule::EmptyResponse)
    );
}

#[test]
fn status_408_is_the_servers_own_word() {
    let mut story = Story::new();
    story.native(UPSTREAM, "haproxy");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    story
        .http(
            socket,
            0,
            "POST /upload",
            Asked::at(1.0, 900).until(1900.0).answering(2000.4, 408),
        )
        .local_closed(2000.6, socket);
    let found = found(&mut story);
    let cut = only(&found, Rule::ServerTimeout);
    assert_eq!(cut.setting, None);
    assert_eq!(cut.measured.harmed_by_status["408"], 1);
    assert!(cut.explanation.contains("answered 408"));
}

#[test]
fn a_408_that_comes_from_the_upstream_is_passed_on() {
    let mut story = gateway();
    let legs = legs(&mut story, 0.0, 1);
    story
        .http(
            legs.front,
            0,
            "POST /",
            Asked::at(1.0, 90).answered(900.0, 408),
        )
        .http(
            legs.back,
            0,
            "POST /",
            Asked::at(2.0, 90).answered(899.0, 408),
        );
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_go_server_that_closes_without_a_word_and_without_a_panic_ran_out_of_time() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    let stack = story.stack(&SERVE_CLOSES);
    story
        .http(socket, 0, "GET /report", Asked::at(1.0, 90).by(UPSTREAM, 5))
        .closed_at(1500.0, socket, stack);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    let setting = found[0].setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.Server.WriteTimeout");
    assert_eq!(setting.value_s, None, "it is at most what was waited");
    assert!(found[0].confidence < 0.8);
}

#[test]
fn a_handler_that_always_panics_after_the_same_time_panics() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    for nth in 0..4_u16 {
        let at = 2000.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 50000 + nth);
        let socket = story.accepted(at, UPSTREAM, &client, "10.0.0.1:80");
        let stack = story.stack(&panicked_in(&["main.cart /srv/shop/cart.go:42"]));
        story
            .http(socket, 0, "GET /", Asked::at(at + 1.0, 90))
            .closed_at(at + 1001.0, socket, stack);
    }
    assert_eq!(rules(&found(&mut story)), [Rule::EmptyResponse]);
}
