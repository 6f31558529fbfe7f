//! `accept-backlog` and `fd-exhaustion`.

use crate::event::{ConnectFailure, Fact};

use super::*;

fn shop() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop").go(CLIENT, "client");
    story
}

/// A connect that takes a second SYN, and is let in then.
fn sent_again(story: &mut Story, at: f64, nth: u16) {
    let socket = story.connecting(
        at,
        CLIENT,
        &format!("127.0.0.1:{}", 42_000 + nth),
        UPSTREAM_ADDRESS,
    );
    story
        .tell(at + 1_010.0, Fact::Retransmitted { socket, syn: true })
        .tell(at + 1_010.2, Fact::Established { socket })
        .exchange(
            socket,
            0,
            Asked::at(at + 1_011.0, 60).answered(at + 1_012.0, 0),
        )
        .local_closed(at + 1_013.0, socket)
        .gone(at + 1_013.1, socket);
}

#[test]
fn a_queue_that_overflows_is_told_with_who_had_to_send_again() {
    let mut story = shop();
    story.listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 4, 7));
    for nth in 0..6 {
        sent_again(&mut story, 5_000.0, nth);
    }
    story
        .listening(5_001.0, UPSTREAM, UPSTREAM_ADDRESS, (5, 4, 7))
        .listening(5_002.0, UPSTREAM, UPSTREAM_ADDRESS, (5, 4, 13))
        .listening(9_000.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 4, 13));
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::AcceptBacklog, Rule::ConnectTimeout]);
    let finding = &found[0];
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.title, "shop's accept queue on port 9001 overflowed");
    assert_eq!(finding.measured.queued, Some(5));
    assert_eq!(finding.measured.backlog, Some(4));
    assert_eq!(finding.measured.handshakes_dropped, Some(6));
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}

#[test]
fn a_queue_that_stays_full_is_critical_and_abandoned_connects_are_its_consequence() {
    let mut story = shop();
    story.listening(0.0, UPSTREAM, "0.0.0.0:9001", (0, 4, 0));
    for nth in 0..5 {
        let socket = story.connecting(
            5_000.0,
            CLIENT,
            &format!("127.0.0.1:{}", 42_000 + nth),
            UPSTREAM_ADDRESS,
        );
        story
            .tell(6_010.0, Fact::Retransmitted { socket, syn: true })
            .connect_failed(7_000.0, socket, ConnectFailure::Abandoned, None);
    }
    story.listening(5_002.0, UPSTREAM, "0.0.0.0:9001", (5, 4, 10));
    let found = found(&mut story);
    assert_eq!(found[0].rule, Rule::AcceptBacklog);
    assert_eq!(found[0].severity, Severity::Critical);
    assert!(found[1..].iter().all(|finding| finding.caused_by.is_some()));
}

#[test]
fn a_burst_that_the_queue_holds_is_healthy() {
    let mut story = shop();
    story
        .listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 128, 3))
        .listening(5_000.0, UPSTREAM, UPSTREAM_ADDRESS, (129, 128, 3))
        .listening(5_010.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 128, 3));
    assert_eq!(found(&mut story), []);
}

/// `target/overflows.rs` tells these apart from overflows.
#[test]
fn a_syn_sent_again_over_a_slow_path_accuses_no_queue() {
    let mut story = shop();
    story.listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 4, 0));
    for nth in 0..6 {
        sent_again(&mut story, 5_000.0, nth);
    }
    story.listening(6_200.0, UPSTREAM, UPSTREAM_ADDRESS, (5, 4, 0));
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectTimeout]);
    assert_eq!(found[0].severity, Severity::Info);
}

#[test]
fn a_queue_that_overflowed_between_two_looks_is_told_so() {
    let mut story = shop();
    story
        .listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 4, 0))
        .listening(5_000.0, UPSTREAM, UPSTREAM_ADDRESS, (1, 4, 9));
    let found = found(&mut story);
    let told = &only(&found, Rule::AcceptBacklog).explanation;
    assert!(
        told.contains("between two looks, at which 1 waited"),
        "{told}"
    );
}

const SOCKETS: &str = "TCP to 10.0.0.2:5432, ESTABLISHED";

#[test]
fn calls_that_fail_for_want_of_a_descriptor_are_critical() {
    let mut story = shop();
    story
        .descriptors(0.0, UPSTREAM, (40, 64, 0), &[])
        .descriptors(
            5_000.0,
            UPSTREAM,
            (64, 64, 12),
            &[(SOCKETS, 51), ("pipe", 4)],
        );
    let found = found(&mut story);
    let finding = only(&found, Rule::FdExhaustion);
    assert_eq!(finding.severity, Severity::Critical);
    assert_eq!(finding.count, 12);
    assert_eq!(finding.setting.as_ref().unwrap().name, "RLIMIT_NOFILE");
    assert_eq!(finding.measured.held[SOCKETS], 51);
    assert!(
        finding.explanation.contains(SOCKETS),
        "{}",
        finding.explanation
    );
    assert!(finding.explanation.contains("too many open files"));
}

#[test]
fn a_table_that_fills_steadily_is_told_before_it_is_full() {
    let mut story = shop();
    for second in 0..30_u32 {
        let open = 900 + u64::from(second) * 3;
        story.descriptors(
            f64::from(second) * 1e3,
            UPSTREAM,
            (open, 1024, 0),
            &[(SOCKETS, open - 20)],
        );
    }
    let found = found(&mut story);
    let finding = only(&found, Rule::FdExhaustion);
    assert_eq!(finding.severity, Severity::Warning);
    let left = finding.measured.exhausted_in_s.unwrap();
    assert!((8.0..20.0).contains(&left), "{left}");
    assert!(finding.title.contains("will run out"), "{}", finding.title);
}

#[test]
fn a_process_that_sits_near_its_limit_is_only_worth_knowing() {
    for (open, expected) in [(980, 1), (940, 0)] {
        let mut story = shop();
        for second in 0..30_u32 {
            let jitter = u64::from(second % 3 == 0) * 2;
            story.descriptors(
                f64::from(second) * 1e3,
                UPSTREAM,
                (open + jitter, 1024, 0),
                &[],
            );
        }
        let found = found(&mut story);
        assert_eq!(found.len(), expected);
        assert!(warnings(&found).is_empty());
    }
}

#[test]
fn a_process_that_rose_near_its_limit_and_stays_is_no_warning() {
    let mut story = shop();
    for second in 0..10_u32 {
        let open = 40 + u64::from(second) * 100;
        story.descriptors(f64::from(second) * 1e3, UPSTREAM, (open, 1024, 0), &[]);
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_process_far_below_its_limit_may_grow() {
    let mut story = shop();
    for second in 0..30_u32 {
        let open = 1_000 * u64::from(second);
        story.descriptors(f64::from(second) * 1e3, UPSTREAM, (open, 1_048_576, 0), &[]);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn another_limit_that_gives_the_same_error_is_not_taken_for_this_one() {
    let mut story = shop();
    story
        .descriptors(0.0, UPSTREAM, (40, 1024, 0), &[])
        .descriptors(5_000.0, UPSTREAM, (41, 1024, 3), &[]);
    let found = found(&mut story);
    let finding = only(&found, Rule::FdExhaustion);
    assert_eq!(finding.severity, Severity::Info);
    assert!(finding.explanation.contains("inotify"));
    assert_eq!(finding.setting, None);
}

#[test]
fn what_cannot_be_accepted_for_want_of_descriptors_is_one_story() {
    let mut story = shop();
    story
        .listening(0.0, UPSTREAM, UPSTREAM_ADDRESS, (0, 2, 0))
        .descriptors(0.0, UPSTREAM, (60, 64, 0), &[])
        .descriptors(4_000.0, UPSTREAM, (64, 64, 9), &[(SOCKETS, 60)]);
    for nth in 0..3 {
        let address = format!("127.0.0.1:{}", 43_000 + nth);
        let theirs = story.connected(5_000.0, CLIENT, &address, UPSTREAM_ADDRESS);
        let ours = story.accepted(5_000.1, UPSTREAM, &address, UPSTREAM_ADDRESS);
        story
            .http(theirs, 0, "GET /", Asked::at(5_001.0, 60))
            .unread(30_000.0, ours, 5_001.1, 60);
    }
    story.listening(6_000.0, UPSTREAM, UPSTREAM_ADDRESS, (3, 2, 4));
    let late = story.connecting(6_000.0, CLIENT, "127.0.0.1:42000", UPSTREAM_ADDRESS);
    story.tell(
        7_010.0,
        Fact::Retransmitted {
            socket: late,
            syn: true,
        },
    );
    let found = found(&mut story);
    assert_eq!(found[0].rule, Rule::FdExhaustion);
    assert!(
        found[1..].iter().all(|finding| finding.caused_by.is_some()),
        "{:?}",
        rules(&found)
    );
    assert!(rules(&found).contains(&Rule::AcceptBacklog));
}

#[test]
fn leaked_connections_that_use_up_the_descriptors_are_the_cause() {
    let mut story = shop();
    let stack = story.stack(&[
        "net.(*Dialer).Dial",
        "main.(*feed).open /srv/shop/feed.go:21",
    ]);
    for nth in 0..50_u16 {
        let at = 200.0 * f64::from(nth);
        let socket = story.dialled(
            at,
            (UPSTREAM, 9),
            &format!("10.0.0.1:{}", 40_000 + nth),
            "10.0.0.2:5432",
            stack,
        );
        story
            .exchange(socket, 0, Asked::at(at + 1.0, 60).answered(at + 2.0, 0))
            .peer_closed(at + 3.0, socket);
    }
    story
        .descriptors(0.0, UPSTREAM, (10, 64, 0), &[])
        .descriptors(
            12_000.0,
            UPSTREAM,
            (64, 64, 5),
            &[("TCP to 10.0.0.2:5432, CLOSE_WAIT", 50)],
        );
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::CloseWaitLeak, Rule::FdExhaustion]);
    assert_eq!(found[0].severity, Severity::Critical);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}
