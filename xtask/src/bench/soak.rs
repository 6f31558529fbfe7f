//! Whether a long watch grows or slows down: a service under full load with gopulse on it, looked at again and
//! again; and whether the service notices that gopulse stands still.
//!
//! `soak` fits a line to gopulse's resident memory, to its CPU time and to the requests per second, and says
//! by how much each changes in an hour, with twice the standard error of the slope. `still` measures latency
//! at a fixed rate in pairs of phases: gopulse at work, and gopulse stopped by a signal.

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
    process::{Process, succeed},
    services::{self, Service, go_time},
};
use nix::sys::signal::Signal;

/// Points that a line is fitted to.
const POINTS: u32 = 20;
/// Those at the beginning that are left out: tables fill up to what they may hold.
const WARM: usize = 4;

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
    /// Of gopulse itself, in percent of one CPU.
    cpu: f64,
    requests_per_s: f64,
}

pub(super) fn soak(gopulse: &Path, time: Duration) -> anyhow::Result<ExitCode> {
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
        "{POINTS} stretches of {} s, kept and fresh connections in turn",
        stretch.as_secs()
    );
    println!(
        "{:>8}{:>14}{:>10}{:>12}",
        "s", "resident MiB", "CPU %", "requests/s"
    );
    let began = Instant::now();
    let mut points = Vec::new();
    for _ in 0..POINTS {
        let (before, since) = (cpu_time(watch.pid())?, Instant::now());
        let requests_per_s = both(&url, stretch / 2)?;
        let took = cpu_time(watch.pid())? - before;
        let point = Point {
            hours: began.elapsed().as_secs_f64() / 3600.0,
            resident: resident(watch.pid())?,
            cpu: 100.0 * took.as_secs_f64() / since.elapsed().as_secs_f64(),
            requests_per_s,
        };
        println!(
            "{:>8.0}{:>14.1}{:>10.1}{:>12.0}",
            point.hours * 3600.0,
            point.resident,
            point.cpu,
            point.requests_per_s
        );
        points.push(point);
    }
    let lost = watch.finish()?.report.events_lost();
    println!(
        "\nEvents lost: {}",
        lost.context("the report tells no losses")?
    );
    let warm = points.get(WARM..).unwrap_or_default();
    println!("Change in an hour, by a line through all but the first {WARM}:");
    tell("resident MiB", warm, |point| point.resident);
    tell("CPU %", warm, |point| point.cpu);
    tell("requests/s", warm, |point| point.requests_per_s);
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

/// Full load by kept connections, then by one for each request; requests per second of both together.
fn both(url: &str, each: Duration) -> anyhow::Result<f64> {
    let mut requests = 0.0;
    for fresh in [&[][..], &["-H", "Connection: close"]] {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c32"]).args(fresh);
        wrk.arg(format!("-d{}s", each.as_secs().max(1))).arg(url);
        let said = succeed(&mut wrk)?;
        let rate = said
            .lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"));
        requests += rate.context("wrk gave no rate")?.trim().parse::<f64>()? / 2.0;
    }
    Ok(requests)
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
    let mut pace = Command::new(services::program("pace")?);
    pace.args([
        "-url",
        url,
        "-rate",
        "1000",
        "-fresh",
        "-duration",
        &go_time(time),
    ]);
    let said = Process::start(&mut pace)?.wait(time * 5)?.stdout;
    let sum: serde_json::Value = serde_json::from_str(&said)?;
    anyhow::ensure!(sum["failed"] == 0, "requests failed: {said}");
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
