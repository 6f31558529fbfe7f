//! `packet-loss`, and segments sent again that harmed nobody.

use crate::event::Fact;

use super::*;

const SERVER: &str = "10.0.0.2:80";

fn asking() -> (Story, SocketId) {
    let mut story = Story::new();
    story.go(CLIENT, "worker");
    let socket = story.connected(0.0, CLIENT, "10.0.0.1:50000", SERVER);
    (story, socket)
}

#[test]
fn a_request_that_waited_for_the_retransmission_timer_names_peer_and_delay() {
    for (timers, delay) in [
        (&[205.0][..], 205.0),
        (&[210.0, 630.0], 630.0),
        (&[230.0, 690.0, 1600.0], 1600.0),
    ] {
        let (mut story, socket) = asking();
        for number in 0..5 {
            let at = 10.0 + 10.0 * f64::from(number);
            story.http(
                socket,
                number,
                "GET /",
                Asked::at(at, 90).answered(at + 2.0, 200),
            );
        }
        let at = 100.0;
        for timer in timers {
            story.sent_again(at + timer, socket);
        }
        let answered = Asked::at(at, 90).answered(at + delay + 3.0, 200);
        story.http(socket, 5, "GET /", answered);
        let found = found(&mut story);
        let loss = only(&found, Rule::PacketLoss);
        assert_eq!(found.len(), 1);
        assert_eq!(loss.severity, Severity::Warning);
        assert!(loss.title.contains(SERVER), "{}", loss.title);
        assert_eq!(loss.measured.retransmits, Some(timers.len() as u64));
        assert_eq!(loss.measured.waited_max_s, Some(delay / 1e3));
        assert!((loss.measured.parts_s["network"] * 1e3 - delay).abs() < 1e-6);
    }
}

#[test]
fn who_dropped_is_said_where_the_kernel_knows() {
    let (mut story, socket) = asking();
    let reason = "NETFILTER_DROP".to_owned();
    story
        .sent_again(215.0, socket)
        .tell(10.1, Fact::Dropped { socket, reason })
        .http(socket, 0, "GET /", Asked::at(10.0, 90).answered(218.0, 200));
    let found = found(&mut story);
    let loss = only(&found, Rule::PacketLoss);
    assert!(
        loss.explanation
            .contains("by a firewall rule (NETFILTER_DROP)")
    );
    assert_eq!(loss.measured.drops["NETFILTER_DROP"], 1);
    assert!(loss.advice[0].contains("nft list ruleset"));
}

#[test]
fn segments_sent_again_at_once_harm_nobody() {
    let (mut story, socket) = asking();
    for number in 0..20 {
        let at = 10.0 + 100.0 * f64::from(number);
        story.sent_again(at + 5.0, socket).http(
            socket,
            number,
            "GET /",
            Asked::at(at, 90).answered(at + 9.0, 200),
        );
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_request_that_had_arrived_was_sent_again_for_nothing() {
    let (mut story, socket) = asking();
    story.go(UPSTREAM, "shop");
    let ours = story.accepted(0.1, UPSTREAM, "10.0.0.1:50000", SERVER);
    story
        .sent_again(230.0, socket)
        .http(socket, 0, "GET /", Asked::at(10.0, 90).answered(320.0, 200))
        .http(ours, 0, "GET /", Asked::at(10.3, 90).answered(319.0, 200));
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_fin_of_an_idle_connection_sent_again_is_nobodys_wait() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", "10.0.0.1:80");
    story
        .http(socket, 0, "GET /", Asked::at(1.0, 90).answered(5.0, 200))
        .local_closed(15_000.0, socket)
        .sent_again(15_210.0, socket)
        .sent_again(15_630.0, socket);
    assert_eq!(found(&mut story), []);
}

#[test]
fn one_client_on_a_bad_path_among_many_is_what_the_internet_does() {
    let mut story = Story::new();
    story.go(UPSTREAM, "shop");
    for nth in 0..300_u16 {
        let at = 10.0 * f64::from(nth);
        let client = format!("10.1.{}.{}:50000", nth / 250, 1 + nth % 250);
        let socket = story.accepted(at, UPSTREAM, &client, "10.0.0.1:80");
        story.http(
            socket,
            0,
            "GET /",
            Asked::at(at + 1.0, 90).answered(at + 3.0, 200),
        );
        if nth == 40 {
            story.sent_again(at + 240.0, socket);
            story.sent_again(at + 700.0, socket);
        }
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_give_up_on_a_request_that_never_got_through_is_the_consequence() {
    let mut story = gateway();
    for nth in 0..3_u16 {
        let at = 4000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        story
            .http(
                legs.front,
                0,
                "GET /",
                Asked::at(at + 1.0, 90)
                    .by(GATEWAY, 5)
                    .answered(at + 1003.0, 502),
            )
            .http(legs.back, 0, "GET /", Asked::at(at + 2.0, 90))
            .sent_again(at + 205.0, legs.back)
            .sent_again(at + 620.0, legs.back)
            .decision(
                at + 1002.3,
                (GATEWAY, 5),
                Decider::TransportClose,
                Some(HEADERS),
                Some(legs.back),
            )
            .local_closed(at + 1002.5, legs.back);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::PacketLoss, Rule::ProxyTimeout]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    assert!(found[0].explanation.contains("never got through"));
}

#[test]
fn a_syn_sent_again_alone_is_left_to_connecting() {
    let (mut story, _) = asking();
    let late = story.connecting(50.0, CLIENT, "10.0.0.1:50001", SERVER);
    story
        .tell(
            1060.0,
            Fact::Retransmitted {
                socket: late,
                syn: true,
            },
        )
        .tell(1061.0, Fact::Established { socket: late })
        .http(
            late,
            0,
            "GET /",
            Asked::at(1062.0, 90).answered(1065.0, 200),
        );
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::ConnectTimeout]);
    assert_eq!(found[0].severity, Severity::Info);
}
