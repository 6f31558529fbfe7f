//! `gc-pressure`: who allocates, what leaves no room, and collectors that cost nobody anything.

use crate::event::Runtime;

use super::{
    runtime::{ASSISTING, FIRING, MARKING, RESETTING, WORKING, asked, busy, found_in, said, shop},
    *,
};

/// The closure that the timer is to call; it is allocated where `time.AfterFunc` is called.
const CLOSURE_ALLOCATED: &[&str] = &[
    "runtime.gcAssistAlloc",
    "runtime.mallocgc",
    "runtime.newobject",
    "main.(*Watcher).beat /srv/shop/watcher.go:70",
];
const CALLING_LATER: &[&str] = &[
    "runtime.(*timer).modify",
    "time.newTimer",
    "time.AfterFunc",
    "main.(*Watcher).beat /srv/shop/watcher.go:70",
];
const TIMER_ALLOCATED: &[&str] = &[
    "runtime.gcAssistAlloc",
    "runtime.mallocgc",
    "time.NewTimer",
    "time.After",
    "main.(*Watcher).beat /srv/shop/watcher.go:70",
];
const IDLE_MARKING: &[&str] = &[
    "runtime.scanObject",
    "runtime.gcDrain",
    "runtime.gcDrainMarkWorkerIdle",
    "runtime.gcBgMarkWorker.func2",
    "runtime.gcBgMarkWorker",
];

#[test]
fn a_collector_that_collects_all_the_time_names_who_allocates_and_the_gogc_that_would_do() {
    let (mut story, socket) = shop();
    busy(
        &mut story,
        &[(MARKING, 480), (ASSISTING, 650), (WORKING, 770)],
    );
    asked(&mut story, socket, 20, 300.0);
    for (at, collections) in [(500.0, 10), (9_500.0, 100)] {
        story.runtime(
            at,
            Runtime {
                collections: Some(collections),
                live_bytes: Some(200 << 20),
                gc_percent: Some(10),
                ..said()
            },
        );
    }
    let found = found_in(&mut story);
    let pressure = only(&found, Rule::GcPressure);
    assert_eq!(found.len(), 1, "{:?}", rules(&found));
    assert_eq!(pressure.severity, Severity::Warning);
    assert!(pressure.explanation.contains("item.go:79"));
    assert!(pressure.explanation.contains("GOGC=10"));
    assert!(pressure.measured.assist_share.unwrap() > 0.3);
    assert!(
        pressure.advice[1].starts_with("Set GOGC="),
        "{:?}",
        pressure.advice
    );
    assert!(pressure.advice[1].contains("instead of 10"));
}

#[test]
fn a_memory_limit_that_leaves_no_room_is_the_setting_to_change() {
    let (mut story, socket) = shop();
    busy(&mut story, &[(MARKING, 900), (WORKING, 1000)]);
    asked(&mut story, socket, 20, 300.0);
    for (at, collections) in [(500.0, 10), (9_500.0, 100)] {
        let limited = Runtime {
            collections: Some(collections),
            live_bytes: Some(200 << 20),
            gc_percent: Some(100),
            memory_limit: Some(210 << 20),
            ..said()
        };
        story.runtime(at, limited);
    }
    let found = found_in(&mut story);
    let pressure = only(&found, Rule::GcPressure);
    assert!(
        pressure
            .advice
            .iter()
            .any(|advice| advice.starts_with("Raise GOMEMLIMIT"))
    );
}

#[test]
fn marking_by_idle_processors_costs_nobody_anything() {
    let (mut story, socket) = shop();
    busy(
        &mut story,
        &[(IDLE_MARKING, 1200), (MARKING, 100), (WORKING, 600)],
    );
    asked(&mut story, socket, 20, 300.0);
    assert_eq!(found_in(&mut story), []);
}

#[test]
fn garbage_that_is_timers_is_the_timers_doing() {
    let (mut story, socket) = shop();
    busy(
        &mut story,
        &[(FIRING, 700), (TIMER_ALLOCATED, 600), (WORKING, 600)],
    );
    asked(&mut story, socket, 20, 300.0);
    let found = found_in(&mut story);
    assert_eq!(rules(&found), [Rule::TimerAbuse, Rule::GcPressure]);
    assert_eq!(found[1].caused_by.as_deref(), Some("f1"));
}

#[test]
fn closures_that_are_made_for_timers_are_the_timers_doing_too() {
    for (calling_later, cause) in [(CALLING_LATER, Some("f1")), (RESETTING, None)] {
        let (mut story, socket) = shop();
        busy(
            &mut story,
            &[
                (FIRING, 400),
                (calling_later, 300),
                (CLOSURE_ALLOCATED, 600),
                (WORKING, 600),
            ],
        );
        asked(&mut story, socket, 20, 300.0);
        let found = found_in(&mut story);
        assert_eq!(rules(&found), [Rule::TimerAbuse, Rule::GcPressure]);
        assert_eq!(found[1].caused_by.as_deref(), cause);
    }
}
