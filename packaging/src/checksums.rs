//! `SHA256SUMS`, as sha256sum(1) writes and checks it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// The file's name.
pub(crate) const FILE: &str = "SHA256SUMS";

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Writes the sums of all files below a directory into it.
pub(crate) fn write(directory: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let mut sums = String::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(directory).unwrap_or(&file);
        let _ = writeln!(sums, "{}  {}", sha256(&bytes), name.display());
    }
    let path = directory.join(FILE);
    fs::write(&path, sums).with_context(|| format!("cannot write {}", path.display()))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.file_name().is_some_and(|name| name != FILE) {
            files.push(path);
        }
    }
    Ok(())
}
