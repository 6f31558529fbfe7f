//! `timer-abuse`, `scheduler-thrash`, and busy processes that harm nobody.

use crate::{
    event::{Creation, Fact, Goroutine, Histogram, Host, Runtime, StackId, Waiting},
    model::story::{frame, goroutine, thread},
};

use super::*;

const SHOP: Pid = UPSTREAM;

/// Where samples of a program are caught: Go 1.27 unless it says otherwise.
pub(super) const FIRING: &[&str] = &[
    "runtime.(*timers).siftDown",
    "runtime.(*timer).unlockAndRun",
    "runtime.(*timers).run",
    "runtime.(*timers).check",
    "runtime.findRunnable",
    "runtime.schedule",
    "runtime.mcall",
];
pub(super) const RESETTING: &[&str] = &[
    "runtime.(*timer).modify",
    "time.resetTimer",
    "time.(*Timer).Reset",
    "main.(*Watcher).beat /srv/shop/watcher.go:52",
    "runtime.goexit",
];
const FIRING_1_21: &[&str] = &[
    "runtime.siftdownTimer",
    "runtime.dodeltimer0",
    "runtime.runOneTimer",
    "runtime.runtimer",
    "runtime.checkTimers",
    "runtime.findRunnable",
    "runtime.mcall",
];
pub(super) const MARKING: &[&str] = &[
    "runtime.scanObject",
    "runtime.gcDrain",
    "runtime.gcDrainMarkWorkerDedicated",
    "runtime.gcBgMarkWorker.func2",
    "runtime.gcBgMarkWorker",
];
pub(super) const ASSISTING: &[&str] = &[
    "runtime.gcDrainN",
    "runtime.gcAssistAlloc1",
    "runtime.gcAssistAlloc",
    "runtime.mallocgc",
    "main.(*Item).clone /srv/shop/item.go:79",
    "net/http.HandlerFunc.ServeHTTP",
];
const HANDING: &[&str] = &[
    "runtime.futex",
    "runtime.notewakeup",
    "runtime.startm",
    "runtime.ready",
    "runtime.chansend1",
    "main.pass /srv/shop/line.go:51",
    "runtime.goexit",
];
const PARKING: &[&str] = &[
    "runtime.futex",
    "runtime.stopm",
    "runtime.schedule",
    "runtime.park_m",
    "runtime.mcall",
];
pub(super) const WORKING: &[&str] = &[
    "main.sum /srv/shop/sum.go:7",
    "net/http.HandlerFunc.ServeHTTP",
];

/// A Go service on two CPUs, and its connection with a client.
pub(super) fn shop() -> (Story, SocketId) {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    let host = Host {
        cpus: 2,
        ..Host::default()
    };
    story.tell(0.0, Fact::Host(host)).runtime(0.0, said());
    let socket = story.accepted(0.0, SHOP, "127.0.0.1:36000", UPSTREAM_ADDRESS);
    (story, socket)
}

pub(super) fn said() -> Runtime {
    Runtime {
        pid: SHOP,
        max_procs: Some(2),
        ..Runtime::default()
    }
}

/// For ten seconds so many of 1000 samples were caught at each stack; two busy CPUs give some 1980.
pub(super) fn busy(story: &mut Story, at: &[(&[&str], u32)]) {
    for (stack, number) in at {
        let stack: Option<StackId> = story.stack(stack);
        story.samples((0.0, 10_000.0), (SHOP, None), stack, *number);
    }
}

/// Requests that are answered after `wait`, one every 100 ms, and quick ones before.
pub(super) fn asked(story: &mut Story, socket: SocketId, number: u32, wait: f64) {
    for quick in 0..30 {
        let at = 10.0 + f64::from(quick);
        story.http(
            socket,
            quick,
            "GET /search",
            Asked::at(at, 90).answered(at + 0.9, 200),
        );
    }
    for late in 0..number {
        let at = 500.0 + f64::from(late) * (wait + 20.0);
        let asked = Asked::at(at, 90).by(SHOP, 7).answered(at + wait, 200);
        story.http(socket, 30 + late, "GET /search", asked);
    }
}

pub(super) fn found_in(story: &mut Story) -> Vec<Finding> {
    findings(&story.model(10_000.0))
}

#[test]
fn timers_that_take_the_cpus_name_who_sets_them_and_what_requests_lost() {
    for firing in [FIRING, FIRING_1_21] {
        for (timers, work) in [(700, 1200), (1500, 400)] {
            let (mut story, socket) = shop();
            busy(
                &mut story,
                &[
                    (firing, timers / 2),
                    (RESETTING, timers / 2),
                    (WORKING, work),
                ],
            );
            asked(&mut story, socket, 20, 300.0);
            story.runtime(
                9_000.0,
                Runtime {
                    timers: Some(300_017),
                    ..said()
                },
            );
            let found = found_in(&mut story);
            let abuse = only(&found, Rule::TimerAbuse);
            assert_eq!(found.len(), 1, "{:?}", rules(&found));
            assert_eq!(abuse.severity, Severity::Warning);
            assert!(abuse.explanation.contains("watcher.go:52"));
            assert!(abuse.explanation.contains("300017 timers"));
            assert_eq!(abuse.measured.requests_slow, Some(20));
            let share = f64::from(timers) / f64::from(timers + work);
            let lost = abuse.measured.lost_s.unwrap();
            assert!((lost - 0.3 * share).abs() < 0.03, "{lost} of {share}");
            assert!(abuse.advice[0].contains("Set the timer less often"));
        }
    }
}

#[test]
fn a_crowd_of_goroutines_with_tickers_is_named_with_who_started_it() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(FIRING, 1500), (WORKING, 400)]);
    asked(&mut story, socket, 20, 300.0);
    let ticking = |id| Goroutine {
        created_by: Some(Creation {
            frame: frame("main.NewWatcher.func1 /srv/shop/watcher.go:33"),
            goroutine: Some(1),
        }),
        ..goroutine(
            id,
            "chan receive",
            &[
                "runtime.gopark",
                "runtime.chanrecv2",
                "main.(*Watcher).tick /srv/shop/watcher.go:61",
            ],
        )
    };
    story
        .goroutines(100.0, SHOP, (1..2_000).map(ticking).collect())
        .goroutines(9_000.0, SHOP, (1..3_000).map(ticking).collect());
    let found = found_in(&mut story);
    let abuse = only(&found, Rule::TimerAbuse);
    let told = &abuse.explanation;
    assert!(
        told.contains("2999 goroutines wait (chan receive)"),
        "{told}"
    );
    assert!(told.contains("watcher.go:61") && told.contains("watcher.go:33"));
    assert!(told.contains("they leak as well"), "{told}");
    assert!(abuse.advice[0].contains("defer ticker.Stop()"));
    assert_eq!(abuse.code.as_ref().and_then(|code| code.line), Some(61));
}

#[test]
fn jobs_that_are_turned_away_while_timers_have_the_cpus_are_critical() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(FIRING, 1500), (WORKING, 400)]);
    for job in 0..40 {
        let at = 200.0 * f64::from(job) + 10.0;
        let status = if job % 2 == 0 { 503 } else { 200 };
        let asked = Asked::at(at, 90).answered(at + 2.0, status);
        story.http(socket, job, "POST /jobs", asked);
    }
    let found = found_in(&mut story);
    let abuse = only(&found, Rule::TimerAbuse);
    assert_eq!(abuse.severity, Severity::Critical);
    assert_eq!(abuse.measured.requests_harmed, Some(20));
    assert!(abuse.explanation.contains("20 were turned away"));
}

#[test]
fn what_is_late_for_timers_is_told_once() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(FIRING, 1500), (WORKING, 400)]);
    asked(&mut story, socket, 5, 1_400.0);
    assert_eq!(rules(&found_in(&mut story)), [Rule::TimerAbuse]);
}

#[test]
fn timers_of_a_service_with_free_cpus_harm_nobody() {
    for (timers, work) in [(100, 20), (900, 200)] {
        let (mut story, socket) = shop();
        busy(&mut story, &[(FIRING, timers), (WORKING, work)]);
        asked(&mut story, socket, 20, 300.0);
        let found = found_in(&mut story);
        assert_eq!(warnings(&found), Vec::<&Finding>::new());
        let told = if timers < 500 { 0 } else { 1 };
        assert_eq!(found.len(), told, "{:?}", rules(&found));
    }
}

#[test]
fn a_batch_job_that_serves_nobody_is_worth_knowing_at_most() {
    for stack in [FIRING, MARKING, PARKING] {
        let (mut story, _) = shop();
        busy(&mut story, &[(stack, 1500), (WORKING, 400)]);
        let found = found_in(&mut story);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Info);
        assert!(
            found[0]
                .explanation
                .contains("No request was seen to be late")
        );
    }
}

#[test]
fn a_service_at_full_load_that_answers_in_time_is_healthy() {
    let (mut story, socket) = shop();
    busy(
        &mut story,
        &[
            (FIRING, 60),
            (RESETTING, 60),
            (MARKING, 250),
            (ASSISTING, 100),
            (PARKING, 400),
            (WORKING, 1000),
        ],
    );
    asked(&mut story, socket, 100, 40.0);
    assert_eq!(found_in(&mut story), []);
}

#[test]
fn long_polls_of_a_busy_service_are_no_victims() {
    for stack in [FIRING, MARKING, PARKING] {
        let (mut story, socket) = shop();
        busy(&mut story, &[(stack, 1500), (WORKING, 400)]);
        for poll in 0..9 {
            let at = 1_000.0 * f64::from(poll) + 10.0;
            let asked = Asked::at(at, 90).answered(at + 900.0, 200);
            story.http(socket, poll, "GET /v1/watch", asked);
        }
        assert_eq!(warnings(&found_in(&mut story)), Vec::<&Finding>::new());
    }
}

/// Threads that ran for 5 µs at a time.
fn switched(story: &mut Story) {
    let mut thread = thread(SHOP, 41);
    thread.on_cpu = Duration::from_secs(5);
    thread.voluntary = 1_000_000;
    thread.slices = Histogram(vec![0, 0, 0, 0, 0, 0, 1_000_000]);
    story.thread(9_990.0, thread);
}

#[test]
fn work_that_is_handed_over_in_tiny_pieces_is_named_although_a_cpu_is_free() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(PARKING, 800), (HANDING, 150), (WORKING, 60)]);
    asked(&mut story, socket, 4, 2_000.0);
    let giving = story.stack(HANDING);
    story.samples((500.0, 8_500.0), (SHOP, Some(7)), giving, 40);
    switched(&mut story);
    let found = found_in(&mut story);
    let thrash = only(&found, Rule::SchedulerThrash);
    assert_eq!(found.len(), 1, "{:?}", rules(&found));
    assert_eq!(thrash.severity, Severity::Warning);
    assert!(thrash.explanation.contains("line.go:51"));
    assert_eq!(thrash.measured.switches_per_s, Some(100_000.0));
    assert!(
        thrash.explanation.contains("5 µs at a time"),
        "{}",
        thrash.explanation
    );
    assert!(thrash.advice[0].contains("LockOSThread"));
}

#[test]
fn handlers_that_wait_where_work_is_handed_over_were_held_up_by_it() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(PARKING, 800), (HANDING, 150), (WORKING, 60)]);
    asked(&mut story, socket, 4, 2_000.0);
    let giving = [
        "runtime.chansend1",
        "main.(*Line).Count /srv/shop/line.go:34",
        "net/http.(*conn).serve",
    ];
    story.goroutines(9_000.0, SHOP, vec![goroutine(7, "chan send", &giving)]);
    // Its own goroutine was caught at it once.
    let caught = story.stack(HANDING);
    story.samples((500.0, 8_500.0), (SHOP, Some(7)), caught, 4);
    switched(&mut story);
    let found = found_in(&mut story);
    assert_eq!(
        only(&found, Rule::SchedulerThrash).severity,
        Severity::Warning
    );
}

#[test]
fn handlers_that_wait_now_here_and_now_there_in_the_file_hand_over_too() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(PARKING, 800), (HANDING, 150), (WORKING, 60)]);
    asked(&mut story, socket, 4, 2_000.0);
    for (at, state, line) in [(3_000.0, "chan send", 34), (9_000.0, "chan receive", 35)] {
        let count = format!("main.(*Line).Count /srv/shop/line.go:{line}");
        let frames = ["runtime.chan1", &count, "net/http.(*conn).serve"];
        story.goroutines(at, SHOP, vec![goroutine(7, state, &frames)]);
    }
    switched(&mut story);
    let found = found_in(&mut story);
    let thrash = only(&found, Rule::SchedulerThrash);
    assert_eq!(thrash.severity, Severity::Warning);
}

#[test]
fn a_handler_that_waits_in_the_file_of_a_busy_pipeline_has_no_part_in_it() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(PARKING, 800), (HANDING, 150), (WORKING, 60)]);
    asked(&mut story, socket, 4, 2_000.0);
    let waiting = [
        "runtime.chanrecv1",
        "main.news /srv/shop/line.go:90",
        "net/http.(*conn).serve",
    ];
    story.goroutines(9_000.0, SHOP, vec![goroutine(7, "chan receive", &waiting)]);
    switched(&mut story);
    assert_eq!(warnings(&found_in(&mut story)), Vec::<&Finding>::new());
}

#[test]
fn handlers_that_sleep_lose_nothing_to_a_process_that_is_busy() {
    for (state, severity) in [("sleep", Severity::Info), ("runnable", Severity::Warning)] {
        let (mut story, socket) = shop();
        busy(&mut story, &[(FIRING, 1000), (WORKING, 900)]);
        asked(&mut story, socket, 20, 300.0);
        let frames = ["main.nap /srv/shop/nap.go:3", "net/http.(*conn).serve"];
        for second in 1..10 {
            let at = f64::from(second) * 1_000.0;
            let handlers = (1..4).map(|id| goroutine(id, state, &frames));
            story.goroutines(at, SHOP, handlers.collect());
        }
        let found = found_in(&mut story);
        assert_eq!(only(&found, Rule::TimerAbuse).severity, severity, "{state}");
    }
}

#[test]
fn a_request_that_sleeps_beside_a_busy_pipeline_was_not_held_up_by_it() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(PARKING, 800), (HANDING, 150), (WORKING, 60)]);
    asked(&mut story, socket, 4, 2_000.0);
    let sleeping = [
        "time.Sleep",
        "main.nap /srv/shop/nap.go:3",
        "net/http.(*conn).serve",
    ];
    story.goroutines(9_000.0, SHOP, vec![goroutine(7, "sleep", &sleeping)]);
    switched(&mut story);
    assert_eq!(warnings(&found_in(&mut story)), Vec::<&Finding>::new());
}

#[test]
fn a_process_held_up_by_its_timers_is_so_on_a_busy_host_too() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(FIRING, 300), (WORKING, 200)]);
    asked(&mut story, socket, 20, 300.0);
    for thread in [41, 42] {
        for n in 0..100 {
            let from = 100.0 * f64::from(n) + 20.0;
            let by = Some((99, "rustc"));
            story.waited(
                (from, from + 75.0),
                (SHOP, thread, None),
                Waiting::Preempted,
                by,
            );
        }
    }
    let found = found_in(&mut story);
    assert_eq!(only(&found, Rule::TimerAbuse).severity, Severity::Warning);
}
