use crate::event::{ConnectFailure, Fact};

use super::*;

const REMOTE: &str = "127.0.0.1:9001";

fn worker() -> Story {
    let mut story = Story::new();
    story.go(CLIENT, "worker");
    story
}

fn refused(story: &mut Story, at: f64) -> SocketId {
    let socket = story.connecting(at, CLIENT, "127.0.0.1:40000", REMOTE);
    story.connect_failed(at + 0.1, socket, ConnectFailure::Refused, None);
    socket
}

fn reached(story: &mut Story, at: f64) {
    let socket = story.connected(at, CLIENT, "127.0.0.1:40001", REMOTE);
    story
        .http(
            socket,
            0,
            "GET /",
            Asked::at(at + 0.3, 90).answered(at + 1.0, 200),
        )
        .local_closed(at + 2.0, socket)
        .gone(at + 2.1, socket);
}

#[test]
fn repeated_refusals_are_a_warning() {
    let mut story = worker();
    for nth in 0..20 {
        refused(&mut story, 500.0 * f64::from(nth));
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectRefused);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.count, 20);
    assert_eq!(finding.measured.attempts, Some(20));
    assert_eq!(
        finding.title,
        "worker was refused by 127.0.0.1:9001: nobody listens there"
    );
    assert!(finding.explanation.contains("this host's own"));
}

#[test]
fn a_service_that_restarts_quickly_is_no_warning() {
    let mut story = worker();
    reached(&mut story, 100.0);
    for nth in 0..10 {
        refused(&mut story, 1000.0 + 50.0 * f64::from(nth));
    }
    reached(&mut story, 1600.0);
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ConnectRefused).severity, Severity::Info);
    assert!(
        found[0].explanation.contains("It was over 0.600 s after"),
        "{}",
        found[0].explanation
    );
}

#[test]
fn a_service_that_was_away_for_long_or_stays_away_is_a_warning() {
    for back in [Some(9000.0), None] {
        let mut story = worker();
        reached(&mut story, 100.0);
        for nth in 0..10 {
            refused(&mut story, 1000.0 + 500.0 * f64::from(nth));
        }
        if let Some(back) = back {
            reached(&mut story, back);
        }
        let found = found(&mut story);
        assert_eq!(
            only(&found, Rule::ConnectRefused).severity,
            Severity::Warning
        );
    }
}

#[test]
fn one_refusal_among_many_successes_is_only_worth_knowing() {
    let mut story = worker();
    for nth in 0..300 {
        reached(&mut story, 20.0 * f64::from(nth));
    }
    refused(&mut story, 6100.0);
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ConnectRefused).severity, Severity::Info);
}

#[test]
fn refusals_that_harm_served_requests_are_critical_and_counted() {
    let mut story = gateway();
    for nth in 0..3_u16 {
        let at = 1000.0 * f64::from(nth);
        let front = story.accepted(
            at,
            GATEWAY,
            &format!("127.0.0.1:{}", 36000 + nth),
            GATEWAY_ADDRESS,
        );
        let back = story.connecting(at + 2.0, GATEWAY, "127.0.0.1:53000", UPSTREAM_ADDRESS);
        story
            .http(
                front,
                0,
                "GET /",
                Asked::at(at + 1.0, 90).answered(at + 3.0, 502),
            )
            .connect_failed(at + 2.2, back, ConnectFailure::Refused, None);
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectRefused);
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(finding.measured.requests_harmed, Some(3));
}

#[test]
fn another_address_of_the_same_name_that_answers_makes_a_refusal_harmless() {
    let mut story = worker();
    let six = story.connecting(0.0, CLIENT, "[::1]:40000", "[::1]:9001");
    story.connect_failed(0.1, six, ConnectFailure::Refused, None);
    story.connected(0.3, CLIENT, "127.0.0.1:40000", "127.0.0.1:9001");
    assert_eq!(found(&mut story), []);
}

#[test]
fn syns_dropped_by_this_hosts_firewall_are_told_so() {
    let mut story = worker();
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    for (at, drops) in [(0.1, 1), (1010.0, 1), (3010.0, 1)] {
        for _ in 0..drops {
            story.tell(
                at,
                Fact::Dropped {
                    socket,
                    reason: "NETFILTER_DROP".into(),
                },
            );
        }
    }
    story
        .tell(1010.0, Fact::Retransmitted { socket, syn: true })
        .tell(3010.0, Fact::Retransmitted { socket, syn: true })
        .connect_failed(5000.0, socket, ConnectFailure::Abandoned, None);
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectTimeout);
    assert!(
        finding
            .explanation
            .contains("dropped on this host by a firewall rule (NETFILTER_DROP)"),
        "{}",
        finding.explanation
    );
    assert_eq!(finding.measured.syn_retransmits, Some(2));
    assert_eq!(finding.measured.drops["NETFILTER_DROP"], 3);
    assert_eq!(finding.incomplete, None);
}

#[test]
fn syns_that_nobody_answers_are_told_without_a_culprit() {
    let mut story = worker();
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    story.tell(1010.0, Fact::Retransmitted { socket, syn: true });
    let found = found(&mut story);
    let finding = only(&found, Rule::ConnectTimeout);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.explanation.contains("No packet came back"));
    assert!(finding.incomplete.is_some());
}

#[test]
fn an_unreachable_host_is_told_in_the_kernels_words() {
    let mut story = worker();
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.77:80");
    story.connect_failed(3050.0, socket, ConnectFailure::Error(113), None);
    let found = found(&mut story);
    assert!(
        only(&found, Rule::ConnectTimeout)
            .explanation
            .contains("EHOSTUNREACH")
    );
}

#[test]
fn a_connect_still_young_when_the_window_ends_is_no_finding() {
    let mut story = worker();
    story.connecting(29_700.0, CLIENT, "10.0.0.1:40000", "10.9.9.9:80");
    assert_eq!(found(&mut story), []);
}

#[test]
fn the_loser_of_a_race_between_addresses_is_no_finding() {
    let mut story = worker();
    let six = story.connecting(0.0, CLIENT, "[2001:db8::1]:40000", "[2001:db8::2]:443");
    let stack = story.stack(&["net.(*sysDialer).dialSingle"]);
    story.connected(250.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:443");
    story.connect_failed(255.0, six, ConnectFailure::Abandoned, stack);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_handshake_that_took_a_second_syn_is_only_worth_knowing() {
    let mut story = worker();
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:80");
    story
        .tell(1010.0, Fact::Retransmitted { socket, syn: true })
        .tell(1011.0, Fact::Established { socket });
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::ConnectTimeout).severity, Severity::Info);
}

#[test]
fn a_second_syn_hides_nothing_that_goes_wrong_later() {
    let mut story = worker();
    let socket = story.connecting(0.0, CLIENT, "10.0.0.1:40000", "10.0.0.2:80");
    story
        .tell(1010.0, Fact::Retransmitted { socket, syn: true })
        .tell(1011.0, Fact::Established { socket })
        .exchange(socket, 0, Asked::at(5_000.0, 60))
        .reset(5_200.0, socket);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectionReset, Rule::ConnectTimeout]);
}

#[test]
fn a_syn_that_stays_on_the_host_is_missed_sooner() {
    for (remote, expected) in [("127.0.0.1:9001", 1), ("10.0.0.2:9001", 0)] {
        let mut story = worker();
        let socket = story.connecting(0.0, CLIENT, "127.0.0.1:40000", remote);
        story.connect_failed(300.0, socket, ConnectFailure::Abandoned, None);
        assert_eq!(found(&mut story).len(), expected, "{remote}");
    }
}

#[test]
fn who_served_the_address_before_is_named() {
    let mut story = worker();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(10.0, UPSTREAM, "127.0.0.1:39999", REMOTE);
    story.local_closed(400.0, socket).exited(401.0, UPSTREAM);
    for nth in 0..3 {
        refused(&mut story, 500.0 + f64::from(nth) * 100.0);
    }
    let found = found(&mut story);
    assert!(
        found[0]
            .explanation
            .contains("served by shop (pid 30), which ended in the window"),
        "{}",
        found[0].explanation
    );
}
