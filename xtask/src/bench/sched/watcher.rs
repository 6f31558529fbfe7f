//! Who watches the storm: gopulse and the tools that others use for it.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{gopulse::Watch, process::Process, report::Report, wait};
use tempfile::TempDir;

use super::{perf_data, programs};
use crate::run::find;

/// How long any tool watches at most, should nobody end it.
const BOUND_S: &str = "120";

/// What a tool is given to begin and to end.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watcher {
    Nothing,
    /// It traces the storm.
    Gopulse,
    /// It traces a process that sleeps, and the storm passes its hooks.
    GopulseElsewhere,
    PerfRecord,
    PerfSched,
    Runqlat,
    Bpftrace,
}

/// A watcher at work.
pub(super) struct Watching {
    process: Running,
    directory: TempDir,
    _sleeper: Option<Process>,
}

enum Running {
    Nothing,
    Gopulse(Watch),
    Perf(Process),
    Runqlat(Process),
    Bpftrace(Process),
}

impl Watcher {
    pub(super) const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Gopulse,
        Self::GopulseElsewhere,
        Self::PerfRecord,
        Self::PerfSched,
        Self::Runqlat,
        Self::Bpftrace,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Gopulse => "gopulse record, of the storm",
            Self::GopulseElsewhere => "gopulse record, of another",
            Self::PerfRecord => "perf record -e sched_switch",
            Self::PerfSched => "perf sched record",
            Self::Runqlat => "runqlat",
            Self::Bpftrace => "bpftrace, count() by pid",
        }
    }

    /// It is somebody else's, and may not run on this machine.
    pub(super) fn is_peer(self) -> bool {
        !matches!(self, Self::Nothing | Self::Gopulse | Self::GopulseElsewhere)
    }

    /// Lets it watch; gives back when it does.
    pub(super) fn start(self, gopulse: &Path, storm: &[u32]) -> anyhow::Result<Watching> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("perf.data");
        let data = data.to_str().context("a directory's name is no text")?;
        let mut sleeper = None;
        let process = match self {
            Self::Nothing => Running::Nothing,
            Self::Gopulse => record(gopulse, storm, directory.path())?,
            Self::GopulseElsewhere => {
                let sleeping = Process::start(Command::new("sleep").arg(BOUND_S))?;
                let watch = record(gopulse, &[sleeping.pid()], directory.path())?;
                sleeper = Some(sleeping);
                watch
            }
            Self::PerfRecord => {
                let event = ["record", "-a", "-e", "sched:sched_switch", "-o", data];
                Running::Perf(perf(&event)?)
            }
            Self::PerfSched => Running::Perf(perf(&["sched", "record", "-o", data])?),
            Self::Runqlat => Running::Runqlat(runqlat()?),
            Self::Bpftrace => Running::Bpftrace(bpftrace()?),
        };
        Ok(Watching {
            process,
            directory,
            _sleeper: sleeper,
        })
    }
}

impl Watching {
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.process {
            Running::Nothing => None,
            Running::Gopulse(watch) => Some(watch.pid()),
            Running::Perf(process) | Running::Runqlat(process) | Running::Bpftrace(process) => {
                Some(process.pid())
            }
        }
    }

    /// Ends it, and asks how many events it lost; nothing where it cannot tell.
    pub(super) fn stop(self) -> anyhow::Result<Option<u64>> {
        match self.process {
            Running::Nothing => Ok(None),
            Running::Gopulse(watch) => {
                watch.stop()?;
                let report = self.directory.path().join("recording/report.json");
                let text = fs::read_to_string(&report)
                    .with_context(|| format!("gopulse left no {}", report.display()))?;
                let lost = Report::parse(&text)?.events_lost();
                Ok(Some(lost.context("the report tells no losses")?))
            }
            Running::Perf(process) => {
                process.interrupt()?;
                let ended = process.wait(PATIENCE)?;
                let data = fs::read(self.directory.path().join("perf.data"))?;
                let told = perf_data::told(&data).context("perf left no data")?;
                anyhow::ensure!(told.samples > 0, "perf saw nothing: {}", ended.stderr);
                Ok(Some(told.lost))
            }
            Running::Runqlat(process) => {
                process.interrupt()?;
                let ended = process.wait(PATIENCE)?;
                anyhow::ensure!(ended.stdout.contains('|'), "it saw nothing");
                Ok(None)
            }
            Running::Bpftrace(process) => {
                process.interrupt()?;
                let ended = process.wait(PATIENCE)?;
                anyhow::ensure!(ended.stdout.contains("@["), "it saw nothing");
                let said = format!("{}\n{}", ended.stdout, ended.stderr);
                Ok(Some(said.lines().filter_map(lost_by_bpftrace).sum()))
            }
        }
    }
}

/// `Lost 17 events` in the output of bpftrace.
fn lost_by_bpftrace(line: &str) -> Option<u64> {
    let number = line.strip_prefix("Lost ")?.strip_suffix(" events")?;
    number.parse().ok()
}

fn record(gopulse: &Path, targets: &[u32], directory: &Path) -> anyhow::Result<Running> {
    let mut command = Command::new(gopulse);
    command.arg("record");
    for pid in targets {
        command.args(["--pid", &pid.to_string()]);
    }
    command
        .args(["-d", &format!("{BOUND_S}s"), "--packets", "off", "-o"])
        .arg(directory.join("recording"));
    Ok(Running::Gopulse(Watch::run(&mut command)?))
}

fn perf(arguments: &[&str]) -> anyhow::Result<Process> {
    let mut process = with_tracefs("perf", arguments)?;
    // It does not say when it begins.
    thread::sleep(Duration::from_secs(1));
    anyhow::ensure!(process.runs()?, "{}", last_line(&process.stderr()));
    Ok(process)
}

fn runqlat() -> anyhow::Result<Process> {
    let program = find("runqlat").context("not installed (libbpf-tools)")?;
    let mut process = Process::start(Command::new(program).args([BOUND_S, "1"]))?;
    wait::until("runqlat's hooks", PATIENCE, || {
        anyhow::ensure!(process.runs()?, "{}", last_line(&process.stderr()));
        // Two kinds of waking, and the switch.
        let hooks = programs::fdinfo(process.pid(), "link_type:");
        Ok((hooks.len() >= 3).then_some(()))
    })?;
    Ok(process)
}

fn bpftrace() -> anyhow::Result<Process> {
    const COUNT: &str = "tracepoint:sched:sched_switch { @[pid] = count(); } \
        interval:ms:200 { printf(\"counting\\n\"); } \
        interval:s:120 { exit(); }";
    let mut process = with_tracefs("bpftrace", &["-B", "none", "-e", COUNT])?;
    process.line("counting")?;
    Ok(process)
}

/// A program that needs tracefs, which it gets for itself: many machines do not mount it. The limit, in
/// seconds of CPU time, ends it even if this process is killed.
pub(in crate::bench) fn with_tracefs(program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    const MOUNTED: &str = "test -e /sys/kernel/tracing/events \
        || mount -t tracefs tracefs /sys/kernel/tracing; \
        exec prlimit --cpu=20 \"$0\" \"$@\"";
    let path = find(program).with_context(|| format!("{program} is not installed"))?;
    Process::start(
        Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(MOUNTED)
            .arg(path)
            .args(arguments),
    )
}

/// What a program said last.
fn last_line(said: &str) -> &str {
    let mut lines = said.lines().rev();
    lines
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it ended at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bpftrace_lost_is_read_from_its_words() {
        assert_eq!(lost_by_bpftrace("Lost 17 events"), Some(17));
        assert_eq!(lost_by_bpftrace("@[17]: 4"), None);
    }
}
