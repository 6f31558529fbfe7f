//! What surrounds the targets, looked at once a second: the host's figures, and the quotas of their cgroups.
//!
//! In: `/proc` and the cgroup file systems. Out: [`Fact::Host`] first, every second and last;
//! [`Fact::Quota`] first and whenever it is another one.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Sink,
    live::{Live, tell},
    processes::Processes,
};
use crate::{
    event::{Fact, Pid, Quota, Unseen},
    host::load::load,
    target::quotas::Quotas,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// When the next look is due, and what was told.
#[derive(Default)]
pub(super) struct Surroundings {
    next: Option<Instant>,
    quotas: Quotas,
    told: HashMap<Pid, Quota>,
    unseen: HashSet<String>,
}

impl Surroundings {
    /// Whether it is time; the first time always.
    fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + PAUSE);
        }
        due
    }

    fn host(&mut self) -> Option<Fact> {
        match load() {
            Ok(host) => Some(Fact::Host(host)),
            Err(error) => self.once(Unseen {
                what: "the host's load, memory and context switches".to_owned(),
                why: error.to_string(),
                remedy: "mount /proc: mount -t proc proc /proc".to_owned(),
            }),
        }
    }

    /// What is to be told of the quotas of `processes`.
    fn quotas(&mut self, processes: &Processes) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.told.retain(|pid, _| processes.get(*pid).is_some());
        for process in processes.all().map(|known| &known.process) {
            match self.quotas.of_process(process.pid) {
                Ok(Some(quota)) if self.told.get(&process.pid) != Some(&quota) => {
                    self.told.insert(process.pid, quota.clone());
                    facts.push(Fact::Quota(quota));
                }
                Ok(_) => {}
                Err(why) => facts.extend(self.once(Unseen {
                    what: format!("the CPU quota of {}", process.comm),
                    why,
                    remedy: "run gopulse on the host and not in a container".to_owned(),
                })),
            }
        }
        facts
    }

    /// What cannot be seen is said once.
    fn once(&mut self, unseen: Unseen) -> Option<Fact> {
        self.unseen
            .insert(unseen.what.clone())
            .then_some(Fact::Unseen(unseen))
    }
}

impl Live {
    /// Looks around if it is time, or for the last time.
    pub(super) fn look_around(&mut self, last: bool, sink: &mut dyn Sink) {
        if !self.surroundings.due() && !last {
            return;
        }
        if let Some(fact) = self.surroundings.host() {
            tell(sink, fact);
        }
        for fact in self.surroundings.quotas(&self.processes) {
            tell(sink, fact);
        }
    }
}
