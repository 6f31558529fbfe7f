//! Where results and messages go.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

/// Says something to the person at the terminal.
pub(super) fn say(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
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
    match to {
        Some(path) => {
            let mut file =
                io::BufWriter::new(File::create(path).map_err(|error| {
                    anyhow::anyhow!("cannot write {}: {error}", path.display())
                })?);
            write(&mut file, false)?;
            file.flush()?;
        }
        None => {
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
