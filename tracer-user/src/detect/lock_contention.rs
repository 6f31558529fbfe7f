//! `lock-contention`: goroutines queue for a lock, and requests are late for it.
//!
//! Who has a `sync.Mutex` is written nowhere. It is concluded from where the others stand: past the line
//! at which the lock is waited for, or in another method of the same type with the lock's address on the
//! stack. Not accused: a lock at which goroutines are seen now and then, however busy, while requests
//! are answered in time (a long queue is told as `info`).

use std::collections::{HashMap, HashSet};

use crate::{
    event::{Pid, SocketId},
    model::{LockQueue, Model, Suspect, SuspectedBy},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
    grounds::{
        locks::{self, Locked, Queued, call},
        scene::Scene,
        standing::Standing,
        telling::{Timeline, wireshark_filter},
    },
    own_code::{brief, own_frame},
    wording::{count, join, seconds},
};

/// Fewer in a queue are nobody's concern.
const QUEUE: usize = 4;

/// Fewer late requests may be late for another reason.
const SEVERAL: usize = 3;

/// So many are worth knowing although no request was late.
const CROWD: usize = 50;

/// In so many snapshots.
const MOMENTS: usize = 2;

/// Adds a case for each lock.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let pids: Vec<Pid> = scene.model.processes().map(|p| p.about.pid).collect();
    for pid in pids {
        for lock in Locked::all(scene.model, pid) {
            let late = lock.late(scene);
            // A set of goroutines that waits for itself is told as that.
            let told = |late: &Queued<'_>| docket.explaining(late.connection.socket).is_some();
            if late.iter().any(told)
                || docket.worst_of(Rule::Deadlock, pid).is_some_and(|place| {
                    docket
                        .finding(place)
                        .is_some_and(|deadlock| in_cycle(deadlock, &lock))
                })
            {
                continue;
            }
            if let Some(case) = case(scene, &lock, &late) {
                docket.add(case);
            }
        }
    }
}

/// One of the goroutines of the deadlock waits for this lock.
fn in_cycle(deadlock: &Finding, lock: &Locked<'_>) -> bool {
    let mut witnesses = deadlock.goroutines.iter();
    lock.queues
        .last()
        .is_some_and(|queue| witnesses.any(|witness| queue.waiters.contains(&witness.id)))
}

fn case(scene: &Scene<'_>, lock: &Locked<'_>, late: &[Queued<'_>]) -> Option<Case> {
    let model = scene.model;
    let longest = lock.longest()?;
    let harmful = longest.waiters.len() >= QUEUE && late.len() >= SEVERAL;
    let crowded = lock.moments_with(CROWD) >= MOMENTS;
    if !harmful && !crowded {
        return None;
    }
    let at = call(longest)?;
    let stuck = lock.stuck_since(model);
    let holder = Holder::of(lock);
    let who = model.name(lock.pid);
    let example = late.iter().max_by_key(|late| late.waited);
    let mut measured = Measured {
        goroutines: Some(longest.waiters.len() as u64),
        requests_slow: Some(late.len() as u64).filter(|late| *late > 0),
        ..Measured::default()
    };
    if let Some(example) = example {
        let served = scene
            .served_at(lock.pid, example.connection.local)
            .exchanges;
        measured.requests = Some(served.exchanges);
        measured.waits(late.iter().map(|late| late.waited).collect());
    }
    let mut doubts = Vec::new();
    match &holder {
        Some(holder) if holder.likeliest().by == SuspectedBy::Line => {}
        Some(_) => doubts.push(Doubt::ConnectionInferred),
        None => doubts.push(Doubt::ReasonUnread),
    }
    if harmful {
        doubts.push(Doubt::RequestInferred);
    }
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::LockContention,
        severity: if harmful {
            Severity::Warning
        } else {
            Severity::Info
        },
        confidence: Confidence::SEEN.but_all(&doubts).number(),
        count: if harmful {
            late.len()
        } else {
            longest.waiters.len()
        } as u64,
        title: match stuck {
            Some(_) => format!(
                "{} of {who} stand at a lock in {}, and none goes on",
                count(longest.waiters.len() as u64, "goroutine", "goroutines"),
                brief(at)
            ),
            None => format!(
                "up to {} of {who} queue for a lock at {}",
                count(longest.waiters.len() as u64, "goroutine", "goroutines"),
                brief(at)
            ),
        },
        explanation: explanation(&who, lock, longest, late, holder.as_ref(), stuck.is_some()),
        process: Subject::of(model, lock.pid),
        connection: example.map(|late| late.connection.into()),
        related_connections: Vec::new(),
        setting: None,
        code: holder
            .as_ref()
            .and_then(|holder| own_frame(&holder.likeliest().frames))
            .or(Some(at))
            .cloned(),
        goroutines: witnesses(model, lock, longest, holder.as_ref()),
        measured,
        evidence: evidence(scene, lock, example),
        advice: advice(at, holder.as_ref(), stuck.is_some()),
        wireshark_filter: wireshark_filter(example.map(|late| late.connection).into_iter()),
        incomplete: Some(match &holder {
            Some(_) => {
                "A lock does not note who has it: the holder is concluded from the stacks.".into()
            }
            None => format!(
                "Who has the lock was not seen{}.",
                if longest.running > 0 {
                    ": it may have been running, and what runs has no stack to read"
                } else {
                    ""
                }
            ),
        }),
    };
    Some(Case {
        finding,
        cause: None,
        explains: if harmful {
            both_ends(late)
        } else {
            HashSet::new()
        },
    })
}

/// Who likely had the lock, over all moments.
struct Holder<'m> {
    /// One look at it.
    suspect: &'m Suspect,
    /// In how many of the moments with a queue somebody was seen at its place.
    moments: usize,
    of: usize,
}

impl<'m> Holder<'m> {
    /// The place at which a suspect was seen most often, where it is not one of those that only know
    /// the lock.
    fn of(lock: &Locked<'m>) -> Option<Self> {
        let mut places: HashMap<String, (usize, &Suspect)> = HashMap::new();
        for queue in &lock.queues {
            let likeliest = queue.suspects.first();
            let likeliest = likeliest.filter(|suspect| suspect.by < SuspectedBy::Address);
            if let Some(suspect) = likeliest {
                let place = own_frame(&suspect.frames).or(suspect.frames.first());
                let key = place.map_or_else(String::new, brief);
                places.entry(key).or_insert((0, suspect)).0 += 1;
            }
        }
        let best = |(key, (moments, suspect)): &(String, (usize, &Suspect))| {
            (std::cmp::Reverse(suspect.by), *moments, key.clone())
        };
        let (_, (moments, suspect)) = places.into_iter().max_by_key(best)?;
        Some(Self {
            suspect,
            moments,
            of: lock.queues.len(),
        })
    }

    fn likeliest(&self) -> &'m Suspect {
        self.suspect
    }

    fn sentence(&self) -> String {
        let suspect = self.suspect;
        let place = own_frame(&suspect.frames).or(suspect.frames.first());
        let why = match suspect.by {
            SuspectedBy::Line => "it is past the line at which the others wait",
            _ => {
                "it is in another method of the same type, and has the lock's address on its stack"
            }
        };
        let knows = if suspect.by == SuspectedBy::Line && suspect.knows {
            ", with the lock's address on its stack"
        } else {
            ""
        };
        let seen = if self.of > 1 {
            format!(" ({} of {} looks found one there)", self.moments, self.of)
        } else {
            String::new()
        };
        format!(
            "The lock is likely held by whoever stands at {}, such as goroutine {} ({}): {why}{knows}{seen}. {}",
            place.map_or_else(|| "an unknown place".into(), brief),
            suspect.id,
            suspect.state,
            doing(suspect)
        )
    }
}

/// What the holder does while others wait.
fn doing(suspect: &Suspect) -> &'static str {
    match suspect.state.as_str() {
        "IO wait" => "It waits for the network meanwhile.",
        "sleep" => "It sleeps meanwhile.",
        "syscall" => "It is in a system call meanwhile.",
        state if Standing::of(state) == Standing::Busy => {
            "It works, or waits for a CPU, meanwhile."
        }
        _ => "It waits for another goroutine itself.",
    }
}

fn explanation(
    who: &str,
    lock: &Locked<'_>,
    longest: &LockQueue,
    late: &[Queued<'_>],
    holder: Option<&Holder<'_>>,
    stuck: bool,
) -> String {
    let lines: Vec<String> = longest
        .calls
        .iter()
        .take(3)
        .map(|(frame, number)| format!("{number} at {}", brief(frame)))
        .collect();
    let mut told = vec![format!(
        "{} waited for one lock of {who} at once: {}.",
        count(longest.waiters.len() as u64, "goroutine", "goroutines"),
        join(&lines)
    )];
    let moments = lock.queues.len() as u64;
    told.push(if stuck {
        "None of them was seen to go on: it is not given back.".to_owned()
    } else {
        format!("{} found a queue there.", count(moments, "look", "looks"))
    });
    told.extend(holder.map(Holder::sentence));
    if let Some(longest) = late.iter().map(|late| late.waited).max() {
        told.push(format!(
            "{} whose goroutines were seen in the queue waited up to {} for an answer.",
            count(late.len() as u64, "request", "requests"),
            seconds(longest)
        ));
    } else {
        told.push("No request was seen to be late for it.".into());
    }
    told.join(" ")
}

fn witnesses(
    model: &Model,
    lock: &Locked<'_>,
    longest: &LockQueue,
    holder: Option<&Holder<'_>>,
) -> Vec<Witness> {
    let waiter = longest
        .waiters
        .iter()
        .find_map(|id| super::grounds::standing::at_last(model, lock.pid, *id));
    holder
        .map(|holder| locks::suspect(model, lock.pid, holder.likeliest()))
        .into_iter()
        .chain(waiter)
        .collect()
}

fn advice(at: &crate::event::Frame, holder: Option<&Holder<'_>>, stuck: bool) -> Vec<String> {
    let Some(holder) = holder else {
        return vec![format!(
            "See who calls Lock as {} does and returns without Unlock, or holds it for long: defer the Unlock right after the Lock.",
            brief(at)
        )];
    };
    let suspect = holder.likeliest();
    let place = own_frame(&suspect.frames).map_or_else(|| "there".into(), brief);
    vec![match suspect.state.as_str() {
        _ if stuck => format!("See what {place} waits for while it holds the lock."),
        "IO wait" | "sleep" | "syscall" => format!(
            "Do not hold the lock over the slow call at {place}: take what the call needs, unlock, call, and lock again to store the result; or give each key a lock of its own."
        ),
        _ => format!(
            "Do less under the lock at {place}, or divide what it guards so that fewer need the same lock."
        ),
    }]
}

fn evidence(scene: &Scene<'_>, lock: &Locked<'_>, example: Option<&Queued<'_>>) -> Vec<Evidence> {
    let mut timeline = Timeline::of(scene.model);
    // Enough to see how it went.
    let step = lock.queues.len().div_ceil(8).max(1);
    for queue in lock.queues.iter().step_by(step) {
        let waiters = count(
            queue.waiters.len() as u64,
            "goroutine waits",
            "goroutines wait",
        );
        timeline.add(queue.at, "queue", format!("{waiters} for the lock"));
    }
    if let Some(late) = example {
        timeline.request_read(late.connection, &late.exchange);
        timeline.outcome(late.connection, &late.exchange);
    }
    timeline.evidence()
}

fn both_ends(late: &[Queued<'_>]) -> HashSet<SocketId> {
    late.iter()
        .flat_map(|late| [Some(late.connection.socket), late.connection.other_end])
        .flatten()
        .collect()
}
