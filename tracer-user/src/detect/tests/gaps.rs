//! Records were lost for a while: what was not told then accuses nobody, and what was told still does.

use crate::{
    event::{Fact, Shed},
    model::story::ms,
};

use super::*;

/// Records about sockets are lost from one moment to another.
fn lose(story: &mut Story, from: f64, until: f64) {
    let (begin, end) = (ms(from), ms(until));
    let gap = |until| Fact::Gap { from: begin, until };
    let lost = Fact::Lost {
        probe: "exchanges".into(),
        count: 7,
    };
    story
        .tell(from, gap(None))
        .tell(until, lost)
        .tell(until, gap(Some(end)));
}

#[test]
fn a_request_whose_answer_was_lost_is_not_an_empty_reply() {
    for closes_first in [true, false] {
        let mut story = gateway();
        let legs = legs(&mut story, 10.0, 1);
        for socket in [legs.front, legs.back, legs.far] {
            story.head(20.0, socket, 0, "GET /");
        }
        lose(&mut story, 15.0, 500.0);
        if closes_first {
            story
                .local_closed(600.0, legs.far)
                .peer_closed(601.0, legs.back);
            story.local_closed(602.0, legs.front);
        } else {
            story
                .reset(600.0, legs.back)
                .reset_sent(600.0, legs.far, None);
        }
        assert!(found(&mut story).is_empty(), "{closes_first}");
    }
}

#[test]
fn connections_whose_close_was_lost_are_not_leaked() {
    let mut story = gateway();
    for nth in 0..20 {
        let legs = legs(&mut story, 10.0, nth);
        story.http(
            legs.back,
            0,
            "GET /",
            Asked::at(11.0, 90).answered(12.0, 90),
        );
        story.peer_closed(20.0, legs.back);
        story.tell(5_000.0, Fact::Vanished { socket: legs.back });
    }
    lose(&mut story, 19.0, 5_000.0);
    let mut found = story.model(20_000.0);
    found.end(ms(20_000.0));
    assert!(findings(&found).is_empty());
}

#[test]
fn a_handshake_whose_end_was_lost_is_not_unanswered() {
    let mut story = gateway();
    let socket = story.connecting(10.0, GATEWAY, "127.0.0.1:40000", UPSTREAM_ADDRESS);
    lose(&mut story, 5.0, 5_000.0);
    let gone = story.connecting(11.0, GATEWAY, "127.0.0.1:40001", UPSTREAM_ADDRESS);
    story.tell(5_000.0, Fact::Vanished { socket: gone });
    let _ = socket;
    assert!(found(&mut story).is_empty());
}

#[test]
fn requests_whose_heads_were_lost_are_not_one_slow_request() {
    let shed = Fact::Shed {
        shed: Shed::Packets,
        spent: 0.1,
        budget: 0.05,
    };
    for by_gap in [true, false] {
        let mut story = gateway();
        let socket = legs(&mut story, 1.0, 1).front;
        let quick = |at: f64| Asked::at(at, 90).answered(at + 1.0, 200);
        for number in 0..5 {
            story.http(socket, number, "GET /", quick(10.0 + f64::from(number)));
        }
        if by_gap {
            lose(&mut story, 20.0, 30.0);
        } else {
            story.tell(20.0, shed.clone());
        }
        for number in 5..20 {
            story.exchange(socket, number, quick(1_000.0 * f64::from(number)));
        }
        let model = story.model(30_000.0);
        let exchanges = model.connection(socket).unwrap().exchanges();
        let longest = exchanges.iter().map(|exchange| exchange.duration()).max();
        assert_eq!(longest, Some(Duration::from_millis(1)));
        assert!(findings(&model).is_empty());
    }
}

#[test]
fn a_timeout_that_was_seen_in_a_gap_is_told_with_less_confidence() {
    let sure = found(&mut large_uploads_fail(1000.0));
    let mut story = large_uploads_fail(1000.0);
    lose(&mut story, 0.0, 60_000.0);
    let doubted = found(&mut story);
    let (sure, doubted) = (
        only(&sure, Rule::ProxyTimeout),
        only(&doubted, Rule::ProxyTimeout),
    );
    assert_eq!(doubted.count, sure.count);
    assert!(doubted.confidence < sure.confidence);
    assert!(doubted.incomplete.as_ref().unwrap().contains("lost"));
}

#[test]
fn what_was_shed_is_said_in_every_finding() {
    let mut story = large_uploads_fail(1000.0);
    story.tell(
        1.0,
        Fact::Shed {
            shed: Shed::Connections { one_in: 4 },
            spent: 0.1,
            budget: 0.05,
        },
    );
    let found = found(&mut story);
    let proxy = only(&found, Rule::ProxyTimeout);
    let said = proxy.incomplete.as_ref().unwrap();
    assert!(said.contains("one connection in 4"), "{said}");
}
