//! `gopulse export`: a recording in the form of another tool.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{Outcome, output, recorded::Recorded};
use crate::{
    detect,
    export::wireshark::{self, Rows},
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
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    match arguments.to {
        Format::Pcapng => pcapng(arguments)?,
    }
    Ok(Outcome::Healthy)
}

fn pcapng(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Rows::default();
    let Recorded { reader, model } =
        Recorded::read(&arguments.recording, |event, model| rows.tell(event, model))?;
    let mut findings = detect::findings(&model);
    let mut capture = reader.capture()?;
    if let Some(output) = &arguments.output {
        refuse_the_same(&capture, output)?;
    }
    output::result(arguments.output.as_deref(), |out, terminal| {
        if terminal {
            return Err(io::Error::other(
                "a capture is not for a terminal: name a file with -o, or pipe it into wireshark -k -i -",
            ));
        }
        wireshark::annotate(&mut capture, out, &model, &mut findings, &rows)
    })
    .with_context(|| format!("cannot export {}", arguments.recording.display()))
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
