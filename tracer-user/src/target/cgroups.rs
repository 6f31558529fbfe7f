//! Cgroups as they are mounted here, of both versions, and who is in them.
//!
//! In: the mounts, `/proc/PID/cgroup`, and `cgroup.procs` of each cgroup. Out: where a cgroup's
//! directory is, and the processes of a subtree. A mount may show a part of the tree only, as in a
//! container; what lies outside of it is said to be, never guessed.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::errno::Errno;
use procfs::process::{MountInfos, Process};

use super::thread_group;
use crate::{event::Pid, plain};

/// Cgroups above a process's own that are looked at; the kernel allows deeper trees, nobody has them.
const DEEPEST: usize = 32;

/// The cgroups that a process is in, one in each tree, as the kernel tells them; `None` where it is gone.
pub(super) fn of_process(pid: Pid) -> Option<String> {
    plain::read(&format!("/proc/{pid}/cgroup"))
}

/// The two forms that cgroups have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// A tree for each controller, or for a few of them.
    One,
    /// One tree for all.
    Two,
}

/// A tree of cgroups that is mounted here.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy {
    pub version: Version,
    /// Where.
    pub at: PathBuf,
    /// Which cgroup is seen there: in a container often its own.
    pub root: String,
    /// The mount's options, among them the controllers of version one, or `name=…`.
    pub options: HashMap<String, Option<String>>,
}

impl Hierarchy {
    /// All that are mounted here.
    pub(super) fn mounted() -> Vec<Self> {
        let mounts = Process::myself().and_then(|us| us.mountinfo());
        mounts.map_or_else(|_| Vec::new(), Self::among)
    }

    /// Those among the mounts; version one's first, for where it has a controller version two has not.
    pub(super) fn among(mounts: MountInfos) -> Vec<Self> {
        let mut found: Vec<Self> = mounts
            .into_iter()
            .filter_map(|mount| {
                let version = match mount.fs_type.as_str() {
                    "cgroup" => Version::One,
                    "cgroup2" => Version::Two,
                    _ => return None,
                };
                Some(Self {
                    version,
                    at: mount.mount_point,
                    root: mount.root,
                    options: mount.super_options,
                })
            })
            .collect();
        found.sort_by_key(|hierarchy| hierarchy.version == Version::Two);
        found
    }

    /// Those of the trees whose cgroups may be limited by a controller: version one's own tree of it, and
    /// version two's, where it is or may come.
    pub(super) fn with_controller(controller: &str, mounted: &[Self]) -> Vec<Self> {
        let may = |tree: &&Self| tree.version == Version::Two || tree.has(controller);
        mounted.iter().filter(may).cloned().collect()
    }

    /// The path of a process's cgroup in it, of what its `/proc/PID/cgroup` says: `4:cpu,cpuacct:/web` in
    /// version one, `0::/web` in version two.
    pub(super) fn membership<'c>(&self, cgroups: &'c str) -> Option<&'c str> {
        cgroups.lines().find_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let of_it = match self.version {
                Version::One => controllers.split(',').any(|name| self.has(name)),
                Version::Two => id == "0" && controllers.is_empty(),
            };
            of_it.then_some(path)
        })
    }

    /// Whether it is version one's tree of a controller, or that of a name (`name=systemd`).
    fn has(&self, controller: &str) -> bool {
        match controller.split_once('=') {
            Some((key, name)) => {
                let named = self.options.get(key).and_then(Option::as_deref);
                named == Some(name)
            }
            None => self.options.contains_key(controller),
        }
    }

    /// A cgroup's path as it is seen here; `None` where it is not to be seen.
    fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        let below = path.strip_prefix(self.root.trim_end_matches('/'))?;
        let inside = below.is_empty() || below.starts_with('/');
        (inside && !path.split('/').any(|name| name == "..")).then_some(below)
    }

    /// The directory of a cgroup, whether it is there or not; `None` where it is not to be seen.
    pub(super) fn directory(&self, path: &str) -> Option<PathBuf> {
        Some(self.seen_at(self.below(path)?))
    }

    /// A cgroup and those above it as far as they are seen here, the innermost first, each by its path
    /// below what is seen and its directory; `None` where it is not to be seen.
    pub(super) fn upwards<'p>(
        &self,
        path: &'p str,
    ) -> Option<impl Iterator<Item = (&'p str, PathBuf)>> {
        let own = self.below(path)?;
        Some(with_ancestors(own).map(|path| (path, self.seen_at(path))))
    }

    /// The directory of a path below what is seen.
    fn seen_at(&self, below: &str) -> PathBuf {
        self.at.join(below.trim_start_matches('/'))
    }
}

/// Where a cgroup of this path would be, in each tree where it is to be seen.
pub(super) fn directories(path: &str, hierarchies: &[Hierarchy]) -> Vec<PathBuf> {
    let trees = hierarchies.iter();
    trees.filter_map(|tree| tree.directory(path)).collect()
}

/// `/a/b`, `/a`, and the root.
fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let own = path.trim_end_matches('/');
    std::iter::successors(Some(own), |path| Some(path.rsplit_once('/')?.0))
        .map(|path| if path.is_empty() { "/" } else { path })
        .take(DEEPEST)
}

/// The processes in a cgroup and in all below it.
pub(super) fn members(directory: &Path) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(cgroup) = waiting.pop() {
        found.extend(of_one(&cgroup));
        // A directory's links count those in it (`kernfs_refresh_inode` in fs/kernfs/inode.c), and most have
        // none: that spares reading them.
        if fs::metadata(&cgroup).is_ok_and(|about| about.nlink() == 2) {
            continue;
        }
        let inside = fs::read_dir(&cgroup).into_iter().flatten().flatten();
        waiting.extend(
            inside
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}

fn of_one(cgroup: &Path) -> Vec<Pid> {
    // Who is in a pid namespace that is not seen from here is listed as 0.
    let ids = |text: String| -> Vec<Pid> {
        let ids = text.lines().filter_map(|line| line.trim().parse().ok());
        ids.filter(|id| *id != 0).collect()
    };
    match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(text) => ids(text),
        // Of a threaded cgroup version two tells the threads only.
        Err(error) if is(&error, Errno::EOPNOTSUPP) => {
            let threads = fs::read_to_string(cgroup.join("cgroup.threads")).unwrap_or_default();
            ids(threads).into_iter().filter_map(thread_group).collect()
        }
        Err(_) => Vec::new(),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A made-up tree of cgroups.
    pub(in crate::target) struct Tree(tempfile::TempDir);

    impl Tree {
        pub(in crate::target) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(in crate::target) fn at(&self) -> &Path {
            self.0.path()
        }

        /// Writes a file of a cgroup, and makes that where it is not there.
        pub(in crate::target) fn file(&self, cgroup: &str, name: &str, text: &str) -> &Self {
            let directory = self.at().join(cgroup.trim_start_matches('/'));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(name), text).unwrap();
            self
        }

        pub(in crate::target) fn cgroup(&self, path: &str, procs: &str) -> &Self {
            self.file(path, "cgroup.procs", procs)
        }

        /// The tree as it is mounted: all that lies `below`, of which `root` is seen.
        pub(in crate::target) fn hierarchy(
            &self,
            version: Version,
            below: &str,
            root: &str,
        ) -> Hierarchy {
            Hierarchy {
                version,
                at: self.at().join(below),
                root: root.to_owned(),
                options: HashMap::new(),
            }
        }

        /// The same with a controller of version one.
        pub(in crate::target) fn of_controller(
            &self,
            controller: &str,
            version: Version,
            root: &str,
        ) -> Hierarchy {
            Hierarchy {
                options: HashMap::from([(controller.to_owned(), None)]),
                ..self.hierarchy(version, "", root)
            }
        }
    }

    #[test]
    fn a_process_is_a_member_by_controller_by_name_or_in_the_one_tree() {
        let cgroups = "9:name=systemd:/init\n4:cpu,cpuacct:/web\n0::/one\n";
        let tree = Tree::new();
        let with = |version, options: &[(&str, Option<&str>)]| Hierarchy {
            options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
                .collect(),
            ..tree.hierarchy(version, "", "/")
        };
        for (hierarchy, path) in [
            (with(Version::One, &[("cpuacct", None)]), Some("/web")),
            (
                with(Version::One, &[("name", Some("systemd"))]),
                Some("/init"),
            ),
            (with(Version::One, &[("name", Some("elogind"))]), None),
            (with(Version::One, &[("memory", None)]), None),
            (with(Version::Two, &[]), Some("/one")),
        ] {
            assert_eq!(hierarchy.membership(cgroups), path, "{hierarchy:?}");
        }
    }

    #[test]
    fn mounts_of_both_versions_are_found_version_one_first() {
        let text = "\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            33 31 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            36 31 0:33 / /proc rw - proc proc rw\n";
        let mounts = <MountInfos as procfs::FromBufRead>::from_buf_read(text.as_bytes()).unwrap();
        let told: Vec<_> = Hierarchy::among(mounts)
            .into_iter()
            .map(|tree| {
                let name = tree.has("cpu") || tree.has("name=systemd");
                (tree.version, tree.at, tree.root, name)
            })
            .collect();
        let at = |name: &str| PathBuf::from("/sys/fs/cgroup").join(name);
        assert_eq!(
            told,
            [
                (Version::One, at("cpu"), "/docker/abc".to_owned(), true),
                (Version::One, at("systemd"), "/".to_owned(), true),
                (Version::Two, at("unified"), "/".to_owned(), false),
            ]
        );
    }
}
