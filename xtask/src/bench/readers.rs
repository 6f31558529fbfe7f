//! Whole processes that read the same file in turn: their time, as a ratio to one of them in the same
//! round, and their peak memory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::table::{median, spread};
use crate::run::find;

/// A program that reads a file, which comes last.
pub(super) struct Reader {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
}

struct Measured {
    seconds: f64,
    peak_mib: f64,
}

impl Reader {
    pub(super) fn new(
        name: &'static str,
        program: &Path,
        arguments: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            program: program.to_owned(),
            arguments,
        }
    }

    /// One that is left out, and said so, where it is not installed.
    pub(super) fn installed(
        name: &'static str,
        program: &str,
        arguments: &'static [&'static str],
    ) -> Option<Self> {
        let found = find(program);
        if found.is_none() {
            println!("{name} is left out: there is no {program}");
        }
        Some(Self::new(name, &found?, arguments))
    }

    /// Runs it to its end; its verdict does not matter.
    fn run(&self, file: &Path) -> anyhow::Result<Measured> {
        let begun = Instant::now();
        let mut child = Command::new(&self.program)
            .args(self.arguments)
            .arg(file)
            .stdin(Stdio::null())
            // grep ends at its first match where nobody reads on: /dev/null.
            .stdout(tempfile::tempfile()?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", self.name))?;
        let mut peak = 0.0_f64;
        let status = loop {
            peak = peak.max(peak_mib(child.id()).unwrap_or_default());
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(1));
        };
        let seconds = begun.elapsed().as_secs_f64();
        anyhow::ensure!(
            matches!(status.code(), Some(0 | 1)),
            "{} ended with {status}",
            self.name
        );
        Ok(Measured {
            seconds,
            peak_mib: peak,
        })
    }
}

/// Lets each read the file once a round, and prints what it took; ratios are to the reader named `base`.
pub(super) fn compare(
    readers: &[Reader],
    file: &Path,
    rounds: u32,
    base: &str,
) -> anyhow::Result<()> {
    let mut runs: Vec<Vec<Measured>> = readers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for place in 0..readers.len() {
            // Whoever comes first in one round comes later in the next.
            let place = (place + round) % readers.len();
            let measured = readers[place].run(file)?;
            println!(
                "round {}: {} {:.3} s",
                round + 1,
                readers[place].name,
                measured.seconds
            );
            runs[place].push(measured);
        }
    }
    let size = fs::metadata(file)?.len();
    let base_place = readers.iter().position(|reader| reader.name == base);
    println!(
        "\n{:<22}{:>9}{:>9}{:>10}  time as a multiple of {base}'s",
        "", "s", "MB/s", "peak MiB"
    );
    for (reader, of_reader) in readers.iter().zip(&runs) {
        let seconds = median(of_reader.iter().map(|run| run.seconds));
        let peak = median(of_reader.iter().map(|run| run.peak_mib));
        let ratio = base_place.map_or_else(String::new, |base| {
            let pairs = of_reader.iter().zip(&runs[base]);
            spread(pairs.map(|(run, base)| run.seconds / base.seconds))
        });
        println!(
            "{:<22}{seconds:>9.3}{:>9.0}{peak:>10.0}  {ratio}",
            reader.name,
            size as f64 / seconds / 1e6
        );
    }
    Ok(())
}

/// The largest resident memory of a process until now: `VmHWM` of proc_pid_status(5).
fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
