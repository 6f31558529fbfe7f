//! The file descriptors of the traced processes, counted about once a second.
//!
//! In: `/proc`. Out: [`Descriptors`], first and whenever it changed much. A process whose count grows so
//! fast that it would be at its limit before the next look is looked at sooner. While one is near its
//! limit, a tracepoint on the end of every system call counts what is refused; it is taken away again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aya::{
    Btf, Ebpf,
    maps::{MapData, PerCpuHashMap},
    programs::{BtfTracePoint, tp_btf::BtfTracePointLinkId},
};
use tracer_ebpf::{FoundSocket, tcp_state};

use super::{
    Sink,
    attach::chain,
    decode,
    live::{Live, tell},
    seed,
};
use crate::{
    event::{Descriptors, Fact, Pid, Unseen},
    target::descriptors::{count, held},
};

/// Between two looks at a process: at first, as it starts; while it comes near its limit; and else.
const AT_FIRST: Duration = Duration::from_millis(50);
const NEAR: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(1);
/// Percent of the limit from which on a process is near it, and at which it is told anew.
const MARKS: [u64; 4] = [80, 90, 95, 100];
/// Percent of the limit by which the count must differ to be told anew.
const STEP: u64 = 5;
/// Percent of the limit from which on every change is told.
const CREEPING: u64 = 90;
/// Calls are counted until nobody was near for this long.
const FAR: Duration = Duration::from_secs(5);
const PROGRAM: &str = "call_ended";

/// What is known of one process.
struct Table {
    next: Instant,
    pause: Duration,
    last: Option<(Instant, u64)>,
    told: Option<Descriptors>,
}

/// Whether refused calls are counted.
enum Counting {
    NotYet,
    Now(BtfTracePointLinkId),
    /// They were; what is told stands.
    Paused,
    Refused,
}

/// Everybody's file descriptors.
pub(super) struct Tables {
    tables: HashMap<Pid, Table>,
    next: Option<Instant>,
    refused: PerCpuHashMap<MapData, Pid, u64>,
    counting: Counting,
    near: Option<Instant>,
}

impl Tables {
    pub(super) fn new(refused: PerCpuHashMap<MapData, Pid, u64>) -> Self {
        Self {
            tables: HashMap::new(),
            next: None,
            refused,
            counting: Counting::NotYet,
            near: None,
        }
    }

    /// A process is traced from now on.
    pub(super) fn join(&mut self, pid: Pid) {
        let now = Instant::now();
        self.tables.entry(pid).or_insert(Table {
            next: now,
            pause: AT_FIRST,
            last: None,
            told: None,
        });
        self.next = Some(now);
    }

    pub(super) fn forget(&mut self, pid: Pid) {
        self.tables.remove(&pid);
    }

    /// Counts those whose turn it is; who has to be told, and whether with what they hold.
    fn look(&mut self, all: bool) -> Vec<(Descriptors, bool)> {
        let now = Instant::now();
        if !all && self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut changed = Vec::new();
        let (counted, refused) = (
            !matches!(self.counting, Counting::NotYet | Counting::Refused),
            &self.refused,
        );
        let mut near = false;
        self.tables.retain(|pid, table| {
            if !all && table.next > now {
                return true;
            }
            let Some((open, limit)) = count(*pid) else {
                return false; // gone
            };
            near |= is_near(open, limit);
            table.schedule(now, open, limit);
            let refused = counted.then(|| {
                let each = refused.get(pid, 0);
                each.map_or(0, |each| each.iter().sum())
            });
            let told = Descriptors {
                pid: *pid,
                open,
                limit,
                refused,
                held: Vec::new(),
            };
            let before = table.told.as_ref();
            let news = before.is_none_or(|before| is_news(before, &told));
            if news || before.is_some_and(|before| creeps(before, &told)) {
                table.told = Some(told.clone());
                changed.push((told, news));
            }
            true
        });
        if near {
            self.near = Some(now);
        }
        self.next = self.tables.values().map(|table| table.next).min();
        changed
    }

    /// Attaches or detaches what counts refused calls, as it is needed.
    fn count_refused(&mut self, ebpf: &mut Ebpf) -> Option<Unseen> {
        let needed = self.near.is_some_and(|when| when.elapsed() < FAR);
        match (&self.counting, needed) {
            (Counting::NotYet | Counting::Paused, true) => match attach(ebpf) {
                Ok(link) => self.counting = Counting::Now(link),
                Err(why) => {
                    self.counting = Counting::Refused;
                    return Some(Unseen {
                        what: "calls that fail for want of a file descriptor".to_owned(),
                        why,
                        remedy: "how many descriptors are open is told all the same".to_owned(),
                    });
                }
            },
            (Counting::Now(_), false) => {
                if let Counting::Now(link) = std::mem::replace(&mut self.counting, Counting::Paused)
                    && let Ok(program) = program(ebpf)
                {
                    let _ = program.detach(link);
                }
            }
            _ => {}
        }
        None
    }
}

impl Table {
    /// When to look next.
    fn schedule(&mut self, now: Instant, open: u64, limit: u64) {
        self.pause = (self.pause * 2).min(PAUSE);
        let mut pause = self.pause;
        if is_near(open, limit) {
            pause = pause.min(NEAR);
        }
        if let Some((before, had)) = self.last
            && let Some(grown) = open.checked_sub(had).filter(|grown| *grown > 0)
        {
            let room = limit.saturating_sub(open);
            let full = now.duration_since(before).as_secs_f64() * room as f64 / grown as f64;
            if full < 2.0 * pause.as_secs_f64() {
                pause = AT_FIRST;
            }
        }
        self.last = Some((now, open));
        self.next = now + pause;
    }
}

impl Live {
    /// Counts descriptors if it is time, or of everybody.
    pub(super) fn look_at_descriptors(&mut self, all: bool, sink: &mut dyn Sink) {
        let changed = self.tables.look(all);
        if let Some(unseen) = self.tables.count_refused(&mut self.probes.ebpf) {
            tell(sink, Fact::Unseen(unseen));
        }
        if changed.is_empty() {
            return;
        }
        let near = changed
            .iter()
            .any(|(told, news)| *news && is_near(told.open, told.limit));
        let sockets = if near {
            named(&seed::read(&mut self.probes.ebpf).unwrap_or_default())
        } else {
            HashMap::new()
        };
        for (mut told, news) in changed {
            if news && is_near(told.open, told.limit) {
                told.held = held(told.pid, &sockets);
            }
            tell(sink, Fact::Descriptors(told));
        }
    }
}

/// What each socket is, by inode.
fn named(found: &[FoundSocket]) -> HashMap<u64, String> {
    let listening: std::collections::HashSet<(u32, u16)> = found
        .iter()
        .filter(|found| found.state == tcp_state::LISTEN)
        .map(|found| (found.netns, found.address.local_port))
        .collect();
    found
        .iter()
        .map(|found| {
            let port = found.address.local_port;
            let end = if listening.contains(&(found.netns, port)) {
                format!("on port {port}")
            } else {
                format!("to {}", decode::ends(&found.address).1)
            };
            (
                found.inode,
                format!("TCP {end}, {}", tcp_state::name(found.state)),
            )
        })
        .collect()
}

fn percent(open: u64, limit: u64) -> u64 {
    u64::try_from(u128::from(open) * 100 / u128::from(limit.max(1))).unwrap_or(u64::MAX)
}

fn is_near(open: u64, limit: u64) -> bool {
    percent(open, limit) >= MARKS[0]
}

/// Whether the count differs enough from what was told.
fn is_news(before: &Descriptors, now: &Descriptors) -> bool {
    let mark = |told: &Descriptors| {
        let percent = percent(told.open, told.limit);
        MARKS.iter().filter(|mark| percent >= **mark).count()
    };
    let step = percent(before.open.abs_diff(now.open), now.limit) >= STEP;
    step || mark(before) != mark(now) || before.limit != now.limit || before.refused != now.refused
}

/// So near the end every step counts, but what the descriptors are has hardly changed.
fn creeps(before: &Descriptors, now: &Descriptors) -> bool {
    percent(now.open, now.limit) >= CREEPING && before.open != now.open
}

fn program(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint, String> {
    ebpf.program_mut(PROGRAM)
        .ok_or_else(|| format!("no program {PROGRAM}"))?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn attach(ebpf: &mut Ebpf) -> Result<BtfTracePointLinkId, String> {
    let program = program(ebpf)?;
    if program.fd().is_err() {
        let kernel = Btf::from_sys_fs().map_err(|error| chain(&error))?;
        program
            .load("sys_exit", &kernel)
            .map_err(|error| chain(&error))?;
    }
    program.attach().map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(open: u64, refused: Option<u64>) -> Descriptors {
        Descriptors {
            pid: 1,
            open,
            limit: 1000,
            refused,
            held: Vec::new(),
        }
    }

    #[test]
    fn near_the_limit_every_step_is_told() {
        assert!(creeps(&told(901, None), &told(902, None)));
        assert!(!creeps(&told(901, None), &told(901, None)));
        assert!(!creeps(&told(801, None), &told(802, None)));
    }

    #[test]
    fn a_count_is_news_when_it_moved_much_or_passed_a_mark() {
        assert!(!is_news(&told(100, None), &told(149, None)));
        assert!(is_news(&told(100, None), &told(150, None)));
        assert!(is_news(&told(100, None), &told(50, None)));
        assert!(is_news(&told(799, None), &told(800, None)));
        assert!(is_news(&told(999, None), &told(1000, None)));
        assert!(is_news(&told(1000, Some(1)), &told(1000, Some(2))));
        assert!(!is_news(&told(801, Some(1)), &told(820, Some(1))));
    }

    #[test]
    fn who_grows_towards_its_limit_is_looked_at_sooner() {
        let now = Instant::now();
        let mut table = Table {
            next: now,
            pause: PAUSE,
            last: None,
            told: None,
        };
        table.schedule(now, 100, 1000);
        assert_eq!(table.next, now + PAUSE);
        let later = now + PAUSE;
        table.schedule(later, 110, 1000);
        assert_eq!(table.next, later + PAUSE);
        let later = later + PAUSE;
        table.schedule(later, 600, 1000);
        assert_eq!(table.next, later + AT_FIRST);
    }
}
