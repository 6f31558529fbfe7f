//! The object kept with the source, and the note beside it of what it was built from.
//!
//! `tracer-ebpf/prebuilt/` holds `gopulse-probes.o` and `source.sha256`, three lines of `name value`:
//! the hash of the source, the hash of the object, the versions of the toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::source::hex;

/// The kept object and its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prebuilt {
    /// Where the object lies.
    pub object: PathBuf,
    /// The hash of the source it was built from, as [`crate::source_hash`] gives it.
    pub source_hash: String,
    /// The SHA-256 of the object's bytes, in hex.
    pub object_hash: String,
    /// What it was built with, as [`crate::Toolchain::versions`] gives it.
    pub toolchain: String,
}

impl Prebuilt {
    /// Reads the note in the workspace at `root`.
    ///
    /// # Errors
    ///
    /// The note is missing or lacks a line.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let (object, note) = paths(root);
        let text =
            fs::read_to_string(&note).with_context(|| format!("cannot read {}", note.display()))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .map(str::to_owned)
                .with_context(|| format!("{} has no line `{name} …`", note.display()))
        };
        Ok(Self {
            source_hash: field("source")?,
            object_hash: field("object")?,
            toolchain: field("toolchain")?,
            object,
        })
    }

    /// The kept object's bytes, if it was built from the source with this hash and is unchanged since.
    ///
    /// # Errors
    ///
    /// Says what does not fit.
    pub fn object_for(&self, source_hash: &str) -> anyhow::Result<Vec<u8>> {
        anyhow::ensure!(
            self.source_hash == source_hash,
            "it was built from a source with hash {}, and the source's hash is {source_hash}",
            self.source_hash
        );
        let bytes = fs::read(&self.object)
            .with_context(|| format!("cannot read {}", self.object.display()))?;
        let found = hex(&Sha256::digest(&bytes));
        anyhow::ensure!(
            self.object_hash == found,
            "its hash is {found}, and the note beside it says {}",
            self.object_hash
        );
        Ok(bytes)
    }

    /// Keeps a new object in the workspace at `root`.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(
        root: &Path,
        bytes: &[u8],
        source_hash: &str,
        toolchain: &str,
    ) -> anyhow::Result<Self> {
        let (object, note) = paths(root);
        let prebuilt = Self {
            object,
            source_hash: source_hash.to_owned(),
            object_hash: hex(&Sha256::digest(bytes)),
            toolchain: toolchain.to_owned(),
        };
        let text = format!(
            "source {}\nobject {}\ntoolchain {}\n",
            prebuilt.source_hash, prebuilt.object_hash, prebuilt.toolchain
        );
        if let Some(directory) = note.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::write(&prebuilt.object, bytes)
            .with_context(|| format!("cannot write {}", prebuilt.object.display()))?;
        fs::write(&note, text).with_context(|| format!("cannot write {}", note.display()))?;
        Ok(prebuilt)
    }
}

/// The object and its note.
fn paths(root: &Path) -> (PathBuf, PathBuf) {
    let directory = root.join("tracer-ebpf/prebuilt");
    (
        directory.join("gopulse-probes.o"),
        directory.join("source.sha256"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_object_is_given_only_for_its_own_source() {
        let root = tempfile::tempdir().unwrap();
        let written = Prebuilt::write(root.path(), b"object", "aa", "rustc 1").unwrap();
        let read = Prebuilt::read(root.path()).unwrap();
        assert_eq!(written, read);
        assert_eq!(read.object_for("aa").unwrap(), b"object");
        assert!(read.object_for("bb").is_err());
    }

    #[test]
    fn an_object_changed_by_hand_is_not_given() {
        let root = tempfile::tempdir().unwrap();
        let kept = Prebuilt::write(root.path(), b"object", "aa", "rustc 1").unwrap();
        fs::write(&kept.object, b"another").unwrap();
        assert!(kept.object_for("aa").is_err());
    }
}
