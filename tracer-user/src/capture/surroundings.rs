//! What surrounds the targets, looked at once a second: the host's figures, the quotas of their cgroups, what
//! their Go runtimes say of themselves.
//!
//! In: `/proc`, the cgroup file systems, processes' memory. Out: [`Fact::Host`] first, every second and last;
//! [`Fact::Quota`], [`Fact::MemoryLimit`] and [`Fact::Runtime`] first and whenever they are others.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Sink,
    live::{Live, tell},
    processes::{Known, Processes},
};
use crate::{
    event::{Fact, MemoryLimit, Pid, Quota, Runtime, Unseen},
    golang::{GoError, runtime},
    host::load::load,
    target::limits::Limits,
};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// When the next look is due, and what was told.
#[derive(Default)]
pub(super) struct Surroundings {
    next: Option<Instant>,
    limits: Limits,
    told: HashMap<Pid, Told>,
    unseen: HashSet<String>,
}

/// What was told last of a process.
#[derive(Default)]
struct Told {
    quota: Option<Quota>,
    memory_limit: Option<MemoryLimit>,
    runtime: Option<Runtime>,
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

    /// What is news of `processes`.
    fn processes(&mut self, processes: &Processes) -> Vec<Fact> {
        self.told.retain(|pid, _| processes.get(*pid).is_some());
        let mut facts = Vec::new();
        for known in processes.all() {
            facts.extend(self.limits(known).into_iter().flatten());
            facts.extend(self.runtime(known));
        }
        facts
    }

    /// News of its quota and of its limit of memory. Where the one cannot be seen, the other cannot either, and
    /// that is said once.
    fn limits(&mut self, known: &Known) -> [Option<Fact>; 2] {
        let process = &known.process;
        let Some(allowed) = self.limits.of_process(process.pid) else {
            return [None, None];
        };
        let told = self.told.entry(process.pid).or_default();
        let memory = allowed
            .memory
            .and_then(|read| news(&mut told.memory_limit, read));
        let quota = match allowed.quota {
            Ok(read) => news(&mut told.quota, read).map(Fact::Quota),
            Err(why) => self.once(Unseen {
                what: format!("the CPU quota of {}", process.comm),
                why,
                remedy: "run gopulse on the host and not in a container".to_owned(),
            }),
        };
        [quota, memory.map(Fact::MemoryLimit)]
    }

    fn runtime(&mut self, known: &Known) -> Option<Fact> {
        let (process, program) = (&known.process, known.program.as_ref()?);
        match runtime::read(program) {
            Ok(read) => {
                let told = self.told.entry(process.pid).or_default();
                news(&mut told.runtime, read).map(Fact::Runtime)
            }
            Err(GoError::Gone { .. }) => None,
            Err(error) => self.once(Unseen {
                what: format!("GOMAXPROCS and the collector of {}", process.comm),
                why: error.to_string(),
                remedy: "the cgroup's quota is told all the same".to_owned(),
            }),
        }
    }

    /// What cannot be seen is said once.
    fn once(&mut self, unseen: Unseen) -> Option<Fact> {
        self.unseen
            .insert(unseen.what.clone())
            .then_some(Fact::Unseen(unseen))
    }
}

/// What was read, if it is not what was told last.
fn news<T: Clone + PartialEq>(told: &mut Option<T>, read: T) -> Option<T> {
    let news = told.as_ref() != Some(&read);
    news.then(|| told.insert(read).clone())
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
        for fact in self.surroundings.processes(&self.processes) {
            tell(sink, fact);
        }
    }
}
