//! Requests that waited for their turn in Go's scheduler.
//!
//! A goroutine runs only while it has one of the `GOMAXPROCS` processors (runtime's P), and when all of
//! them are taken it queues in the program, where the kernel sees nobody wait. That it queued is
//! inferred: it had something to do, and all processors were taken by other goroutines.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    event::{Pid, SocketId, Waiting},
    model::{Kind, TICK},
};

use super::{
    held_up,
    scene::Scene,
    schedule::span,
    spans::{Span, Spans},
};

/// Samples are too few to tell in less.
const FEW: Duration = TICK.saturating_mul(3);

/// That they were all taken is believed although samples show a little less.
const MISSED: f64 = 0.1;

/// Requests that each take a processor for less keep nobody waiting by themselves: where they do, they
/// are too many.
const LONG: Duration = Duration::from_millis(100);

/// Of moments in which `goroutine` had something to do and did not run, those that it spent queueing
/// for a processor: all, or none.
pub(crate) fn queued(scene: &Scene<'_>, pid: Pid, goroutine: u64, moments: Spans) -> Spans {
    let whole = moments.total();
    let Some(processors) = processors(scene, pid).filter(|_| whole >= FEW) else {
        return Spans::default();
    };
    let free = MISSED.min(0.5 / f64::from(processors));
    if taken(scene, pid, goroutine, &moments) >= (whole * processors).mul_f64(1.0 - free) {
        moments
    } else {
        Spans::default()
    }
}

/// How many goroutines of `pid` can run at once.
pub(crate) fn processors(scene: &Scene<'_>, pid: Pid) -> Option<u32> {
    let told = scene.model.runtime(pid)?.last().1.max_procs?;
    let host = scene.model.host().map(|host| host.last().1.cpus);
    let cpus = host.filter(|cpus| *cpus > 0).unwrap_or(told);
    Some(told.min(cpus).max(1))
}

/// For how long, of all processors together, others than `goroutine` had them: they ran, or had lost
/// the CPU to another process and held on to the processor.
fn taken(scene: &Scene<'_>, pid: Pid, goroutine: u64, moments: &Spans) -> Duration {
    let mut sum = Duration::ZERO;
    for window in moments.iter() {
        let others = scene
            .schedule
            .samples_of_all(pid, window)
            .filter(|sampled| sampled.sample.goroutine != Some(goroutine));
        sum += TICK * u32::try_from(others.count()).unwrap_or(u32::MAX);
        let waits = scene.schedule.waits(pid, window).filter(|wait| {
            wait.told.why != Waiting::Woken && wait.told.goroutine.is_some_and(|id| id != goroutine)
        });
        let within = |wait| Spans::from(span(wait)).within(&window.into()).total();
        sum += waits.map(within).sum::<Duration>();
    }
    sum
}

/// What requests are told together by that take the processors: the port at which they are served, and
/// their route.
pub(crate) type Taker = (u16, String);

/// A request that a goroutine served.
#[derive(Debug)]
struct Turn {
    during: Span,
    request: (SocketId, u32),
    taker: Taker,
}

/// Which requests each goroutine served.
#[derive(Debug, Default)]
pub(crate) struct Turns(HashMap<(Pid, u64), Vec<Turn>>);

impl Turns {
    /// Of every process that was sampled.
    pub(crate) fn of(scene: &Scene<'_>) -> Self {
        let mut all: HashMap<_, Vec<Turn>> = HashMap::new();
        for connection in scene.servers() {
            if !scene.schedule.watched(connection.pid) {
                continue;
            }
            for exchange in connection.exchanges() {
                let goroutine = exchange.actor.and_then(|actor| actor.goroutine);
                let (Some(id), Some(kind)) = (goroutine, Kind::of(&exchange)) else {
                    continue;
                };
                all.entry((connection.pid, id)).or_default().push(Turn {
                    during: held_up::window(scene, connection, &exchange),
                    request: (connection.socket, exchange.number),
                    taker: (connection.local.port(), kind.route),
                });
            }
        }
        Self(all)
    }

    /// The requests that had most of `pid`'s processors in `window`, `goroutine` apart, where each had
    /// one for long.
    pub(crate) fn taker(
        &self,
        scene: &Scene<'_>,
        (pid, goroutine): (Pid, u64),
        window: Span,
    ) -> Option<&Taker> {
        let mut all = 0_u32;
        let mut samples: BTreeMap<&Taker, u32> = BTreeMap::new();
        let mut requests: BTreeSet<(&Taker, (SocketId, u32))> = BTreeSet::new();
        for sampled in scene.schedule.samples_of_all(pid, window) {
            let other = sampled.sample.goroutine.filter(|id| *id != goroutine);
            all += u32::from(sampled.sample.goroutine != Some(goroutine));
            let turns = other.and_then(|id| self.0.get(&(pid, id)));
            let at = |turn: &&Turn| (turn.during.0..=turn.during.1).contains(&sampled.at);
            if let Some(turn) = turns.into_iter().flatten().find(at) {
                *samples.entry(&turn.taker).or_default() += 1;
                requests.insert((&turn.taker, turn.request));
            }
        }
        let (taker, samples) = samples.into_iter().max_by_key(|(_, samples)| *samples)?;
        let number = requests.iter().filter(|(of, _)| *of == taker).count();
        let long = TICK * samples >= LONG * u32::try_from(number).unwrap_or(u32::MAX);
        (long && samples * 2 >= all).then_some(taker)
    }
}
