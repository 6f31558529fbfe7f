//! One file a verb: parsed arguments, then a plan that is checked, then the run.
//!
//! Standard output carries the result, standard error what is for people. The exit status is 0 for
//! healthy, 1 for findings at or above `--fail-on`, 2 for unusable arguments or input, 3 where the host
//! or the privileges do not allow it, 130 where the user interrupted before anything was seen.

mod captured;
mod destination;
mod diagnose;
mod doctor;
mod dumps;
mod export;
mod goroutines;
mod interrupt;
mod outcome;
mod output;
mod record;
mod recorded;
mod session;
mod targets;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

pub use outcome::Outcome;

/// Takes the pulse of a running service: what its TCP connections, its threads and its goroutines did,
/// joined, and what is wrong with them. The service is not changed, restarted or linked against
/// anything.
#[derive(Parser)]
#[command(
    name = "gopulse",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "To begin with: gopulse diagnose --port PORT"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Says what is wrong, live, from a recording or from a packet capture
    Diagnose(diagnose::Arguments),
    /// Traces processes and writes a recording
    Record(record::Arguments),
    /// Writes a recording in the form of another tool
    Export(export::Arguments),
    /// Groups, ranks and compares goroutines: of a process, of an endpoint, or from files
    Goroutines(goroutines::Arguments),
    /// Says what this host can trace and how, and what would mend what it cannot
    Doctor(doctor::Arguments),
}

/// The command line as clap knows it, which manual and completions are made from.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the verb that the arguments name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap knows which of help, version and errors goes where, and with which status. Where
            // even that cannot be written there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match arguments.verb {
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Record(arguments) => record::run(arguments),
        Verb::Diagnose(arguments) => diagnose::run(arguments),
        Verb::Export(arguments) => export::run(&arguments),
        Verb::Goroutines(arguments) => goroutines::run(arguments),
    };
    outcome::exit(result)
}
