//! `run-queue-delay`, and busy hosts on which nobody is late.

use crate::{
    event::{Host, Waiting},
    model::story::thread,
};

use super::*;

const SHOP: Pid = 40;

fn shop() -> Story {
    let mut story = Story::new();
    story.go(SHOP, "shop").thread(0.0, thread(SHOP, SHOP));
    story
}

/// A request at `at` that computes for 20 ms, and in three steps waits `lost` ms for a CPU that others had.
fn computed(story: &mut Story, nth: u16, lost: f64, by: &[(Pid, &str)]) {
    computed_and(story, nth, lost, by, true);
}

/// The same, `answered` or left by its client.
fn computed_and(story: &mut Story, nth: u16, lost: f64, by: &[(Pid, &str)], answered: bool) {
    let at = 10.0 + 1_200.0 * f64::from(nth);
    let goroutine = 100 + u64::from(nth);
    let client = format!("10.0.0.9:{}", 50_000 + nth);
    let socket = story.accepted(at - 1.0, SHOP, &client, "10.0.0.1:80");
    let mut now = at;
    for step in 0..3 {
        story.samples((now, now + 7.0), (SHOP, Some(goroutine)), None, 1);
        now += 7.0;
        if lost > 0.0 {
            let who = by[step % by.len()];
            let thread = (SHOP, 41, Some(goroutine));
            let waited = (now, now + lost / 3.0);
            story.waited(waited, thread, Waiting::Preempted, Some(who));
            now += lost / 3.0;
        }
    }
    let asked = Asked::at(at, 90).by(SHOP, goroutine);
    if answered {
        story.http(socket, 0, "GET /cart", asked.answered(now, 200));
    } else {
        story.http(socket, 0, "GET /cart", asked);
        story.peer_closed(now, socket);
    }
}

/// Two CPUs, always busy, with `runnable` threads for them.
fn busy(story: &mut Story, runnable: u32) {
    for second in 0..=24_u64 {
        let host = Host {
            cpus: 2,
            user: Duration::from_secs(2 * second),
            runnable,
            ..Host::default()
        };
        story.host(1_000.0 * second as f64, host);
    }
}

#[test]
fn a_neighbour_that_takes_the_cpu_is_named() {
    let mut story = shop();
    busy(&mut story, 9);
    for nth in 0..20 {
        computed(
            &mut story,
            nth,
            90.0,
            &[(70, "xz"), (71, "xz"), (90, "cron")],
        );
    }
    story.neighbours(24_000.0, &[(70, "xz", 20_000), (71, "xz", 10_000)]);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::RunQueueDelay]);
    let delay = &found[0];
    assert_eq!(delay.severity, Severity::Warning);
    assert_eq!(delay.count, 20);
    assert!(delay.title.contains("while xz had them"), "{}", delay.title);
    assert!(delay.explanation.contains("pids 70 and 71"));
    assert!(
        delay.explanation.contains("30.000 s of CPU"),
        "{}",
        delay.explanation
    );
    assert!(delay.advice[0].contains("renice -n 19 -p 70 71"));
    let measured = &delay.measured;
    assert_eq!((measured.cpus, measured.runnable_avg), (Some(2), Some(9.0)));
    // 30 s of two CPUs' 24 s.
    assert!((measured.taken_by["xz"] - 0.625).abs() < 1e-6);
    assert!((measured.parts_s["run_queue"] - 0.09).abs() < 1e-3);
}

#[test]
fn the_times_told_of_one_are_those_of_one_that_was_answered() {
    let mut story = shop();
    busy(&mut story, 9);
    // The one in the middle is left by its client.
    for nth in 0..21 {
        let answered = nth != 10;
        computed_and(&mut story, nth, 90.0, &[(70, "xz")], answered);
    }
    story.neighbours(24_000.0, &[(70, "xz", 20_000)]);
    let found = found(&mut story);
    let delay = only(&found, Rule::RunQueueDelay);
    let told: f64 = delay.measured.parts_s.values().sum();
    assert!(told > 0.1, "{:?}", delay.measured.parts_s);
}

#[test]
fn a_service_that_keeps_itself_waiting_is_told_as_load_and_not_as_a_fault() {
    let mut story = shop();
    busy(&mut story, 9);
    for nth in 0..20 {
        computed(&mut story, nth, 90.0, &[(SHOP, "shop")]);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::RunQueueDelay]);
    assert_eq!(found[0].severity, Severity::Info);
    assert!(found[0].title.contains("its own threads"));
    assert!(found[0].advice[0].contains("More CPUs"));
}

#[test]
fn a_service_is_not_said_to_have_had_the_cpus_that_others_took() {
    let mut story = shop();
    busy(&mut story, 9);
    for nth in 0..20 {
        let by = [(SHOP, "shop"), (SHOP, "shop"), (70, "xz")];
        computed(&mut story, nth, 90.0, &by);
    }
    story.neighbours(24_000.0, &[(70, "xz", 20_000)]);
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::RunQueueDelay]);
    assert_eq!(found[0].severity, Severity::Info);
    assert!(found[0].title.contains("while xz had them"), "{found:?}");
}

#[test]
fn who_was_met_at_the_end_of_waits_but_took_no_time_is_not_named() {
    let mut story = shop();
    busy(&mut story, 9);
    for nth in 0..20 {
        computed(
            &mut story,
            nth,
            90.0,
            &[(3, "rcu_preempt"), (3, "rcu_preempt"), (70, "xz")],
        );
    }
    story.neighbours(24_000.0, &[(70, "xz", 30_000), (3, "rcu_preempt", 20)]);
    let found = found(&mut story);
    assert!(
        found[0].title.contains("while xz had them"),
        "{}",
        found[0].title
    );
    assert!(!found[0].advice[0].contains("rcu_preempt"));
}

#[test]
fn without_samples_the_waits_alone_say_who_had_the_cpu() {
    let mut story = shop();
    for nth in 0..20 {
        computed(&mut story, nth, 90.0, &[(70, "xz")]);
    }
    let found = found(&mut story);
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(
        found[0].title.contains("while xz had them"),
        "{}",
        found[0].title
    );
}

#[test]
fn at_full_load_who_answers_in_time_is_healthy() {
    let mut story = shop();
    busy(&mut story, 40);
    for nth in 0..20 {
        computed(&mut story, nth, 30.0, &[(70, "xz")]);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_job_that_takes_every_cpu_and_serves_nobody_is_healthy() {
    let mut story = shop();
    busy(&mut story, 16);
    for nth in 0..200_u32 {
        let at = 100.0 * f64::from(nth);
        let thread = (SHOP, 41 + nth % 8, Some(u64::from(nth % 8)));
        let by = Some((SHOP, "shop"));
        story.waited((at, at + 90.0), thread, Waiting::Preempted, by);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn once_or_twice_is_nobodys_fault() {
    let mut story = shop();
    for nth in 0..20 {
        let lost = if nth < 2 { 90.0 } else { 0.0 };
        computed(&mut story, nth, lost, &[(70, "xz")]);
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn a_long_request_that_lost_a_little_is_not_late_for_it() {
    let mut story = shop();
    for nth in 0..20_u16 {
        let at = 10.0 + 1_200.0 * f64::from(nth);
        let goroutine = 100 + u64::from(nth);
        let client = format!("10.0.0.9:{}", 50_000 + nth);
        let socket = story.accepted(at - 1.0, SHOP, &client, "10.0.0.1:80");
        let thread = (SHOP, 41, Some(goroutine));
        story
            .samples((at, at + 300.0), (SHOP, Some(goroutine)), None, 30)
            .waited((at + 300.0, at + 380.0), thread, Waiting::Preempted, None);
        let asked = Asked::at(at, 90).by(SHOP, goroutine);
        story.http(socket, 0, "GET /report", asked.answered(at + 400.0, 200));
    }
    assert_eq!(found(&mut story), []);
}

#[test]
fn requests_that_were_late_for_it_are_not_told_as_slow_again() {
    let mut story = shop();
    busy(&mut story, 20);
    for nth in 0..5 {
        computed(&mut story, nth, 900.0, &[(70, "xz")]);
    }
    let found = found(&mut story);
    assert_eq!(rules(&found), [Rule::RunQueueDelay]);
    assert_eq!(found[0].severity, Severity::Warning);
}
