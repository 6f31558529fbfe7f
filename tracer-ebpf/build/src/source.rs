//! One hash over everything that decides the object: the sources, the manifest, the resolved
//! versions of aya's kernel side, and the recipe.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::compile::recipe;

/// What a build script must watch, relative to the workspace: a change of anything here can change
/// [`source_hash`] or what it is compared with.
#[must_use]
pub fn watched_paths() -> [&'static str; 4] {
    [
        "tracer-ebpf/src",
        "tracer-ebpf/Cargo.toml",
        "tracer-ebpf/prebuilt",
        "Cargo.lock",
    ]
}

/// The SHA-256 of the kernel half as the workspace at `root` would compile it for `arch`, in hex.
///
/// # Errors
///
/// A source file or `Cargo.lock` cannot be read.
pub fn source_hash(root: &Path, arch: &str) -> anyhow::Result<String> {
    let half = root.join("tracer-ebpf");
    let mut files = vec![half.join("Cargo.toml")];
    collect(&half.join("src"), &mut files)
        .with_context(|| format!("cannot list {}", half.join("src").display()))?;
    files.sort();

    let mut hash = Sha256::new();
    for file in &files {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&half).unwrap_or(file);
        frame(&mut hash, name.as_os_str().as_encoded_bytes());
        frame(&mut hash, &text);
    }
    let lock = root.join("Cargo.lock");
    let lock =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    for package in aya_packages(&lock) {
        frame(&mut hash, package.as_bytes());
    }
    frame(&mut hash, recipe(arch).as_bytes());
    Ok(hex(&hash.finalize()))
}

/// Every file below `directory`, in no order.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The entries of `Cargo.lock` that are compiled into the object.
fn aya_packages(lock: &str) -> impl Iterator<Item = &str> {
    lock.split("\n[[package]]\n")
        .filter(|entry| entry.starts_with("name = \"aya-ebpf"))
        .map(str::trim_end)
}

/// Adds a field with its length, so that no two lists of fields run into the same bytes.
fn frame(hash: &mut Sha256, field: &[u8]) {
    hash.update((field.len() as u64).to_le_bytes());
    hash.update(field);
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(program: &str, aya: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let half = root.path().join("tracer-ebpf");
        fs::create_dir_all(half.join("src/deep")).unwrap();
        fs::write(half.join("Cargo.toml"), "[package]").unwrap();
        fs::write(half.join("src/main.rs"), program).unwrap();
        fs::write(half.join("src/deep/er.rs"), "").unwrap();
        let lock = format!(
            "version = 4\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"{aya}\"\n\n\
             [[package]]\nname = \"clap\"\nversion = \"4\"\n"
        );
        fs::write(root.path().join("Cargo.lock"), lock).unwrap();
        root
    }

    fn hash(root: &tempfile::TempDir) -> String {
        source_hash(root.path(), "x86_64").unwrap()
    }

    #[test]
    fn the_same_source_in_another_place_has_the_same_hash() {
        assert_eq!(
            hash(&workspace("fn main() {}", "0.2.1")),
            hash(&workspace("fn main() {}", "0.2.1"))
        );
    }

    #[test]
    fn source_aya_and_architecture_each_change_the_hash() {
        let base = workspace("fn main() {}", "0.2.1");
        assert_ne!(hash(&base), hash(&workspace("fn main() { }", "0.2.1")));
        assert_ne!(hash(&base), hash(&workspace("fn main() {}", "0.2.2")));
        assert_ne!(hash(&base), source_hash(base.path(), "aarch64").unwrap());
    }

    #[test]
    fn packages_of_the_user_half_do_not_change_the_hash() {
        let base = workspace("fn main() {}", "0.2.1");
        let before = hash(&base);
        let lock = base.path().join("Cargo.lock");
        let text = fs::read_to_string(&lock).unwrap();
        fs::write(&lock, text.replace("\"4\"", "\"5\"")).unwrap();
        assert_eq!(before, hash(&base));
    }

    #[test]
    fn a_renamed_file_changes_the_hash() {
        let base = workspace("fn main() {}", "0.2.1");
        let before = hash(&base);
        let src = base.path().join("tracer-ebpf/src");
        fs::rename(src.join("deep/er.rs"), src.join("deep/est.rs")).unwrap();
        assert_ne!(before, hash(&base));
    }
}
