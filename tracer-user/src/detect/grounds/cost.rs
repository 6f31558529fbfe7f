//! What one kind of work costs a process: its share of the CPU time, and what requests lost to it.
//!
//! In come the process's samples and the requests it served; out comes how much of the CPU the work took,
//! and for each request how much later its answer came. A request loses time to such work in two ways:
//!
//! - its own goroutine was caught doing it;
//! - it had to do something else, and all that may run of its process at a time did run already, or
//!   waited for a CPU itself. What it waited then it waited for whatever these did, for each work its
//!   share. Goroutines that are ready wait in queues of Go's own, which the kernel does not see.
//!
//! While a process could do more at a time nobody waits, and background work harms nobody, however
//! much it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use crate::{
    detect::{
        finding::Severity,
        own_code::{brief, own_frame},
    },
    event::{Frame, Pid, SocketId},
    model::{Connection, Exchange, Kind, Model, TICK},
};

use super::{
    harm,
    held_up::{self, Times},
    lateness::is_plain,
    runtime_work::Work,
    scene::Scene,
    schedule::{self, Runner},
    slowness,
    spans::{Span, Spans},
    standing::serves_http,
    usual::TIMES_USUAL,
    works::{Works, capacity, own_lines, time},
};

/// Fewer samples (half a second of CPU time) are too few to divide by kinds.
const ENOUGH: u64 = 50;

/// Who loses less does not notice, and a busy machine takes it without anybody's fault.
const NOTICED: Duration = Duration::from_millis(50);

/// A smaller part of what a request took is not what made it late.
const PART: u32 = 4;

/// Shares are taken over this time around a request at least: at 99 samples a second a shorter one says
/// nothing.
const AROUND: Duration = Duration::from_millis(500);

/// A process can do no more at a time when it does, or wants to do, so much of what it may; the rest is
/// what samples and changes of threads lose.
const TAKEN: f64 = 0.85;

/// What goroutines are blocked in that wait for each other, as the runtime words it.
pub(crate) const WAITS_FOR_ANOTHER: [&str; 8] = [
    "chan send",
    "chan receive",
    "select",
    "semacquire",
    "sync.Mutex.Lock",
    "sync.RWMutex.Lock",
    "sync.Cond.Wait",
    "sync.WaitGroup.Wait",
];

/// Fewer handlers seen tell no share of them.
const LOOKED_AT: u64 = 8;

/// So many late answers make a habit of it.
const HABIT: usize = 3;

/// A smaller share of the requests is an outlier, and worth knowing only.
const OUTLIERS: f64 = 0.01;

/// What a kind of work took, and from whom.
pub(crate) struct Cost<'m> {
    /// Samples of the process.
    pub(crate) samples: u64,
    /// Those caught in it.
    pub(crate) caught: u64,
    /// CPUs that it had on average.
    pub(crate) cpus: f64,
    /// CPUs that the process may use; `None` where it is not known.
    pub(crate) capacity: Option<f64>,
    /// Requests that lost enough by it, the worst first.
    pub(crate) hit: Vec<Hit<'m>>,
    /// Requests served where these were.
    pub(crate) served: u64,
    /// What else the process did.
    pub(crate) works: Works,
}

/// A request that lost time.
pub(crate) struct Hit<'m> {
    /// The server's end.
    pub(crate) connection: &'m Connection,
    /// The request.
    pub(crate) exchange: Exchange,
    /// From when it was there to its answer, or to the end of what was seen.
    pub(crate) wait: Duration,
    /// So much of it was lost; an estimate.
    pub(crate) lost: Duration,
    /// Of that, what its own goroutine was caught in; the rest is inferred.
    pub(crate) own: Duration,
    /// It was answered that the service is overloaded.
    pub(crate) refused: bool,
    /// Half of its kind take no longer than this.
    pub(crate) usual: Option<Duration>,
}

/// How the work is known to have held a request up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It took the CPU.
    Crowding,
    /// That, or the request itself was handed from one to the other.
    HandingOver,
}

impl<'m> Cost<'m> {
    /// Of the work that `counts`, for `pid`; `None` where it was sampled too little to tell.
    pub(crate) fn of(
        scene: &Scene<'m>,
        pid: Pid,
        way: Way,
        counts: impl Fn(Work) -> bool,
    ) -> Option<Self> {
        let works = Works::of(scene.model, pid);
        let samples = works.number(|_| true);
        if samples < ENOUGH {
            return None;
        }
        let capacity = capacity(scene.model, pid);
        let unnamed = works.marking_beyond_its_share(scene.model.watched(), capacity);
        let mut caught = works.number(&counts);
        if counts(Work::Marking) {
            caught = caught.saturating_sub(unnamed);
        }
        let watched = scene.model.watched().max(TICK);
        let look = Look {
            scene,
            pid,
            works: &works,
            counts: &counts,
            capacity,
            awake: awake(scene, pid),
        };
        let hit = look.hits(way);
        Some(Self {
            samples,
            caught,
            cpus: time(caught).as_secs_f64() / watched.as_secs_f64(),
            capacity,
            served: served(scene, &hit),
            hit,
            works,
        })
    }

    /// Its share of the process's CPU time.
    pub(crate) fn share(&self) -> f64 {
        self.caught as f64 / self.samples.max(1) as f64
    }

    /// Nobody harmed, or hardly anybody, is worth knowing; late answers are a warning; where a good part
    /// is turned away it is critical.
    pub(crate) fn severity(&self) -> Severity {
        let number = self.hit.len();
        let all = self.served.max(number as u64);
        if number < HABIT || (number as f64) < all as f64 * OUTLIERS {
            return Severity::Info;
        }
        harm::severity_of(self.refused(), all).max(Severity::Warning)
    }

    /// Requests that were turned away.
    pub(crate) fn refused(&self) -> u64 {
        self.hit.iter().filter(|hit| hit.refused).count() as u64
    }

    /// The sockets of the requests that were hit, at both ends: what became of them is told here. None
    /// where it is worth knowing only.
    pub(crate) fn explained(&self) -> HashSet<SocketId> {
        if self.severity() == Severity::Info {
            return HashSet::new();
        }
        self.hit
            .iter()
            .flat_map(|hit| [Some(hit.connection.socket), hit.connection.other_end])
            .flatten()
            .collect()
    }
}

/// Requests served on the ports where these came in.
fn served(scene: &Scene<'_>, hit: &[Hit<'_>]) -> u64 {
    let places: BTreeMap<u16, &Connection> = hit
        .iter()
        .map(|hit| (hit.connection.local.port(), hit.connection))
        .collect();
    places
        .values()
        .map(|c| scene.served_at(c.pid, c.local).exchanges.exchanges)
        .sum()
}

/// The share of the handlers of `pid` that did not sleep when they were looked at; all where few were.
fn awake(scene: &Scene<'_>, pid: Pid) -> f64 {
    let (mut all, mut asleep) = (0, 0);
    for (state, frames, number) in scene.model.seen(pid) {
        if serves_http(frames) && own_frame(frames).is_some() {
            all += number;
            asleep += if state == "sleep" { number } else { 0 };
        }
    }
    if all < LOOKED_AT {
        return 1.0;
    }
    1.0 - asleep as f64 / all as f64
}

/// At how many places handlers waited for others in a file that has one of these lines. Few samples of handing over
/// show whose it is; but who always waits at one place there may have nothing to do with it.
fn places_beside(model: &Model, pid: Pid, givers: &[(Frame, u64)]) -> usize {
    let waiting = model
        .seen(pid)
        .filter(|(state, frames, _)| serves_http(frames) && WAITS_FOR_ANOTHER.contains(state));
    let own = waiting.filter_map(|(_, frames, _)| own_frame(frames));
    let beside = own.filter(|own| {
        let mut files = givers.iter().map(|(giver, _)| &giver.file);
        own.file.is_some() && files.any(|file| *file == own.file)
    });
    beside.map(brief).collect::<BTreeSet<_>>().len()
}

/// Requests in the eyes of one kind of work.
struct Look<'s, 'm, F> {
    scene: &'s Scene<'m>,
    pid: Pid,
    works: &'s Works,
    counts: &'s F,
    capacity: Option<f64>,
    /// The share of the handlers that did not sleep when they were looked at.
    awake: f64,
}

/// What happened around a request.
struct Around {
    /// The work's share of the process's CPU time, without what idle processors did for the collector.
    share: f64,
    /// The process could not do more at a time.
    taken: bool,
}

impl<'m, F: Fn(Work) -> bool> Look<'_, 'm, F> {
    fn hits(&self, way: Way) -> Vec<Hit<'m>> {
        let mut hit = Vec::new();
        let servers = self.scene.servers();
        let servers: Vec<&Connection> = servers.filter(|c| c.pid == self.pid).collect();
        let handed = match way {
            Way::Crowding => BTreeSet::new(),
            Way::HandingOver => self.handed_over(&servers),
        };
        for connection in servers {
            for exchange in connection.exchanges() {
                let handed = Kind::of(&exchange).is_some_and(|kind| handed.contains(&kind));
                hit.extend(self.hit(connection, exchange, handed));
            }
        }
        hit.sort_by_key(|hit: &Hit<'_>| std::cmp::Reverse(hit.lost));
        hit
    }

    fn hit(&self, connection: &'m Connection, exchange: Exchange, handed: bool) -> Option<Hit<'m>> {
        let kind = Kind::of(&exchange).filter(|kind| !slowness::is_poll(kind))?;
        if !is_plain(&exchange) {
            return None;
        }
        let window = held_up::window(self.scene, connection, &exchange);
        let upstream = self
            .scene
            .upstreams
            .during(connection.socket, exchange.number);
        let transfer = Spans::from((exchange.started, exchange.request_ended));
        let elsewhere = transfer.and(&Spans::of(upstream.iter().filter_map(|wait| wait.span())));
        let waited = Spans::from(window).without(&elsewhere);
        let around = self.around(window);
        // 503 and 504 say so themselves (RFC 9110, 15.6.4 and 15.6.5).
        let refused = around.taken
            && around.share * f64::from(PART) >= 1.0
            && upstream.is_empty()
            && matches!(exchange.status, Some(503 | 504));
        let own = self.own(&exchange, window);
        let lost = own + self.shared(connection, &exchange, (window, &waited), &around, handed);
        let wait = waited.total();
        if !refused && (lost < NOTICED || lost * PART < wait) {
            return None;
        }
        let usual = self.scene.usual(connection, &kind);
        Some(Hit {
            usual: usual.filter(|usual| wait >= *usual * TIMES_USUAL),
            connection,
            exchange,
            wait,
            lost,
            own,
            refused,
        })
    }

    /// What it lost while its goroutine did not run.
    fn shared(
        &self,
        connection: &Connection,
        exchange: &Exchange,
        (window, waited): (Span, &Spans),
        around: &Around,
        handed: bool,
    ) -> Duration {
        let times = Times::of(self.scene, connection, exchange);
        let idle = waited.without(&times.on_cpu).without(&times.throttled);
        // Whoever sleeps on purpose loses nothing. Whoever was seen to run does not only sleep.
        let awake = if times.on_cpu.total().is_zero() {
            self.awake
        } else {
            1.0
        };
        let shared = idle.total().mul_f64(around.share * awake);
        if around.taken {
            return shared;
        }
        if handed {
            // Not more than was spent on it, whatever else the request waited for.
            return shared.min(self.caught_in(window));
        }
        Duration::ZERO
    }

    /// What the request's own goroutine was caught in.
    fn own(&self, exchange: &Exchange, window: Span) -> Duration {
        let Some(id) = exchange.actor.and_then(|actor| actor.goroutine) else {
            return Duration::ZERO;
        };
        let samples = self
            .scene
            .schedule
            .samples(self.pid, Runner::Goroutine(id), window);
        let caught = samples.filter(|sampled| (self.counts)(self.works.at(&sampled.sample)));
        time(caught.count() as u64)
    }

    fn caught_in(&self, window: Span) -> Duration {
        let samples = self.scene.schedule.samples_of_all(self.pid, window);
        let caught = samples.filter(|sampled| (self.counts)(self.works.at(&sampled.sample)));
        time(caught.count() as u64)
    }

    /// Kinds of requests that are handed from one to the other: at any moment one of a row of goroutines
    /// works for the request, so of a long one its own is seen now and then. Seldom is enough where handlers
    /// wait for others in a file in which work is handed over, and not at all needed where they wait in such
    /// a function, or now here and now there in such a file.
    fn handed_over(&self, servers: &[&'m Connection]) -> BTreeSet<Kind> {
        let mut seen: BTreeMap<Kind, (Duration, Duration)> = BTreeMap::new();
        for connection in servers {
            for exchange in connection.exchanges() {
                let Some(kind) = Kind::of(&exchange) else {
                    continue;
                };
                let window = held_up::window(self.scene, connection, &exchange);
                let sums = seen.entry(kind).or_default();
                sums.0 += self.own(&exchange, window);
                sums.1 += window.1.since(window.0);
            }
        }
        let (there, beside) = self.handlers_hand_over(servers);
        seen.retain(|kind, (own, whole)| {
            there
                .as_ref()
                .is_some_and(|kinds| kinds.is_empty() || kinds.contains(kind))
                || beside > 1
                || (beside > 0 && !own.is_zero())
                || (*own >= TICK * HABIT as u32 && *own >= *whole / 100)
        });
        seen.into_keys().collect()
    }

    /// Whether handlers, when last looked at, waited for others in a function in which work is handed over,
    /// and for which kinds of requests, as far as they are known; and at how many places of a file in which it
    /// is, in all looks.
    fn handlers_hand_over(&self, servers: &[&'m Connection]) -> (Option<BTreeSet<Kind>>, usize) {
        let model = self.scene.model;
        let givers = own_lines(model, self.pid, |work, _| (self.counts)(work));
        let mut there = HashSet::new();
        for (id, at) in model.everybody(self.pid) {
            let waits = serves_http(at.frames) && WAITS_FOR_ANOTHER.contains(&at.state);
            let Some(own) = own_frame(at.frames).filter(|_| waits) else {
                continue;
            };
            if givers
                .iter()
                .any(|(giver, _)| giver.function == own.function)
            {
                there.insert(id);
            }
        }
        let asked = servers
            .iter()
            .filter_map(|connection| connection.exchanges().pop());
        let kinds = asked
            .filter(|asked| {
                asked
                    .actor
                    .and_then(|a| a.goroutine)
                    .is_some_and(|id| there.contains(&id))
            })
            .filter_map(|asked| Kind::of(&asked));
        let there = (!there.is_empty()).then(|| kinds.collect());
        (there, places_beside(model, self.pid, &givers))
    }

    fn around(&self, (from, until): Span) -> Around {
        let missing = AROUND.saturating_sub(until.since(from)) / 2;
        let from = from.minus(missing);
        let model = self.scene.model;
        let (from, until) = (
            from.max(model.source().started),
            until.plus(missing).min(model.now()),
        );
        let (mut used, mut caught) = (0, 0);
        for sampled in self.scene.schedule.samples_of_all(self.pid, (from, until)) {
            let work = self.works.at(&sampled.sample);
            used += u64::from(work != Work::IdleMarking);
            caught += u64::from((self.counts)(work));
        }
        let waits = self.scene.schedule.waits(self.pid, (from, until));
        let waiting: Duration = waits
            .map(|wait| Spans::from(schedule::span(wait)).within(&(from, until).into()))
            .map(|moments| moments.total())
            .sum();
        let most = self.capacity.map(|cpus| until.since(from).mul_f64(cpus));
        Around {
            share: caught as f64 / used.max(1) as f64,
            taken: most.is_some_and(|most| time(used) + waiting >= most.mul_f64(TAKEN)),
        }
    }
}
