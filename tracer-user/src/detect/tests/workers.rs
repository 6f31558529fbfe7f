//! Several processes that share a listener: what they do alike is one service's, and told once.

use super::*;

/// The workers of one nginx. The kernel names one of them for each connection until somebody reads it.
const WORKERS: [Pid; 4] = [GATEWAY, GATEWAY + 1, GATEWAY + 2, GATEWAY + 3];

const ANOTHER_UPSTREAM: &str = "127.0.0.1:9002";

fn nginx() -> Story {
    let mut story = Story::new();
    for pid in WORKERS {
        story.native(pid, "nginx");
    }
    story
}

/// The `nth` connection of a client, which `worker` reads.
fn taken(story: &mut Story, at: f64, nth: u16, worker: Pid, asked: Asked) -> SocketId {
    let client = format!("127.0.0.1:{}", 36000 + nth);
    let front = story.accepted(at, GATEWAY, &client, GATEWAY_ADDRESS);
    story.http(front, 0, "GET /slow", asked.by(worker, 0));
    front
}

/// A request that `worker` gives up on after `wait`, and answers by 504.
fn gives_up(story: &mut Story, nth: u16, worker: Pid, upstream: &str, wait: f64) {
    let at = 3000.0 * f64::from(nth);
    let asked = Asked::at(at + 1.0, 90).answered(at + 2.5 + wait, 504);
    taken(story, at, nth, worker, asked);
    let back = format!("127.0.0.1:{}", 53000 + nth);
    let back = story.connected(at + 1.5, worker, &back, upstream);
    story
        .http(back, 0, "GET /slow", Asked::at(at + 2.0, 90))
        .local_closed(at + 2.0 + wait, back);
}

/// A request that `worker` answers.
fn answers(story: &mut Story, at: f64, nth: u16, worker: Pid) -> SocketId {
    let asked = Asked::at(at + 1.0, 90).answered(at + 5.0, 200);
    taken(story, at, nth, worker, asked)
}

#[test]
fn a_limit_is_concluded_from_what_all_workers_did_and_told_once() {
    let mut story = nginx();
    for (nth, worker) in [0, 1, 2, 0, 1].into_iter().enumerate() {
        let wait = 700.3 + nth as f64;
        gives_up(
            &mut story,
            nth as u16,
            WORKERS[worker],
            UPSTREAM_ADDRESS,
            wait,
        );
    }
    for nth in 10..30 {
        answers(&mut story, 1000.0 * f64::from(nth), nth, WORKERS[3]);
    }
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    assert_eq!(
        proxy.title,
        "nginx (3 workers) gave up on 127.0.0.1:9001 after 0.700 s"
    );
    assert_eq!((proxy.count, proxy.process.comm.as_str()), (5, "nginx"));
    assert_eq!(proxy.measured.requests, Some(25), "{proxy:?}");
    let confidence = proxy.confidence;
    assert!((0.7..0.75).contains(&confidence), "five: {confidence}");
    assert!(WORKERS[..3].contains(&proxy.process.pid));
}

#[test]
fn workers_with_different_limits_or_upstreams_make_no_limit_that_nobody_set() {
    let mut story = nginx();
    gives_up(&mut story, 0, WORKERS[0], UPSTREAM_ADDRESS, 700.3);
    gives_up(&mut story, 1, WORKERS[1], UPSTREAM_ADDRESS, 700.9);
    gives_up(&mut story, 2, WORKERS[2], UPSTREAM_ADDRESS, 1400.3);
    gives_up(&mut story, 3, WORKERS[3], ANOTHER_UPSTREAM, 700.6);
    for finding in found(&mut story) {
        assert!(finding.confidence <= 0.5, "{finding:?}");
        assert!(finding.count < 3, "{finding:?}");
    }
}

#[test]
fn what_two_services_did_alike_is_no_limit_of_either() {
    let mut story = nginx();
    for (pid, program) in [(50, "haproxy"), (51, "envoy")] {
        story.native(pid, program);
    }
    for (nth, worker) in [WORKERS[0], 50, 51].into_iter().enumerate() {
        gives_up(&mut story, nth as u16, worker, UPSTREAM_ADDRESS, 700.3);
    }
    let found = found(&mut story);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|finding| finding.confidence <= 0.5));
}

#[test]
fn a_limit_for_clients_is_told_once_for_all_workers() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        let at = 5000.0 * nth as f64;
        let sent = at + 30.0 + 100.0 * nth as f64;
        let asked = Asked::at(at + 1.0, 9_000).until(sent);
        let front = taken(&mut story, at, nth as u16, worker, asked);
        story.local_closed(sent + 1500.2, front);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ServerTimeout, Rule::EmptyResponse]);
    assert_eq!(
        found[0].title,
        "nginx (4 workers) cut 4 requests off after 1.500 s"
    );
    assert_eq!(found[1].count, 4);
}

/// The next request on a connection that `worker` has read one of; it lies there unread.
fn unread(story: &mut Story, nth: u16, worker: Pid) {
    let front = answers(story, 100.0, nth, worker);
    story.head(20_000.0, front, 1, "GET /slow");
    story.unread(30_000.0, front, 20_000.0, 90);
}

#[test]
fn one_worker_of_several_that_is_stopped_is_named_by_its_pid() {
    let mut story = nginx();
    unread(&mut story, 0, WORKERS[1]);
    unread(&mut story, 1, WORKERS[1]);
    for nth in 10..40 {
        answers(&mut story, 900.0 * f64::from(nth - 9), nth, WORKERS[2]);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::NoResponse);
    assert_eq!(
        finding.title,
        "nginx (1 of 2 workers, pid 21) left 2 requests on port 9000 unread"
    );
    assert_eq!(finding.process.pid, WORKERS[1]);
    assert!(finding.explanation.contains("SIGSTOP"), "{finding:?}");
}

#[test]
fn workers_that_are_all_stopped_are_one_finding() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        unread(&mut story, nth as u16, worker);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::NoResponse);
    assert_eq!(finding.title, "nginx left 4 requests on port 9000 unread");
    assert_eq!(finding.severity, Severity::Critical);
}

#[test]
fn a_connection_that_waits_while_every_worker_serves_another_is_no_warning() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        let asked = Asked::at(20_000.0, 90).arrived(20_000.0);
        taken(&mut story, 19_999.0, nth as u16, worker, asked);
    }
    let waiting = story.accepted(24_000.0, 70, "127.0.0.1:37000", GATEWAY_ADDRESS);
    story
        .native(70, "nginx")
        .head(24_000.1, waiting, 0, "GET /slow")
        .unread(30_000.0, waiting, 24_000.1, 90);
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

/// Short connections of `worker` to the upstream, one after the other.
fn churns(story: &mut Story, worker: Pid, number: u16, apart: f64) {
    let port = 40_000 + 1_000 * (worker - GATEWAY) as u16;
    for nth in 0..number {
        let at = 100.0 + apart * f64::from(nth);
        let client = format!("127.0.0.1:{}", port + nth);
        let socket = story.connected(at, worker, &client, UPSTREAM_ADDRESS);
        let asked = Asked::at(at + 0.5, 90).answered(at + 3.0, 200);
        story
            .http(socket, 0, "GET /slow", asked)
            .local_closed(at + 3.2, socket)
            .gone(at + 3.3, socket);
    }
}

#[test]
fn short_connections_of_all_workers_are_one_finding() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        answers(&mut story, 50.0, nth as u16, worker);
        churns(&mut story, worker, 200, 20.0);
    }
    let found = found(&mut story);
    let churn = only(&found, Rule::ConnectionChurn);
    assert_eq!(
        churn.title,
        "nginx (4 workers) opens 201 connections a second to 127.0.0.1:9001, where 4 would do"
    );
    assert_eq!(churn.count, 800);
}

#[test]
fn timers_of_many_workers_are_no_churn() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        answers(&mut story, 50.0, nth as u16, worker);
        churns(&mut story, worker, 10, 2_900.0);
    }
    assert_eq!(found(&mut story), []);
}

/// Connections of `worker` whose peer closed long ago.
fn keeps(story: &mut Story, worker: Pid, number: u16) {
    let port = 40_000 + 1_000 * (worker - GATEWAY) as u16;
    for nth in 0..number {
        let client = format!("127.0.0.1:{}", port + nth);
        let socket = story.accepted(100.0, worker, &client, GATEWAY_ADDRESS);
        let asked = Asked::at(101.0, 90).by(worker, 0).answered(102.0, 200);
        story
            .http(socket, 0, "GET /slow", asked)
            .peer_closed(300.0 * f64::from(nth + 1), socket);
    }
}

#[test]
fn connections_that_workers_keep_are_judged_by_worker_and_told_once() {
    let mut few = nginx();
    let mut many = nginx();
    for worker in WORKERS {
        keeps(&mut few, worker, 3);
        keeps(&mut many, worker, 6);
    }
    assert_eq!(found(&mut few), []);
    let found = found(&mut many);
    let kept = only(&found, Rule::CloseWaitLeak);
    assert_eq!(
        kept.title,
        "nginx (4 workers) keeps 24 connections on port 9000 that their peers have closed"
    );
}

#[test]
fn workers_that_are_out_of_descriptors_are_one_finding_with_the_worst_of_them() {
    let mut story = nginx();
    for (nth, worker) in WORKERS.into_iter().enumerate() {
        answers(&mut story, 50.0, nth as u16, worker);
        let refused = 10 * (nth as u64 + 1);
        story.descriptors(1_000.0, worker, (60, 64, 0), &[]);
        story.descriptors(9_000.0, worker, (64, 64, refused), &[]);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::FdExhaustion);
    assert_eq!(
        finding.title,
        "nginx (4 workers) has no file descriptor left"
    );
    assert_eq!((finding.count, finding.process.pid), (100, WORKERS[3]));
}
