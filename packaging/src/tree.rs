//! Files as they will lie on a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Files by their path below `/`, all of root's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Clone, Debug)]
struct File {
    mode: u32,
    bytes: Vec<u8>,
}

impl Tree {
    /// A file that everybody may read.
    pub(crate) fn add(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.insert(path.into(), 0o644, bytes.into());
    }

    /// A file that everybody may run.
    pub(crate) fn add_program(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.insert(path.into(), 0o755, bytes.into());
    }

    /// A file that everybody may read, compressed; `.gz` is added to its name.
    pub(crate) fn add_compressed(&mut self, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.add(format!("{path}.gz"), gzip(bytes)?);
        Ok(())
    }

    fn insert(&mut self, path: PathBuf, mode: u32, bytes: Vec<u8>) {
        self.files.insert(path, File { mode, bytes });
    }

    /// The files' paths, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// What the files take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }

    /// Lays the files below a directory.
    pub(crate) fn lay(&self, root: &Path) -> anyhow::Result<()> {
        for directory in self.directories() {
            let directory = root.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            // Whatever the umask of whoever builds.
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        }
        for (path, file) in &self.files {
            write(&root.join(path), &file.bytes, file.mode)?;
        }
        Ok(())
    }

    /// The files as a tar, with their directories, all from one time (seconds since 1970).
    pub(crate) fn tar(&self, epoch: u64) -> anyhow::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for directory in self.directories() {
            let mut header = header(EntryType::Directory, 0o755, 0, epoch);
            tar.append_data(&mut header, directory, &[][..])?;
        }
        for (path, file) in &self.files {
            let size = file.bytes.len() as u64;
            let mut header = header(EntryType::Regular, file.mode, size, epoch);
            tar.append_data(&mut header, path, file.bytes.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }

    /// Every directory above a file, parents first.
    fn directories(&self) -> BTreeSet<&Path> {
        self.files
            .keys()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|directory| !directory.as_os_str().is_empty())
            .collect()
    }
}

/// Owner and group stay 0, and names of them are not written.
fn header(kind: EntryType, mode: u32, size: u64, epoch: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(epoch);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Compressed as well as it goes, with neither name nor time.
pub(crate) fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// Writes a file with its directory.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.add("usr/share/doc/gopulse/copyright", "free");
        tree.add_program("usr/bin/gopulse", "ELF");
        tree
    }

    #[test]
    fn a_tar_has_directories_before_their_files_and_everything_is_roots() -> anyhow::Result<()> {
        let tar = tree().tar(1)?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut told = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            let header = entry.header();
            assert_eq!((header.uid()?, header.gid()?, header.mtime()?), (0, 0, 1));
            told.push(format!("{} {:o}", entry.path()?.display(), header.mode()?));
        }
        assert_eq!(
            told,
            [
                "usr 755",
                "usr/bin 755",
                "usr/share 755",
                "usr/share/doc 755",
                "usr/share/doc/gopulse 755",
                "usr/bin/gopulse 755",
                "usr/share/doc/gopulse/copyright 644",
            ]
        );
        Ok(())
    }

    #[test]
    fn the_same_files_give_the_same_bytes() -> anyhow::Result<()> {
        assert_eq!(tree().tar(7)?, tree().tar(7)?);
        assert_eq!(gzip(b"a page")?, gzip(b"a page")?);
        Ok(())
    }
}
