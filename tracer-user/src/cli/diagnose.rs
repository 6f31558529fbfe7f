//! `gopulse diagnose`: says what is wrong, live, from a recording or from a packet capture.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    Outcome, captured,
    destination::Destination,
    output,
    recorded::Recorded,
    session::{CpuBudget, Goroutines, Plan},
    targets::{Targets, duration},
};
use crate::{
    capture::{Options, Sink},
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
    /// A goroutine dump or profile taken by hand (pprof, SIGQUIT or a panic), beside a packet capture;
    /// may be given more than once
    #[arg(long = "goroutines", value_name = "DUMP")]
    dumps: Vec<PathBuf>,
    #[command(flatten)]
    targets: Targets,
    /// How long to trace
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How to tell it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where to write it, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The least severe finding that makes the exit status 1
    #[arg(long, value_enum, default_value = "warning")]
    fail_on: FailOn,
    /// Tell every switch of a CPU to and from the targets' threads, not only their sums and long waits
    #[arg(long)]
    timeline: bool,
    #[command(flatten)]
    goroutines: Goroutines,
    #[command(flatten)]
    cpu_budget: CpuBudget,
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
    let to = arguments.output.as_deref();
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
    output::write_to(to, |out, terminal| match arguments.format {
        Format::Json => report.write_json(&mut *out),
        Format::Text => text::write(&report, &mut &mut *out, style(terminal)),
    })?;
    let least = match arguments.fail_on {
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
    let options = Options {
        packets: false,
        timeline: arguments.timeline,
        goroutines: true,
        pprof: arguments.goroutines.pprof(),
        cpu_budget: arguments.cpu_budget.cpus(),
    };
    let session = Plan::new(&arguments.targets, arguments.duration, options)?.start()?;
    let to = Destination::open(arguments.output.as_deref())?;
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
