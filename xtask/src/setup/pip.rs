//! Python packages as a way to get what they carry: unpacked into a folder, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::apt;
use crate::run::run_quietly;

/// Unpacks a package beside `home`; [`finish`] moves it there. A half-finished installation must not look
/// like a whole one.
pub(super) fn unpack(package: &str, version: &str, home: &Path) -> anyhow::Result<PathBuf> {
    need_pip(package)?;
    let mut name = home.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = PathBuf::from(name);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    run_quietly(
        pip()
            .args(["install", "--quiet", "--no-deps", "--target"])
            .arg(&unfinished)
            .arg(format!("{package}=={version}")),
    )?;
    Ok(unfinished)
}

/// Moves what was unpacked to its home.
pub(super) fn finish(unfinished: &Path, home: &Path) -> anyhow::Result<()> {
    fs::rename(unfinished, home)
        .with_context(|| format!("cannot move {} to its place", home.display()))
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}

/// Debian ships Python without pip.
fn need_pip(package: &str) -> anyhow::Result<()> {
    let there = || {
        pip()
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if there() {
        return Ok(());
    }
    apt::install(&["python3-pip"])
        .with_context(|| format!("pip is missing, which fetches {package}"))?;
    anyhow::ensure!(
        there(),
        "python3 -m pip does not work after installing python3-pip"
    );
    Ok(())
}
