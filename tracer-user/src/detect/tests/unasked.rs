//! Requests that a proxy fails without asking, for it was refused before; and what looks like it.

use crate::event::ConnectFailure;

use super::*;

/// Refuses.
const GONE: &str = "127.0.0.1:9002";

/// A request that nginx answers at once.
fn answered(story: &mut Story, at: f64, nth: u16, status: u16) {
    answered_at("GET /", story, at, nth, status);
}

fn answered_at(line: &str, story: &mut Story, at: f64, nth: u16, status: u16) {
    let address = format!("127.0.0.1:{}", 40_000 + nth);
    let ours = story.accepted(at, GATEWAY, &address, GATEWAY_ADDRESS);
    let asked = Asked::at(at + 0.1, 90).answered(at + 1.0, status);
    story
        .http(ours, 0, line, asked)
        .local_closed(at + 2.0, ours)
        .gone(at + 2.1, ours);
}

fn refused(story: &mut Story, at: f64) {
    let socket = story.connecting(at, GATEWAY, "127.0.0.1:60000", GONE);
    story.connect_failed(at + 0.1, socket, ConnectFailure::Refused, None);
}

/// It asks another upstream, which answers so.
fn passed_on(story: &mut Story, at: f64, nth: u16, status: u16) {
    let from = format!("127.0.0.1:{}", 61_000 + nth);
    let there = story.connected(at + 0.3, GATEWAY, &from, UPSTREAM_ADDRESS);
    let asked = Asked::at(at + 0.4, 90).answered(at + 0.8, status);
    story
        .http(there, 0, "GET /", asked)
        .local_closed(at + 0.9, there)
        .gone(at + 0.9, there);
    answered(story, at, nth, status);
}

/// nginx is refused for the first request, and answers it with 502.
fn nginx() -> Story {
    let mut story = Story::new();
    story.native(GATEWAY, "nginx");
    refused(&mut story, 100.5);
    answered(&mut story, 100.0, 0, 502);
    story
}

fn harmed(story: &mut Story) -> Option<u64> {
    let found = found(story);
    only(&found, Rule::ConnectRefused).measured.requests_harmed
}

#[test]
fn what_is_answered_without_asking_after_a_refusal_is_its_harm_too() {
    let mut story = nginx();
    for nth in 1..170 {
        answered(&mut story, 200.0 + 50.0 * f64::from(nth), nth, 502);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectRefused);
    assert_eq!(finding.measured.requests_harmed, Some(170));
    assert_eq!(finding.severity, Severity::Critical);
    let told = &finding.explanation;
    assert!(
        told.contains("169 requests of them nginx answered without"),
        "{told}"
    );
}

#[test]
fn a_502_that_came_from_another_upstream_is_not_for_the_refusal() {
    let mut story = nginx();
    passed_on(&mut story, 500.0, 1, 502);
    assert_eq!(harmed(&mut story), Some(1));
}

#[test]
fn a_502_after_the_upstream_came_back_is_not_for_the_refusal() {
    let mut story = nginx();
    let back = story.connected(400.0, GATEWAY, "127.0.0.1:60001", GONE);
    story.local_closed(401.0, back).gone(401.1, back);
    answered(&mut story, 500.0, 1, 502);
    assert_eq!(harmed(&mut story), Some(1));
}

#[test]
fn a_502_after_another_upstream_failed_may_be_for_either() {
    let mut story = nginx();
    let other = story.connected(300.0, GATEWAY, "127.0.0.1:60001", UPSTREAM_ADDRESS);
    story
        .http(other, 0, "GET /", Asked::at(300.5, 90))
        .reset(400.0, other);
    answered(&mut story, 500.0, 1, 502);
    assert_eq!(harmed(&mut story), Some(1));
}

#[test]
fn a_503_or_a_502_from_before_the_refusal_has_another_reason() {
    let mut story = nginx();
    answered(&mut story, 50.0, 1, 502);
    answered(&mut story, 500.0, 2, 503);
    answered(&mut story, 550.0, 3, 200);
    assert_eq!(harmed(&mut story), Some(1));
}

#[test]
fn a_502_for_another_path_may_come_from_an_upstream_that_is_not_seen() {
    let mut story = nginx();
    answered_at("GET /index.php", &mut story, 500.0, 1, 502);
    assert_eq!(harmed(&mut story), Some(1));
}
