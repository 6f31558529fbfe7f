//! S1, S4, S5: timers, hand-overs and garbage that take the CPU from requests, and the same services
//! when they do not.

use std::process::Command;

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    process::Process,
    report::{Finding, Report},
    services::{self, Service, go_time},
    turn::Turn,
};

/// The rules that this file is about.
const RULES: [&str; 3] = ["timer-abuse", "gc-pressure", "scheduler-thrash"];

/// What gopulse says of some seconds in which `service` is asked for `path` at this rate. The load goes
/// on when they are over: the last look at the goroutines is to see them at work.
fn watched(service: &Service, path: &str, rate: u64) -> anyhow::Result<Verdict> {
    let url = format!("http://{}{path}", service.address);
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", &url, "-rate", &rate.to_string()]);
    pace.args(["-duration", "60s", "-connections", "8"]);
    let pid = service.pid();
    let watch = Watch::start(&["diagnose", "--format", "json", "--pid", &pid, "-d", "6s"])?;
    let _load = Process::start(&mut pace)?;
    watch.verdict()
}

/// A service whose goroutines have one processor, so that how many CPUs the host has makes no
/// difference.
fn on_one_processor(name: &str, arguments: &[&str]) -> anyhow::Result<Service> {
    let mut command = Command::new(services::program(name)?);
    Service::run(command.args(arguments).env("GOMAXPROCS", "1"))
}

/// What `rule` found: harm that nothing else explains, and a share of the CPU.
fn harm<'r>(report: &'r Report, rule: &str) -> anyhow::Result<Finding<'r>> {
    let found = report.only(rule)?;
    assert_ne!(found.severity(), "info", "{found:?}");
    assert_eq!(found.caused_by(), None, "{}", report.titles());
    assert!(found.measured("cpu_share") >= Some(0.1), "{found:?}");
    assert!(found.measured("requests_slow") >= Some(3.0), "{found:?}");
    assert!(found.measured("lost_s") >= Some(0.05), "{found:?}");
    Ok(found)
}

/// None of these rules sees harm.
fn harmless(report: &Report) {
    let accused = report.alarms().into_iter();
    let accused = accused.filter(|found| RULES.contains(&found.rule()));
    assert_eq!(accused.count(), 0, "{}", report.titles());
}

fn timers(watch: &str, line: &str) -> anyhow::Result<()> {
    let scenario = format!("timers by {watch}");
    let Some(_turn) = Turn::take(&scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(&scenario);
    let sessions = draw.number(150_000..200_000).to_string();
    let every = go_time(draw.millis(80..130));
    let arguments = ["-watch", watch, "-sessions", &sessions, "-every", &every];
    let queue = on_one_processor("queue", &arguments)?;
    let Verdict { status, report, .. } = watched(&queue, "/jobs", draw.number(40..80))?;

    let found = harm(&report, "timer-abuse")?;
    assert_eq!(found.comm(), "queue");
    assert!(found.mentions("watcher.go"), "{found:?}");
    assert!(found.mentions(line), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn timers_that_are_set_again_and_again_are_named() -> anyhow::Result<()> {
    timers("timer", "byTimer")
}

#[test]
fn tickers_that_nobody_stops_are_named() -> anyhow::Result<()> {
    timers("ticker", "byTicker")
}

#[test]
fn time_after_in_a_loop_is_named() -> anyhow::Result<()> {
    timers("after", "byAfter")
}

#[test]
fn a_service_with_as_many_sessions_and_one_ticker_is_healthy() -> anyhow::Result<()> {
    let name = "one ticker for all";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let sessions = draw.number(50_000..100_000).to_string();
    let every = go_time(draw.millis(800..1500));
    let arguments = ["-watch", "sweep", "-sessions", &sessions, "-every", &every];
    let queue = Service::start("queue", &arguments)?;
    let verdict = watched(&queue, "/jobs", draw.number(40..80))?;
    harmless(&verdict.report);
    Ok(())
}

#[test]
fn a_service_with_a_few_thousand_tickers_is_healthy() -> anyhow::Result<()> {
    let name = "a few thousand tickers";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let sessions = draw.number(2_000..10_000).to_string();
    let every = go_time(draw.millis(800..1500));
    let arguments = ["-watch", "ticker", "-sessions", &sessions, "-every", &every];
    let queue = Service::start("queue", &arguments)?;
    let verdict = watched(&queue, "/jobs", draw.number(40..80))?;
    harmless(&verdict.report);
    Ok(())
}

#[test]
fn garbage_with_no_room_to_lie_in_names_who_makes_it() -> anyhow::Result<()> {
    let name = "garbage";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let items = draw.number(400_000..600_000).to_string();
    let looks = draw.number(4_000..8_000).to_string();
    let mut command = Command::new(services::program("catalog")?);
    command.args(["-copies", "-items", &items, "-looks", &looks]);
    command.env("GOGC", draw.number(5..12).to_string());
    let catalog = Service::run(command.env("GOMAXPROCS", "1"))?;
    let Verdict { status, report, .. } = watched(&catalog, "/search?q=1", draw.number(150..200))?;

    let found = harm(&report, "gc-pressure")?;
    assert!(
        found.mentions("main.(*Item).clone (catalogue.go"),
        "{found:?}"
    );
    assert!(found.mentions("GOGC"), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_service_that_copies_nothing_is_healthy() -> anyhow::Result<()> {
    let name = "no garbage";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let items = draw.number(50_000..200_000).to_string();
    let catalog = Service::start("catalog", &["-items", &items])?;
    let verdict = watched(&catalog, "/search?q=1", draw.number(50..150))?;
    harmless(&verdict.report);
    Ok(())
}

#[test]
fn tiny_pieces_that_are_handed_from_thread_to_thread_are_named() -> anyhow::Result<()> {
    let name = "tiny pieces";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let words = draw.number(800..1_500).to_string();
    let stages = draw.number(6..12).to_string();
    let arguments = ["-bound", "-words", &words, "-stages", &stages];
    let relay = Service::start("relay", &arguments)?;
    let Verdict { status, report, .. } = watched(&relay, "/count", draw.number(20..30))?;

    let found = harm(&report, "scheduler-thrash")?;
    assert!(found.mentions("line.go"), "{found:?}");
    assert!(
        found.measured("switches_per_s") >= Some(5_000.0),
        "{found:?}"
    );
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn large_pieces_and_pieces_that_stay_on_one_thread_are_healthy() -> anyhow::Result<()> {
    let name = "large pieces";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let piece = draw.number(100..400).to_string();
    for arguments in [&["-bound", "-piece", &piece][..], &["-words", "500"]] {
        let relay = Service::start("relay", arguments)?;
        let verdict = watched(&relay, "/count", draw.number(10..30))?;
        harmless(&verdict.report);
    }
    Ok(())
}
