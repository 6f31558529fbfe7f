//! What the cgroups of a process allow it: CPU time and memory.
//!
//! In: `/proc/PID/cgroup` and the cgroup file systems as they are mounted here. Out: for each process the one
//! quota and the one limit of memory that matter. What a cgroup is allowed holds for all below it together, so
//! every ancestor is looked at.

mod memory;
mod quotas;

use super::cgroups::{self, Hierarchy};
use crate::event::{MemoryLimit, Pid, Quota};

/// Reads what processes are allowed.
#[derive(Debug)]
pub struct Limits {
    quotas: quotas::Quotas,
    memory: memory::MemoryLimits,
}

/// What a process is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Of several quotas the one that stopped its cgroup for longest since we look, and the tightest where none
    /// did. Or why its cgroup cannot be found among those mounted here.
    pub quota: Result<Quota, String>,
    /// The limit that it will meet first; `None` where there is none to be seen.
    pub memory: Option<MemoryLimit>,
}

impl Limits {
    /// As they are mounted here.
    #[must_use]
    pub fn new() -> Self {
        let mounted = Hierarchy::mounted();
        Self {
            quotas: quotas::Quotas::among(&mounted),
            memory: memory::MemoryLimits::among(&mounted),
        }
    }

    /// What holds for `pid`; `None` where it is gone.
    #[must_use]
    pub fn of_process(&mut self, pid: Pid) -> Option<Allowed> {
        let cgroups = cgroups::of_process(pid)?;
        Some(Allowed {
            quota: self.quotas.of_member(pid, &cgroups),
            memory: self.memory.of_member(pid, &cgroups),
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_has_no_limits_and_who_is_there_has_an_answer() {
        let mut limits = Limits::new();
        assert_eq!(limits.of_process(u32::MAX), None);
        let pid = std::process::id();
        let Ok(quota) = limits.of_process(pid).unwrap().quota else {
            return; // no cgroups where this runs
        };
        assert_eq!(quota.pid, pid);
    }
}
