//! What requests met with on the scheduler while their server worked on them.
//!
//! In come the exchange as the server's end saw it, the waits of the process's threads and the samples
//! of who ran; out come sets of moments that overlap nowhere: stopped by the quota, waiting for a CPU,
//! running, queueing in Go's own scheduler. Waits that befell the goroutine (outside Go: the thread) that
//! served the request are its own. Others are inferred, and only where something waited to be done for the
//! request and was done right after: where in doubt, a wait belongs to nobody. Time on CPU is an
//! estimate: each sample stands for a tick of the profiler's clock, so it is right to about a tick at each
//! end.

use std::{collections::HashMap, time::Duration};

use crate::{
    event::{BootInstant, Pid, Role, Waiting},
    model::{Connection, Exchange, Kind, Sampled, TICK, Wait},
};

use super::{
    scene::Scene,
    schedule::{Runner, around, span},
    spans::{Span, Spans},
    turns,
    usual::TIMES_USUAL,
};

/// Whoever is woken for something is woken this soon after it.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What was held up goes on this soon after: the CPU's other threads, and the process's other
/// goroutines, may come first.
const SOON: Duration = Duration::from_millis(20);

/// Half ticks around a sample in which its runner may have run as well.
const FARTHEST: u32 = 16;

/// A request that was served, with what kept its server from running.
#[derive(Clone, Debug)]
pub(crate) struct HeldUp<'m> {
    /// The server's end.
    pub(crate) connection: &'m Connection,
    /// The request.
    pub(crate) exchange: Exchange,
    /// It could have gone on, had a CPU been free.
    pub(crate) run_queue: Duration,
    /// It could have gone on, had the quota not been used up.
    pub(crate) throttled: Duration,
    /// What of the two befell its own goroutine or thread; the rest is inferred.
    pub(crate) own: Duration,
    /// Half of the requests of its kind take no longer.
    pub(crate) usual: Option<Duration>,
}

/// Requests that each process served, as far as they are kept, that waited for a CPU or for the quota at all.
pub(crate) fn all<'m>(scene: &Scene<'m>) -> HashMap<Pid, Vec<HeldUp<'m>>> {
    let mut all: HashMap<Pid, Vec<HeldUp<'m>>> = HashMap::new();
    for connection in scene.servers() {
        if !scene.schedule.watched(connection.pid) {
            continue;
        }
        let held = connection
            .exchanges()
            .into_iter()
            .map(|exchange| of(scene, connection, exchange))
            .filter(|held| !(held.run_queue + held.throttled).is_zero());
        all.entry(connection.pid).or_default().extend(held);
    }
    all
}

/// One request, `connection` being its server's end.
pub(crate) fn of<'m>(
    scene: &Scene<'m>,
    connection: &'m Connection,
    exchange: Exchange,
) -> HeldUp<'m> {
    let times = Times::of(scene, connection, &exchange);
    HeldUp {
        run_queue: times.run_queue.total(),
        throttled: times.throttled.total(),
        own: times.own,
        usual: Kind::of(&exchange).and_then(|kind| scene.usual(connection, &kind)),
        connection,
        exchange,
    }
}

/// Samples of a request's runner while it worked on it, oldest first.
pub(crate) fn samples<'m>(
    scene: &Scene<'m>,
    connection: &Connection,
    exchange: &Exchange,
) -> Vec<&'m Sampled> {
    let request = Request::of(scene, connection, exchange);
    request.samples(scene).collect()
}

/// The same as moments, which overlap nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) throttled: Spans,
    pub(crate) run_queue: Spans,
    pub(crate) on_cpu: Spans,
    /// Waiting for one of Go's processors.
    pub(crate) queued: Spans,
    own: Duration,
}

impl Times {
    /// Of one request, `connection` being its server's end.
    pub(crate) fn of(scene: &Scene<'_>, connection: &Connection, exchange: &Exchange) -> Self {
        let pid = connection.pid;
        if connection.role != Role::Server || !scene.schedule.watched(pid) {
            return Self::default();
        }
        let request = Request::of(scene, connection, exchange);
        let own = |why: &[Waiting]| request.own_waits(why);
        let own_throttled = own(&[Waiting::Throttled]);
        let own_queue = own(&[Waiting::Woken, Waiting::Preempted]).without(&own_throttled);
        let own = own_throttled.and(&own_queue);
        let throttled = own_throttled.and(&request.stopped(scene).without(&own));
        let run_queue = own_queue.and(&request.woken_for().without(&throttled));
        let waited = throttled.and(&run_queue);
        let on_cpu = request.ran(scene, &waited);
        let queued = match request.runner {
            Some(Runner::Goroutine(id)) => {
                let unusual = is_unusual(scene, connection, exchange, request.window);
                let open = request.open(&waited.and(&on_cpu), unusual);
                turns::queued(scene, pid, id, open)
            }
            _ => Spans::default(),
        };
        Self {
            on_cpu,
            queued,
            throttled,
            run_queue,
            own: own.total(),
        }
    }
}

/// A request in the eyes of the scheduler.
struct Request<'m> {
    pid: Pid,
    /// From when it was there to the first byte of its answer.
    window: Span,
    /// Since when its goroutine or thread is known to have it.
    taken: BootInstant,
    /// Who runs it alone.
    runner: Option<Runner>,
    /// The thread that runs it among others.
    among_others: Option<u32>,
    /// Something lay ready to be read for it, from when until it was read.
    ready: Vec<Span>,
    /// It had nothing to do: the rest of it had not come, or another service had not answered.
    idle: Spans,
    /// When its runner was seen to run, or to lose or get the CPU; in order.
    running: Vec<BootInstant>,
    /// The same, and what was done for it otherwise.
    steps: Vec<BootInstant>,
    waits: Vec<&'m Wait>,
}

impl<'m> Request<'m> {
    fn of(scene: &Scene<'m>, connection: &Connection, exchange: &Exchange) -> Self {
        let pid = connection.pid;
        let window = window(scene, connection, exchange);
        let upstream = scene.upstreams.during(connection.socket, exchange.number);
        let arrived = exchange.arrived.unwrap_or(exchange.started);
        let mut ready = vec![(arrived, exchange.started)];
        let mut idle = vec![(exchange.started, exchange.request_ended)];
        let mut steps = vec![exchange.started];
        steps.extend(exchange.first_byte);
        for wait in upstream {
            let Some((asked, answered)) = wait.span() else {
                continue;
            };
            let came = wait.exchange.arrived.unwrap_or(answered);
            idle.push((asked, came));
            ready.push((came, answered));
            steps.extend([asked, answered]);
        }
        ready.retain(|(since, read)| since < read);
        let (runner, among_others) = who_runs(scene, connection, exchange);
        let mut request = Self {
            pid,
            window,
            taken: match runner {
                // A goroutine belongs to its connection; a thread may have had others before.
                Some(Runner::Goroutine(_)) => window.0,
                _ => exchange.started,
            },
            runner,
            among_others,
            ready,
            idle: Spans::of(idle),
            running: Vec::new(),
            steps,
            waits: scene.schedule.waits(pid, window).collect(),
        };
        request.ran_at(scene);
        request
    }

    fn ran_at(&mut self, scene: &Scene<'m>) {
        if let Some(runner) = self.runner {
            let seen: Vec<_> = self.samples(scene).map(|sampled| sampled.at).collect();
            self.running.extend(seen);
            let lost = self.waits.iter().filter(|wait| is_of(wait, runner));
            let ends = lost.flat_map(|wait| [wait.told.from, wait.until]);
            self.running.extend(ends);
        }
        self.steps.extend(&self.running);
        self.running.sort_unstable();
        self.steps.sort_unstable();
    }

    fn own_window(&self) -> Span {
        (self.taken, self.window.1)
    }

    /// Waits that befell its runner.
    fn own_waits(&self, why: &[Waiting]) -> Spans {
        let Some(runner) = self.runner else {
            return Spans::default();
        };
        let own = |wait: &&&Wait| is_of(wait, runner) && why.contains(&wait.told.why);
        Spans::of(self.waits.iter().filter(own).map(|wait| span(wait)))
            .within(&self.own_window().into())
    }

    /// When its runner ran, outside of what is `explained`: as much as its samples stand for, next to
    /// each of them. Of a runner that is preempted again and again the sample falls in a slice that is
    /// shorter than a tick, and stands for those before and after it as well.
    fn ran(&self, scene: &Scene<'m>, explained: &Spans) -> Spans {
        let samples: Vec<&Sampled> = self.samples(scene).collect();
        let free = Spans::from(self.own_window())
            .without(explained)
            .without(&self.idle);
        let worth = TICK * u32::try_from(samples.len()).unwrap_or(u32::MAX);
        let near = |halves: u32| {
            let half = TICK / 2 * halves;
            Spans::of(samples.iter().map(|sampled| around(sampled.at, half))).within(&free)
        };
        let mut ran = near(1);
        for halves in 2..=FARTHEST {
            if ran.total() >= worth {
                break;
            }
            let more = near(halves);
            if more.total() > worth + TICK {
                break;
            }
            ran = more;
        }
        ran
    }

    fn samples(&self, scene: &Scene<'m>) -> impl Iterator<Item = &'m Sampled> {
        let samples = |runner| scene.schedule.samples(self.pid, runner, self.own_window());
        self.runner.map(samples).into_iter().flatten()
    }

    /// When nobody could go on with it because the quota had stopped all who could.
    fn stopped(&self, scene: &Scene<'_>) -> Spans {
        scene
            .schedule
            .stopped(self.pid)
            .map_or_else(Spans::default, |stopped| self.believed(stopped))
    }

    /// When a thread that was to go on with it waited for a CPU.
    fn woken_for(&self) -> Spans {
        let chains = self.ready.iter().flat_map(|ready| self.chain(*ready));
        let woken = Spans::of(chains).within(&self.window.into());
        let Some(tid) = self.among_others else {
            return woken;
        };
        let preempted = self
            .waits
            .iter()
            .filter(|wait| wait.told.tid == tid && wait.told.why == Waiting::Preempted);
        let preempted = Spans::of(preempted.map(|wait| span(wait)));
        woken.and(&self.believed(&preempted))
    }

    /// When it had something to do, as far as can be told, outside of what is `explained`: what was
    /// ready was not read, or its goroutine had run right before or did right after. Where it took an
    /// `unusual` time nothing else is asked for: others of its kind have nothing to wait for.
    fn open(&self, explained: &Spans, unusual: bool) -> Spans {
        let left = Spans::from(self.window).without(explained);
        let ready = left.within(&Spans::of(self.ready.iter().copied()));
        let working = left.without(&self.idle).only(|(from, until)| {
            unusual || any(&self.running, (from.minus(TICK), until.plus(TICK)))
        });
        ready.and(&working)
    }

    /// Of moments in which nobody could run it, those in which something lay ready for it, and those
    /// right before which it ran, or right after which something was done for it. In others it may have
    /// been waiting for something else, a timer or a lock, and have lost nothing.
    fn believed(&self, stopped: &Spans) -> Spans {
        let stopped = Spans::from(self.window).within(stopped);
        let ready = stopped.within(&Spans::of(self.ready.iter().copied()));
        let working = stopped.without(&self.idle).only(|(from, until)| {
            any(&self.running, (from.minus(TICK), from))
                || any(&self.steps, (until, until.plus(SOON)))
        });
        ready.and(&working)
    }

    /// The threads that were woken one after the other from when something lay ready until it was
    /// read: the one that waits for the network wakes the one that will run the goroutine.
    fn chain(&self, (since, read): Span) -> Vec<Span> {
        let mut links = Vec::new();
        let mut at = since;
        let next = |at: BootInstant| {
            let early = at.minus(AT_ONCE);
            self.waits
                .iter()
                .filter(|wait| wait.told.why == Waiting::Woken)
                .filter(|wait| self.among_others.is_none_or(|tid| wait.told.tid == tid))
                .filter(|wait| (early..=at.plus(AT_ONCE)).contains(&wait.told.from))
                .filter(|wait| wait.until > at && wait.until <= read)
                .min_by_key(|wait| wait.until)
        };
        while let Some(wait) = next(at) {
            links.push((wait.told.from.max(at), wait.until));
            at = wait.until;
        }
        if read.since(at) > SOON {
            links.clear();
        }
        links
    }
}

/// From when the request was there until its answer began; until its end, or now, where none did.
pub(crate) fn window(scene: &Scene<'_>, connection: &Connection, exchange: &Exchange) -> Span {
    let arrived = exchange.arrived.unwrap_or(exchange.started);
    let over = exchange.complete.then_some(exchange.last_byte);
    let until = exchange.first_byte.or(over).or(connection.ended());
    (
        arrived.min(exchange.started),
        until.unwrap_or(scene.model.now()),
    )
}

/// It took many times what half of its kind take.
fn is_unusual(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: &Exchange,
    (from, until): Span,
) -> bool {
    Kind::of(exchange)
        .and_then(|kind| scene.usual(connection, &kind))
        .is_some_and(|usual| until.since(from) >= usual * TIMES_USUAL)
}

/// Who runs the request alone, and who runs it among others.
fn who_runs(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: &Exchange,
) -> (Option<Runner>, Option<u32>) {
    let Some(actor) = exchange.actor.filter(|actor| actor.pid == connection.pid) else {
        return (None, None);
    };
    if scene.model.is_go(connection.pid) {
        return (actor.goroutine.map(Runner::Goroutine), None);
    }
    if scene.schedule.is_loop(connection.pid, actor.tid) {
        (None, Some(actor.tid))
    } else {
        (Some(Runner::Thread(actor.tid)), None)
    }
}

fn is_of(wait: &Wait, runner: Runner) -> bool {
    match runner {
        Runner::Goroutine(id) => wait.told.goroutine == Some(id),
        Runner::Thread(tid) => wait.told.tid == tid,
    }
}

/// One of `moments`, which are in order, is in `span`, its ends included.
fn any(moments: &[BootInstant], (from, until): Span) -> bool {
    let first = moments.partition_point(|moment| *moment < from);
    moments.get(first).is_some_and(|moment| *moment <= until)
}
