//! `gopulse record`: traces processes and writes a recording.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    Outcome,
    output::say,
    session::{Plan, Watch},
    targets::Targets,
};
use crate::{
    capture::Sink,
    detect::{self, Finding},
    event::{BootInstant, Event, Fact, Packet, Source, Unseen},
    export::wireshark::{self, Rows},
    model::Model,
    recording::{End, RecordingError, Writer},
    report::{self, Report},
};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    kept: Kept,
}

/// What is kept, and where.
#[derive(Args)]
#[command(next_help_heading = "What is kept")]
struct Kept {
    /// The directory to write; it must not exist, or be empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What to keep of packets
    #[arg(long, value_enum, value_name = "WHAT", default_value = "headers")]
    packets: Packets,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Packets {
    /// IP and TCP headers, no payload
    Headers,
    /// No packets
    Off,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let packets = arguments.kept.packets == Packets::Headers;
    let output = &arguments.kept.output;
    let session = Plan::new(&arguments.targets, &arguments.watch, packets)?.start()?;
    let mut recorder = Recorder::create(output, &session.source)?;
    recorder.packets = packets;
    let ended = session.run(&mut recorder)?;
    if recorder.events == 0 && ended.interrupted {
        return Ok(Outcome::Interrupted);
    }
    recorder.last = recorder.last.max(ended.at);
    recorder.finish(output)
}

/// Writes what it is handed, and keeps the model for the report that goes into the recording.
struct Recorder {
    writer: Writer,
    model: Model,
    rows: Rows,
    /// Packets are wanted.
    packets: bool,
    events: u64,
    failed: Option<RecordingError>,
    last: BootInstant,
}

impl Recorder {
    fn create(directory: &Path, source: &Source) -> Result<Self, RecordingError> {
        Ok(Self {
            writer: Writer::create(directory, source)?,
            model: Model::new(source.clone()),
            rows: Rows::default(),
            packets: true,
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
        let mut findings = detect::findings(&self.model);
        let losses = report::losses(&self.model);
        if self.failed.is_none() && self.packets {
            self.annotate(&mut findings, losses.packets_lost);
        }
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
            losses,
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

    /// Writes what was seen into the capture, and the packets' numbers into the findings. Without it the
    /// capture is still all that was captured, so it is told and the recording goes on.
    fn annotate(&mut self, findings: &mut [Finding], packets_lost: u64) {
        let (model, rows) = (&self.model, &self.rows);
        let written = self
            .writer
            .rewrite_packets(self.last, packets_lost, |capture, out| {
                wireshark::annotate(capture, out, model, findings, rows)
            });
        let Err(error) = written else {
            return;
        };
        say(&format!(
            "gopulse: {error}\n  capture.pcapng has the packets, but no comments on them"
        ));
        let found = self.writer.capture();
        // Where it cannot be read either, the findings stand without numbers.
        let _ = found.map(|capture| wireshark::find_frames(capture, model, findings));
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
        self.rows.tell(&event, &self.model);
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
