//! What is lost is counted to the last record, and a gap in what was told accuses nobody.
//!
//! Losses are made: gopulse is stopped in the middle of a load, or gets a ring so small (`GOPULSE_RING_BYTES`)
//! that it runs over all the time.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch, gopulse},
    process::Process,
    services::{self, Service, go_time},
    turn::Turn,
    wait,
};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tracer_user::{
    event::{Event, Fact, Origin},
    recording::Reader,
};

/// Holds the records of some hundred connections.
const SMALL_RING: &str = "65536";

/// How long the load runs.
const LOAD: Duration = Duration::from_secs(6);

/// What the load generator counted itself.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Sum {
    requests: u64,
    failed: u64,
    max_s: f64,
}

fn pace(url: &str, time: Duration, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", url, "-duration", &go_time(time)]);
    Process::start(pace.args(arguments))
}

fn sum(pace: Process) -> anyhow::Result<Sum> {
    let said = pace.wait(LOAD * 5)?.stdout;
    serde_json::from_str(&said).with_context(|| format!("pace said {said:?}"))
}

/// Lets gopulse stand still for a while.
fn hold(watch: &Watch, time: Duration) -> anyhow::Result<()> {
    watch.send(Signal::SIGSTOP)?;
    thread::sleep(time);
    watch.send(Signal::SIGCONT)
}

/// How often something was told, and how often it was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    told: u64,
    lost: u64,
}

impl Count {
    fn of(events: &[Event], told: impl Fn(&Fact) -> bool, loss: &str) -> Self {
        let lost = events.iter().filter_map(|event| match &event.fact {
            Fact::Lost { probe, count } if probe == loss => Some(*count),
            _ => None,
        });
        Self {
            told: events.iter().filter(|event| told(&event.fact)).count() as u64,
            lost: lost.max().unwrap_or(0),
        }
    }

    fn sum(self) -> u64 {
        self.told + self.lost
    }
}

fn events(recording: &Path) -> anyhow::Result<Vec<Event>> {
    Ok(Reader::open(recording)?.collect())
}

#[test]
fn each_connection_is_told_or_counted_as_lost() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a count of what was lost", &[]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let directory = tempfile::tempdir()?;
    let into = directory.path().join("recording");
    let path = into.to_str().context("a path that is no text")?;
    let port = hello.port();
    let arguments = ["record", "--port", &port, "-d", "60s", "-o", path];
    let mut command = gopulse(&arguments)?;
    let watch = Watch::run(command.env("GOPULSE_RING_BYTES", SMALL_RING))?;
    wait::until("the first look at threads", LOAD * 5, || {
        let told = events(&into).unwrap_or_default();
        let is_thread = |event: &Event| matches!(event.fact, Fact::Thread(_));
        Ok(told.iter().any(is_thread).then_some(()))
    })?;
    let url = format!("http://{}/", hello.address);
    let pace = pace(&url, LOAD, &["-rate", "2000", "-fresh"])?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(500));
        hold(&watch, Duration::from_secs(1))?;
    }
    let asked = sum(pace)?;
    assert_eq!(asked.failed, 0, "{asked:?}");
    watch.stop()?;

    // A connection for each request: the load generator counts them, and no code of ours.
    let events = events(&into)?;
    let is_accepted =
        |fact: &Fact| matches!(fact, Fact::Opened(opened) if opened.origin == Origin::Accepted);
    let opened = Count::of(&events, is_accepted, "openings of sockets");
    let is_whole = |fact: &Fact| matches!(fact, Fact::Exchange(told) if told.response_bytes > 0);
    let exchanges = Count::of(&events, is_whole, "exchanges");
    let is_end = |fact: &Fact| matches!(fact, Fact::Closed(_));
    let ended = Count::of(&events, is_end, "ends of sockets");
    for count in [opened, exchanges, ended] {
        assert_eq!(
            count.sum(),
            asked.requests,
            "{opened:?} {exchanges:?} {ended:?}"
        );
        assert!(count.told > 0 && count.lost > 0, "{count:?}");
    }
    let gaps = events
        .iter()
        .filter(|event| matches!(event.fact, Fact::Gap { until: Some(_), .. }));
    assert!(gaps.count() > 0);
    Ok(())
}

/// A chain of healthy services under a load, of which gopulse sees but a part: the losses must accuse nobody.
fn healthy(scenario: &str, ring: Option<&str>, load: &[&str]) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let hello = Service::start("hello", &[])?;
    let upstream = hello.address.to_string();
    let patience = ["-upstream", &upstream, "-response-header-timeout", "30s"];
    let gateway = Service::start("gateway", &patience)?;
    let url = format!("http://{}/", gateway.address);
    let pace = pace(&url, LOAD * 2, load)?;
    let pids = [pace.pid(), gateway.process.pid(), hello.process.pid()].map(|pid| pid.to_string());
    let targets = pids.iter().flat_map(|pid| ["--pid", pid]);
    let begin = ["diagnose", "--format", "json", "-d", "60s"];
    let arguments: Vec<&str> = begin.into_iter().chain(targets).collect();
    let mut command = gopulse(&arguments)?;
    if let Some(ring) = ring {
        command.env("GOPULSE_RING_BYTES", ring);
    }
    let watch = Watch::run(&mut command)?;
    let began = Instant::now();
    while began.elapsed() < LOAD {
        thread::sleep(draw.millis(200..900));
        hold(&watch, draw.millis(300..1500))?;
    }
    // Some of what was opened in a gap must be there at the end.
    thread::sleep(draw.millis(0..500));
    let Verdict { report, .. } = watch.finish()?;
    let asked = sum(pace)?;
    assert_eq!(asked.failed, 0, "{asked:?}");

    let lost = report.events_lost().unwrap_or(0);
    assert!(
        lost > 0 || ring.is_none(),
        "nothing was lost, so nothing was tried"
    );
    for found in report.alarms() {
        // That connections are not kept is so.
        assert_eq!(
            found.rule(),
            "connection-churn",
            "{lost} lost: {}",
            report.titles()
        );
        assert!(lost == 0 || found.confidence() < 0.9);
        assert!(lost == 0 || found.mentions("lower bounds"));
    }
    Ok(())
}

#[test]
fn healthy_connections_for_every_request_are_not_accused_for_a_gap() -> anyhow::Result<()> {
    let load = ["-rate", "600", "-fresh"];
    healthy("gaps in short connections", Some(SMALL_RING), &load)
}

#[test]
fn healthy_kept_connections_are_not_accused_for_a_gap() -> anyhow::Result<()> {
    healthy(
        "gaps in kept connections",
        Some("16384"),
        &["-rate", "1500"],
    )
}

#[test]
fn a_service_does_not_wait_for_a_gopulse_that_stands_still() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a gopulse that stands still", &[]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let url = format!("http://{}/", hello.address);
    let watch = Watch::diagnose(&["--port", &hello.port()])?;
    let still = Duration::from_secs(5);
    let pace = pace(
        &url,
        still + Duration::from_secs(1),
        &["-rate", "1000", "-fresh"],
    )?;
    thread::sleep(Duration::from_millis(500));
    hold(&watch, still)?;
    let asked = sum(pace)?;
    assert_eq!(asked.failed, 0, "{asked:?}");
    // Whoever waited for gopulse would have waited for nearly as long as it stood still.
    assert!(asked.max_s < still.as_secs_f64() / 2.0, "{asked:?}");
    drop(watch);
    Ok(())
}
