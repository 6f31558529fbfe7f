//! Whether a long watch grows or slows down: a service under load with gopulse on it, looked at again and again;
//! and whether the service notices that gopulse stands still.
//!
//! `soak` asks at a fixed rate, on kept connections and on one for each request at the same time, so that every
//! stretch of the run is asked the same. It fits lines to gopulse's memory, and to the CPU time that gopulse and
//! the service take for a request, in which the probes' time is: a machine that others share makes both wait, and
//! waiting is no CPU time. It says by how much each changes in an hour, with twice the standard error of the slope.
//! `still` measures latency at a fixed rate in pairs of phases: gopulse at work, and gopulse stopped by a signal.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use super::{
    table::{median, spread},
    tool::cpu_time,
};
use anyhow::Context as _;
use gopulse_tests::{
    gopulse::Watch,
    process::Process,
    services::{self, Service, go_time},
};
use nix::sys::signal::Signal;

/// Points that a line is fitted to, and those that are only looked at.
const POINTS: u32 = 40;
/// Those at the beginning that are left out, of all: tables fill up to what they may hold.
const WARM: usize = POINTS as usize / 4;

/// `90s`, `5m`, `1h`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let unit = |unit: char, seconds: u64| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number * seconds))
    };
    unit('s', 1)
        .or_else(|| unit('m', 60))
        .or_else(|| unit('h', 3600))
        .ok_or_else(|| "it must be a time such as 90s, 5m or 1h".to_owned())
}

/// One stretch of the load.
#[derive(Clone, Copy, Debug)]
struct Point {
    hours: f64,
    /// Of gopulse, in MiB.
    resident: f64,
    /// CPU time of gopulse's process for each request, in µs.
    gopulse: f64,
    /// CPU time of the service for each request, in µs.
    service: f64,
    requests_per_s: f64,
}

/// What is fitted: its name, and where it stands in a point.
type Column = (&'static str, fn(&Point) -> f64);

const COLUMNS: [Column; 4] = [
    ("resident MiB", |point| point.resident),
    ("gopulse us", |point| point.gopulse),
    ("service us", |point| point.service),
    ("requests/s", |point| point.requests_per_s),
];

/// `rate` is that of each kind of connection, in requests per second; more than the service can give is full load.
pub(super) fn soak(gopulse: &Path, time: Duration, rate: u32) -> anyhow::Result<ExitCode> {
    let hello = Service::start("hello", &[])?;
    let url = format!("http://{}/", hello.address);
    let stretch = (time / POINTS).max(Duration::from_secs(2));
    let begin = [
        "diagnose",
        "--format",
        "json",
        "--cpu-budget",
        "off",
        "-d",
        "24h",
    ];
    let mut command = Command::new(gopulse);
    let watch = Watch::run(command.args(begin).args(["--port", &hello.port()]))?;
    println!(
        "{POINTS} stretches of {} s, {rate} requests/s on kept connections and {rate} on fresh ones",
        stretch.as_secs()
    );
    let names = COLUMNS.map(|(name, _)| format!("{name:>14}"));
    println!("{:>8}{}", "s", names.concat());
    let began = Instant::now();
    let mut points = Vec::new();
    for _ in 0..POINTS {
        let spent = || anyhow::Ok((cpu_time(watch.pid())?, cpu_time(hello.process.pid())?));
        let (before, since) = (spent()?, Instant::now());
        let requests = both(&url, rate, stretch)?;
        let (after, took) = (spent()?, since.elapsed());
        let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        let point = Point {
            hours: began.elapsed().as_secs_f64() / 3600.0,
            resident: resident(watch.pid())?,
            gopulse: each(after.0 - before.0),
            service: each(after.1 - before.1),
            requests_per_s: requests / took.as_secs_f64(),
        };
        let values = COLUMNS.map(|(_, value)| format!("{:>14.1}", value(&point)));
        println!("{:>8.0}{}", point.hours * 3600.0, values.concat());
        points.push(point);
    }
    let lost = watch.finish()?.report.events_lost();
    println!(
        "\nEvents lost: {}",
        lost.context("the report tells no losses")?
    );
    let warm = points.get(WARM..).unwrap_or_default();
    println!("Change in an hour, by a line through all but the first {WARM}:");
    for (name, value) in COLUMNS {
        tell(name, warm, value);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(what: &str, points: &[Point], value: fn(&Point) -> f64) {
    let pairs: Vec<(f64, f64)> = points
        .iter()
        .map(|point| (point.hours, value(point)))
        .collect();
    let usual = median(pairs.iter().map(|(_, value)| *value));
    let Some((slope, error)) = slope(&pairs) else {
        println!("{what:<14} too few points");
        return;
    };
    println!(
        "{what:<14} {slope:+.2} ± {:.2} (median {usual:.1}; {:+.0}% ± {:.0}%)",
        2.0 * error,
        100.0 * slope / usual,
        200.0 * error / usual
    );
}

/// The slope of the line through these points by least squares, and its standard error.
fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let number = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / number;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum::<f64>()
        / spread;
    let off = |point: &(f64, f64)| (point.1 - y - slope * (point.0 - x)).powi(2);
    let rest: f64 = points.iter().map(off).sum();
    Some((slope, (rest / (number - 2.0) / spread).sqrt()))
}

/// Asks on kept connections, and beside it on one for each request; how many requests that were.
fn both(url: &str, rate: u32, time: Duration) -> anyhow::Result<f64> {
    let paces = [&[][..], &["-fresh"]].map(|fresh| pace(url, rate, time, fresh));
    let mut requests = 0.0;
    for pace in paces {
        requests += sum_of(pace?, time)?["requests"]
            .as_f64()
            .context("pace counted nothing")?;
    }
    Ok(requests)
}

/// A load that has begun.
fn pace(url: &str, rate: u32, time: Duration, how: &[&str]) -> anyhow::Result<Process> {
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", url, "-rate", &rate.to_string()]);
    Process::start(pace.args(["-duration", &go_time(time)]).args(how))
}

/// What it measured, once it is over; no request failed.
fn sum_of(pace: Process, time: Duration) -> anyhow::Result<serde_json::Value> {
    let said = pace.wait(time * 5)?.stdout;
    let sum: serde_json::Value = serde_json::from_str(&said)?;
    anyhow::ensure!(sum["failed"] == 0, "requests failed: {said}");
    Ok(sum)
}

/// `VmRSS` of proc_pid_status(5), in MiB.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|told| told.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.trim().parse::<f64>()? / 1024.0)
}

pub(super) fn still(gopulse: &Path, rounds: u32, time: Duration) -> anyhow::Result<ExitCode> {
    let hello = Service::start("hello", &[])?;
    let mut command = Command::new(gopulse);
    let begin = ["diagnose", "--format", "json", "-d", "24h", "--port"];
    let watch = Watch::run(command.args(begin).arg(hello.port()))?;
    let url = format!("http://{}/", hello.address);
    let mut ratios = Vec::new();
    for round in 0..rounds {
        // Whoever comes first in one round comes second in the next.
        let mut phases = [(false, 0.0), (true, 0.0)];
        phases.rotate_left(round as usize % 2);
        for (stopped, p99) in &mut phases {
            if *stopped {
                watch.send(Signal::SIGSTOP)?;
            }
            let measured = latency(&url, time);
            watch.send(Signal::SIGCONT)?;
            *p99 = measured?;
        }
        phases.sort_by_key(|(stopped, _)| *stopped);
        let [(_, works), (_, stands)] = phases;
        println!(
            "p99 with gopulse at work {:.2} ms, stopped {:.2} ms",
            works * 1e3,
            stands * 1e3
        );
        ratios.push(stands / works);
    }
    println!("p99, stopped to at work: {}", spread(ratios.into_iter()));
    watch.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// The 99th percentile at a fixed rate of new connections, in seconds.
fn latency(url: &str, time: Duration) -> anyhow::Result<f64> {
    let sum = sum_of(pace(url, 1000, time, &["-fresh"])?, time)?;
    sum["p99_s"].as_f64().context("pace gave no percentile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_with_how_far_the_points_are_off() {
        let (grows, error) = slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]).unwrap();
        assert!((grows - 2.0).abs() < 1e-9 && error < 1e-9);
        let (flat, error) = slope(&[(0.0, 1.0), (1.0, -1.0), (2.0, 1.0)]).unwrap();
        assert!(flat.abs() < 1e-9 && error > 0.5);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 2.0)]), None);
    }
}
