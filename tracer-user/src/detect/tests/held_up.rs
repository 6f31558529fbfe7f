//! What a request met with on the scheduler, and what it did not.

use crate::{
    detect::grounds::{
        held_up::{self, HeldUp, Times},
        scene::Scene,
    },
    event::Waiting,
    model::story::thread,
};

use super::*;

const SHOP: Pid = 40;
const GOROUTINE: u64 = 7;

/// A shop whose scheduler is watched, with one connection.
fn shop() -> (Story, SocketId) {
    let mut story = Story::new();
    story.go(SHOP, "shop").thread(0.0, thread(SHOP, SHOP));
    let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
    (story, socket)
}

/// A request that lay in the socket at `arrived`, was read at `read` and answered at `answered`.
fn request(story: &mut Story, socket: SocketId, arrived: f64, read: f64, answered: f64) {
    let asked = Asked::at(read, 90).arrived(arrived).by(SHOP, GOROUTINE);
    story.http(socket, 0, "GET /cart", asked.answered(answered, 200));
}

/// Milliseconds on CPU, waiting for one, throttled, and what of these befell its own runner.
fn times(scene: &Scene<'_>, held: &HeldUp<'_>) -> [f64; 4] {
    let on_cpu = Times::of(scene, held.connection, &held.exchange)
        .on_cpu
        .total();
    [on_cpu, held.run_queue, held.throttled, held.own].map(|time| time.as_secs_f64() * 1e3)
}

/// Those of the only request, `None` where nothing held it up.
fn held(story: &mut Story) -> Option<[f64; 4]> {
    let model = story.model(30_000.0);
    let scene = Scene::of(&model);
    let all = scene.held_up(SHOP);
    assert!(all.len() <= 1);
    all.first().map(|held| times(&scene, held))
}

/// The same, whether or not anything did.
fn met(story: &mut Story) -> [f64; 4] {
    let model = story.model(30_000.0);
    let scene = Scene::of(&model);
    let connection = model.connections().next().unwrap();
    let exchange = connection.exchanges().remove(0);
    times(&scene, &held_up::of(&scene, connection, exchange))
}

/// Thread `tid` of the shop, which had no goroutine, was woken and waited.
fn woken(story: &mut Story, tid: u32, from: f64, until: f64) {
    let thread = (SHOP, tid, None);
    let by = Some((99, "stress"));
    story.waited((from, until), thread, Waiting::Woken, by);
}

#[test]
fn waits_of_its_own_goroutine_are_its_own_and_those_of_others_are_not() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 10.0, 200.0);
    let by = Some((99, "stress"));
    for (goroutine, from, until) in [(GOROUTINE, 50.0, 80.0), (8, 90.0, 190.0)] {
        let thread = (SHOP, 41, Some(goroutine));
        story.waited((from, until), thread, Waiting::Preempted, by);
    }
    assert_eq!(held(&mut story), Some([0.0, 30.0, 0.0, 30.0]));
}

#[test]
fn no_moment_is_counted_twice() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 10.0, 200.0);
    let own = (SHOP, 41, Some(GOROUTINE));
    story
        .waited((50.0, 80.0), own, Waiting::Throttled, None)
        .waited((70.0, 90.0), own, Waiting::Preempted, None)
        .waited((60.0, 95.0), (SHOP, 42, Some(8)), Waiting::Throttled, None)
        .samples((10.0, 200.0), (SHOP, Some(GOROUTINE)), None, 30);
    let [on_cpu, run_queue, throttled, own] = held(&mut story).unwrap();
    // Samples say that the process ran while its other thread was throttled.
    assert_eq!((run_queue, throttled, own), (10.0, 30.0, 40.0));
    assert!(on_cpu + run_queue + throttled <= 190.0);
    assert!(on_cpu > 140.0, "{on_cpu}");
}

#[test]
fn samples_tell_time_on_cpu_to_a_tick() {
    for burnt in [60.0, 300.0, 1500.0] {
        let (mut story, socket) = shop();
        request(&mut story, socket, 10.0, 10.0, 2000.0);
        let number = (burnt / 10.101_f64).round() as u32;
        let span = (30.0, 30.0 + burnt);
        story
            .samples(span, (SHOP, Some(GOROUTINE)), None, number)
            .samples((10.0, 2000.0), (SHOP, Some(8)), None, 200);
        let [on_cpu, ..] = met(&mut story);
        assert!((on_cpu - burnt).abs() < 11.0, "{on_cpu} of {burnt}");
        assert_eq!(held(&mut story), None, "running is not being held up");
    }
}

#[test]
fn a_thread_woken_for_the_request_held_it_up_until_it_got_a_cpu() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 62.0, 64.0);
    // The one that waits for the network, then the one that it wakes to run the goroutine.
    woken(&mut story, 41, 10.1, 40.0);
    woken(&mut story, 42, 40.2, 61.0);
    let [_, run_queue, _, own] = held(&mut story).unwrap();
    assert!((run_queue - 50.7).abs() < 1e-6, "{run_queue}");
    assert_eq!(own, 0.0);
}

#[test]
fn a_thread_woken_for_something_else_held_up_nobody() {
    for (from, until) in [
        // Woken long after the request had come.
        (30.0, 60.0),
        // Got a CPU after the request had been read.
        (10.1, 80.0),
        // Got a CPU long before: the request waited for something else.
        (10.1, 25.0),
    ] {
        let (mut story, socket) = shop();
        request(&mut story, socket, 10.0, 62.0, 90.0);
        woken(&mut story, 41, from, until);
        assert_eq!(held(&mut story), None, "{from} {until}");
    }
}

/// The quota stops the shop, whose thread ran another goroutine.
fn throttled(story: &mut Story, from: f64, until: f64) {
    let thread = (SHOP, 41, Some(99));
    story.waited((from, until), thread, Waiting::Throttled, None);
}

#[test]
fn a_throttled_process_reads_nothing() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 90.5, 92.0);
    throttled(&mut story, 5.0, 90.0);
    assert_eq!(held(&mut story), Some([0.0, 0.0, 80.0, 0.0]));
}

#[test]
fn a_handler_that_sleeps_while_the_process_is_throttled_loses_nothing() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 10.1, 400.0);
    for from in [20.0, 120.0, 220.0] {
        throttled(&mut story, from, from + 80.0);
    }
    assert_eq!(held(&mut story), None);
}

#[test]
fn a_handler_that_was_running_when_the_quota_was_used_up_lost_that_time() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 10.1, 400.0);
    story.samples((10.0, 20.0), (SHOP, Some(GOROUTINE)), None, 1);
    throttled(&mut story, 20.0, 100.0);
    let [_, _, throttled, own] = held(&mut story).unwrap();
    // Half a tick after the sample may have been spent running.
    assert!((79.0..=80.0).contains(&throttled), "{throttled}");
    assert_eq!(own, 0.0);
}

#[test]
fn a_process_that_runs_on_another_cpu_is_not_stopped() {
    let (mut story, socket) = shop();
    request(&mut story, socket, 10.0, 10.1, 112.0);
    throttled(&mut story, 20.0, 110.0);
    story.samples((15.0, 115.0), (SHOP, Some(8)), None, 10);
    assert_eq!(held(&mut story), None);
}

#[test]
fn waiting_for_another_service_is_not_waiting_for_a_cpu() {
    let (mut story, socket) = shop();
    let query = story.connected(0.0, SHOP, "10.0.0.1:41000", "10.0.0.5:5432");
    request(&mut story, socket, 10.0, 10.0, 413.0);
    let asked = Asked::at(11.0, 60).by(SHOP, GOROUTINE).arrived(380.0);
    story.exchange(query, 0, asked.answered(412.0, 0));
    throttled(&mut story, 100.0, 200.0);
    // The answer has come, and who is to read it waits for a CPU.
    woken(&mut story, 41, 380.1, 411.5);
    let [_, run_queue, throttled, _] = held(&mut story).unwrap();
    assert!((run_queue - 31.4).abs() < 1e-6, "{run_queue}");
    assert_eq!(throttled, 0.0);
}

#[test]
fn outside_go_the_thread_stands_for_the_request_unless_it_serves_several() {
    for shared in [false, true] {
        let mut story = Story::new();
        story.native(SHOP, "shop").thread(0.0, thread(SHOP, SHOP));
        let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
        request(&mut story, socket, 10.0, 10.0, 200.0);
        story
            .waited((50.0, 80.0), (SHOP, SHOP, None), Waiting::Preempted, None)
            .samples((100.0, 150.0), (SHOP, None), None, 5);
        if shared {
            let other = story.accepted(0.0, SHOP, "10.0.0.9:50001", "10.0.0.1:80");
            let asked = Asked::at(20.0, 90).by(SHOP, 0).answered(30.0, 200);
            story.http(other, 0, "GET /cart", asked);
        }
        let [on_cpu, run_queue, _, own] = met(&mut story);
        if shared {
            // It may have waited for something else just as well.
            assert_eq!((on_cpu, run_queue, own), (0.0, 0.0, 0.0));
        } else {
            assert_eq!((run_queue, own), (30.0, 30.0));
            assert!((on_cpu - 50.0).abs() < 11.0);
        }
    }
}

#[test]
fn where_the_scheduler_was_not_watched_nothing_is_known() {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    let socket = story.accepted(0.0, SHOP, "10.0.0.9:50000", "10.0.0.1:80");
    request(&mut story, socket, 10.0, 10.0, 200.0);
    assert_eq!(met(&mut story), [0.0; 4]);
}
