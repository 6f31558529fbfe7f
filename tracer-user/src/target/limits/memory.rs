//! The memory limits of processes' cgroups: `memory.max` of cgroup v2, `memory.limit_in_bytes` of v1.

use std::{fs, path::Path};

use crate::{
    event::{MemoryLimit, Pid},
    target::cgroups::{Hierarchy, Version},
};

/// What cgroup v1 says where there is no limit: the most pages that its counters count, in bytes
/// (`PAGE_COUNTER_MAX`), which depends on the size of a page.
const NO_LIMIT: u64 = 1 << 62;

/// Reads memory limits.
#[derive(Debug)]
pub(super) struct MemoryLimits {
    hierarchies: Vec<Hierarchy>,
}

impl MemoryLimits {
    /// Those of the trees that are mounted here.
    pub(super) fn among(mounted: &[Hierarchy]) -> Self {
        Self {
            hierarchies: Hierarchy::with_controller("memory", mounted),
        }
    }

    /// The limit with the least room, of `pid`, of which `/proc/PID/cgroup` says this.
    pub(super) fn of_member(&self, pid: Pid, cgroups: &str) -> Option<MemoryLimit> {
        let mut limits = Vec::new();
        for hierarchy in &self.hierarchies {
            let path = hierarchy.membership(cgroups);
            let upwards = path.and_then(|path| hierarchy.upwards(path));
            for (cgroup, directory) in upwards.into_iter().flatten() {
                let read = limit(hierarchy.version, &directory);
                limits.extend(read.map(|(limit, used)| MemoryLimit {
                    pid,
                    cgroup: cgroup.to_owned(),
                    limit,
                    used,
                }));
            }
        }
        limits
            .into_iter()
            .min_by_key(|told| told.limit.saturating_sub(told.used))
    }
}

/// The limit of the cgroup that is `directory`, and what of it cannot be given back: file pages that nobody
/// used lately are dropped before it is met. `None` where it has no limit.
fn limit(version: Version, directory: &Path) -> Option<(u64, u64)> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used, dropped) = match version {
        Version::Two => ("memory.max", "memory.current", "inactive_file "),
        Version::One => (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
    };
    let limit = number(limit).filter(|limit| *limit < NO_LIMIT)?;
    let stat = read("memory.stat").unwrap_or_default();
    let dropped = stat.lines().find_map(|line| line.strip_prefix(dropped));
    let dropped = dropped.and_then(|number| number.trim().parse::<u64>().ok());
    Some((limit, number(used)?.saturating_sub(dropped.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::cgroups::tests::Tree;

    fn two(tree: &Tree, path: &str, max: &str, current: &str) {
        let stat = "anon 7\ninactive_file 1000\nactive_file 50\n";
        tree.file(path, "memory.max", max)
            .file(path, "memory.current", current)
            .file(path, "memory.stat", stat);
    }

    fn limits(tree: &Tree, version: Version, root: &str) -> MemoryLimits {
        MemoryLimits::among(&[tree.of_controller("memory", version, root)])
    }

    fn told(cgroup: &str, limit: u64, used: u64) -> Option<MemoryLimit> {
        Some(MemoryLimit {
            pid: 7,
            cgroup: cgroup.into(),
            limit,
            used,
        })
    }

    #[test]
    fn what_the_kernel_may_drop_is_not_counted_as_used() {
        let tree = Tree::new();
        two(&tree, "/web", "67108864\n", "4001000\n");
        let read = limits(&tree, Version::Two, "/").of_member(7, "0::/web\n");
        assert_eq!(read, told("/web", 64 << 20, 4_000_000));
    }

    #[test]
    fn version_one_has_files_of_other_names_and_a_number_for_no_limit() {
        let tree = Tree::new();
        let web = |limit: &str| {
            let stat = "inactive_file 3\ntotal_inactive_file 1000\n";
            tree.file("/web", "memory.limit_in_bytes", limit)
                .file("/web", "memory.usage_in_bytes", "4001000\n")
                .file("/web", "memory.stat", stat);
            let cgroups = "9:name=systemd:/other\n4:memory:/web\n0::/\n";
            limits(&tree, Version::One, "/").of_member(7, cgroups)
        };
        assert_eq!(web("67108864\n"), told("/web", 64 << 20, 4_000_000));
        assert_eq!(web("9223372036854771712\n"), None);
    }

    #[test]
    fn of_several_limits_the_one_with_the_least_room_is_told() {
        let tree = Tree::new();
        two(&tree, "/pods", "100000000", "99000000");
        two(&tree, "/pods/a", "50000000", "10000000");
        two(&tree, "/pods/a/web", "max", "9000000");
        let limits = limits(&tree, Version::Two, "/");
        assert_eq!(
            limits.of_member(7, "0::/pods/a/web"),
            told("/pods", 100_000_000, 98_999_000)
        );
        two(&tree, "/pods", "100000000", "20000000");
        let nearest = limits.of_member(7, "0::/pods/a/web").unwrap();
        assert_eq!(nearest.cgroup, "/pods/a");
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_of_the_tree() {
        let tree = Tree::new();
        two(&tree, "/", "20000000", "3000000");
        let limits = limits(&tree, Version::Two, "/docker/abc");
        assert_eq!(
            limits.of_member(7, "0::/docker/abc/web").unwrap().cgroup,
            "/"
        );
        assert_eq!(limits.of_member(7, "0::/docker/other"), None);
    }

    #[test]
    fn files_that_make_no_sense_are_no_limit() {
        let tree = Tree::new();
        for (max, current) in [("", "5"), ("x", "5"), ("-1", "5"), ("99", "x")] {
            two(&tree, "/web", max, current);
            let limits = limits(&tree, Version::Two, "/");
            assert_eq!(limits.of_member(7, "0::/web"), None, "{max} {current}");
        }
    }
}
