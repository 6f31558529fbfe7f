//! S6: one handler burns the CPU. And those who use it up and harm nobody.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Verdict, Watch},
    http::Asked,
    process::{Process, run, succeed},
    report::Report,
    services::{self, Service, go_time},
    turn::Turn,
};

/// Requests for the report, one after the other.
const REPORTS: u64 = 4;

/// The handler of the report is blamed, and nothing else of the service is slow. The machine may be busy
/// with others, so that more is to be told than this.
fn assert_the_handler_is_blamed(report: &Report, work: Duration) -> anyhow::Result<()> {
    let found = report.only("slow-response")?;
    assert_eq!(found.comm(), "burner");
    assert_eq!(found.severity(), "warning");
    assert_eq!(found.count(), Some(REPORTS), "{found:?}");
    for told in ["GET /report", "main.crunch", "crunch.go"] {
        assert!(found.mentions(told), "{told}: {found:?}");
    }
    let parts = found.parts();
    let computed = parts.get("on_cpu").copied().unwrap_or_default();
    assert!(computed >= work.as_secs_f64() * 0.75, "{work:?}: {parts:?}");
    Ok(())
}

fn answered(service: &Service, path: &str) -> anyhow::Result<()> {
    Asked::get(service.address, path)?.answer()?;
    Ok(())
}

#[test]
fn a_handler_that_burns_the_cpu_is_named_with_its_function() -> anyhow::Result<()> {
    let name = "a handler that burns the CPU";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let work = Draw::new(name).millis(600..1000);
    let burner = Service::start("burner", &["-report", &go_time(work)])?;
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let watch = record(&burner, &recording)?;
    for _ in 0..REPORTS {
        answered(&burner, "/report")?;
        answered(&burner, "/page")?;
    }
    watch.stop()?;

    let recording = recording.to_str().context("a path that is no text")?;
    let Verdict { status, report, .. } = gopulse::diagnose(&[recording])?;
    assert_eq!(status, 1, "{}", report.titles());
    assert_the_handler_is_blamed(&report, work)
}

fn record(service: &Service, into: &Path) -> anyhow::Result<Watch> {
    let path = into.to_str().context("a path that is no text")?;
    Watch::start(&["record", "--pid", &service.pid(), "-d", "60s", "-o", path])
}

/// As many as there are CPUs.
fn all_cpus() -> anyhow::Result<String> {
    Ok(thread::available_parallelism()?.to_string())
}

/// What these do with nobody asking them for anything.
fn left_alone(targets: &[&str]) -> anyhow::Result<Verdict> {
    let arguments = [&["diagnose", "--format", "json", "-d", "4s"], targets].concat();
    Watch::start(&arguments)?.verdict()
}

#[test]
fn a_batch_job_in_go_that_uses_every_cpu_is_healthy() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a batch job in Go", &[]) else {
        return Ok(());
    };
    let burner = Service::start("burner", &["-batch", &all_cpus()?])?;
    left_alone(&["--pid", &burner.pid()])?.assert_healthy();
    Ok(())
}

#[test]
fn a_batch_job_of_shells_that_uses_every_cpu_is_healthy() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a batch job of shells", &["sh"]) else {
        return Ok(());
    };
    // Bounded, should nobody end them.
    let bounded = "n=0; while [ $n -lt 60000000 ]; do n=$((n+1)); done";
    let mut shells = Vec::new();
    let mut targets = Vec::new();
    for _ in 0..all_cpus()?.parse()? {
        let shell = Process::start(Command::new("sh").args(["-c", bounded]))?;
        targets.extend(["--pid".to_owned(), shell.pid().to_string()]);
        shells.push(shell);
    }
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    left_alone(&targets)?.assert_healthy();
    Ok(())
}

#[test]
fn a_service_that_computes_a_little_for_each_request_is_healthy() -> anyhow::Result<()> {
    let name = "a little computing for each request";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let work = Draw::new(name).millis(3..8);
    let burner = Service::start("burner", &["-page", &go_time(work)])?;
    let watch = Watch::diagnose(&["--pid", &burner.pid()])?;
    let url = format!("http://{}/page", burner.address);
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", &url, "-rate", "40", "-duration", "3s"]);
    pace.args(["-connections", "4"]);
    let ended = run(&mut pace, Duration::from_secs(40))?;
    anyhow::ensure!(ended.status == 0, "pace failed: {}", ended.stderr);
    watch.finish()?.assert_healthy();
    Ok(())
}

#[test]
fn a_service_that_computes_at_full_load_and_answers_in_time_is_healthy() -> anyhow::Result<()> {
    let name = "computing at full load";
    let Some(_turn) = Turn::take(name, &["wrk"]) else {
        return Ok(());
    };
    let work = Draw::new(name).millis(1..4);
    let burner = Service::start("burner", &["-page", &go_time(work)])?;
    let watch = Watch::diagnose(&["--pid", &burner.pid()])?;
    let url = format!("http://{}/page", burner.address);
    succeed(Command::new("wrk").args(["-t1", "-c8", "-d3s"]).arg(url))?;
    watch.finish()?.assert_healthy();
    Ok(())
}
