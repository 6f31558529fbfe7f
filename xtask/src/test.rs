//! `test`: every test there is, and one closing line that counts them.
//!
//! Live scenarios run against the clock, on machines that stall: a few that fail are run once more, when
//! nothing else runs. What fails again has failed. What does not is unsteady, and named in the end, since
//! somebody has to find out why.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, bail};
use gopulse_tests::workspace;

use crate::{
    build_ebpf,
    run::{cargo, release_gopulse},
    setup,
};

/// More scenarios than this do not fail because of the machine.
const FEW: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what runs inside one crate.
    #[arg(long, conflicts_with = "live")]
    unit: bool,
    /// Only what runs the tool: command line and live scenarios.
    #[arg(long)]
    live: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.unit {
        setup::kernel_half();
    } else {
        setup::everything()?;
    }
    build_ebpf::check()?;
    let filter: Vec<_> = arguments.filter.as_deref().into_iter().collect();
    let mut tally = Tally::default();
    let mut unsteady = Vec::new();
    if !arguments.live {
        let mut units = tests(&["--workspace", "--exclude", "gopulse-tests"], &filter);
        units.env("GOPULSE_GO", workspace::goroot()?.join("bin/go"));
        tally += count(&mut units)?.tally;
    }
    if !arguments.unit {
        let gopulse = release_gopulse()?;
        let live = |only: &[&str]| {
            let mut live = tests(&["--package", "gopulse-tests"], only);
            live.env("GOPULSE_BIN", &gopulse).env("GOPULSE_LIVE", "1");
            count(&mut live)
        };
        let first = live(&filter)?;
        tally += first.tally;
        if (1..=FEW).contains(&first.failed.len()) {
            println!("\nonce more: {}", first.failed.join(", "));
            let mut only = vec!["--exact"];
            only.extend(first.failed.iter().map(String::as_str));
            let second = live(&only)?;
            unsteady = first.failed;
            unsteady.retain(|test| !second.failed.contains(test));
            tally.recover(unsteady.len() as u64);
        }
    }
    println!(
        "\n{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    if !unsteady.is_empty() {
        println!("unsteady, passed when run again: {}", unsteady.join(", "));
    }
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tests(packages: &[&str], only: &[&str]) -> Command {
    let mut command = cargo();
    command
        .current_dir(workspace::root())
        .args(["test", "--no-fail-fast"])
        .args(packages)
        // A failing test's message is what is wanted, not the way it came.
        .env("RUST_LIB_BACKTRACE", "0");
    if !only.is_empty() {
        command.arg("--").args(only);
    }
    command
}

/// What became of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Tally {
    /// So many of those that failed passed when they ran again.
    fn recover(&mut self, tests: u64) {
        self.failed = self.failed.saturating_sub(tests);
        self.passed += tests;
    }
}

/// What became of one run of cargo.
struct Counted {
    tally: Tally,
    /// The names of the tests that failed.
    failed: Vec<String>,
}

/// Runs cargo, shows its output as it comes, and counts.
fn count(command: &mut Command) -> anyhow::Result<Counted> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    // The tests' own words come on both: results on one, skipped tests and compile errors on the other.
    let results = thread::spawn(move || show(stdout, |line| println!("{line}")));
    let skipped = show(stderr, |line| eprintln!("{line}"));
    let mut lines = results.join().unwrap_or_default();
    lines.extend(skipped);
    let failed = failed(lines.iter().map(String::as_str));
    let tally = tally(lines.iter().map(String::as_str));
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("cargo test failed before the tests ran ({status})");
    }
    Ok(Counted { tally, failed })
}

/// The names in `test NAME ... FAILED`.
fn failed<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect()
}

fn show(stream: impl Read, print: impl Fn(&str)) -> Vec<String> {
    BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .inspect(|line| print(line))
        .collect()
}

/// Adds up the test runner's summaries. A test that could not run counts there as passed, and has
/// said `skipped: …` in a line of its own.
fn tally<'a>(lines: impl Iterator<Item = &'a str>) -> Tally {
    let mut tally = Tally::default();
    let mut could_not_run = 0;
    for line in lines {
        if line.starts_with("skipped: ") {
            could_not_run += 1;
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            tally.passed += counted(summary, "passed");
            tally.failed += counted(summary, "failed");
            tally.skipped += counted(summary, "ignored");
        }
    }
    tally.passed = tally.passed.saturating_sub(could_not_run);
    tally.skipped += could_not_run;
    tally
}

/// The number before a word, as in `ok. 6 passed; 0 failed; 1 ignored; …`.
fn counted(summary: &str, word: &str) -> u64 {
    let words: Vec<_> = summary.split([' ', ';', '.']).collect();
    words
        .windows(2)
        .find_map(|pair| (pair[1] == word).then(|| pair[0].parse().ok())?)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up_and_skipped_tests_are_not_passed() {
        let lines = "\
running 3 tests
skipped: a full disk: not root
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s
test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.50s";
        let expected = Tally {
            passed: 6,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(tally(lines.lines()), expected);
    }

    #[test]
    fn those_that_failed_are_known_by_name() {
        let lines = "\
test a_gateway_gives_up ... ok
test a_reset_names_its_line ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored";
        assert_eq!(failed(lines.lines()), ["a_reset_names_its_line"]);
        let mut tally = tally(lines.lines());
        tally.recover(1);
        assert_eq!((tally.passed, tally.failed), (2, 0));
    }
}
