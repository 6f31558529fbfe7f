//! `slow-response` where the handler computed instead of waiting, and what must not be taken for it.

use crate::{
    event::{Runtime, StackId, Waiting},
    model::story::thread,
};

use super::*;

const SHOP: Pid = 40;

const BURN: [&str; 5] = [
    "crypto/sha256.block /go/src/crypto/sha256/sha256block.go:80",
    "main.burn /srv/shop/burn.go:31",
    "main.main.func2 /srv/shop/main.go:19",
    "net/http.HandlerFunc.ServeHTTP /go/src/net/http/server.go:2322",
    "net/http.(*conn).serve /go/src/net/http/server.go:2100",
];

/// A Go service whose threads are watched.
fn shop(max_procs: u32) -> (Story, Option<StackId>) {
    let mut story = Story::new();
    let runtime = Runtime {
        pid: SHOP,
        max_procs: Some(max_procs),
        ..Runtime::default()
    };
    story
        .go(SHOP, "shop")
        .thread(0.0, thread(SHOP, SHOP))
        .runtime(0.0, runtime);
    let burn = story.stack(&BURN);
    (story, burn)
}

/// A request on a connection of its own; `nth` is its goroutine too.
fn request(story: &mut Story, nth: u16, route: &str, (from, until): (f64, f64)) -> SocketId {
    let client = format!("10.0.0.9:{}", 50000 + nth);
    let socket = story.accepted(from - 1.0, SHOP, &client, "10.0.0.1:80");
    let asked = Asked::at(from, 90).by(SHOP, u64::from(nth)).arrived(from);
    story.http(socket, 0, route, asked.answered(until, 200));
    socket
}

/// It has the share of the CPU in that time.
fn computes(
    story: &mut Story,
    nth: u16,
    (from, until): (f64, f64),
    share: f64,
    stack: Option<StackId>,
) {
    let number = ((until - from) * share / 10.101).round() as u32;
    let goroutine = Some(u64::from(nth));
    story.samples((from, until), (SHOP, goroutine), stack, number);
}

#[test]
fn a_handler_that_burns_the_cpu_is_named_with_its_function() {
    for long in [700.0, 1300.0, 4100.0] {
        let (mut story, burn) = shop(2);
        for nth in 0..5 {
            let from = 100.0 + 5000.0 * f64::from(nth);
            let during = (from, from + long);
            request(&mut story, nth, "GET /report", during);
            computes(&mut story, nth, during, 1.0, burn);
        }
        let found = found(&mut story);
        assert_eq!(found.len(), 1);
        let slow = only(&found, Rule::SlowResponse);
        assert_eq!((slow.severity, slow.count), (Severity::Warning, 5));
        assert!(
            slow.title.contains("computed for") && slow.title.contains("in main.burn"),
            "{}",
            slow.title
        );
        assert_eq!(slow.code.as_ref().unwrap().line, Some(31));
        assert_eq!(slow.goroutines[0].state, "running");
        assert_eq!(slow.incomplete, None);
        let parts = &slow.measured.parts_s;
        let sum: f64 = parts.values().sum();
        assert!((sum - long / 1e3).abs() < 1e-9, "{parts:?}");
        assert!((parts["on_cpu"] - long / 1e3).abs() < 0.03, "{parts:?}");
        let told = &slow.explanation;
        assert!(
            told.contains("100% of it in main.burn (burn.go:31)"),
            "{told}"
        );
    }
}

#[test]
fn a_handler_that_always_computes_for_less_than_anybody_notices_is_healthy() {
    let (mut story, burn) = shop(2);
    for nth in 0..50 {
        let from = 100.0 + 400.0 * f64::from(nth);
        let during = (from, from + 320.0);
        request(&mut story, nth, "GET /thumbnail", during);
        computes(&mut story, nth, during, 1.0, burn);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn computing_that_happened_once_is_worth_knowing_only() {
    let (mut story, burn) = shop(2);
    request(&mut story, 1, "GET /report", (100.0, 2100.0));
    computes(&mut story, 1, (100.0, 2100.0), 1.0, burn);
    let found = found(&mut story);
    assert_eq!(only(&found, Rule::SlowResponse).severity, Severity::Info);
}

#[test]
fn requests_that_queue_behind_a_burning_handler_are_its_consequence() {
    let (mut story, burn) = shop(1);
    for nth in 0..4 {
        let from = 100.0 + 4000.0 * f64::from(nth);
        request(&mut story, nth, "GET /report", (from, from + 1500.0));
        computes(&mut story, nth, (from, from + 1500.0), 1.0, burn);
        // It lies in the socket, then its goroutine waits for its turn.
        let client = format!("10.0.0.9:{}", 51000 + nth);
        let socket = story.accepted(from, SHOP, &client, "10.0.0.1:80");
        let asked = Asked::at(from + 900.0, 90)
            .arrived(from + 10.0)
            .by(SHOP, 900);
        story.http(socket, 0, "GET /cart", asked.answered(from + 910.0, 200));
    }
    let found = found(&mut story);
    assert_eq!(found.len(), 1);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!(slow.severity, Severity::Warning);
    assert!(slow.title.contains("GET /report"), "{}", slow.title);
    let told = &slow.explanation;
    assert!(
        told.contains("4 other requests (GET /cart) queued for a turn"),
        "{told}"
    );
    assert!(told.contains("GOMAXPROCS is 1"), "{told}");
}

#[test]
fn concurrent_requests_that_share_the_processors_still_computed() {
    let (mut story, burn) = shop(2);
    for nth in 0..8 {
        request(&mut story, nth, "GET /report", (100.0, 4900.0));
        // In turns of 10 ms each.
        for turn in 0..120 {
            let at = 100.0 + 40.0 * f64::from(turn) + 10.0 * f64::from(nth / 2);
            computes(&mut story, nth, (at, at + 10.1), 1.0, burn);
        }
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!((slow.severity, slow.count), (Severity::Warning, 8));
    let parts = &slow.measured.parts_s;
    assert!((1.0..1.4).contains(&parts["on_cpu"]), "{parts:?}");
    assert!(parts["go_run_queue"] > 3.0, "{parts:?}");
}

#[test]
fn many_small_requests_at_once_are_load_and_no_fault() {
    let (mut story, burn) = shop(1);
    for nth in 0..60 {
        // Each takes 20 ms, and they all come at once.
        let turn = 100.0 + 20.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 51000 + nth);
        let socket = story.accepted(90.0, SHOP, &client, "10.0.0.1:80");
        let asked = Asked::at(turn, 90).arrived(95.0).by(SHOP, u64::from(nth));
        story.http(socket, 0, "GET /cart", asked.answered(turn + 20.0, 200));
        computes(&mut story, nth, (turn, turn + 20.0), 1.0, burn);
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
    let slow = only(&found, Rule::SlowResponse);
    assert!(slow.title.contains("queue for a turn"), "{}", slow.title);
}

#[test]
fn a_long_poll_in_a_busy_process_waits_for_no_turn() {
    let (mut story, burn) = shop(2);
    for nth in 0..6 {
        let from = 100.0 + 4000.0 * f64::from(nth);
        request(&mut story, nth, "GET /inbox", (from, from + 3000.0));
        for busy in 100..102 {
            computes(&mut story, busy, (from, from + 3000.0), 1.0, burn);
        }
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn what_a_late_handler_did_is_said_as_far_as_it_was_watched() {
    for (watched, says) in [
        (false, "computed, or waited for a CPU"),
        (true, "not looked at"),
    ] {
        let mut story = Story::new();
        story.go(SHOP, "shop");
        if watched {
            story.thread(0.0, thread(SHOP, SHOP));
        }
        let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
        let mut at = 1.0;
        for number in 0..200 {
            let wait = if number % 40 == 39 { 1700.0 } else { 3.0 };
            let asked = Asked::at(at, 90).by(SHOP, 7).answered(at + wait, 200);
            story.http(socket, number, "GET /cart", asked);
            at += wait + 2.0;
        }
        let found = found(&mut story);
        let slow = only(&found, Rule::SlowResponse);
        let incomplete = slow.incomplete.as_ref().unwrap();
        assert!(incomplete.contains(says), "{incomplete}");
        assert!(slow.measured.parts_s.contains_key("service"));
        assert_eq!(slow.explanation.contains("a lock, a timer"), watched);
    }
}

#[test]
fn a_handler_that_is_preempted_again_and_again_still_computed_all_it_was_sampled_for() {
    let (mut story, burn) = shop(2);
    for nth in 0..3 {
        let from = 100.0 + 5000.0 * f64::from(nth);
        request(&mut story, nth, "GET /report", (from, from + 2400.0));
        // 4 ms on the CPU, 12 ms without it.
        for slice in 0..150 {
            let at = from + 16.0 * f64::from(slice);
            let thread = (SHOP, 41, Some(u64::from(nth)));
            let by = Some((99, "stress"));
            story.waited((at + 4.0, at + 16.0), thread, Waiting::Preempted, by);
        }
        for tick in 0..59 {
            let slice = from + 16.0 * (f64::from(tick) * 2.5).floor();
            story.samples((slice, slice + 4.0), (SHOP, Some(nth.into())), burn, 1);
        }
    }
    let found = found(&mut story);
    let slow = only(&found, Rule::SlowResponse);
    assert_eq!((slow.severity, slow.count), (Severity::Warning, 3));
    let parts = &slow.measured.parts_s;
    assert!((0.55..0.62).contains(&parts["on_cpu"]), "{parts:?}");
    assert!((1.79..1.81).contains(&parts["run_queue"]), "{parts:?}");
}
