//! `stalled-transfer`, each of the four that can be silent, and silences that are meant.

use crate::{
    event::{Fact, Message, Stall},
    model::story::{ms, silence},
};

use super::*;

const RESPONSE: Message = Message::Response;

/// Both ends of a download on this host, whose response flows from 10 ms to `last`.
fn download(
    story: &mut Story,
    nth: u16,
    at: f64,
    last: f64,
    complete: bool,
) -> (SocketId, SocketId) {
    story.go(UPSTREAM, "files").go(CLIENT, "fetch");
    let address = format!("127.0.0.1:{}", 50000 + nth);
    let theirs = story.connected(at, CLIENT, &address, UPSTREAM_ADDRESS);
    let ours = story.accepted(at + 0.1, UPSTREAM, &address, UPSTREAM_ADDRESS);
    let asked = |from: f64| {
        let asked = Asked::at(at + from, 90);
        if complete {
            asked.answered(at + 10.0, 200)
        } else {
            asked.answering(at + 10.0, 200)
        }
    };
    story
        .http(theirs, 0, "GET /big", asked(1.0).through(last, 500_000))
        .http(
            ours,
            0,
            "GET /big",
            asked(1.1).by(UPSTREAM, 77).through(last - 0.2, 500_000),
        );
    (theirs, ours)
}

fn paused(from: f64, until: f64) -> Stall {
    silence(RESPONSE, from, until)
}

/// What the sender sees when it cannot send: its buffer fills soon after.
fn full(from: f64, until: f64, limited: f64) -> Stall {
    Stall {
        buffer_full: Some(ms(from + 1.0)),
        window_limited: Duration::from_secs_f64(limited / 1e3),
        ..paused(from, until)
    }
}

#[test]
fn a_handler_that_pauses_in_mid_response_is_named_with_its_line() {
    for gap in [300.0, 777.0, 1500.0] {
        let mut story = Story::new();
        let (theirs, ours) = download(&mut story, 0, 0.0, 40.0 + gap, true);
        story
            .stalled(ours, 0, paused(20.0, 20.0 + gap))
            .stalled(theirs, 0, paused(20.1, 20.1 + gap))
            .look(150.0, ours, UPSTREAM, saving());
        let found = found(&mut story);
        let stalled = only(&found, Rule::StalledTransfer);
        assert_eq!(found.len(), 1, "told once: {:?}", rules(&found));
        assert_eq!(stalled.process.comm, "files");
        assert_eq!(stalled.severity, Severity::Warning);
        assert_eq!(stalled.measured.gaps, Some(1));
        assert_eq!(stalled.measured.waited_s, Some(gap / 1e3));
        let told = &stalled.explanation;
        assert!(told.contains("The sender was silent"), "{told}");
        assert!(told.contains("main.(*store).save (store.go:57)"), "{told}");
        assert_eq!(stalled.code.as_ref().unwrap().line, Some(57));
    }
}

#[test]
fn a_receiver_that_does_not_read_is_named() {
    for resumed in [true, false] {
        let mut story = Story::new();
        let last = if resumed { 1020.0 } else { 30.0 };
        let (theirs, ours) = download(&mut story, 0, 0.0, last, resumed);
        if resumed {
            let unread = Stall {
                arrived: Some(ms(21.0)),
                ..paused(20.1, 1000.1)
            };
            story
                .stalled(ours, 0, full(22.0, 1001.0, 970.0))
                .stalled(theirs, 0, unread);
        } else {
            // Who never reads again has no call that ends a gap: what lies there tells.
            let for_ever = Stall {
                resumed,
                ..full(22.0, 29_000.0, 28_900.0)
            };
            let lies = Fact::Unread {
                socket: theirs,
                since: ms(21.0),
                bytes: Some(60_000),
            };
            story.stalled(ours, 0, for_ever).tell(29_000.0, lies);
        }
        let found = found(&mut story);
        let stalled = only(&found, Rule::StalledTransfer);
        assert_eq!(found.len(), 1);
        assert_eq!(stalled.process.comm, "fetch");
        assert_eq!(stalled.severity, Severity::Warning);
        let told = &stalled.explanation;
        assert!(told.contains("The receiver was silent"), "{told}");
    }
}

#[test]
fn a_receiver_that_is_not_traced_is_accused_only_where_it_was_quick_otherwise() {
    for (gaps, warned) in [(1, true), (3, false)] {
        let mut story = Story::new();
        story.go(UPSTREAM, "files");
        let socket = story.accepted(0.0, UPSTREAM, "127.0.0.1:50000", UPSTREAM_ADDRESS);
        let asked = Asked::at(1.0, 90).answered(10.0, 200);
        story.http(socket, 0, "GET /big", asked.through(9_000.0, 9_000_000));
        for nth in 0..gaps {
            let from = 20.0 + 2_800.0 * f64::from(nth);
            let gap = Stall {
                bytes_before: 3_900_000,
                ..full(from, from + 1_200.0, 1_190.0)
            };
            story.stalled(socket, 0, gap);
        }
        let found = found(&mut story);
        assert_eq!(!warnings(&found).is_empty(), warned, "{found:?}");
    }
}

#[test]
fn lost_packets_are_the_cause_and_the_stall_their_consequence() {
    // A slow reader's window limits its sender also while packets are lost.
    for limited in [0.0, 600.0] {
        lost_in_mid_response(limited);
    }
}

fn lost_in_mid_response(limited: f64) {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 0.0, 700.0, true);
    let stalled = Stall {
        retransmits: 2,
        ..full(22.0, 640.0, limited)
    };
    let waited = Stall {
        arrived: Some(ms(640.4)),
        ..paused(21.0, 640.5)
    };
    story
        .sent_again(225.0, ours)
        .sent_again(640.0, ours)
        .stalled(ours, 0, stalled)
        .stalled(theirs, 0, waited);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::PacketLoss, Rule::StalledTransfer]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
    let told = &found[1].explanation;
    assert!(told.contains("The network was silent"), "{told}");
    assert_eq!(found[0].measured.retransmits, Some(2));
}

#[test]
fn a_long_path_is_worth_knowing_only() {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 0.0, 1500.0, true);
    story
        .stalled(ours, 0, full(30.0, 1430.0, 0.0))
        .stalled(theirs, 0, paused(31.0, 1431.0));
    let found = found(&mut story);
    let stalled = only(&found, Rule::StalledTransfer);
    assert_eq!(stalled.severity, Severity::Info);
    assert!(stalled.explanation.contains("the path is slow"));
}

#[test]
fn a_path_on_which_the_syn_was_sent_again_is_slow_later_too() {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 2000.0, 3500.0, true);
    story
        .tell(
            2000.05,
            Fact::Retransmitted {
                socket: theirs,
                syn: true,
            },
        )
        .stalled(ours, 0, full(2030.0, 3430.0, 0.0))
        .stalled(theirs, 0, paused(2031.0, 3431.0));
    let found = found(&mut story);
    assert_eq!(
        rules(&found),
        [Rule::ConnectTimeout, Rule::StalledTransfer],
        "both for information"
    );
    assert!(warnings(&found).is_empty());
}

#[test]
fn a_stream_of_events_is_healthy_while_it_lasts_and_when_its_reader_leaves() {
    for leaves in [false, true] {
        let mut story = Story::new();
        story.go(UPSTREAM, "news");
        for nth in 0..3_u16 {
            let address = format!("10.0.0.9:{}", 50000 + nth);
            let socket = story.accepted(0.0, UPSTREAM, &address, UPSTREAM_ADDRESS);
            story.http(
                socket,
                0,
                "GET /feed",
                Asked::at(1.0, 90)
                    .answering(10.0, 200)
                    .through(27_010.0, 3_000),
            );
            // Irregular and few, as news are.
            for (from, until) in [(10.0, 4_000.0), (4_000.0, 6_100.0), (6_100.0, 27_010.0)] {
                story.stalled(socket, 0, paused(from, until));
            }
            if leaves {
                story.peer_closed(28_000.0, socket);
            }
        }
        assert_eq!(found(&mut story), [], "leaves: {leaves}");
    }
}

#[test]
fn ticks_at_regular_intervals_that_come_to_an_end_are_no_warning() {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 0.0, 6_010.0, true);
    for nth in 0..6 {
        let from = 10.0 + 1000.0 * f64::from(nth);
        story.stalled(ours, 0, paused(from, from + 1000.0)).stalled(
            theirs,
            0,
            paused(from + 0.1, from + 1000.1),
        );
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_slow_but_steady_reader_is_healthy_although_its_sender_finds_its_buffer_full() {
    let mut story = Story::new();
    let (_, ours) = download(&mut story, 0, 0.0, 20_000.0, true);
    for nth in 0..3 {
        let from = 20.0 + 6000.0 * f64::from(nth);
        story.stalled(ours, 0, full(from, from + 5_000.0, 4_900.0));
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_call_that_waits_for_room_is_no_pause_of_its_program() {
    let mut story = Story::new();
    story.native(UPSTREAM, "httpd");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", UPSTREAM_ADDRESS);
    let asked = Asked::at(1.0, 90).answered(10.0, 200);
    story
        .http(socket, 0, "GET /big", asked.through(2_000.0, 9_000_000))
        .stalled(socket, 0, paused(20.0, 900.0))
        .stalled(socket, 0, paused(900.0, 1_990.0));
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_player_that_fetches_in_bursts_paces_itself() {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 0.0, 20_000.0, true);
    for nth in 0..6 {
        let from = 20.0 + 3000.0 * f64::from(nth);
        let unread = Stall {
            arrived: Some(ms(from + 1.0)),
            ..paused(from, from + 2_500.0)
        };
        story
            .stalled(theirs, 0, unread)
            .stalled(ours, 0, full(from, from + 2_500.0, 2_400.0));
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_kept_connection_that_idles_after_its_response_has_not_stalled() {
    let mut story = Story::new();
    let (theirs, ours) = download(&mut story, 0, 0.0, 20.0, false);
    let for_ever = Stall {
        resumed: false,
        ..paused(20.0, 30_000.0)
    };
    story
        .stalled(ours, 0, for_ever)
        .stalled(theirs, 0, for_ever);
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_client_that_sends_its_request_in_pieces_is_healthy() {
    let mut story = Story::new();
    story.go(UPSTREAM, "files");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", UPSTREAM_ADDRESS);
    let upload = Asked::at(1.0, 100_000).until(2_000.0);
    story
        .http(socket, 0, "PUT /log", upload.answered(2_010.0, 200))
        .stalled(socket, 0, silence(Message::Request, 10.0, 900.0))
        .stalled(socket, 0, silence(Message::Request, 950.0, 1_990.0));
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_websocket_that_is_quiet_has_not_stalled() {
    let mut story = Story::new();
    story.go(UPSTREAM, "chat");
    let socket = story.accepted(0.0, UPSTREAM, "10.0.0.9:50000", UPSTREAM_ADDRESS);
    story
        .http(
            socket,
            0,
            "GET /ws",
            Asked::at(1.0, 90).answered(3.0, 101).through(9_000.0, 800),
        )
        .stalled(socket, 0, paused(3.0, 2_500.0))
        .exchange(socket, 1, Asked::at(9_001.0, 6).answering(9_500.0, 0))
        .stalled(
            socket,
            1,
            Stall {
                arrived: Some(ms(9_600.0)),
                ..paused(9_500.0, 12_000.0)
            },
        )
        .peer_closed(12_001.0, socket);
    assert_eq!(found(&mut story), []);
}

/// A gateway passes a response on; `back` and `far` are the upstream's connection.
fn through_a_gateway(story: &mut Story, last: f64) -> Legs {
    let legs = legs(story, 0.0, 1);
    for (socket, from, pid) in [(legs.front, 1.0, GATEWAY), (legs.far, 2.0, UPSTREAM)] {
        let asked = Asked::at(from, 90).by(pid, 7).answered(10.0, 200);
        story.http(socket, 0, "GET /big", asked.through(last, 500_000));
    }
    let asked = Asked::at(1.5, 90).answered(10.0, 200);
    story.http(legs.back, 0, "GET /big", asked.through(last, 500_000));
    legs
}

#[test]
fn a_gateway_that_passes_a_silence_on_is_not_accused() {
    let mut story = gateway();
    let legs = through_a_gateway(&mut story, 940.0);
    story
        .stalled(legs.far, 0, paused(20.0, 920.0))
        .stalled(legs.back, 0, paused(20.2, 920.2))
        .stalled(legs.front, 0, paused(20.4, 920.4));
    let found = found(&mut story);
    let stalled = only(&found, Rule::StalledTransfer);
    assert_eq!(stalled.process.comm, "upstream");
}

#[test]
fn a_gateway_that_reads_no_faster_than_its_client_is_not_accused() {
    let mut story = gateway();
    story.go(CLIENT, "fetch");
    let asking = story.connected(0.0, CLIENT, "127.0.0.1:36001", GATEWAY_ADDRESS);
    let asked = Asked::at(0.5, 90).answered(11.0, 200);
    story.http(asking, 0, "GET /big", asked.through(1500.0, 500_000));
    let legs = through_a_gateway(&mut story, 1450.0);
    let unread = |from: f64, until: f64| Stall {
        arrived: Some(ms(from)),
        ..paused(from, until)
    };
    story
        .stalled(asking, 0, unread(20.0, 1420.0))
        .stalled(legs.front, 0, full(21.0, 1421.0, 1390.0))
        .stalled(legs.back, 0, unread(40.0, 1421.5))
        .stalled(legs.far, 0, full(41.0, 1422.0, 1370.0));
    let found = found(&mut story);
    let stalled = only(&found, Rule::StalledTransfer);
    assert_eq!(stalled.process.comm, "fetch");
}

#[test]
fn one_short_pause_among_many_transfers_is_an_outlier() {
    let mut story = Story::new();
    for nth in 0..150 {
        download(
            &mut story,
            nth,
            100.0 * f64::from(nth),
            100.0 * f64::from(nth) + 40.0,
            true,
        );
    }
    let (theirs, ours) = download(&mut story, 150, 20_000.0, 20_300.0, true);
    story.stalled(ours, 0, paused(20_020.0, 20_270.0)).stalled(
        theirs,
        0,
        paused(20_020.1, 20_270.1),
    );
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn from_the_receivers_end_alone_the_sender_and_the_way_are_not_told_apart() {
    let mut story = Story::new();
    story.go(CLIENT, "fetch");
    let socket = story.connected(0.0, CLIENT, "10.0.0.1:50000", "10.0.0.2:80");
    let asked = Asked::at(1.0, 90).answered(10.0, 200);
    story
        .http(socket, 0, "GET /big", asked.through(1300.0, 500_000))
        .stalled(socket, 0, paused(20.0, 1270.0));
    let found = found(&mut story);
    let stalled = only(&found, Rule::StalledTransfer);
    assert!(stalled.confidence < 0.8, "{}", stalled.confidence);
    assert!(stalled.incomplete.as_ref().unwrap().contains("not known"));
    let parts = &stalled.measured.parts_s;
    assert!(
        (parts["response_transfer"] - 1.29).abs() < 1e-9,
        "{parts:?}"
    );
}
