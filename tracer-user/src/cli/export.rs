//! `gopulse export`: a recording in the form of another tool.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{Outcome, destination::Destination, output, recorded::Recorded};
use crate::{
    detect,
    export::{
        Samples, folded, perfetto, pprof,
        wireshark::{self, Rows},
    },
    model::Model,
    recording::Reader,
};

#[derive(Args)]
pub(super) struct Arguments {
    /// The recording
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// The form to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// Where to write it, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The packets with comments, and rows between them for what has no packet; for Wireshark
    Pcapng,
    /// CPU samples as a gzipped profile.proto; for `go tool pprof`
    Pprof,
    /// CPU samples as lines of stacks; for flame graphs
    Folded,
    /// Threads, connections, goroutines and findings on one time line; for ui.perfetto.dev
    Perfetto,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let to = Destination::of_files(arguments.output.as_deref())?;
    match arguments.to {
        Format::Pcapng => pcapng(arguments, to)?,
        Format::Pprof => profile(arguments, to, |samples, model, mut out, terminal| {
            refuse(terminal, "a profile", "go tool pprof FILE")?;
            pprof::write(samples, model, &mut out)
        })?,
        Format::Folded => profile(arguments, to, |samples, model, mut out, _| {
            folded::write(samples, model, &mut out)
        })?,
        Format::Perfetto => perfetto(arguments, to)?,
    }
    Ok(Outcome::Healthy)
}

fn pcapng(arguments: &Arguments, to: Destination) -> anyhow::Result<()> {
    let mut rows = Rows::default();
    let Recorded { reader, model } =
        Recorded::read(&arguments.recording, |event, model| rows.tell(event, model))?;
    let mut findings = detect::findings(&model);
    let mut capture = reader.capture()?;
    if let Some(output) = &arguments.output {
        refuse_the_same(&capture, output)?;
    }
    output::write_to(to, |out, terminal| {
        refuse(terminal, "a capture", "wireshark -k -i -")?;
        wireshark::annotate(&mut capture, out, &model, &mut findings, &rows)
    })
    .with_context(|| format!("cannot export {}", arguments.recording.display()))
}

/// Writes what the samples of the recording come to.
fn profile(
    arguments: &Arguments,
    to: Destination,
    write: impl FnOnce(&Samples, &Model, &mut dyn io::Write, bool) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut samples = Samples::default();
    let recorded = Recorded::read(&arguments.recording, |event, _| samples.tell(event))?;
    if samples.is_empty() {
        output::say(&format!(
            "{} has no CPU samples: nobody in it was seen running",
            arguments.recording.display()
        ));
    }
    output::write_to(to, |out, terminal| {
        write(&samples, &recorded.model, out, terminal)
    })
    .with_context(|| format!("cannot export {}", arguments.recording.display()))
}

fn perfetto(arguments: &Arguments, to: Destination) -> anyhow::Result<()> {
    let mut recorded = Recorded::read(&arguments.recording, |_, _| {})?;
    let mut findings = detect::findings(&recorded.model);
    recorded.number_frames(&mut findings);
    let again = Reader::open(&arguments.recording)?;
    output::write_to(to, |mut out, terminal| {
        refuse(terminal, "a trace", "gzip > FILE")?;
        perfetto::write(&recorded.model, &findings, again, &mut out)
    })
    .with_context(|| format!("cannot export {}", arguments.recording.display()))
}

/// What only a program reads is not for a terminal.
fn refuse(terminal: bool, what: &str, reader: &str) -> io::Result<()> {
    if terminal {
        return Err(io::Error::other(format!(
            "{what} is not for a terminal: name a file with -o, or pipe it into {reader}"
        )));
    }
    Ok(())
}

/// The recording's own capture is read while the file is written.
fn refuse_the_same(capture: &File, output: &Path) -> anyhow::Result<()> {
    let Ok(there) = fs::metadata(output) else {
        return Ok(());
    };
    let capture = capture.metadata()?;
    anyhow::ensure!(
        (capture.dev(), capture.ino()) != (there.dev(), there.ino()),
        "{} is the recording's own capture, which would be lost\n  name another file with -o",
        output.display()
    );
    Ok(())
}
