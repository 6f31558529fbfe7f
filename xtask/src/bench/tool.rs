//! The tools that watch, what they cost themselves, and what they lost.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{gopulse::Watch, process::Process, report::Report};
use tempfile::TempDir;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Nothing,
    Gopulse,
    Tcpdump,
}

/// A tool at work, and where it writes.
pub(super) struct Watching {
    kind: Kind,
    directory: TempDir,
}

enum Kind {
    Nothing,
    Gopulse(Watch),
    Tcpdump(Process),
}

/// What a tool cost and missed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Its own CPU time, user and system. What its hooks take in the kernel shows in the service's
    /// throughput instead.
    pub(super) cpu: Duration,
    /// Events or packets.
    pub(super) lost: u64,
}

impl Tool {
    pub(super) const ALL: [Self; 3] = [Self::Nothing, Self::Gopulse, Self::Tcpdump];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Gopulse => "gopulse record",
            Self::Tcpdump => "tcpdump -s 96",
        }
    }

    /// Lets it watch a port; gives back when it does.
    pub(super) fn start(self, gopulse: &Path, port: &str) -> anyhow::Result<Watching> {
        let directory = tempfile::tempdir()?;
        let kind = match self {
            Self::Nothing => Kind::Nothing,
            Self::Gopulse => Kind::Gopulse(Watch::run(
                Command::new(gopulse)
                    .args(["record", "--port", port, "-d", "10m", "-o"])
                    .arg(directory.path().join("recording")),
            )?),
            Self::Tcpdump => {
                let mut process = Process::start(
                    Command::new("tcpdump")
                        .args(["-i", "lo", "-s", "96", "-w"])
                        .arg(directory.path().join("capture.pcap"))
                        .args(["tcp", "port", port]),
                )?;
                process.line("tcpdump: listening on ")?;
                Kind::Tcpdump(process)
            }
        };
        Ok(Watching { kind, directory })
    }
}

impl Watching {
    /// Ends it, and asks what it cost.
    pub(super) fn stop(self) -> anyhow::Result<Cost> {
        match self.kind {
            Kind::Nothing => Ok(Cost::default()),
            Kind::Gopulse(watch) => {
                let cpu = cpu_time(watch.pid())?;
                watch.stop()?;
                let report = self.directory.path().join("recording/report.json");
                let text = fs::read_to_string(&report)
                    .with_context(|| format!("gopulse left no {}", report.display()))?;
                let lost = Report::parse(&text)?.events_lost();
                let lost = lost.context("the report tells no losses")?;
                Ok(Cost { cpu, lost })
            }
            Kind::Tcpdump(process) => {
                let cpu = cpu_time(process.pid())?;
                process.interrupt()?;
                let ended = process.wait(Duration::from_secs(10))?;
                let lost = ended
                    .stderr
                    .lines()
                    .find_map(|line| line.strip_suffix(" packets dropped by kernel"))
                    .and_then(|number| number.trim().parse().ok())
                    .with_context(|| format!("tcpdump told no losses: {}", ended.stderr))?;
                Ok(Cost { cpu, lost })
            }
        }
    }
}

/// User and system time of a process until now: fields 14 and 15 of proc_pid_stat(5), in ticks.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    /// `sysconf(_SC_CLK_TCK)`, which is the same on every Linux that Go or this runs on.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>)
        .sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}
