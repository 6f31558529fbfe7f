//! Runs one live test by itself and takes what gopulse told it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    cases::Case,
    gopulse::{Told, VERDICTS},
    process, workspace,
};
use serde_json::Value;

use crate::run::{cargo, release_gopulse};

/// More than any scene takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// Everything that scenes need.
pub(super) struct Stage {
    gopulse: PathBuf,
    /// The test programs, by the names of their files.
    programs: BTreeMap<String, PathBuf>,
    lock: Option<File>,
}

/// What became of a scene.
pub(super) struct Run {
    /// The test's own assertions hold.
    pub(super) passed: bool,
    /// Why it could not run here.
    pub(super) skipped: Option<String>,
    /// Each verdict that it was given.
    pub(super) told: Vec<Told>,
    /// What the test printed.
    pub(super) said: String,
}

impl Stage {
    /// Builds gopulse and the tests.
    pub(super) fn build(lock: Option<&Path>) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Self {
            gopulse: release_gopulse()?,
            programs: programs()?,
            lock: lock.map(open).transpose()?,
        })
    }

    /// Runs the test of a case.
    pub(super) fn run(&self, case: &Case) -> anyhow::Result<Run> {
        let (file, function) = case.test.split_once("::").context("no FILE::FUNCTION")?;
        let program = self
            .programs
            .get(file)
            .with_context(|| format!("no tests/tests/{file}.rs"))?;
        let directory = tempfile::tempdir()?;
        let verdicts = directory.path().join("verdicts");
        let mut command = Command::new(program);
        command
            .current_dir(workspace::root().join("tests"))
            .args(["--exact", function, "--nocapture"])
            .env("GOPULSE_BIN", &self.gopulse)
            .env("GOPULSE_LIVE", "1")
            .env(VERDICTS, &verdicts)
            .env("RUST_BACKTRACE", "0")
            .env_remove("CI");
        if let Some(lock) = &self.lock {
            lock.lock()?;
        }
        let ended = process::run(&mut command, PATIENCE);
        if let Some(lock) = &self.lock {
            lock.unlock()?;
        }
        let ended = ended?;
        anyhow::ensure!(
            !ended.stdout.contains("running 0 tests"),
            "there is no test {}",
            case.test
        );
        let told = fs::read_to_string(&verdicts).unwrap_or_default();
        let skipped = ended
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("skipped: "));
        Ok(Run {
            passed: ended.status == 0,
            skipped: skipped.map(str::to_owned),
            told: told
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?,
            said: ended.stdout + &ended.stderr,
        })
    }
}

/// Builds the live tests, and asks cargo where they are.
fn programs() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let told = process::succeed(cargo().current_dir(workspace::root()).args([
        "test",
        "--quiet",
        "--package",
        "gopulse-tests",
        "--no-run",
        "--message-format=json",
    ]))?;
    let messages = told
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?;
        Some((
            name.to_owned(),
            PathBuf::from(message["executable"].as_str()?),
        ))
    });
    Ok(programs.collect())
}
