//! Where processes may come that are meant, too: cgroups, and containers in whatever cgroup they run.
//!
//! In: the cgroups that were named, and those of containers that were. Out: who is in them now, and whether
//! anybody may still come. A container that is started again has its cgroup removed and made anew, and where
//! it was made anew itself, as a deployment does, another id and another cgroup: it is looked for again as
//! the user named it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    cgroups::{self, Hierarchy, directories},
    containers,
};
use crate::event::Pid;

/// How long a container that is gone is waited for. `docker restart` and `compose up` take a second or two
/// between the old one's end and the new one's beginning, Kubernetes ten seconds after the first crash.
const RETURN: Duration = Duration::from_secs(15);

/// Cgroups that are watched, each with all below it, and containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    directories: BTreeSet<PathBuf>,
    containers: Vec<Watched>,
}

/// A container that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    /// As the user named it.
    asked: String,
    /// Its cgroups, as it ran last.
    cgroups: BTreeSet<PathBuf>,
    /// Since when none of them is there.
    gone: Option<Instant>,
}

impl Groups {
    /// The cgroup that a user named: by its directory, or as `/proc/PID/cgroup` writes it. In version
    /// one that may be a cgroup in each of several trees. None of them where there is no such cgroup.
    pub(super) fn named(path: &Path, hierarchies: &[Hierarchy]) -> Self {
        let within = |hierarchy: &&Hierarchy| path.starts_with(&hierarchy.at);
        // Of mounts below each other the innermost is meant.
        let deepest = |hierarchy: &&Hierarchy| hierarchy.at.components().count();
        let absolute = hierarchies.iter().filter(within).max_by_key(deepest);
        let candidates: Vec<PathBuf> = match (absolute, path.to_str()) {
            (Some(_), _) => vec![path.to_owned()],
            (None, Some(path)) => directories(&format!("/{}", path.trim_matches('/')), hierarchies),
            (None, None) => Vec::new(),
        };
        Self::there(candidates)
    }

    /// Those of the directories that are cgroups. Where the trees of version one hold the same
    /// processes, as they do in most places, one of them is enough.
    pub(super) fn there(candidates: Vec<PathBuf>) -> Self {
        let mut groups = Self::default();
        let mut members = BTreeSet::new();
        for directory in candidates {
            if !directory.join("cgroup.procs").exists() {
                continue;
            }
            let more = cgroups::members(&directory);
            if groups.directories.is_empty() || !more.is_subset(&members) {
                members.extend(more);
                groups.directories.insert(directory);
            }
        }
        groups
    }

    /// The container that a user named so, which has these cgroups now. None where they are not to be seen.
    pub(super) fn of_container(asked: &str, cgroups: Vec<PathBuf>) -> Self {
        let watched = Watched {
            asked: asked.to_owned(),
            cgroups: Self::there(cgroups).directories,
            gone: None,
        };
        let containers = if watched.cgroups.is_empty() {
            Vec::new()
        } else {
            vec![watched]
        };
        Self {
            directories: BTreeSet::new(),
            containers,
        }
    }

    /// Takes in others.
    pub(super) fn extend(&mut self, others: Self) {
        self.directories.extend(others.directories);
        self.containers.extend(others.containers);
    }

    /// Nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.containers.is_empty()
    }

    /// Every process that is in one of them now, also one that has ended and was not waited for, and
    /// the kernel's own. Looks for containers that are gone.
    #[must_use]
    pub fn members(&mut self) -> BTreeSet<Pid> {
        for container in &mut self.containers {
            container.look(|asked| {
                let (_, cgroups) = containers::find(asked, &Hierarchy::mounted()).ok()?;
                Some(Self::there(cgroups).directories)
            });
        }
        let of_containers = self.containers.iter().flat_map(|one| &one.cgroups);
        let all = self.directories.iter().chain(of_containers);
        all.flat_map(|at| cgroups::members(at)).collect()
    }

    /// One of them is still there, so that processes may be started in it, or is a container that may be
    /// started again.
    #[must_use]
    pub fn remain(&self) -> bool {
        self.directories.iter().any(|directory| directory.exists())
            || self.containers.iter().any(Watched::may_run)
    }
}

impl Watched {
    fn is_there(&self) -> bool {
        self.cgroups.iter().any(|directory| directory.exists())
    }

    /// Looks where it is, with what gives the cgroups of a container that runs.
    fn look(&mut self, find: impl Fn(&str) -> Option<BTreeSet<PathBuf>>) {
        if !self.is_there() {
            self.gone.get_or_insert_with(Instant::now);
            if self.waits()
                && let Some(cgroups) = find(&self.asked)
            {
                self.cgroups = cgroups;
            }
        }
        if self.is_there() {
            self.gone = None;
        }
    }

    /// It runs, or is gone for so short a time that it may be started again.
    fn may_run(&self) -> bool {
        self.is_there() || self.waits()
    }

    fn waits(&self) -> bool {
        self.gone.is_none_or(|since| since.elapsed() < RETURN)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::target::cgroups::{Version, tests::Tree};

    /// A container is started again, and has another id.
    #[test]
    fn a_container_is_looked_for_again_as_it_was_named() {
        let tree = Tree::new();
        tree.cgroup("/docker/a", "10\n");
        let at = |id: &str| tree.at().join("docker").join(id);
        let mut groups = Groups::of_container("web", vec![at("a")]);
        assert_eq!(groups.members(), BTreeSet::from([10]));
        let container = &mut groups.containers[0];
        container.look(|_| panic!("it is there"));

        fs::remove_dir_all(at("a")).unwrap();
        container.look(|_| None);
        assert!(container.gone.is_some() && container.may_run());
        tree.cgroup("/docker/b", "20\n");
        container.look(|asked| (asked == "web").then(|| BTreeSet::from([at("b")])));
        assert!(container.gone.is_none() && container.may_run());
        assert_eq!(groups.members(), BTreeSet::from([20]));
    }

    #[test]
    fn a_container_that_is_gone_for_long_is_not_waited_for() {
        let tree = Tree::new();
        tree.cgroup("/docker/a", "10\n");
        let mut groups = Groups::of_container("web", vec![tree.at().join("docker/a")]);
        fs::remove_dir_all(tree.at().join("docker")).unwrap();
        assert!(groups.remain());
        groups.containers[0].gone = Instant::now().checked_sub(RETURN);
        assert!(!groups.remain());
        groups.containers[0].look(|_| panic!("nobody looks for it"));
        assert!(Groups::of_container("web", vec![tree.at().join("none")]).is_empty());
    }

    fn members(path: impl AsRef<Path>, hierarchies: &[Hierarchy]) -> Vec<Pid> {
        let mut groups = Groups::named(path.as_ref(), hierarchies);
        groups.members().into_iter().collect()
    }

    #[test]
    fn a_cgroup_is_named_by_its_directory_or_as_proc_writes_it_and_means_all_below() {
        let tree = Tree::new();
        tree.cgroup("/", "1\n")
            .cgroup("/web", "")
            .cgroup("/web/a", "10\n11\n")
            .cgroup("/web/a/deep", "12\n")
            .cgroup("/webs", "20\n");
        let two = [tree.hierarchy(Version::Two, "", "/")];
        for path in ["/web", "web", "/web/", "web/"] {
            assert_eq!(members(path, &two), [10, 11, 12], "{path}");
        }
        assert_eq!(members(tree.at().join("web/a"), &two), [10, 11, 12]);
        assert_eq!(members("/", &two), [1, 10, 11, 12, 20]);
        for path in ["/none", "/web/../webs", "web/a/cgroup.procs"] {
            assert!(
                Groups::named(Path::new(path), &two).is_empty(),
                "{path} is no cgroup"
            );
        }
    }

    #[test]
    fn in_version_one_each_controller_has_a_tree_and_all_are_looked_at() {
        let tree = Tree::new();
        tree.cgroup("cpu/web", "10\n11\n")
            .cgroup("memory/web", "10\n11\n")
            .cgroup("pids/web", "11\n12\n")
            .cgroup("systemd/other", "1\n");
        let trees: Vec<Hierarchy> = ["cpu", "memory", "pids", "systemd"]
            .map(|name| tree.hierarchy(Version::One, name, "/"))
            .into();
        assert_eq!(members("/web", &trees), [10, 11, 12]);
        let groups = Groups::named(Path::new("/web"), &trees);
        assert_eq!(groups.directories.len(), 2, "memory tells what cpu does");
        // One that is named by its directory is meant alone.
        assert_eq!(members(tree.at().join("pids/web"), &trees), [11, 12]);
    }

    #[test]
    fn a_cgroup_without_processes_is_watched_for_those_to_come() {
        let tree = Tree::new();
        tree.cgroup("/web", "");
        let two = [tree.hierarchy(Version::Two, "", "/")];
        let mut groups = Groups::named(Path::new("/web"), &two);
        assert_eq!((groups.remain(), groups.members().len()), (true, 0));
        tree.cgroup("/web/later", "7\n0\n");
        assert_eq!(groups.members(), BTreeSet::from([7]));
        fs::remove_dir_all(tree.at().join("web")).unwrap();
        assert_eq!((groups.remain(), groups.members().len()), (false, 0));
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_of_the_tree() {
        let tree = Tree::new();
        tree.cgroup("/web", "10\n");
        let part = [tree.hierarchy(Version::Two, "", "/docker/abc")];
        assert_eq!(members("/docker/abc/web", &part), [10]);
        assert!(members("/docker/abcd/web", &part).is_empty());
        assert!(members("/../web", &part).is_empty());
    }
}
