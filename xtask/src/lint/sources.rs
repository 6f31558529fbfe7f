//! The sources as the rules see them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Where sources lie.
const HOMES: [&str; 6] = [
    "tracer-ebpf",
    "tracer-user",
    "packaging",
    "xtask",
    "tests",
    "fuzz",
];

/// A Rust file.
pub(super) struct Source {
    /// Relative to the workspace.
    pub(super) path: String,
    pub(super) text: String,
}

impl Source {
    /// The lines that are code, numbered from 1: no comments, which may speak of anything. A comment
    /// behind code is cut off; a `//` inside a string is taken for one, which harms no rule here.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
            .enumerate()
            .map(|(index, code)| (index + 1, code))
            .filter(|(_, code)| !code.trim().is_empty())
    }

    /// The file's name without `.rs`; the directory's name for a `mod.rs`.
    pub(super) fn module(&self) -> &str {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.rsplit('/').next().unwrap_or(path)
    }
}

/// Every Rust file of the workspace at `root`.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut files = Vec::new();
    for home in HOMES.map(|home| root.join(home)) {
        if home.is_dir() {
            collect(&home, &mut files)?;
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let path = file.strip_prefix(root).unwrap_or(file);
            let path = path.to_string_lossy().into_owned();
            Ok(Source { path, text })
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
