//! Requests that were sent before the window began.

use super::*;

/// The gateway gives up at `at` on a connection that it had before the window began.
fn half_seen(story: &mut Story, at: f64, nth: u16) {
    let back = story.found(
        GATEWAY,
        &format!("127.0.0.1:{}", 54000 + nth),
        UPSTREAM_ADDRESS,
    );
    story
        .decision(
            at,
            (GATEWAY, u64::from(nth)),
            Decider::TransportClose,
            Some(HEADERS),
            Some(back),
        )
        .local_closed(at + 0.2, back);
}

#[test]
fn a_wait_that_began_before_the_window_is_told_as_longer_than_what_was_seen() {
    let mut story = gateway();
    half_seen(&mut story, 300.0, 1);
    half_seen(&mut story, 700.0, 2);
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!((found.len(), proxy.count), (1, 2));
    assert_eq!(proxy.severity, Severity::Warning);
    assert!(proxy.title.contains("after more than"), "{}", proxy.title);
    let setting = proxy.setting.as_ref().unwrap();
    assert_eq!(setting.name, "net/http.Transport.ResponseHeaderTimeout");
    assert_eq!(setting.value_s, None);
    assert_eq!(proxy.measured.requests_harmed, None);
    assert!(
        proxy
            .incomplete
            .as_ref()
            .unwrap()
            .contains("before the window")
    );
}

#[test]
fn where_the_same_limit_was_seen_whole_only_that_is_told() {
    let mut story = large_uploads_fail(1000.0);
    half_seen(&mut story, 300.0, 1);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ProxyTimeout, Rule::EmptyResponse]);
    assert_eq!(only(&found, Rule::ProxyTimeout).count, 3);
}
