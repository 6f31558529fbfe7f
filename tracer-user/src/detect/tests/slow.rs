//! `slow-response`, and what must not be taken for it.

use super::*;

const DATABASE: &str = "10.0.0.5:5432";
const SHOP: Pid = 40;

fn shop() -> (Story, SocketId, SocketId) {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    let front = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
    let back = story.connected(0.0, SHOP, "10.0.0.1:41000", DATABASE);
    (story, front, back)
}

/// Request `number` at `at`, which waits so long for the database.
fn query(story: &mut Story, ends: (SocketId, SocketId), number: u32, at: f64, wait: f64) {
    let (front, back) = ends;
    let goroutine = 5;
    story
        .http(
            front,
            number,
            "GET /cart",
            Asked::at(at, 90)
                .by(SHOP, goroutine)
                .answered(at + wait + 4.0, 200),
        )
        .exchange(
            back,
            number,
            Asked::at(at + 1.0, 60)
                .by(SHOP, goroutine)
                .answered(at + 1.0 + wait, 0),
        );
}

#[test]
fn a_slow_database_is_named_with_its_time_and_the_requests_it_made_slow() {
    for wait in [700.0, 1234.0, 3100.0] {
        let (mut story, front, back) = shop();
        for number in 0..6 {
            let at = 10.0 + f64::from(number) * 4000.0;
            let varied = wait + f64::from(number) * 11.0;
            query(&mut story, (front, back), number, at, varied);
        }
        let found = found(&mut story);
        let slow = only(&found, Rule::SlowResponse);
        assert_eq!(found.len(), 1);
        assert_eq!(slow.severity, Severity::Warning);
        assert_eq!(slow.count, 6);
        assert!(slow.title.contains(DATABASE), "{}", slow.title);
        assert_eq!(slow.measured.requests, Some(6));
        assert_eq!(slow.measured.requests_slow, Some(6));
        let parts = &slow.measured.parts_s;
        assert!(parts["upstream"] * 1e3 >= wait, "{parts:?}");
        assert!(parts["service"] * 1e3 < 5.0, "{parts:?}");
        assert!((0.75..0.9).contains(&slow.confidence), "nothing to compare");
        let median = slow.measured.waited_s.unwrap() * 1e3;
        assert!((wait..wait + 70.0).contains(&median), "{median}");
    }
}

#[test]
fn where_the_same_requests_are_usually_quick_it_is_sure() {
    let (mut story, front, back) = shop();
    for number in 0..40 {
        let at = 10.0 + f64::from(number) * 10.0;
        query(&mut story, (front, back), number, at, 2.0);
    }
    for number in 40..44 {
        let at = 1000.0 + f64::from(number - 40) * 2000.0;
        query(&mut story, (front, back), number, at, 900.0);
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!(slow.count, 4);
    assert!(slow.measured.usual_s.unwrap() < 0.01);
    assert!(slow.confidence > 0.95, "{}", slow.confidence);
}

#[test]
fn a_few_slow_queries_without_a_usual_time_accuse_nobody() {
    let (mut story, front, back) = shop();
    for number in 0..2 {
        let at = 10.0 + f64::from(number) * 4000.0;
        query(&mut story, (front, back), number, at, 2500.0);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn an_attempt_that_was_given_up_was_waited_for_all_the_same() {
    let (mut story, front, _) = shop();
    for number in 0..30 {
        let at = 10.0 + f64::from(number) * 20.0;
        let quick = Asked::at(at, 90).by(SHOP, 5).answered(at + 4.0, 200);
        story.http(front, number, "GET /cart", quick);
    }
    for number in 30..34 {
        let at = 1000.0 + f64::from(number - 30) * 2000.0;
        let late = Asked::at(at, 90).by(SHOP, 5).answered(at + 1310.0, 200);
        story.http(front, number, "GET /cart", late);
        for (nth, asked) in [at + 1.0, at + 650.0].into_iter().enumerate() {
            let ours = format!("10.0.0.1:{}", 42_000 + 2 * number + nth as u32);
            let back = story.connected(asked, SHOP, &ours, "10.0.0.5:81");
            story
                .http(back, 0, "GET /a", Asked::at(asked, 97).by(SHOP, 5))
                .local_closed(asked + 640.0, back);
        }
    }
    for finding in found(&mut story) {
        assert!(
            finding.severity == Severity::Info || finding.rule != Rule::SlowResponse,
            "{finding:?}"
        );
        if let Some(upstream) = finding.measured.parts_s.get("upstream") {
            assert!(*upstream > 1.2, "{finding:?}");
        }
    }
}

#[test]
fn a_worker_that_waits_for_its_queue_serves_nobody_and_is_healthy() {
    let mut story = Story::new();
    story.go(SHOP, "worker");
    let queue = story.connected(0.0, SHOP, "10.0.0.1:41000", "10.0.0.6:6379");
    for number in 0..10 {
        let at = 10.0 + f64::from(number) * 2500.0;
        story.exchange(queue, number, Asked::at(at, 40).answered(at + 2400.0, 0));
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_job_beside_the_requests_does_not_make_them_wait() {
    // The handler polls on purpose; the database query belongs to somebody else.
    let (mut story, front, back) = shop();
    for number in 0..6 {
        let at = 10.0 + f64::from(number) * 4000.0;
        story
            .http(
                front,
                number,
                "GET /news",
                Asked::at(at, 90).by(SHOP, 5).answered(at + 3000.0, 200),
            )
            .exchange(
                back,
                number,
                Asked::at(at + 700.0, 60)
                    .by(SHOP, 9)
                    .answered(at + 2600.0, 0),
            );
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn of_services_that_wait_for_each_other_the_innermost_is_told() {
    let mut story = gateway();
    for nth in 0..5_u16 {
        let at = 4000.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        let goroutine = 100 + u64::from(nth);
        let database = format!("127.0.0.1:{}", 42000 + nth);
        let query = story.connected(at, UPSTREAM, &database, DATABASE);
        story
            .http(
                legs.front,
                0,
                "GET /a",
                Asked::at(at + 1.0, 90)
                    .by(GATEWAY, goroutine)
                    .answered(at + 1505.0, 200),
            )
            .http(
                legs.back,
                0,
                "GET /a",
                Asked::at(at + 2.0, 90).answered(at + 1504.0, 200),
            )
            .http(
                legs.far,
                0,
                "GET /a",
                Asked::at(at + 2.5, 90)
                    .by(UPSTREAM, 77)
                    .answered(at + 1503.0, 200),
            )
            .exchange(
                query,
                0,
                Asked::at(at + 3.0, 60)
                    .by(UPSTREAM, 77)
                    .answered(at + 1500.0, 0),
            );
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!(slow.process.comm, "upstream");
    assert!(slow.title.contains(DATABASE), "{}", slow.title);
    let told = &slow.explanation;
    assert!(told.contains("5 requests of gateway waited"), "{told}");
}

/// A gateway whose requests wait for something on `upstream`, asked by a goroutine of its own.
fn passes_on(upstream: &str, asked: Option<&str>, goroutine: u64) -> Vec<Finding> {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    for nth in 0..8_u16 {
        let at = 3500.0 * f64::from(nth);
        let until = at + 1200.0 + 300.0 * f64::from(nth % 5);
        let client = format!("10.0.0.9:{}", 50000 + nth);
        let front = story.accepted(at, GATEWAY, &client, GATEWAY_ADDRESS);
        let back = format!("10.0.0.1:{}", 40000 + nth);
        let back = story.connected(at, GATEWAY, &back, upstream);
        let served = Asked::at(at + 1.0, 90).by(GATEWAY, 5);
        let wait = Asked::at(at + 2.0, 120).by(GATEWAY, goroutine);
        let wait = wait.answered(until - 1.0, 0);
        story.http(front, 0, "GET /inbox", served.answered(until, 200));
        match asked {
            Some(asked) => story.http(back, 0, asked, wait),
            None => story.exchange(back, 0, wait),
        };
    }
    found(&mut story)
}

#[test]
fn a_proxy_cannot_know_whether_what_it_passes_on_is_a_long_poll() {
    // To a server on another host; by a path of its own; by TLS; by another protocol.
    assert_eq!(passes_on("10.0.0.2:80", Some("GET /inbox"), 9), []);
    assert_eq!(passes_on("10.0.0.2:80", Some("GET /v2/inbox"), 9), []);
    assert_eq!(passes_on("10.0.0.2:443", None, 5), []);
    assert_eq!(passes_on("10.0.0.2:9000", None, 9), []);
    let other = passes_on("10.0.0.2:80", Some("GET /messages"), 9);
    assert_eq!(only(&other, Rule::SlowResponse).severity, Severity::Info);
    let own = passes_on("10.0.0.2:6379", None, 5);
    assert_eq!(only(&own, Rule::SlowResponse).severity, Severity::Warning);
}

#[test]
fn a_long_poll_through_a_proxy_is_healthy() {
    let mut story = gateway();
    for nth in 0..8_u16 {
        let at = 3500.0 * f64::from(nth);
        let legs = legs(&mut story, at, nth);
        let until = at + 1200.0 + 300.0 * f64::from(nth % 5);
        story
            .http(
                legs.front,
                0,
                "GET /inbox",
                Asked::at(at + 1.0, 90).by(GATEWAY, 5).answered(until, 200),
            )
            .http(
                legs.back,
                0,
                "GET /inbox",
                Asked::at(at + 2.0, 90).answered(until - 1.0, 200),
            );
        if nth % 2 == 0 {
            story.http(
                legs.far,
                0,
                "GET /inbox",
                Asked::at(at + 2.5, 90).answered(until - 2.0, 200),
            );
        }
    }
    assert_eq!(found(&mut story), []);
}

fn requests(story: &mut Story, route: &str, late: impl Fn(u32) -> Option<f64>) {
    story.go(SHOP, "shop");
    let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
    let mut at = 1.0;
    for number in 0..200 {
        let wait = late(number).unwrap_or(3.0);
        let answered = Asked::at(at, 90).answered(at + wait, 200);
        story.http(socket, number, route, answered);
        at += wait + 2.0;
    }
}

#[test]
fn a_handler_that_is_late_now_and_then_is_told_with_its_usual_time() {
    let mut story = Story::new();
    requests(&mut story, "GET /orders/17", |number| {
        (number % 40 == 39).then_some(1700.0)
    });
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!((slow.count, slow.severity), (5, Severity::Warning));
    assert!(
        slow.title.contains("GET /orders/{id}"),
        "ids are no route: {}",
        slow.title
    );
    assert!(slow.measured.usual_s.unwrap() < 0.01);
}

#[test]
fn long_polls_that_are_often_answered_at_once_are_healthy() {
    let often = |number: u32| number.is_multiple_of(3).then_some(2000.0);
    let seldom = |number: u32| number.is_multiple_of(40).then_some(2000.0);
    for (route, late) in [
        ("GET /inbox", &often as &dyn Fn(u32) -> Option<f64>),
        ("GET /v1/watch", &seldom),
    ] {
        let mut story = Story::new();
        requests(&mut story, route, late);
        assert_eq!(found(&mut story), [], "{route}");
    }
}

#[test]
fn profiles_websockets_and_large_bodies_take_the_time_they_were_asked_to() {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
    let mut at = 1.0;
    for number in 0..60 {
        let (route, bytes, wait, status) = match number % 12 {
            9 => ("GET /debug/pprof/profile", 90, 3000.0, 200),
            10 => ("GET /chat", 90, 2000.0, 101),
            11 => ("POST /files", 40_000_000, 1800.0, 200),
            _ => ("POST /files", 900, 3.0, 200),
        };
        let answered = Asked::at(at, bytes).answered(at + wait, status);
        story.http(socket, number, route, answered);
        at += wait + 2.0;
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_request_that_lay_unread_in_the_socket_names_who_did_not_read() {
    let mut story = Story::new();
    story.native(SHOP, "worker");
    for nth in 0..4_u16 {
        let at = 3000.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 50000 + nth);
        let socket = story.accepted(at, SHOP, &client, "10.0.0.1:80");
        story.http(
            socket,
            0,
            "GET /",
            Asked::at(at + 1400.0, 90)
                .arrived(at + 1.0)
                .answered(at + 1410.0, 200),
        );
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!(slow.severity, Severity::Warning);
    assert!(slow.title.contains("unread"), "{}", slow.title);
    assert!((slow.measured.parts_s["unread_by_server"] - 1.399).abs() < 1e-6);
}

#[test]
fn a_queue_of_a_busy_service_that_answers_in_time_is_healthy() {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    for nth in 0..200_u16 {
        let at = 5.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 50000 + nth);
        let socket = story.accepted(at, SHOP, &client, "10.0.0.1:80");
        let asked = Asked::at(at + 300.0, 90).arrived(at + 1.0);
        story.http(socket, 0, "GET /", asked.answered(at + 450.0, 200));
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn what_a_give_up_tells_is_not_told_again() {
    let found = found(&mut large_uploads_fail(1000.0));
    assert_eq!(rules(&found), [Rule::ProxyTimeout, Rule::EmptyResponse]);
}

#[test]
fn both_ends_give_parts_that_add_up_to_what_the_client_waited() {
    let mut story = gateway();
    let mut ends = Vec::new();
    for nth in 0..3_u16 {
        let at = 4000.0 * f64::from(nth);
        let address = format!("127.0.0.1:{}", 53000 + nth);
        let theirs = story.connected(at, CLIENT, &address, UPSTREAM_ADDRESS);
        let ours = story.accepted(at + 0.1, UPSTREAM, &address, UPSTREAM_ADDRESS);
        let asked = Asked::at(at + 1.0, 90).arrived(at + 1615.0);
        story
            .http(theirs, 0, "GET /", asked.answered(at + 1620.0, 200))
            .http(
                ours,
                0,
                "GET /",
                Asked::at(at + 1302.0, 90)
                    .arrived(at + 2.0)
                    .answered(at + 1602.0, 200),
            );
        ends.push((theirs, ours));
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    let parts = &slow.measured.parts_s;
    let ms = |part: &str| (parts[part] * 1e3 * 1e3).round() / 1e3;
    assert_eq!(ms("connect"), 1.0);
    assert_eq!(ms("unread_by_server"), 1300.0);
    assert_eq!(ms("service"), 300.0);
    assert_eq!(ms("network"), 14.0);
    assert_eq!(ms("unread_by_client"), 5.0);
    let sum: f64 = parts.values().sum();
    assert!((sum - 1.620).abs() < 1e-9, "{parts:?}");
}
