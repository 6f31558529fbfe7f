//! `cpu-throttled`, and quotas that do nobody harm.

use crate::{
    event::{Quota, Runtime, Waiting},
    model::story::thread,
};

use super::*;

const SHOP: Pid = 40;
const PERIOD: f64 = 100.0;

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The quota of 50 ms in each 100 ms, used up in `throttled` of `periods`.
fn quota(throttled: u64, periods: u64) -> Quota {
    Quota {
        pid: SHOP,
        cgroup: "/web".into(),
        quota: Some(millis(50)),
        period: millis(100),
        periods: 7_000 + periods,
        throttled_periods: 900 + throttled,
        throttled: Duration::from_secs(77) + millis(60 * throttled),
    }
}

fn runtime(max_procs: u32) -> Runtime {
    Runtime {
        pid: SHOP,
        max_procs: Some(max_procs),
        ..Runtime::default()
    }
}

/// A shop whose goroutines compute, and are stopped for the last 60 ms of the period in which they begin, in
/// `stopped` of 20 requests.
fn shop(version: &str, stopped: u16) -> Story {
    let mut story = Story::new();
    story
        .process(
            SHOP,
            "shop",
            Some(version).filter(|version| !version.is_empty()),
        )
        .thread(0.0, thread(SHOP, SHOP))
        .quota(0.0, quota(0, 0));
    for nth in 0..20_u16 {
        let at = 10.0 + PERIOD * f64::from(nth);
        let goroutine = 100 + u64::from(nth);
        let socket = story.accepted(at - 1.0, SHOP, &client(nth), "10.0.0.1:80");
        let lost = if nth < stopped { 60.0 } else { 0.0 };
        story.samples((at, at + 20.0), (SHOP, Some(goroutine)), None, 2);
        if lost > 0.0 {
            let thread = (SHOP, 41, Some(goroutine));
            story.waited((at + 20.0, at + 80.0), thread, Waiting::Throttled, None);
        }
        let asked = Asked::at(at, 90).by(SHOP, goroutine);
        story.http(
            socket,
            0,
            "GET /cart",
            asked.answered(at + 25.0 + lost, 200),
        );
    }
    let throttled = u64::from(stopped);
    story.quota(2_100.0, quota(throttled, 21));
    story
}

fn client(nth: u16) -> String {
    format!("10.0.0.9:{}", 50_000 + nth)
}

#[test]
fn a_quota_that_stops_requests_is_named_with_gomaxprocs() {
    let mut story = shop("go1.24.3", 8);
    story.runtime(0.0, runtime(16));
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::CpuThrottled]);
    let throttled = &found[0];
    assert_eq!(throttled.severity, Severity::Warning);
    assert_eq!(throttled.count, 8);
    assert!(throttled.title.contains("0.5 CPUs"), "{}", throttled.title);
    assert!(throttled.explanation.contains("GOMAXPROCS is 16"));
    assert!(throttled.explanation.contains("Go 1.25"));
    assert_eq!(throttled.setting.as_ref().unwrap().name, "GOMAXPROCS");
    assert!(throttled.advice[0].contains("GOMAXPROCS=1"));
    let measured = &throttled.measured;
    assert_eq!(
        (measured.max_procs, measured.quota_cpus),
        (Some(16), Some(0.5))
    );
    assert_eq!(
        (measured.throttled_periods, measured.periods),
        (Some(8), Some(21))
    );
    assert_eq!(
        (measured.requests, measured.requests_slow),
        (Some(20), Some(8))
    );
    assert!((measured.throttled_s.unwrap() - 0.48).abs() < 1e-9);
    assert!((measured.waited_max_s.unwrap() - 0.06).abs() < 1e-9);
    assert!((measured.parts_s["throttled"] - 0.06).abs() < 1e-9);
}

#[test]
fn whoever_set_gomaxprocs_is_told() {
    for (version, runtime, says, advises) in [
        (
            "go1.27.3",
            Runtime {
                max_procs_set: true,
                ..runtime(16)
            },
            "its environment sets it",
            "Take GOMAXPROCS out of the environment",
        ),
        (
            "go1.27.3",
            runtime(16),
            "containermaxprocs=0",
            "go 1.25 or later in go.mod",
        ),
        (
            "go1.27.3",
            Runtime {
                adapts: true,
                ..runtime(16)
            },
            "the program sets it",
            "Drop the program's own",
        ),
        (
            "go1.27.3",
            Runtime {
                adapts: true,
                ..runtime(2)
            },
            "never below 2",
            "Set GOMAXPROCS=1",
        ),
        (
            "go1.22.0",
            runtime(1),
            "suits the quota",
            "Or raise the quota",
        ),
    ] {
        let mut story = shop(version, 8);
        story.runtime(0.0, runtime);
        let found = found(&mut story);
        let throttled = only(&found, Rule::CpuThrottled);
        assert!(
            throttled.explanation.contains(says),
            "{}",
            throttled.explanation
        );
        assert!(
            throttled.advice[0].contains(advises),
            "{:?}",
            throttled.advice
        );
    }
}

#[test]
fn a_program_that_is_not_go_is_told_without_gomaxprocs() {
    let mut story = shop("", 8);
    let found = found(&mut story);
    let throttled = only(&found, Rule::CpuThrottled);
    assert_eq!(throttled.setting, None);
    assert_eq!(throttled.measured.max_procs, None);
    assert!(!throttled.explanation.contains("GOMAXPROCS"));
}

#[test]
fn a_quota_that_is_never_used_up_is_healthy() {
    let mut story = shop("go1.27.3", 0);
    story.runtime(0.0, runtime(16));
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_quota_that_slows_down_a_job_nobody_waits_for_is_worth_knowing_only() {
    let mut story = Story::new();
    story
        .go(SHOP, "batch")
        .thread(0.0, thread(SHOP, SHOP))
        .quota(0.0, quota(0, 0));
    for nth in 0..20 {
        let at = PERIOD * f64::from(nth);
        let thread = (SHOP, 41, Some(1));
        story.waited((at + 50.0, at + 100.0), thread, Waiting::Throttled, None);
    }
    story.quota(2_000.0, quota(20, 20));
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::CpuThrottled]);
    assert_eq!(found[0].severity, Severity::Info);
}

#[test]
fn one_request_in_hundreds_is_the_price_of_a_limit() {
    let mut story = shop("go1.27.3", 1);
    for nth in 100..700_u16 {
        let at = 3_000.0 + 10.0 * f64::from(nth);
        let socket = story.accepted(at, SHOP, &client(nth), "10.0.0.1:80");
        story.http(
            socket,
            0,
            "GET /",
            Asked::at(at, 90).answered(at + 3.0, 200),
        );
    }
    let found = found(&mut story);
    assert_eq!(warnings(&found), Vec::<&Finding>::new());
}

#[test]
fn a_process_that_is_moved_counts_in_each_cgroup_for_itself() {
    let mut story = shop("go1.27.3", 8);
    // The counters of the next cgroup are far ahead, and nobody is stopped there.
    for (at, periods) in [(2_200.0, 0), (9_000.0, 60)] {
        let roomy = Quota {
            cgroup: "/roomy".into(),
            throttled: Duration::from_secs(9_999),
            throttled_periods: 5_000,
            ..quota(0, periods)
        };
        story.quota(at, roomy);
    }
    let found = found(&mut story);
    let throttled = only(&found, Rule::CpuThrottled);
    assert!(throttled.explanation.contains("The cgroup /web"));
    assert_eq!(throttled.measured.throttled_periods, Some(8));
}

#[test]
fn what_is_late_for_the_quota_is_not_told_as_slow_again() {
    let mut story = shop("go1.24.3", 0);
    for nth in 100..105_u16 {
        let at = 4_000.0 + 1_000.0 * f64::from(nth - 100);
        let goroutine = u64::from(nth);
        let socket = story.accepted(at - 1.0, SHOP, &client(nth), "10.0.0.1:80");
        for stop in 0..12 {
            let from = at + 20.0 + 70.0 * f64::from(stop);
            story.samples((from - 10.0, from), (SHOP, Some(goroutine)), None, 1);
            let thread = (SHOP, 41, Some(goroutine));
            story.waited((from, from + 60.0), thread, Waiting::Throttled, None);
        }
        let asked = Asked::at(at, 90).by(SHOP, goroutine);
        story.http(socket, 0, "GET /cart", asked.answered(at + 870.0, 200));
    }
    story.quota(9_500.0, quota(60, 95));
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::CpuThrottled]);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].count, 5);
}
