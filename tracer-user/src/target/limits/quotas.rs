//! The CPU quotas of processes' cgroups: `cpu.max` of cgroup v2, `cpu.cfs_quota_us` of v1.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use crate::{
    event::{Pid, Quota},
    target::cgroups::{Hierarchy, Version},
};

/// A cgroup's limit, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    quota: Option<Duration>,
    period: Duration,
    periods: u64,
    throttled_periods: u64,
    throttled: Duration,
}

/// Reads quotas, and remembers which of them stopped somebody.
#[derive(Debug)]
pub(super) struct Quotas {
    hierarchies: Vec<Hierarchy>,
    /// For how long each cgroup had been throttled when it was first seen.
    before: HashMap<String, Duration>,
}

impl Quotas {
    /// Those of the trees that are mounted here.
    pub(super) fn among(mounted: &[Hierarchy]) -> Self {
        Self {
            hierarchies: Hierarchy::with_controller("cpu", mounted),
            before: HashMap::new(),
        }
    }

    /// The quota that holds for `pid`, of which `/proc/PID/cgroup` says this.
    pub(super) fn of_member(&mut self, pid: Pid, cgroups: &str) -> Result<Quota, String> {
        let mut outside = None;
        let mut own = None;
        let mut limits = Vec::new();
        for hierarchy in &self.hierarchies {
            let Some(path) = hierarchy.membership(cgroups) else {
                continue;
            };
            let Some(upwards) = hierarchy.upwards(path) else {
                outside = Some(path);
                continue;
            };
            for (cgroup, directory) in upwards {
                own.get_or_insert(cgroup);
                let limit = Limit::of(hierarchy.version, &directory);
                limits.extend(limit.map(|limit| (cgroup, limit)));
            }
        }
        let own = own.ok_or_else(|| match outside {
            Some(path) => format!("its cgroup {path} is not among those mounted here"),
            None => "no cgroup file system with the cpu controller is mounted here".to_owned(),
        })?;
        for (cgroup, limit) in &limits {
            if !self.before.contains_key(*cgroup) {
                self.before.insert((*cgroup).to_owned(), limit.throttled);
            }
        }
        let holds = limits
            .iter()
            .filter(|(_, limit)| limit.quota.is_some())
            .max_by(|(a, one), (b, other)| {
                let since = |cgroup: &str, limit: &Limit| {
                    let before = self.before.get(cgroup).copied();
                    limit.throttled.saturating_sub(before.unwrap_or_default())
                };
                since(a, one)
                    .cmp(&since(b, other))
                    .then(other.cpus().total_cmp(&one.cpus()))
            });
        Ok(match holds.copied() {
            Some((cgroup, limit)) => limit.told(pid, cgroup),
            None => Limit::NONE.told(pid, own),
        })
    }
}

impl Limit {
    const NONE: Self = Self {
        quota: None,
        period: Duration::from_millis(100),
        periods: 0,
        throttled_periods: 0,
        throttled: Duration::ZERO,
    };

    /// That of the cgroup that is `directory`: one line in version two, two files in version one, whose
    /// times are nanoseconds. `None` where it has none to have: the root, or a tree without the cpu
    /// controller.
    fn of(version: Version, directory: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let (quota, period) = match version {
            // `20000 100000`, or `max 100000`.
            Version::Two => {
                let max = read("cpu.max")?;
                let (quota, period) = max.trim().split_once(' ')?;
                (quota.parse().ok(), period.parse().ok()?)
            }
            // `-1` for no limit.
            Version::One => (
                read("cpu.cfs_quota_us")?.trim().parse().ok(),
                read("cpu.cfs_period_us")?.trim().parse().ok()?,
            ),
        };
        if period == 0 {
            return None;
        }
        let stat = read("cpu.stat").unwrap_or_default();
        let counter = |name: &str| {
            let line = stat
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        Some(Self {
            quota: quota.map(Duration::from_micros),
            period: Duration::from_micros(period),
            periods: counter("nr_periods"),
            throttled_periods: counter("nr_throttled"),
            throttled: match version {
                Version::One => Duration::from_nanos(counter("throttled_time")),
                Version::Two => Duration::from_micros(counter("throttled_usec")),
            },
        })
    }

    /// How many CPUs it is worth.
    fn cpus(&self) -> f64 {
        self.quota.map_or(f64::INFINITY, |quota| {
            quota.as_secs_f64() / self.period.as_secs_f64()
        })
    }

    fn told(self, pid: Pid, cgroup: &str) -> Quota {
        Quota {
            pid,
            cgroup: cgroup.to_owned(),
            quota: self.quota,
            period: self.period,
            periods: self.periods,
            throttled_periods: self.throttled_periods,
            throttled: self.throttled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::cgroups::tests::Tree;

    /// A cgroup of v2 with its limit, and for how many microseconds it was throttled.
    fn two(tree: &Tree, cgroup: &str, max: &str, throttled: u64) {
        let stat =
            format!("usage_usec 9\nnr_periods 40\nnr_throttled 30\nthrottled_usec {throttled}\n");
        tree.file(cgroup, "cpu.max", max)
            .file(cgroup, "cpu.stat", &stat);
    }

    fn quotas(tree: &Tree, version: Version, root: &str) -> Quotas {
        Quotas::among(&[tree.of_controller("cpu", version, root)])
    }

    fn micros(number: u64) -> Duration {
        Duration::from_micros(number)
    }

    #[test]
    fn the_limit_of_version_two_is_one_line() {
        let tree = Tree::new();
        two(&tree, "/web", "20000 100000\n", 1_234_567);
        let quota = quotas(&tree, Version::Two, "/")
            .of_member(7, "0::/web\n")
            .unwrap();
        assert_eq!(
            quota,
            Quota {
                pid: 7,
                cgroup: "/web".into(),
                quota: Some(micros(20_000)),
                period: micros(100_000),
                periods: 40,
                throttled_periods: 30,
                throttled: micros(1_234_567),
            }
        );
    }

    #[test]
    fn the_limit_of_version_one_is_two_files_and_its_times_are_nanoseconds() {
        let tree = Tree::new();
        let stat = "nr_periods 40\nnr_throttled 30\nthrottled_time 1234567890\n";
        tree.file("/web", "cpu.cfs_quota_us", "50000\n")
            .file("/web", "cpu.cfs_period_us", "100000\n")
            .file("/web", "cpu.stat", stat);
        let cgroups = "9:name=systemd:/other\n4:cpu,cpuacct:/web\n0::/\n";
        let mut quotas = quotas(&tree, Version::One, "/");
        let quota = quotas.of_member(7, cgroups).unwrap();
        assert_eq!(quota.quota, Some(micros(50_000)));
        assert_eq!(quota.throttled, Duration::from_nanos(1_234_567_890));
        assert_eq!((quota.periods, quota.throttled_periods), (40, 30));

        tree.file("/web", "cpu.cfs_quota_us", "-1\n");
        let quota = quotas.of_member(7, cgroups).unwrap();
        assert_eq!((quota.quota, quota.cgroup.as_str()), (None, "/web"));
    }

    #[test]
    fn a_quota_holds_for_every_cgroup_below_it() {
        let tree = Tree::new();
        two(&tree, "/pods", "400000 100000", 0);
        two(&tree, "/pods/a", "150000 100000", 0);
        two(&tree, "/pods/a/web", "max 100000", 0);
        let quota = quotas(&tree, Version::Two, "/")
            .of_member(7, "0::/pods/a/web")
            .unwrap();
        assert_eq!(quota.cgroup, "/pods/a");
        assert_eq!(quota.quota, Some(micros(150_000)));
    }

    #[test]
    fn of_several_quotas_the_one_that_stops_somebody_matters() {
        let tree = Tree::new();
        two(&tree, "/pods", "400000 100000", 9_000);
        two(&tree, "/pods/a", "150000 100000", 0);
        let mut quotas = quotas(&tree, Version::Two, "/");
        let cgroup = |quotas: &mut Quotas| quotas.of_member(7, "0::/pods/a").unwrap().cgroup;
        // What was before we looked is over.
        assert_eq!(cgroup(&mut quotas), "/pods/a");
        two(&tree, "/pods", "400000 100000", 9_500);
        assert_eq!(cgroup(&mut quotas), "/pods");
    }

    #[test]
    fn in_a_container_the_mount_shows_a_part_of_the_tree() {
        let tree = Tree::new();
        two(&tree, "/", "20000 100000", 0);
        two(&tree, "/web", "max 100000", 0);
        let mut quotas = quotas(&tree, Version::Two, "/docker/abc");
        let quota = quotas.of_member(7, "0::/docker/abc/web").unwrap();
        assert_eq!(quota.cgroup, "/");
        assert_eq!(quota.quota, Some(micros(20_000)));
        for outside in ["0::/docker/abcd", "0::/../other"] {
            let why = quotas.of_member(7, outside).unwrap_err();
            assert!(why.contains("not among those mounted here"), "{why}");
        }
    }

    #[test]
    fn without_a_limit_its_own_cgroup_is_told() {
        let tree = Tree::new();
        let mut quotas = quotas(&tree, Version::Two, "/");
        let quota = quotas.of_member(7, "0::/web").unwrap();
        assert_eq!((quota.quota, quota.cgroup.as_str()), (None, "/web"));
        let none = Quotas::among(&[]).of_member(7, "0::/web");
        assert!(none.unwrap_err().contains("no cgroup file system"));
    }

    #[test]
    fn files_that_make_no_sense_are_no_limit() {
        let tree = Tree::new();
        for max in ["", "20000", "x y", "20000 0", "max"] {
            two(&tree, "/web", max, 0);
            let mut quotas = quotas(&tree, Version::Two, "/");
            assert_eq!(quotas.of_member(7, "0::/web").unwrap().quota, None, "{max}");
        }
    }
}
