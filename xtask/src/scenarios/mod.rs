//! `scenarios`: every case of the list, reproduced with real processes, diagnosed, and judged.
//!
//! A case is a live test ([`gopulse_tests::cases`]), run by itself in a process of its own. The test
//! asserts the facts that a finding must name; here is counted besides whether the rules found are those
//! expected and no others, how sure they were, and how long the verdict took. What went wrong is kept
//! below `target/scenarios`, the report with it.

mod judge;
mod machine;
mod page;
mod scene;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use gopulse_tests::{cases, workspace};

use self::{judge::Tally, machine::Machine, scene::Stage};
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often to run each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Only these cases, such as N1,S3 (H1 to H7 are the healthy ones).
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    only: Vec<String>,
    /// Where to write the page; standard output if left out.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Hold this file's lock, as flock(1) does, while a scene runs: where others measure on this machine.
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::everything()?;
    let wanted =
        |id: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == id);
    let mut tallies: Vec<Tally> = cases::CASES
        .iter()
        .filter(|case| wanted(case.id))
        .map(Tally::new)
        .collect();
    anyhow::ensure!(
        !tallies.is_empty(),
        "there is no such case (they are in tests/src/cases.rs)"
    );
    let stage = Stage::build(arguments.lock.as_deref())?;
    let mut machine = Machine::look()?;
    for pass in 1..=arguments.repeat {
        for place in 0..tallies.len() {
            let tally = &mut tallies[place];
            let run = stage.run(tally.case)?;
            machine.note_load()?;
            eprintln!("{pass}/{} {}", arguments.repeat, tally.add(run, pass)?);
            // Who ends a long run early keeps what was measured.
            if let Some(path) = &arguments.output {
                let page = page::write(&tallies, &machine, arguments);
                fs::write(path, page)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    if arguments.output.is_none() {
        print!("{}", page::write(&tallies, &machine, arguments));
    }
    let wrong = tallies.iter().any(|tally| tally.right() < tally.judged());
    if wrong {
        eprintln!("what went wrong is in {}", kept().display());
    }
    Ok(if wrong {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Where the reports of wrong verdicts are kept.
fn kept() -> PathBuf {
    workspace::target().join("scenarios")
}
