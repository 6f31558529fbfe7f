//! What was made, tried: does it run, and do others' tools read it?
//!
//! Each trial says in one line what it came to, or why it was left out.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use gopulse_tests::{process::succeed, turn::is_root};

use crate::run::find;

/// Tries everything in the directory that is for this machine.
pub(super) fn everything(directory: &Path) -> anyhow::Result<()> {
    for path in files(directory)? {
        let name = path.to_string_lossy().into_owned();
        let ours = ["amd64", "arm64"]
            .iter()
            .find(|arch| name.contains(**arch))
            .is_none_or(|arch| *arch == this_machine());
        if name.ends_with(".deb") {
            package(&path, ours)?;
        } else if name.ends_with(".oci.tar") {
            image(&path, ours)?;
        } else if ours && name.contains("-linux-") {
            program(&path)?;
        }
    }
    succeed(Command::new("sha256sum").current_dir(directory).args([
        "--check",
        "--quiet",
        "SHA256SUMS",
    ]))?;
    told("SHA256SUMS", "sha256sum --check agrees");
    Ok(())
}

/// It needs no library, and runs.
fn program(path: &Path) -> anyhow::Result<()> {
    let size = fs::metadata(path)?.len();
    // ldd's exit status and words differ between kinds of static programs; a library has an arrow.
    let libraries = Command::new("ldd").arg(path).output();
    let libraries = libraries.context("ldd cannot be run")?.stdout;
    ensure!(
        !String::from_utf8_lossy(&libraries).contains("=>"),
        "{} is not static",
        path.display()
    );
    let version = succeed(Command::new(path).arg("--version"))?;
    told(path, &format!("static, {size} bytes, {}", version.trim()));
    if is_root() {
        // A host that forbids something is no fault of the program: what it says is told as it is.
        let doctor = Command::new(path).arg("doctor").output()?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        let seen = said.lines().filter(|line| line.starts_with("  yes"));
        told(
            path,
            &format!("doctor says yes {} times ({})", seen.count(), doctor.status),
        );
    } else {
        told(path, "doctor not run: not root");
    }
    Ok(())
}

/// It unpacks, what it lays runs, and lintian bears it.
fn package(path: &Path, ours: bool) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    succeed(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(path)
            .arg(root.path()),
    )?;
    if ours {
        let program = root.path().join("usr/bin/gopulse");
        let version = succeed(Command::new(&program).arg("--version"))?;
        told(path, &format!("unpacks, {}", version.trim()));
    }
    let Some(lintian) = find("lintian") else {
        told(path, "not checked: no lintian");
        return Ok(());
    };
    // lintian(1) does not want to be root's, and need not be feared here.
    let mut lintian = Command::new(lintian);
    lintian.args(["--allow-root", "--no-tag-display-limit"]);
    let checked = lintian.arg(path).output()?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.status.success(), "lintian objects:\n{said}");
    told(path, "lintian has no error");
    print!("{said}");
    Ok(())
}

/// skopeo reads it, and what its layer lays runs with nothing else around it.
fn image(path: &Path, ours: bool) -> anyhow::Result<()> {
    let Some(skopeo) = find("skopeo") else {
        told(path, "not read back: no skopeo");
        return Ok(());
    };
    let unpacked = tempfile::tempdir()?;
    let source = format!("oci-archive:{}", path.display());
    let copy = format!("dir:{}", unpacked.path().display());
    // This checks every digest on the way.
    succeed(Command::new(skopeo).args(["copy", "--insecure-policy", "--quiet", &source, &copy]))?;
    told(path, "skopeo reads it");
    if !(ours && is_root()) {
        told(path, "not run: not root, or not this machine's");
        return Ok(());
    }
    let manifest = fs::read(unpacked.path().join("manifest.json"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
    let layer = manifest["layers"][0]["digest"].as_str();
    let layer = layer.and_then(|digest| digest.strip_prefix("sha256:"));
    let layer = unpacked
        .path()
        .join(layer.context("the image has no layer")?);
    let root = tempfile::tempdir()?;
    succeed(
        Command::new("tar")
            .arg("-xzf")
            .arg(layer)
            .arg("-C")
            .arg(root.path()),
    )?;
    let version = succeed(
        Command::new("chroot")
            .arg(root.path())
            .args(["/usr/bin/gopulse", "--version"]),
    )?;
    told(path, &format!("runs in its own root, {}", version.trim()));
    Ok(())
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn this_machine() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn told(what: impl AsRef<Path>, outcome: &str) {
    let name = what.as_ref().file_name().unwrap_or_default();
    println!("dist: {}: {outcome}", name.to_string_lossy());
}
