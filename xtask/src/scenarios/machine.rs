//! Where and when it was measured.

use std::{fs, process::Command, thread};

use gopulse_tests::{process::succeed, workspace};

/// The host, and how busy it was.
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) commit: String,
    pub(super) kernel: String,
    pub(super) cpus: usize,
    /// Load averages of a minute, one for each scene, right after it.
    loads: Vec<f64>,
}

impl Machine {
    pub(super) fn look() -> anyhow::Result<Self> {
        let word = |command: &mut Command| anyhow::Ok(succeed(command)?.trim().to_owned());
        let git = |arguments: &[&str]| {
            word(
                Command::new("git")
                    .arg("-C")
                    .arg(workspace::root())
                    .args(arguments),
            )
        };
        Ok(Self {
            date: word(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?,
            // A copy without its history is measured all the same.
            commit: git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|_| "unknown".to_owned()),
            kernel: kernel(&fs::read_to_string("/proc/sys/kernel/osrelease")?).to_owned(),
            cpus: thread::available_parallelism()?.get(),
            loads: Vec::new(),
        })
    }

    pub(super) fn note_load(&mut self) -> anyhow::Result<()> {
        let loads = fs::read_to_string("/proc/loadavg")?;
        self.loads.extend(
            loads
                .split(' ')
                .next()
                .and_then(|load| load.parse::<f64>().ok()),
        );
        Ok(())
    }

    /// The load averages of the whole run.
    pub(super) fn loads(&self) -> &[f64] {
        &self.loads
    }
}

/// `6.1.0` of `6.1.0-32-cloud-amd64`: what is added is the builder's own.
fn kernel(release: &str) -> &str {
    release.trim().split('-').next().unwrap_or_default()
}
