//! `test`: every test there is, and one closing line that counts them.

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
    let filter = arguments.filter.as_deref();
    let mut tally = Tally::default();
    if !arguments.live {
        let mut units = tests(&["--workspace", "--exclude", "gopulse-tests"], filter);
        units.env("GOPULSE_GO", workspace::goroot()?.join("bin/go"));
        tally += count(&mut units)?;
    }
    if !arguments.unit {
        let gopulse = release_gopulse()?;
        let mut live = tests(&["--package", "gopulse-tests"], filter);
        live.env("GOPULSE_BIN", gopulse).env("GOPULSE_LIVE", "1");
        tally += count(&mut live)?;
    }
    println!(
        "\n{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tests(packages: &[&str], filter: Option<&str>) -> Command {
    let mut command = cargo();
    command
        .current_dir(workspace::root())
        .args(["test", "--no-fail-fast"])
        .args(packages)
        // A failing test's message is what is wanted, not the way it came.
        .env("RUST_LIB_BACKTRACE", "0");
    if let Some(filter) = filter {
        command.args(["--", filter]);
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

/// Runs cargo, shows its output as it comes, and counts.
fn count(command: &mut Command) -> anyhow::Result<Tally> {
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
    let tally = tally(lines.iter().map(String::as_str));
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("cargo test failed before the tests ran ({status})");
    }
    Ok(tally)
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
}
