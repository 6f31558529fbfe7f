//! The Debian package: what it lays where, and what it says of itself. dpkg-deb(1) makes the archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use jiff::{Timestamp, fmt::rfc2822};

use crate::{
    VERSION,
    completions::Script,
    machine::Machine,
    manual::Page,
    notices::{DOCUMENTS, Notices},
    tree::Tree,
};

/// Which package of this version it is.
const REVISION: &str = "1";

const MAINTAINER: &str = "the gopulse authors <gopulse@gopulse.invalid>";

/// deb-control(5). Wireshark is no dependency: it is opened elsewhere as a rule.
const SAYS: &str = "\
Section: utils
Priority: optional
Suggests: wireshark
Description: says why requests to a service on this host fail or are slow
 gopulse takes the pulse of a running service: which process gave up on which,
 after what time, because of which setting or line of code, with the evidence.
 Kernel probes (eBPF) watch TCP connections, the requests on them and the
 threads on their CPUs, and are joined with the Go goroutines involved, which
 are read from outside. The service is not changed, restarted or stopped.
";

/// What lintian(1) has to say against a program like this, answered.
const OVERRIDES: &str = "\
# It is static, to run on any host of its architecture, and position-independent, so it looks like a library.
gopulse: shared-library-lacks-prerequisites [usr/bin/gopulse]
# It was not uploaded to Debian.
gopulse: initial-upload-closes-no-bugs *
";

/// Compressed where larger (debian-policy 12.3).
const SMALL: usize = 4096;

/// What the package lays on a host.
pub(crate) fn files(
    machine: &Machine,
    program: &[u8],
    pages: &[Page],
    completions: &[Script],
    notices: &Notices,
    epoch: u64,
) -> anyhow::Result<Tree> {
    let mut tree = Tree::default();
    tree.add_program("usr/bin/gopulse", program);
    for (name, page) in pages {
        tree.add_compressed(&format!("usr/share/man/man1/{name}"), page)?;
    }
    for script in completions {
        tree.add(
            format!("{}/{}", script.home, script.file),
            script.text.clone(),
        );
    }
    tree.add(
        format!(
            "usr/lib/{}/wireshark/plugins/gopulse.lua",
            machine.multiarch()
        ),
        read("packaging/wireshark/gopulse.lua")?,
    );
    notices.add_to(&mut tree)?;
    documents(&mut tree)?;
    let changelog = format!("{DOCUMENTS}/changelog");
    tree.add_compressed(&changelog, &read("CHANGELOG.md")?)?;
    tree.add_compressed(&format!("{changelog}.Debian"), changes(epoch)?.as_bytes())?;
    tree.add("usr/share/lintian/overrides/gopulse", OVERRIDES);
    Ok(tree)
}

fn documents(tree: &mut Tree) -> anyhow::Result<()> {
    let mut add = |name: &str, text: Vec<u8>| {
        let path = format!("{DOCUMENTS}/{name}");
        if text.len() > SMALL {
            tree.add_compressed(&path, &text)
        } else {
            tree.add(path, text);
            Ok(())
        }
    };
    add("README.md", read("README.md")?)?;
    let docs = workspace("docs");
    for entry in fs::read_dir(&docs).with_context(|| format!("cannot list {}", docs.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| name.ends_with(".md")) {
            add(&format!("docs/{name}"), read(&format!("docs/{name}"))?)?;
        }
    }
    Ok(())
}

/// The package's own history (deb-changelog(5)): the program's is in its own file.
fn changes(epoch: u64) -> anyhow::Result<String> {
    let at = Timestamp::from_second(i64::try_from(epoch)?)?;
    let date = rfc2822::to_string(&at.to_zoned(jiff::tz::TimeZone::UTC))?;
    Ok(format!(
        "gopulse ({VERSION}-{REVISION}) unstable; urgency=medium\n\n  * gopulse {VERSION}.\n\n -- {MAINTAINER}  {date}\n"
    ))
}

/// Makes the package in a directory.
pub(crate) fn package(
    machine: &Machine,
    files: &Tree,
    epoch: u64,
    directory: &Path,
) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    files.lay(root.path())?;
    let mut control = Tree::default();
    control.add("DEBIAN/control", control_file(machine, files));
    control.add("DEBIAN/md5sums", md5sums(files, root.path())?);
    control.lay(root.path())?;
    let package = directory.join(format!(
        "gopulse_{VERSION}-{REVISION}_{}.deb",
        machine.debian
    ));
    let output = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(root.path())
        .arg(&package)
        // Caps the times of files and of the archive itself.
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .output()
        .context("a Debian package takes dpkg-deb (package dpkg), which cannot be run")?;
    if !output.status.success() {
        bail!("dpkg-deb: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn control_file(machine: &Machine, files: &Tree) -> String {
    format!(
        "Package: gopulse\nVersion: {VERSION}-{REVISION}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {}\n{SAYS}",
        machine.debian,
        files.size().div_ceil(1024)
    )
}

/// For dpkg --verify.
fn md5sums(files: &Tree, root: &Path) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("md5sum")
        .current_dir(root)
        .args(files.paths())
        .output()
        .context("md5sum cannot be run")?;
    if !output.status.success() {
        bail!("md5sum: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    let path = workspace(path);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn workspace(path: &str) -> PathBuf {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR"));
    packaging.parent().unwrap_or(packaging).join(path)
}
