//! Where results and messages go.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use super::destination::Destination;
use crate::plain;

/// Says something to the person at the terminal.
pub(super) fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", plain::clean_lines(text));
}

/// A line that is written over by the next one; only on a terminal.
pub(super) fn progress(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

/// Writes a result to a file, or to standard output, where a reader that has gone is no error.
///
/// # Errors
/// What the system says, with the file's name.
pub(super) fn result(
    to: Option<&Path>,
    write: impl FnOnce(&mut dyn io::Write, bool) -> io::Result<()>,
) -> anyhow::Result<()> {
    write_to(Destination::open(to)?, write)
}

/// The same, to what was opened before.
///
/// # Errors
/// What the system says.
pub(super) fn write_to(
    to: Destination,
    write: impl FnOnce(&mut dyn io::Write, bool) -> io::Result<()>,
) -> anyhow::Result<()> {
    match to {
        Destination::Named(mut named) => {
            let mut file = io::BufWriter::new(named.begin()?);
            write(&mut file, false)?;
            file.flush()?;
            drop(file);
            named.keep();
        }
        Destination::Standard => {
            let stdout = io::stdout();
            let terminal = stdout.is_terminal();
            let mut stdout = io::BufWriter::new(stdout.lock());
            let written = write(&mut stdout, terminal).and_then(|()| stdout.flush());
            // Whoever read it has seen enough, as with `| head`.
            if written
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            {
                return Ok(());
            }
            written?;
        }
    }
    Ok(())
}
