//! Processes that end with the scenario.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait;

/// A running process whose output is kept, line by line. Dropping it kills it and whatever it started.
pub struct Process {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What became of a process.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; a death by signal counts as a shell counts it, 128 and the signal's number.
    pub status: i32,
    /// Everything it printed.
    pub stdout: String,
    /// Everything it printed for people.
    pub stderr: String,
}

impl Process {
    /// Starts a command in a process group of its own.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = format!("{command:?}");
        let mut child = command
            // The test services end when this pipe does, even if this process is killed.
            .stdin(Stdio::piped())
            .env("GOPULSE_TIED", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        Ok(Self {
            name,
            child,
            stdout: Output::gather(stdout),
            stderr: Output::gather(stderr),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What follows `prefix` in the first line of output or error that begins so.
    ///
    /// # Errors
    ///
    /// No such line comes, or the process ends before.
    pub fn line(&mut self, prefix: &str) -> anyhow::Result<String> {
        let what = format!("a line `{prefix}…` from {}", self.name);
        let mut ended = false;
        wait::until(&what, Duration::from_secs(10), || {
            let rest = [&self.stdout, &self.stderr].into_iter().find_map(|output| {
                let text = output.text();
                let line = text.lines().find_map(|line| line.strip_prefix(prefix))?;
                Some(line.to_owned())
            });
            if rest.is_none() && ended {
                anyhow::bail!("{} ended: {}", self.name, self.stderr.text());
            }
            // One more look after the end: the line may have been its last.
            ended = self.child.try_wait()?.is_some();
            Ok(rest)
        })
    }

    /// What it printed until now.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it printed for people until now.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// It still runs.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub fn runs(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What Ctrl-C does.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn interrupt(&self) -> anyhow::Result<()> {
        kill(self.as_pid(), Signal::SIGINT).with_context(|| format!("{} is gone", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// It does not end in this time.
    pub fn wait(mut self, within: Duration) -> anyhow::Result<Ended> {
        let what = format!("the end of {}", self.name);
        let child = &mut self.child;
        let status = wait::until(&what, within, || Ok(child.try_wait()?))
            .with_context(|| format!("it said at last: {}", tail(&self.stderr.text())))?;
        // Children that live on would hold the pipes open.
        self.kill_group();
        Ok(Ended {
            status: code(status),
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
        })
    }

    fn as_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn kill_group(&self) {
        // The group may be empty by now.
        let _ = killpg(self.as_pid(), Signal::SIGKILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        drop(self.child.wait());
    }
}

/// Runs a command to its end, however it ends.
///
/// # Errors
///
/// It cannot be run, or takes longer than `within`.
pub fn run(command: &mut Command, within: Duration) -> anyhow::Result<Ended> {
    Process::start(command)?.wait(within)
}

/// Runs a command that has to succeed, however long it takes, and gives what it printed.
///
/// # Errors
///
/// It fails.
pub fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let ended = run(command, Duration::MAX)?;
    anyhow::ensure!(ended.status == 0, "{name} failed: {}", ended.stderr);
    Ok(ended.stdout)
}

/// The last lines of a text, as much of it as helps a person.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// One stream of output, gathered as it comes.
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn gather(stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let gathered = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let mut text = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }

    /// Everything up to the end of the stream.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        self.text()
    }
}
