//! Kernel modules that scenarios need, with those they need in turn.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// Cables between namespaces, firewalls, bad lines, and what tells the queues of listeners. What a kernel
/// has built in is not among its files, and needs no loading.
pub(super) const WANTED: [&str; 5] = ["veth", "nf_tables", "sch_netem", "tcp_diag", "nft_numgen"];

/// Copies the modules out of an unpacked package, and gives their file names in the order in which they
/// can be loaded.
pub(super) fn gather(files: &[PathBuf], to: &Path) -> anyhow::Result<Vec<String>> {
    let mut gathering = Gathering {
        files,
        to,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    for module in WANTED {
        gathering.add(module)?;
    }
    Ok(gathering.order)
}

struct Gathering<'a> {
    files: &'a [PathBuf],
    to: &'a Path,
    seen: BTreeSet<String>,
    order: Vec<String>,
}

impl Gathering<'_> {
    /// Adds a module behind those that it needs.
    fn add(&mut self, module: &str) -> anyhow::Result<()> {
        if !self.seen.insert(module.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.iter().find(|file| is_of(file, module)) else {
            return Ok(());
        };
        let bytes = plain(file)?;
        for needed in needs(&bytes) {
            self.add(&needed)?;
        }
        let name = format!("{module}.ko");
        fs::write(self.to.join(&name), bytes)?;
        self.order.push(name);
        Ok(())
    }
}

/// Whether a file holds the module of this name, which may be spelt with either dash.
fn is_of(file: &Path, module: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split_once(".ko")
        .is_some_and(|(stem, _)| stem.replace('-', "_") == module)
}

/// A module's bytes, unpacked: the guest has nothing to unpack them with.
fn plain(file: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(fs::read(file)?),
    };
    let output = Command::new(program).arg("-dc").arg(file).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} cannot unpack {}",
        file.display()
    );
    Ok(output.stdout)
}

/// What a module says that it needs, in its section `.modinfo`: `depends=a,b`, between zeros.
fn needs(module: &[u8]) -> Vec<String> {
    let line = module
        .split(|byte| *byte == 0)
        .find_map(|line| line.strip_prefix(b"depends="));
    String::from_utf8_lossy(line.unwrap_or_default())
        .split(',')
        .filter(|needed| !needed.is_empty())
        .map(|needed| needed.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_those_that_it_needs() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let file = |name: &str, depends: &str| {
            let path = from.path().join(name);
            fs::write(&path, format!("\x7fELF\0license=GPL\0depends={depends}\0")).unwrap();
            path
        };
        let files = [
            file("tcp_diag.ko", "inet-diag"),
            file("inet-diag.ko", ""),
            file("nf_tables.ko", "nfnetlink,libcrc32c"),
            file("nfnetlink.ko", ""),
        ];
        let order = gather(&files, to.path()).unwrap();
        let expected = [
            "nfnetlink.ko",
            "nf_tables.ko",
            "inet_diag.ko",
            "tcp_diag.ko",
        ];
        assert_eq!(order, expected);
        assert!(to.path().join("inet_diag.ko").is_file());
    }
}
