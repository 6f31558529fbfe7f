//! Where things lie in the checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The checkout's top directory.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where builds and downloads go; never part of the source.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The `gopulse` that demo, live tests and benchmarks run.
pub(crate) fn gopulse() -> PathBuf {
    target().join("release/gopulse")
}
