//! `deadlock`: goroutines wait for each other, in a circle, at locks.
//!
//! It takes two locks at least, each with a queue in which nobody moved for seconds; and for each of
//! them one goroutine that likely has it and waits for the next lock of the circle, the same in every
//! look. That it has it is concluded from its stack: it is past the line at which others wait for the
//! lock, or has the lock's address on its stack. Not accused: goroutines that wait for one that works,
//! sleeps or waits for the network, however long; a lock that only one of both holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    event::{BootInstant, Frame, Pid, Role, SocketId},
    model::{Model, Suspect, SuspectedBy},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
    grounds::{
        locks::{self, Locked},
        scene::Scene,
        standing::serves_http,
        telling::Timeline,
    },
    own_code::{brief, own_frame},
    wording::{count, join, seconds},
};

/// Adds a case for each circle.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let pids: Vec<Pid> = scene.model.processes().map(|p| p.about.pid).collect();
    for pid in pids {
        let stuck: BTreeMap<u64, Stuck<'_>> = Locked::all(scene.model, pid)
            .into_iter()
            .filter_map(|lock| Some((lock.address, Stuck::of(scene.model, lock)?)))
            .collect();
        let mut told: HashSet<u64> = HashSet::new();
        for start in stuck.keys() {
            let circle = circle(&stuck, *start);
            if circle.is_empty() || circle.iter().any(|link| told.contains(&link.lock)) {
                continue;
            }
            told.extend(circle.iter().map(|link| link.lock));
            if let Some(case) = case(scene, pid, &stuck, &circle) {
                docket.add(case);
            }
        }
    }
}

/// A lock that is not given back.
struct Stuck<'m> {
    lock: Locked<'m>,
    /// The `sync.RWMutex` whose semaphore it is.
    within: Option<u64>,
    since: BootInstant,
    /// Who likely has it, and waits for another lock itself.
    holders: Vec<&'m Suspect>,
}

impl<'m> Stuck<'m> {
    fn of(model: &Model, lock: Locked<'m>) -> Option<Self> {
        let since = lock.stuck_since(model)?;
        let last = lock.queues.last()?;
        // Somebody who can go on by itself may have it.
        let free =
            |suspect: &Suspect| suspect.waits_at.is_none() && suspect.by < SuspectedBy::Address;
        if last.suspects.iter().any(free) {
            return None;
        }
        let in_all = |suspect: &&Suspect| {
            let mut queues = lock.queues.iter().filter(|queue| queue.at >= since);
            queues.all(|queue| {
                queue
                    .suspects
                    .iter()
                    .any(|other| other.id == suspect.id && other.waits_at == suspect.waits_at)
            })
        };
        let holders: Vec<&Suspect> = last
            .suspects
            .iter()
            .filter(|suspect| suspect.waits_at.is_some())
            .filter(in_all)
            .collect();
        let waiting = last
            .waiters
            .first()
            .and_then(|id| model.whereabouts(lock.pid, *id));
        Some(Self {
            within: waiting.and_then(|found| rw_mutex(found.frames, lock.address)),
            lock,
            since,
            holders,
        })
    }

    /// Both are of one `sync.RWMutex`: a writer that waits for its readers has the mutex at which the next
    /// writer waits, and there is no circle in that.
    fn is_one_with(&self, other: &Self) -> bool {
        self.within.is_some() && self.within == other.within
    }
}

/// Where the `sync.RWMutex` begins at whose semaphore a goroutine with these frames waits: its fields are `w`
/// (a `Mutex` of state and semaphore), `writerSem`, `readerSem` (`src/sync/rwmutex.go`, Go 1.21 to 1.27).
fn rw_mutex(frames: &[Frame], semaphore: u64) -> Option<u64> {
    let has = |name: &str| frames.iter().any(|frame| frame.function == name);
    let offset = if has("sync.(*RWMutex).RLock") {
        12
    } else if !has("sync.(*RWMutex).Lock") {
        return None;
    } else if has("sync.(*Mutex).Lock") {
        4
    } else {
        8
    };
    semaphore.checked_sub(offset)
}

/// `holder` has `lock` and waits for the lock of the next link.
struct Link<'m> {
    lock: u64,
    holder: &'m Suspect,
}

/// The circle that leads from `start` back to it: at each lock on to that for which its holder waits.
fn circle<'m>(stuck: &BTreeMap<u64, Stuck<'m>>, start: u64) -> Vec<Link<'m>> {
    let mut came_by: HashMap<u64, Link<'m>> = HashMap::new();
    let mut open = vec![start];
    while let Some(lock) = open.pop() {
        let Some(here) = stuck.get(&lock) else {
            continue;
        };
        for holder in &here.holders {
            let another = |next: &u64| stuck.get(next).is_some_and(|it| !it.is_one_with(here));
            let Some(next) = holder.waits_at.filter(another) else {
                continue;
            };
            if came_by.contains_key(&next) {
                continue;
            }
            came_by.insert(next, Link { lock, holder });
            if next == start {
                return walk_back(came_by, start);
            }
            open.push(next);
        }
    }
    Vec::new()
}

fn walk_back<'m>(mut came_by: HashMap<u64, Link<'m>>, start: u64) -> Vec<Link<'m>> {
    let mut links = Vec::new();
    let mut at = start;
    while let Some(link) = came_by.remove(&at) {
        at = link.lock;
        links.push(link);
        if at == start {
            break;
        }
    }
    links.reverse();
    links
}

fn case(
    scene: &Scene<'_>,
    pid: Pid,
    stuck: &BTreeMap<u64, Stuck<'_>>,
    circle: &[Link<'_>],
) -> Option<Case> {
    let model = scene.model;
    let of_circle: Vec<&Stuck<'_>> = circle
        .iter()
        .filter_map(|link| stuck.get(&link.lock))
        .collect();
    let holders: HashSet<u64> = circle.iter().map(|link| link.holder.id).collect();
    if circle.len() < 2 || holders.len() != circle.len() {
        return None;
    }
    let since = of_circle.iter().map(|stuck| stuck.since).max()?;
    let lasts = of_circle
        .iter()
        .filter_map(|stuck| stuck.lock.queues.last());
    let waiting: HashSet<u64> = lasts
        .flat_map(|queue| queue.waiters.iter().copied())
        .collect();
    let sockets = requests(model, pid, &waiting);
    // Their requests may have come before the window.
    let serves = |id: &u64| {
        let found = model.whereabouts(pid, *id);
        found.is_some_and(|found| serves_http(found.frames) && own_frame(found.frames).is_some())
    };
    let who = model.name(pid);
    let mut confidence = Confidence::SEEN.but(Doubt::NotOver);
    if circle
        .iter()
        .any(|link| link.holder.by != SuspectedBy::Line)
    {
        confidence = confidence.but(Doubt::Ambiguous);
    }
    let places: Vec<String> = circle.iter().map(|link| at(link.holder)).collect();
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::Deadlock,
        severity: if sockets.is_empty() && !waiting.iter().any(serves) {
            Severity::Warning
        } else {
            Severity::Critical
        },
        confidence: confidence.number(),
        count: waiting.len() as u64,
        title: format!(
            "{who} has a deadlock: {} wait for each other's locks at {}",
            count(circle.len() as u64, "goroutine", "goroutines"),
            join(&distinct(&places))
        ),
        explanation: explanation(circle, waiting.len(), model.now().since(since)),
        process: Subject::of(model, pid),
        connection: None,
        related_connections: Vec::new(),
        setting: None,
        code: circle
            .first()
            .and_then(|link| own_frame(&link.holder.frames))
            .cloned(),
        goroutines: witnesses(model, pid, circle),
        measured: Measured {
            goroutines: Some(waiting.len() as u64),
            waited_s: Some(model.now().since(since).as_secs_f64()),
            ..Measured::default()
        },
        evidence: evidence(model, &of_circle),
        advice: vec![
            "Take the locks in the same order everywhere, such as by an id of what they guard; or take one lock for both.".into(),
            "Nothing in the process will undo it: restart it to serve again.".into(),
        ],
        wireshark_filter: None,
        incomplete: Some(
            "A lock does not note who has it: who has which is concluded from the stacks.".into(),
        ),
    };
    Some(Case {
        finding,
        cause: None,
        explains: sockets,
    })
}

fn at(suspect: &Suspect) -> String {
    let place = own_frame(&suspect.frames).or(suspect.frames.first());
    place.map_or_else(|| "an unknown place".into(), brief)
}

fn distinct(places: &[String]) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for place in places {
        if !distinct.contains(place) {
            distinct.push(place.clone());
        }
    }
    distinct
}

fn explanation(circle: &[Link<'_>], waiting: usize, long: std::time::Duration) -> String {
    let mut told: Vec<String> = Vec::new();
    for (place, link) in circle.iter().enumerate() {
        let next = circle.get(place + 1).or(circle.first());
        let why = match (link.holder.by, link.holder.knows) {
            (SuspectedBy::Line, true) => {
                "is past the line at which others wait for the lock, with its address on the stack"
            }
            (SuspectedBy::Line, false) => "is past the line at which others wait for the lock",
            _ => "has the lock's address on its stack",
        };
        told.push(format!(
            "Goroutine {} likely has lock {}, for it {why}; it waits at {} for lock {}, which goroutine {} likely has.",
            link.holder.id,
            place + 1,
            at(link.holder),
            (place + 1) % circle.len() + 1,
            next.map_or(0, |next| next.holder.id)
        ));
    }
    told.push(format!(
        "None of the {waiting} that wait for these locks went on in the last {}.",
        seconds(long)
    ));
    told.join(" ")
}

fn witnesses(model: &Model, pid: Pid, circle: &[Link<'_>]) -> Vec<Witness> {
    circle
        .iter()
        .map(|link| locks::suspect(model, pid, link.holder))
        .collect()
}

/// The connections whose requests wait in it.
fn requests(model: &Model, pid: Pid, waiting: &HashSet<u64>) -> HashSet<SocketId> {
    let served = model.connections().filter(|connection| {
        let asked = connection.exchanges().pop();
        connection.pid == pid
            && connection.role == Role::Server
            && asked.is_some_and(|asked| {
                let by = asked.actor.and_then(|actor| actor.goroutine);
                !asked.answered() && by.is_some_and(|id| waiting.contains(&id))
            })
    });
    served
        .flat_map(|connection| [Some(connection.socket), connection.other_end])
        .flatten()
        .collect()
}

fn evidence(model: &Model, circle: &[&Stuck<'_>]) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    for (place, stuck) in circle.iter().enumerate() {
        let of = |at: BootInstant| {
            let mut queues = stuck.lock.queues.iter();
            queues
                .find(|queue| queue.at == at)
                .map_or(0, |queue| queue.waiters.len())
        };
        let mut moments = vec![stuck.since];
        moments.extend(stuck.lock.queues.last().map(|queue| queue.at));
        for at in moments {
            timeline.add(
                at,
                "queue",
                format!(
                    "{} for lock {}, none of whom goes on",
                    count(of(at) as u64, "goroutine waits", "goroutines wait"),
                    place + 1
                ),
            );
        }
    }
    timeline.evidence()
}
