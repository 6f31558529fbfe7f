//! Kernels to boot: Debian's own, fetched once.
//!
//! In: a version such as `6.1`. Out: its newest image and the modules that scenarios need, in
//! `target/vm/kernels/6.1/`. Nothing is installed, and the host's apt never hears of it: the packages come
//! by a configuration of their own, and are unpacked by `dpkg -x`.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use gopulse_tests::{process::succeed, workspace};

use super::modules;
use crate::run::run_quietly;

/// A kernel series, the suite that carries it, and the archive that carries the suite.
pub(super) struct Series {
    pub(super) version: &'static str,
    suite: &'static str,
    archive: &'static str,
}

/// The first of [`SERIES`].
pub(super) const OLDEST: &str = "5.10";

const DEBIAN: &str = "http://deb.debian.org/debian";

/// From the oldest that is still maintained to the newest, by the hooks that came in between.
pub(super) const SERIES: [Series; 5] = [
    Series {
        version: OLDEST,
        suite: "bullseye-security",
        archive: "http://deb.debian.org/debian-security",
    },
    Series {
        version: "6.1",
        suite: "bookworm",
        archive: DEBIAN,
    },
    Series {
        version: "6.12",
        suite: "trixie",
        archive: DEBIAN,
    },
    Series {
        version: "6.18",
        suite: "trixie-backports",
        archive: DEBIAN,
    },
    Series {
        version: "7.2",
        suite: "sid",
        archive: DEBIAN,
    },
];

/// A kernel that can be booted.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// In the order in which they can be loaded.
    pub(super) modules: Vec<PathBuf>,
}

impl Series {
    pub(super) fn named(version: &str) -> anyhow::Result<&'static Self> {
        let known = || SERIES.map(|series| series.version).join(", ");
        SERIES
            .iter()
            .find(|series| series.version == version)
            .with_context(|| format!("there is no kernel {version} here, but {}", known()))
    }

    /// The newest kernel of the series when it was first asked for. Removing the directory makes it ask
    /// again.
    pub(super) fn kernel(&self) -> anyhow::Result<Kernel> {
        let home = workspace::target().join("vm/kernels").join(self.version);
        let wanted = modules::WANTED.join(" ");
        let kept = fs::read_to_string(home.join("wanted")).is_ok_and(|kept| kept == wanted);
        if !kept {
            self.fetch(&home)
                .with_context(|| format!("cannot get Debian's kernel {}", self.version))?;
            fs::write(home.join("wanted"), wanted)?;
        }
        let modules = fs::read_to_string(home.join("modules"))?;
        Ok(Kernel {
            image: home.join("vmlinuz"),
            modules: modules.lines().map(|module| home.join(module)).collect(),
        })
    }

    fn fetch(&self, home: &Path) -> anyhow::Result<()> {
        if home.exists() {
            fs::remove_dir_all(home)?;
        }
        let apt = home.join("apt");
        for directory in ["lists/partial", "cache/archives/partial", "unpacked"] {
            fs::create_dir_all(apt.join(directory))?;
        }
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {} main\n",
            self.archive, self.suite
        );
        fs::write(apt.join("sources.list"), source)?;
        run_quietly(self.apt(&apt, "apt-get").arg("update"))?;
        let packages = self.packages(&apt)?;
        println!("vm: fetching {}", packages.join(", "));
        run_quietly(self.apt(&apt, "apt-get").arg("download").args(&packages))?;
        let unpacked = apt.join("unpacked");
        for entry in fs::read_dir(&apt)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run_quietly(Command::new("dpkg").arg("-x").arg(&path).arg(&unpacked))?;
            }
        }
        let files = files_below(&unpacked)?;
        let image = files.iter().find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz")
        });
        fs::copy(image.context("no image in it")?, home.join("vmlinuz"))?;
        let order = modules::gather(&files, home)?;
        fs::write(home.join("modules"), order.join("\n"))?;
        fs::remove_dir_all(apt)?;
        Ok(())
    }

    /// The newest kernel's package. From 6.19 on Debian splits it in two, and the old name is an empty one.
    fn packages(&self, apt: &Path) -> anyhow::Result<Vec<String>> {
        let pattern = format!("^linux-(image|binary)-{}\\.", self.version);
        let found = succeed(
            self.apt(apt, "apt-cache")
                .args(["search", "--names-only", &pattern]),
        )?;
        let names = || {
            let names = found.lines().filter_map(|line| line.split(' ').next());
            names.filter(|name| name.ends_with("-cloud-amd64"))
        };
        let newest = |prefix: &str| {
            let releases = names().filter_map(|name| name.strip_prefix(prefix));
            releases.max_by(|one, other| by_number(one, other))
        };
        if let Some(release) = newest("linux-binary-") {
            return Ok(vec![
                format!("linux-binary-{release}"),
                format!("linux-modules-{release}"),
            ]);
        }
        match newest("linux-image-") {
            Some(release) => Ok(vec![format!("linux-image-{release}")]),
            None => bail!("{} carries none", self.suite),
        }
    }

    fn apt(&self, at: &Path, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(at).arg("-qq");
        let path = |name: &str| at.join(name).display().to_string();
        for (option, value) in [
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State::Lists", path("lists")),
            ("Dir::State::status", "/dev/null".to_owned()),
            ("Dir::Cache", path("cache")),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
        ] {
            command.args(["-o", &format!("{option}={value}")]);
        }
        command
    }
}

/// Every regular file below a directory.
fn files_below(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => directories.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// A version, to be compared.
pub(super) fn number(version: &str) -> (u32, u32) {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// The order of releases: numbers count as numbers.
fn by_number(one: &str, other: &str) -> Ordering {
    let numbers = |release: &str| -> Vec<u64> {
        let parts = release.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_not_the_last_in_the_alphabet() {
        let newest = ["6.18.9+deb13", "6.18.15+deb13", "6.18.5+deb13"]
            .into_iter()
            .max_by(|one, other| by_number(one, other));
        assert_eq!(newest, Some("6.18.15+deb13"));
    }
}
