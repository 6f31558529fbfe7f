//! What it costs to read every goroutine of a process that has many: once, and in the rounds of a window.
//!
//! The process waits with 100,000 goroutines at stacks of all depths. Its goroutines are read once, and six
//! times in a row by one process: a sixth of the difference is what a reading takes without the start,
//! which reads the executable's tables. Then a recording runs over a window, and its CPU time and the number
//! of its snapshots are told.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::services::Service;

use super::{
    table::{median, spread},
    tool::cpu_time,
};

/// Goroutines of the process.
const GOROUTINES: &str = "100000";
/// Readings in a row beyond the first.
const MORE: u32 = 5;

/// What a run took, by the clock and of CPUs.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

pub(super) fn main(gopulse: &Path, rounds: u32, window: Duration) -> anyhow::Result<ExitCode> {
    let crowd = Service::start("crowd", &["-goroutines", GOROUTINES])?;
    // They have all begun to wait when nothing runs any more.
    let pid = crowd.process.pid();
    let mut before = Duration::MAX;
    while cpu_time(pid)? != before {
        before = cpu_time(pid)?;
        thread::sleep(Duration::from_millis(500));
    }
    let id = crowd.pid();
    let (mut first, mut each) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let once = run(Command::new(gopulse).args(["goroutines", "--pid", &id]))?;
        let times = (1 + MORE).to_string();
        let often = run(Command::new(gopulse).args([
            "goroutines",
            "--pid",
            &id,
            "--times",
            &times,
            "--every",
            "1ms",
        ]))?;
        let one = Took {
            wall: (often.wall - once.wall) / f64::from(MORE),
            cpu: (often.cpu - once.cpu) / f64::from(MORE),
        };
        println!(
            "round {round}: once {:.3} s, each of {MORE} more {:.3} s ({:.3} s of CPU)",
            once.wall, one.wall, one.cpu
        );
        first.push(once);
        each.push(one);
    }
    println!("\n{GOROUTINES} goroutines, median and (lowest-highest), s");
    for (name, runs) in [
        ("once, from start to end", &first),
        ("each reading more", &each),
    ] {
        let of = |value: fn(&Took) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
        let (wall, cpu) = (of(|took| took.wall), of(|took| took.cpu));
        println!(
            "{name:<26}{}   CPU {:.3}",
            spread(wall.into_iter()),
            median(cpu.into_iter())
        );
    }
    in_a_window(gopulse, &id, window)?;
    Ok(ExitCode::SUCCESS)
}

/// Records for that long, and tells what that took.
fn in_a_window(gopulse: &Path, pid: &str, window: Duration) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let seconds = format!("{}s", window.as_secs());
    let took = run(Command::new(gopulse)
        .args([
            "record",
            "--pid",
            pid,
            "--packets",
            "off",
            "-d",
            &seconds,
            "-o",
        ])
        .arg(&recording))?;
    let snapshots = fs::read_dir(recording.join("goroutines"))
        .context("the recording has no snapshots")?
        .count();
    println!(
        "a recording over {seconds}: {snapshots} snapshots, {:.2} s of CPU in {:.1} s ({:.1}% of one)",
        took.cpu,
        took.wall,
        100.0 * took.cpu / took.wall
    );
    Ok(())
}

/// Runs a command to its end; its verdict does not matter.
fn run(command: &mut Command) -> anyhow::Result<Took> {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut cpu = Duration::ZERO;
    let status = loop {
        cpu = cpu_time(child.id()).unwrap_or(cpu).max(cpu);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(1));
    };
    anyhow::ensure!(
        matches!(status.code(), Some(0 | 1)),
        "{command:?} ended with {status}"
    );
    Ok(Took {
        wall: begun.elapsed().as_secs_f64(),
        cpu: cpu.as_secs_f64(),
    })
}
