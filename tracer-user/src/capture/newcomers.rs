//! Who comes into a watched cgroup later.
//!
//! In: the cgroups that were named, as targets or as containers. Out: processes that are traced from now
//! on. A child of a traced process is seen by the kernel half from its first instruction on, so this is for
//! the others, as `docker exec` and `systemctl restart` make them: the cgroup's list of processes, read
//! once a second, names them at most a second late. A look costs some 10 µs for each cgroup.

use std::collections::BTreeSet;

use super::{Sink, live::Live};
use crate::{
    event::{Pid, Relation},
    target::{self, Groups},
};

/// The cgroups, and who was in them when they were last looked at.
#[derive(Default)]
pub(super) struct Newcomers {
    groups: Groups,
    /// Also those that are not traced: the kernel's own, and ourselves.
    members: BTreeSet<Pid>,
}

impl Live {
    /// Traces whoever comes into these cgroups from now on.
    pub fn watch(&mut self, groups: Groups) {
        self.newcomers.members = BTreeSet::from([std::process::id()]);
        self.newcomers.groups = groups;
    }

    /// Looks once who is there.
    pub(super) fn look_for_newcomers(&mut self, sink: &mut dyn Sink) {
        let mut now = self.newcomers.groups.members();
        let before = &self.newcomers.members;
        now.retain(|pid| before.contains(pid) || !target::is_beginning(*pid));
        let come: Vec<Pid> = now
            .difference(&self.newcomers.members)
            .copied()
            .filter(|pid| self.processes.get(*pid).is_none() && target::has_program(*pid))
            .collect();
        self.newcomers.members = now;
        self.newcomers.members.insert(std::process::id());
        if !come.is_empty() {
            self.begin_with(come, Relation::Target, sink);
        }
    }

    /// Whether somebody may still come.
    pub(super) fn may_come(&self) -> bool {
        self.newcomers.groups.remain()
    }
}
