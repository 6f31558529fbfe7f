//! What surrounds the targets: the host, who else has its CPUs, quotas, what runtimes say of themselves.

use std::collections::BTreeMap;

use crate::event::{BootInstant, Host, MemoryLimit, Neighbours, Pid, Quota, Runtime};

use super::Course;

#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) host: Option<Course<Host>>,
    pub(super) neighbours: Option<Neighbours>,
    pub(super) quotas: BTreeMap<Pid, Course<Quota>>,
    pub(super) memory_limits: BTreeMap<Pid, Course<MemoryLimit>>,
    pub(super) runtimes: BTreeMap<Pid, Course<Runtime>>,
}

impl Surroundings {
    pub(super) fn host(&mut self, at: BootInstant, told: &Host) {
        match &mut self.host {
            Some(course) => course.go_on(at, told.clone()),
            None => self.host = Some(Course::new(at, told.clone())),
        }
    }

    pub(super) fn quota(&mut self, at: BootInstant, told: &Quota) {
        go_on(&mut self.quotas, told.pid, at, told);
    }

    pub(super) fn memory_limit(&mut self, at: BootInstant, told: &MemoryLimit) {
        go_on(&mut self.memory_limits, told.pid, at, told);
    }

    pub(super) fn runtime(&mut self, at: BootInstant, told: &Runtime) {
        go_on(&mut self.runtimes, told.pid, at, told);
    }
}

fn go_on<T: Clone>(of: &mut BTreeMap<Pid, Course<T>>, pid: Pid, at: BootInstant, told: &T) {
    match of.get_mut(&pid) {
        Some(course) => course.go_on(at, told.clone()),
        None => {
            of.insert(pid, Course::new(at, told.clone()));
        }
    }
}
