//! Runs the tool.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    process::{Ended, Process, run},
    report::Report,
    wait, workspace,
};

/// What a run is given to end, beyond the time it was asked to watch.
const PATIENCE: Duration = Duration::from_secs(40);

/// The tool with these arguments.
///
/// # Errors
///
/// It does not build.
pub fn gopulse(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(workspace::gopulse()?);
    command.args(arguments);
    Ok(command)
}

/// Runs it to its end.
///
/// # Errors
///
/// It cannot be run or does not end.
pub fn ended(arguments: &[&str]) -> anyhow::Result<Ended> {
    run(&mut gopulse(arguments)?, PATIENCE)
}

/// `diagnose` of something at rest, such as a recording, or of a target for as long as it is told.
///
/// # Errors
///
/// It gives no verdict.
pub fn diagnose(source: &[&str]) -> anyhow::Result<Verdict> {
    let arguments = [&["diagnose", "--format", "json"], source].concat();
    let began = Instant::now();
    Verdict::of(ended(&arguments)?, began)
}

/// Names a file that is to have every verdict, a [`Told`] a line: how `cargo xtask scenarios` and
/// `cargo xtask vm` learn what the tests that they run were told.
pub const VERDICTS: &str = "GOPULSE_VERDICTS";

/// A verdict, as a line of that file.
#[derive(Debug, Deserialize, Serialize)]
pub struct Told {
    /// What passed between the command and its verdict, in seconds.
    pub took_s: f64,
    /// The report.
    pub report: Report,
}

/// What a run of `diagnose` came to.
#[derive(Debug)]
pub struct Verdict {
    /// The exit status.
    pub status: i32,
    /// The report.
    pub report: Report,
    /// What it said for people.
    pub stderr: String,
}

impl Verdict {
    /// Nothing at warning or above was told.
    ///
    /// # Panics
    ///
    /// Something was.
    pub fn assert_healthy(&self) {
        let alarms = self.report.alarms();
        assert!(alarms.is_empty(), "{}", self.report.titles());
        assert_eq!(self.status, 0, "{}", self.stderr);
    }

    fn of(ended: Ended, began: Instant) -> anyhow::Result<Self> {
        let took_s = began.elapsed().as_secs_f64();
        let report = Report::parse(&ended.stdout).with_context(|| {
            format!(
                "gopulse exited with {} and said: {}",
                ended.status, ended.stderr
            )
        })?;
        let told = Told { took_s, report };
        if let Some(file) = env::var_os(VERDICTS) {
            let mut file = OpenOptions::new().create(true).append(true).open(file)?;
            writeln!(file, "{}", serde_json::to_string(&told)?)?;
        }
        let report = told.report;
        Ok(Self {
            status: ended.status,
            report,
            stderr: ended.stderr,
        })
    }
}

/// A run that watches.
pub struct Watch {
    process: Process,
    began: Instant,
}

impl Watch {
    /// `diagnose` of these targets, for longer than any scenario takes.
    ///
    /// # Errors
    ///
    /// It does not start to watch.
    pub fn diagnose(targets: &[&str]) -> anyhow::Result<Self> {
        let arguments = [&["diagnose", "--format", "json", "-d", "60s"], targets].concat();
        Self::start(&arguments)
    }

    /// Starts any verb of the tool that watches, and waits until it does: until it holds its hooks, and
    /// no more of them come.
    ///
    /// # Errors
    ///
    /// It ends instead.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::run(&mut gopulse(arguments)?)
    }

    /// The same for a command that was prepared.
    ///
    /// # Errors
    ///
    /// It ends instead.
    pub fn run(command: &mut Command) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut process = Process::start(command)?;
        let mut hooks = Settled::default();
        wait::until("gopulse's hooks", PATIENCE, || {
            let now = count_hooks(process.pid());
            if !process.runs()? {
                anyhow::bail!("gopulse ended: {}", process.stderr());
            }
            Ok((hooks.settle(now) && is_told_of_interrupts(process.pid())).then_some(()))
        })?;
        Ok(Self { process, began })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many hooks it holds in the kernel: more when it traces one more Go program, by that program's file.
    pub fn hooks(&self) -> usize {
        count_hooks(self.pid())
    }

    /// Ctrl-C, and the verdict.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn finish(self) -> anyhow::Result<Verdict> {
        self.process.interrupt()?;
        self.verdict()
    }

    /// The verdict when the time is over.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn verdict(self) -> anyhow::Result<Verdict> {
        let began = self.began;
        Verdict::of(self.end()?, began)
    }

    /// Ctrl-C, and its end.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn stop(self) -> anyhow::Result<Ended> {
        self.process.interrupt()?;
        self.end()
    }

    /// It still runs.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        self.process.runs()
    }

    /// A signal.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn send(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).context("gopulse is gone")
    }

    /// A signal, and its end.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn signal(self, signal: Signal) -> anyhow::Result<Ended> {
        self.send(signal)?;
        self.end()
    }

    /// Its end when the time is over.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(self) -> anyhow::Result<Ended> {
        self.process.wait(PATIENCE)
    }
}

/// The hooks a process holds in the kernel. Its open files tell: a BPF link shows itself in
/// `/proc/PID/fdinfo` with its type.
fn count_hooks(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten();
    files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .filter(|info| info.contains("link_type:"))
        .count()
}

/// A process has a handler for Ctrl-C, which gopulse installs when all that it loads is loaded.
fn is_told_of_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|caught| u64::from_str_radix(caught.trim(), 16).ok());
    caught.is_some_and(|caught| caught & 1 << (Signal::SIGINT as u32 - 1) != 0)
}

/// Tells when a growing number has stopped to grow.
#[derive(Default)]
struct Settled {
    last: usize,
    looks: u32,
}

impl Settled {
    /// How many looks (a few milliseconds apart) must agree.
    const ENOUGH: u32 = 40;

    fn settle(&mut self, now: usize) -> bool {
        self.looks = if now == self.last && now > 0 {
            self.looks + 1
        } else {
            0
        };
        self.last = now;
        self.looks >= Self::ENOUGH
    }
}
