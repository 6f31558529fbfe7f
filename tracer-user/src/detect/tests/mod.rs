//! The rules against stories: each behaviour, and each look-alike that must not be accused.

use std::time::Duration;

use crate::{
    event::{Decider, Goroutine, Pid, SocketId},
    model::story::{Asked, Story, frames},
};

use super::{Finding, Rule, Severity, findings};

mod churn;
mod clients;
mod computing;
mod connecting;
mod contended;
mod cut_off;
mod cut_off_unseen;
mod disorder;
mod empties;
mod gaps;
mod garbage;
mod gateway_timeouts;
mod half_seen;
mod healthy;
mod held_up;
mod leaks;
mod leaving_open;
mod locks;
mod losses;
mod native;
mod no_response;
mod packets;
mod pairing;
mod pools;
mod proxies;
mod races;
mod resets;
mod running_out;
mod runtime;
mod slow;
mod stalls;
mod standstills;
mod throttled;
mod unasked;
mod want_of_cpu;
mod workers;

pub(crate) const CLIENT: Pid = 10;
pub(crate) const GATEWAY: Pid = 20;
pub(crate) const UPSTREAM: Pid = 30;

pub(crate) const GATEWAY_ADDRESS: &str = "127.0.0.1:9000";
pub(crate) const UPSTREAM_ADDRESS: &str = "127.0.0.1:9001";

pub(crate) const HEADERS: &str = "net/http: timeout awaiting response headers";

/// A client's request through the gateway to the upstream.
pub(crate) struct Legs {
    /// The gateway's end of the client's connection.
    pub(crate) front: SocketId,
    /// The gateway's connection to the upstream.
    pub(crate) back: SocketId,
    /// The upstream's end of it.
    pub(crate) far: SocketId,
}

/// Connections for one request that comes at `at`; `nth` keeps the ports apart.
pub(crate) fn legs(story: &mut Story, at: f64, nth: u16) -> Legs {
    let client = format!("127.0.0.1:{}", 36000 + nth);
    let back = format!("127.0.0.1:{}", 53000 + nth);
    Legs {
        front: story.accepted(at, GATEWAY, &client, GATEWAY_ADDRESS),
        back: story.connected(at + 0.5, GATEWAY, &back, UPSTREAM_ADDRESS),
        far: story.accepted(at + 0.6, UPSTREAM, &back, UPSTREAM_ADDRESS),
    }
}

/// A gateway with its upstream.
pub(crate) fn gateway() -> Story {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway").go(UPSTREAM, "upstream");
    story
}

/// The handler of the upstream, asleep on the job.
pub(crate) fn saving() -> Goroutine {
    Goroutine {
        id: 77,
        state: "sleep".into(),
        wait: Some(Duration::from_millis(990)),
        frames: frames(&[
            "time.Sleep /go/src/runtime/time.go:300",
            "main.(*store).save /srv/upstream/store.go:57",
            "main.main.func1 /srv/upstream/main.go:12",
            "net/http.HandlerFunc.ServeHTTP /go/src/net/http/server.go:2322",
            "net/http.(*conn).serve /go/src/net/http/server.go:2100",
        ]),
        created_by: None,
    }
}

/// A large upload at `at` on which the gateway gives up `limit` ms after its last byte.
pub(crate) fn upload_given_up(story: &mut Story, at: f64, nth: u16, limit: f64) -> Legs {
    let legs = legs(story, at, nth);
    let sent = at + 20.0;
    let decided = sent + limit;
    let goroutine = 100 + u64::from(nth);
    let upload = Asked::at(at + 1.0, 200_189).until(sent);
    story
        .http(legs.front, 0, "POST /upload", upload.by(GATEWAY, goroutine))
        .http(
            legs.back,
            0,
            "POST /upload",
            Asked::at(at + 2.0, 200_189).until(sent),
        )
        .http(
            legs.far,
            0,
            "POST /upload",
            Asked::at(at + 2.1, 200_189)
                .until(sent)
                .by(UPSTREAM, 77)
                .answering(decided + 500.0, 200),
        )
        .decision(
            decided,
            (GATEWAY, goroutine),
            Decider::TransportClose,
            Some(HEADERS),
            Some(legs.back),
        )
        .local_closed(decided + 0.1, legs.back)
        .look(decided + 0.2, legs.far, UPSTREAM, saving())
        .peer_closed(decided + 0.2, legs.far)
        .local_closed(decided + 0.4, legs.front)
        .gone(decided + 0.5, legs.back)
        .gone(decided + 0.6, legs.front);
    legs
}

/// A small upload at `at` that is answered.
pub(crate) fn upload_answered(story: &mut Story, at: f64, nth: u16) -> Legs {
    let legs = legs(story, at, nth);
    let goroutine = 100 + u64::from(nth);
    story
        .http(
            legs.front,
            0,
            "POST /upload",
            Asked::at(at + 1.0, 900)
                .by(GATEWAY, goroutine)
                .answered(at + 30.0, 200),
        )
        .http(
            legs.back,
            0,
            "POST /upload",
            Asked::at(at + 2.0, 900).answered(at + 29.0, 200),
        )
        .http(
            legs.far,
            0,
            "POST /upload",
            Asked::at(at + 2.1, 900).answered(at + 28.0, 200),
        );
    legs
}

/// The case N1: small uploads pass, large ones are given up on.
pub(crate) fn large_uploads_fail(limit: f64) -> Story {
    let mut story = gateway();
    for nth in 0..4 {
        upload_answered(&mut story, 100.0 * f64::from(nth), nth);
    }
    for nth in 4..7 {
        let late = f64::from(nth - 4) * 0.4 + 0.3;
        upload_given_up(&mut story, 1000.0 * f64::from(nth), nth, limit + late);
    }
    story
}

/// The stack of a close by `net/http`'s server itself.
pub(crate) const SERVE_CLOSES: [&str; 5] = [
    "internal/poll.(*FD).Close /go/src/internal/poll/fd_unix.go:118",
    "net.(*conn).Close /go/src/net/net.go:202",
    "net/http.(*conn).close /go/src/net/http/server.go:1836",
    "net/http.(*conn).serve.func1 /go/src/net/http/server.go:1972",
    "net/http.(*conn).serve /go/src/net/http/server.go:2044",
];

/// The same after `frames` raised a panic.
pub(crate) fn panicked_in<'f>(raised: &[&'f str]) -> Vec<&'f str> {
    let mut frames: Vec<&str> = SERVE_CLOSES[..4].to_vec();
    frames.push("runtime.gopanic /go/src/runtime/panic.go:787");
    frames.extend(raised);
    frames.extend(["net/http.HandlerFunc.ServeHTTP", SERVE_CLOSES[4]]);
    frames
}

fn found(story: &mut Story) -> Vec<Finding> {
    findings(&story.model(30_000.0))
}

fn rules(findings: &[Finding]) -> Vec<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

/// The only finding of this rule.
fn only(findings: &[Finding], rule: Rule) -> &Finding {
    let mut of_rule = findings.iter().filter(|finding| finding.rule == rule);
    let first = of_rule
        .next()
        .unwrap_or_else(|| panic!("no {rule:?} in {:?}", rules(findings)));
    assert!(of_rule.next().is_none(), "more than one {rule:?}");
    first
}

fn warnings(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| finding.severity >= Severity::Warning)
        .collect()
}
