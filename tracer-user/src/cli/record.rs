//! `gopulse record`: traces processes and writes a recording.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    Outcome,
    output::say,
    session::{Goroutines, Plan},
    targets::{Targets, duration},
};
use crate::{
    capture::{Options, Sink},
    detect,
    event::{BootInstant, Event, Fact, Packet, Source, Unseen},
    model::Model,
    recording::{End, Losses, RecordingError, Writer},
    report::Report,
};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    targets: Targets,
    /// How long to trace
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// The directory to write; it must not exist, or be empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What to keep of packets
    #[arg(long, value_enum, default_value = "headers")]
    packets: Packets,
    #[command(flatten)]
    goroutines: Goroutines,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Packets {
    /// IP and TCP headers, no payload
    Headers,
    /// No packets
    Off,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let options = Options {
        packets: arguments.packets == Packets::Headers,
        goroutines: true,
        pprof: arguments.goroutines.pprof(),
    };
    let plan = Plan::new(&arguments.targets, arguments.duration, options)?;
    let session = plan.start()?;
    let mut recorder = Recorder::create(&arguments.output, &session.source)?;
    let ended = session.run(&mut recorder)?;
    if recorder.events == 0 && ended.interrupted {
        return Ok(Outcome::Interrupted);
    }
    recorder.last = recorder.last.max(ended.at);
    recorder.finish(&arguments.output)
}

/// Writes what it is handed, and keeps the model for the report that goes into the recording.
struct Recorder {
    writer: Writer,
    model: Model,
    events: u64,
    failed: Option<RecordingError>,
    last: BootInstant,
}

impl Recorder {
    fn create(directory: &Path, source: &Source) -> Result<Self, RecordingError> {
        Ok(Self {
            writer: Writer::create(directory, source)?,
            model: Model::new(source.clone()),
            events: 0,
            failed: None,
            last: source.started,
        })
    }

    /// What was written before a failure stays readable; the rest of the window is still diagnosed.
    fn check(&mut self, written: Result<(), RecordingError>) {
        if let Err(error) = written
            && self.failed.is_none()
        {
            say(&format!(
                "gopulse: {error}\n  the recording ends here; the trace goes on"
            ));
            self.model.apply(&Event {
                at: self.last,
                fact: Fact::Unseen(Unseen {
                    what: "the rest of the recording".to_owned(),
                    why: error.to_string(),
                    remedy: "record to a file system with more room".to_owned(),
                }),
            });
            self.failed = Some(error);
        }
    }

    fn finish(mut self, directory: &Path) -> anyhow::Result<Outcome> {
        self.model.end(self.last);
        let findings = detect::findings(&self.model);
        let report = Report::new(&self.model, &findings);
        let mut json = Vec::new();
        report
            .write_json(&mut json)
            .context("cannot write the report as JSON")?;
        if self.failed.is_none() {
            let attached = self.writer.attach("report.json", &json);
            self.check(attached);
        }
        let failed = self.failed.is_some();
        let end = End {
            ended: self.last,
            targets: self
                .model
                .processes()
                .map(|process| process.about.clone())
                .collect(),
            losses: Losses {
                events_lost: report.losses.events_lost,
                packets_lost: report.losses.packets_lost,
                by_probe: report.losses.by_probe,
            },
        };
        self.writer.finish(end)?;
        say(&format!(
            "{} in {}{}; gopulse diagnose {} tells more",
            match findings.len() {
                0 => "nothing wrong was found".to_owned(),
                1 => "1 finding".to_owned(),
                many => format!("{many} findings"),
            },
            directory.display(),
            if failed { " (cut short)" } else { "" },
            directory.display(),
        ));
        match self.failed {
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Healthy),
        }
    }
}

impl Sink for Recorder {
    fn event(&mut self, event: Event) {
        self.events += 1;
        self.last = self.last.max(event.at);
        if self.failed.is_none() {
            let written = self.writer.event(&event);
            self.check(written);
        }
        self.model.apply(&event);
    }

    fn packet(&mut self, packet: Packet) {
        if self.failed.is_none() {
            let written = self.writer.packet(&packet).map(drop);
            self.check(written);
        }
    }

    fn tick(&mut self) {
        if self.failed.is_none() {
            let flushed = self.writer.flush();
            self.check(flushed);
        }
    }
}
