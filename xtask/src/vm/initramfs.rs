//! A file system for a guest, in the form that kernels unpack at boot.
//!
//! It is cpio's `newc` (`Documentation/driver-api/early-userspace/buffer-format.rst`). A kernel unpacks one
//! archive after another, so what is the same for all kernels is made once.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// A directory, and those above it.
    pub(super) fn directory(&mut self, path: &str) {
        let slashes = path.match_indices('/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            let directory = &path[..end];
            if !directory.is_empty() && self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY, &[]);
            }
        }
    }

    /// A file, which may be run.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        self.above(path);
        self.entry(path, PROGRAM, contents);
    }

    /// A file of the host's.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &contents);
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.above(path);
        self.entry(path, LINK, to.as_bytes());
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let name = path.trim_start_matches('/');
        let header = [
            self.entries, // inode
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            contents.len() as u32,
            0, // device
            0,
            0, // device that this is
            0,
            name.len() as u32 + 1,
            0, // checksum
        ];
        self.bytes.extend(b"070701");
        for field in header {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_behind_their_directories_and_begin_at_words() {
        let mut initramfs = Initramfs::default();
        initramfs.file("/bin/tool", b"hello");
        initramfs.link("/bin/other", "tool");
        let bytes = initramfs.finish();
        let at = |text: &[u8]| bytes.windows(text.len()).position(|part| part == text);
        assert!(at(b"bin\0") < at(b"bin/tool\0"));
        assert_eq!(at(b"hello").unwrap() % 4, 0);
        assert_eq!(bytes.windows(4).filter(|part| part == b"bin\0").count(), 1);
        assert_eq!(bytes.len() % 4, 0);
    }
}
