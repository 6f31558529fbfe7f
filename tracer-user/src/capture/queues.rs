//! The queues of the targets' listening sockets, looked at four times a second.
//!
//! In: the network namespaces of the traced processes. Out: [`Listening`], first and whenever it
//! changed. One look serves all processes of a namespace.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use tracer_ebpf::tcp_state::LISTEN;

use super::{
    Sink,
    live::{Live, tell},
    seed,
};
use crate::{
    event::{Fact, Listening, Pid, Unseen},
    target::{
        overflows::Overflows,
        queues::{Queue, Queues},
    },
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Finding out whose a listener is walks the file tables of the host: not more often than this.
const LOOK_UP: Duration = Duration::from_secs(1);

/// A listening socket as it was seen, and how many handshakes found its queue full since we look.
type Seen = (Queue, u64);

/// A network namespace that some target is in.
struct Namespace {
    queues: Queues,
    overflows: Overflows,
}

impl Namespace {
    fn look(&mut self) -> Result<Vec<Seen>, String> {
        let queues = self.queues.look()?;
        self.overflows.take(&queues, self.queues.overflows()?);
        let seen = |queue: Queue| (queue, self.overflows.at(queue.address));
        Ok(queues.into_iter().map(seen).collect())
    }
}

/// What is known of the queues.
#[derive(Default)]
pub(super) struct Watched {
    namespaces: HashMap<PathBuf, Namespace>,
    /// Whose the listeners are, by inode; a stranger's are nobody's.
    owners: HashMap<u64, Option<Pid>>,
    told: HashMap<u64, Listening>,
    looked: Option<Instant>,
    asked: Option<Instant>,
}

impl Watched {
    /// A process is traced from now on: its namespace is looked at too.
    pub(super) fn join(&mut self, pid: Pid) -> Option<Unseen> {
        // A stranger's listener may be this one's.
        self.owners.retain(|_, owner| owner.is_some());
        self.asked = None;
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        if self.namespaces.contains_key(&namespace) {
            return None;
        }
        match Queues::of(pid) {
            Ok(queues) => {
                let overflows = Overflows::default();
                self.namespaces
                    .insert(namespace, Namespace { queues, overflows });
                None
            }
            Err(why) => Some(unseen(why)),
        }
    }

    fn due(&self) -> bool {
        self.looked.is_none_or(|when| when.elapsed() >= PAUSE)
    }

    /// Every listener of the namespaces; one that cannot be looked at any more is given up.
    fn look(&mut self) -> (Vec<Seen>, Vec<Unseen>) {
        self.looked = Some(Instant::now());
        let (mut queues, mut given_up) = (Vec::new(), Vec::new());
        self.namespaces
            .retain(|_, namespace| match namespace.look() {
                Ok(seen) => {
                    queues.extend(seen);
                    true
                }
                Err(why) => {
                    given_up.push(unseen(why));
                    false
                }
            });
        let there: HashSet<u64> = queues.iter().map(|(queue, _)| queue.inode).collect();
        self.owners.retain(|inode, _| there.contains(inode));
        self.told.retain(|inode, _| there.contains(inode));
        (queues, given_up)
    }

    /// Whether some listener is of an owner that is to be found out, and it is time for it.
    fn asks(&mut self, queues: &[Seen]) -> bool {
        let unknown = queues
            .iter()
            .any(|(queue, _)| !self.owners.contains_key(&queue.inode));
        let asks = unknown && self.asked.is_none_or(|when| when.elapsed() >= LOOK_UP);
        if asks {
            self.asked = Some(Instant::now());
        }
        asks
    }

    fn learn(&mut self, queues: &[Seen], owners: &HashMap<u64, Pid>) {
        for (queue, _) in queues {
            self.owners
                .entry(queue.inode)
                .or_insert_with(|| owners.get(&queue.inode).copied());
        }
    }

    /// What is to be told of a queue: it is a target's, and new or changed.
    fn changed(&mut self, (queue, overflowed): &Seen) -> Option<Listening> {
        let listening = Listening {
            pid: (*self.owners.get(&queue.inode)?)?,
            address: queue.address,
            queued: queue.queued,
            backlog: queue.backlog,
            dropped: *overflowed,
        };
        (self.told.insert(queue.inode, listening) != Some(listening)).then_some(listening)
    }
}

impl Live {
    /// Looks at the queues if it is time, or `now`.
    pub(super) fn look_at_queues(&mut self, now: bool, sink: &mut dyn Sink) {
        if !(now || self.queues.due()) {
            return;
        }
        let (queues, given_up) = self.queues.look();
        for unseen in given_up {
            tell(sink, Fact::Unseen(unseen));
        }
        if self.queues.asks(&queues)
            && let Ok(found) = seed::read(&mut self.probes.ebpf)
        {
            let owners = found
                .iter()
                .filter(|found| found.state == LISTEN)
                .map(|found| (found.inode, found.tgid))
                .collect();
            self.queues.learn(&queues, &owners);
        }
        for queue in &queues {
            if let Some(listening) = self.queues.changed(queue) {
                tell(sink, Fact::Listening(listening));
            }
        }
    }
}

fn unseen(why: String) -> Unseen {
    Unseen {
        what: "how full the queues of listening sockets are".to_owned(),
        why,
        remedy: "CONFIG_INET_DIAG, and CAP_SYS_ADMIN for other network namespaces".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(queued: u32) -> Seen {
        let queue = Queue {
            inode: 5,
            address: ([127, 0, 0, 1], 80).into(),
            queued,
            backlog: 128,
            dropped: 7,
        };
        (queue, 0)
    }

    #[test]
    fn a_queue_is_told_at_first_and_when_it_changed() {
        let mut watched = Watched::default();
        let queues = [queue(0)];
        assert!(watched.asks(&queues));
        assert!(!watched.asks(&queues)); // not again at once
        watched.learn(&queues, &HashMap::from([(5, 7)]));
        let told = watched
            .changed(&queue(0))
            .map(|told| (told.pid, told.dropped));
        assert_eq!(told, Some((7, 0)));
        assert_eq!(watched.changed(&queue(0)), None);
        assert_eq!(watched.changed(&queue(3)).map(|told| told.queued), Some(3));
    }

    #[test]
    fn a_strangers_queue_is_not_told() {
        let mut watched = Watched::default();
        watched.learn(&[queue(0)], &HashMap::new());
        assert_eq!(watched.changed(&queue(9)), None);
    }
}
