//! `gopulse diagnose`: says what is wrong, live, from a recording or from a packet capture.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    Outcome, captured,
    destination::Destination,
    output,
    recorded::Recorded,
    session::{Plan, Watch},
    targets::Targets,
};
use crate::{
    capture::Sink,
    detect::{self, Severity},
    event::{BootInstant, Event, Packet},
    model::Model,
    report::{Report, text},
};

#[derive(Args)]
pub(super) struct Arguments {
    /// A recording (a directory) or a packet capture (pcap or pcapng, also gzip or zstd; - for standard
    /// input) to diagnose, instead of what happens now
    #[arg(value_name = "RECORDING|CAPTURE")]
    source: Option<PathBuf>,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    verdict: Verdict,
    /// A goroutine dump or profile of one of its services, taken by hand (pprof, SIGQUIT or a panic); may
    /// be repeated
    #[arg(
        long = "goroutines",
        value_name = "DUMP",
        help_heading = "Beside a packet capture"
    )]
    dumps: Vec<PathBuf>,
}

/// In which form the verdict is told, where, and what the exit status makes of it.
#[derive(Args)]
#[command(next_help_heading = "What is told")]
struct Verdict {
    /// The form of the report
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where to write the report, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The least severe finding that makes the exit status 1
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "warning")]
    fail_on: FailOn,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a person
    Text,
    /// For a program: schema gopulse.report/1
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Requests are failing
    Critical,
    /// Something will hurt, or hurts a few
    Warning,
    /// Anything at all
    Info,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let to = arguments.verdict.output.as_deref();
    let (model, findings, to) = match &arguments.source {
        Some(_) if arguments.targets.named() => {
            anyhow::bail!(
                "a recording or capture and targets were both named\n  a recording tells what happened then, targets what happens now\n  name one of them (gopulse diagnose --help)"
            );
        }
        source
            if !arguments.dumps.is_empty()
                && !source.as_deref().is_some_and(captured::is_capture) =>
        {
            anyhow::bail!(
                "--goroutines goes with a packet capture, and none was named\n  a recording and a live run have goroutines of their own\n  name a capture (gopulse diagnose FILE.pcap --goroutines DUMP)"
            );
        }
        Some(source) if captured::is_capture(source) => {
            let to = Destination::of_files(to)?;
            let (model, frames) = captured::read(source, &arguments.dumps)?;
            let mut findings = detect::findings(&model);
            captured::number(&model, frames, &mut findings);
            (model, findings, to)
        }
        Some(directory) => {
            let to = Destination::of_files(to)?;
            let mut recorded = Recorded::read(directory, |_, _| ())?;
            let mut findings = detect::findings(&recorded.model);
            recorded.number_frames(&mut findings);
            (recorded.model, findings, to)
        }
        None => match live(&arguments)? {
            Some((model, to)) => {
                let findings = detect::findings(&model);
                (model, findings, to)
            }
            None => return Ok(Outcome::Interrupted),
        },
    };
    let report = Report::new(&model, &findings);
    output::write_to(to, |out, terminal| match arguments.verdict.format {
        Format::Json => report.write_json(&mut *out),
        Format::Text => text::write(&report, &mut &mut *out, style(terminal)),
    })?;
    let least = match arguments.verdict.fail_on {
        FailOn::Critical => Severity::Critical,
        FailOn::Warning => Severity::Warning,
        FailOn::Info => Severity::Info,
    };
    Ok(match report.worst() {
        Some(worst) if worst >= least => Outcome::Findings,
        _ => Outcome::Healthy,
    })
}

/// The model, and where the result goes; `None` where the user interrupted before anything was seen.
fn live(arguments: &Arguments) -> anyhow::Result<Option<(Model, Destination)>> {
    let session = Plan::new(&arguments.targets, &arguments.watch, false)?.start()?;
    let to = Destination::open(arguments.verdict.output.as_deref())?;
    let mut seen = Seen {
        model: Model::new(session.source.clone()),
        last: session.source.started,
    };
    let began = seen.last;
    let ended = session.run(&mut seen)?;
    if ended.interrupted && seen.last == began {
        return Ok(None);
    }
    seen.model.end(ended.at.max(seen.last));
    Ok(Some((seen.model, to)))
}

/// A model that is fed.
struct Seen {
    model: Model,
    last: BootInstant,
}

impl Sink for Seen {
    fn event(&mut self, event: Event) {
        self.last = self.last.max(event.at);
        self.model.apply(&event);
    }

    fn packet(&mut self, _: Packet) {}
}

/// Colours and the terminal's width where it is one; 100 columns for a file.
fn style(terminal: bool) -> text::Style {
    const WIDE: usize = 100;
    let width = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    text::Style {
        colour: terminal && !no_colour,
        width: width.unwrap_or(WIDE).clamp(60, 120),
    }
}
