//! `lint`: formatting, clippy, and the rules of the house that no other tool knows.
//!
//! A rule of the house takes the sources and gives complaints; it reads nothing by itself. Each is a
//! scan of text, which a determined author can fool: it is there to remind, not to police.

mod length;
mod names;
mod rules;
mod sources;
mod stages;
mod unsafety;

use std::{fmt, process::ExitCode};

use gopulse_tests::{services, workspace};
use sources::Source;

use crate::{
    run::{cargo, run},
    setup,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// A rule of the house.
type Rule = fn(&[Source]) -> Vec<Complaint>;

const HOUSE: [Rule; 5] = [
    stages::check,
    rules::check,
    length::check,
    unsafety::check,
    names::check,
];

/// Where the sources break a rule, and how.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    path: String,
    line: Option<usize>,
    says: String,
}

impl Complaint {
    fn of(source: &Source, line: Option<usize>, says: impl Into<String>) -> Self {
        Self {
            path: source.path.clone(),
            line,
            says: says.into(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.says)
    }
}

pub(crate) fn main(_: &Arguments) -> anyhow::Result<ExitCode> {
    // Everything is looked at, whatever fails first.
    let outcomes = [
        told(
            "cargo fmt",
            run(cargo_here().args(["fmt", "--all", "--check"])),
        ),
        told("clippy", clippy()),
        told("go vet and gofmt", go()),
        house()?,
    ];
    Ok(if outcomes.iter().all(|fine| *fine) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn clippy() -> anyhow::Result<()> {
    run(cargo_here().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The test services are held to Go's own tools.
fn go() -> anyhow::Result<()> {
    setup::go::install()?;
    run(services::go("go")?.args(["vet", "./..."]))?;
    let unformatted = services::go("gofmt")?.args(["-l", "."]).output()?;
    let unformatted = String::from_utf8_lossy(&unformatted.stdout);
    anyhow::ensure!(unformatted.is_empty(), "not formatted: {unformatted}");
    Ok(())
}

fn house() -> anyhow::Result<bool> {
    let sources = sources::read(workspace::root())?;
    let complaints: Vec<_> = HOUSE.iter().flat_map(|rule| rule(&sources)).collect();
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "rules of the house: {} files, {} complaints",
        sources.len(),
        complaints.len()
    );
    Ok(complaints.is_empty())
}

fn cargo_here() -> std::process::Command {
    let mut cargo = cargo();
    cargo.current_dir(workspace::root());
    cargo
}

fn told(what: &str, outcome: anyhow::Result<()>) -> bool {
    match &outcome {
        Ok(()) => println!("{what}: clean"),
        Err(why) => println!("{what}: {why:#}"),
    }
    outcome.is_ok()
}
