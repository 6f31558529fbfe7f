//! Files of goroutines that the user named.

use std::{fs::File, io, path::Path};

use anyhow::Context as _;

use crate::golang::saved::{self, Saved, SavedError};

/// What a file of goroutines holds; `-` is standard input.
pub(super) fn saved_goroutines(path: &Path) -> anyhow::Result<Saved> {
    let cannot = || format!("cannot read {}", path.display());
    let read = if path == Path::new("-") {
        saved::read(io::stdin().lock())
    } else {
        saved::read(File::open(path).with_context(cannot)?)
    };
    read.map_err(|error| match error {
        SavedError::Unreadable(error) => anyhow::Error::new(error).context(cannot()),
        error => anyhow::anyhow!(
            "{path} tells no goroutines: {error}\n  wanted is what /debug/pprof/goroutine gives with debug=2, debug=1 or neither, or what a SIGQUIT or a panic prints\n  curl 'http://HOST:PORT/debug/pprof/goroutine?debug=2' -o {path}",
            path = path.display()
        ),
    })
}
