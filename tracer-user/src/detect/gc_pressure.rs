//! `gc-pressure`: garbage collection costs the requests.
//!
//! A collection marks what is alive with a quarter of the CPUs, and lets goroutines that allocate help
//! where that is not enough; both is CPU time that requests do not have. How much it is follows from
//! two things: how fast the program allocates, and how much the heap may grow before it is collected
//! again (`GOGC`, `GOMEMLIMIT`). Both can be changed, so both are told.
//!
//! Not accused: marking by processors that had nothing else to do; a batch job that allocates; a
//! service whose answers came in time all the same.

use std::time::Duration;

use crate::{
    event::{BootInstant, Frame, Pid, Runtime},
    model::Model,
};

use super::{
    docket::{Case, Docket},
    finding::{Measured, Rule, Severity},
    grounds::{
        cost::{Cost, Way},
        lost_time::{Told, lines},
        runtime_work::{Work, allocates, timer_functions},
        scene::Scene,
        works::own_lines,
    },
    own_code::{brief, own_frame},
    wording::{bytes, count, percent},
};

/// While it collects, the runtime means to take a quarter of the CPUs (`gcBackgroundUtilization` in
/// `runtime/mgcpacer.go`); who has more than that of the whole window collects all the time.
const MUCH: f64 = 0.25;

/// Where requests were late for it, less is enough. Services that allocate with moderation have 5 to 10%.
const HARMFUL: f64 = 0.15;

/// Nobody looks for a part of a CPU that is smaller.
const CPUS: f64 = 0.25;

/// What the collector's share should come down to.
const AIM: f64 = 0.1;

/// A `GOGC` that is not worth naming: beyond it memory grows faster than the CPU time falls.
const MOST: f64 = 800.0;

/// The default of `GOGC`, in percent.
const DEFAULT: i32 = 100;

/// Adds a case for each process.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for process in scene.model.processes() {
        if let Some(case) = case(scene, docket, process.about.pid) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, docket: &Docket, pid: Pid) -> Option<Case> {
    let cost = Cost::of(scene, pid, Way::Crowding, Work::is_collecting)?;
    let harms = cost.severity() > Severity::Info && cost.share() >= HARMFUL;
    if !harms && (cost.share() < MUCH || cost.cpus < CPUS) {
        return None;
    }
    let model = scene.model;
    let allocators = own_lines(model, pid, |_, frames| allocates(frames));
    let code = allocators.first().map(|(frame, _)| frame.clone());
    let heap = Heap::of(model, pid);
    let assist = cost.works.share(|work| work == Work::Assist);
    let measured = Measured {
        collections_per_s: heap.collections_per_s,
        live_bytes: heap.last.live_bytes,
        assist_share: Some((assist * 1000.0).round() / 1000.0),
        ..Measured::default()
    };
    let told = Told {
        rule: Rule::GcPressure,
        what: "garbage collection",
        sentences: sentences(model, pid, &cost, &heap, &allocators),
        measured,
        advice: advice(&heap, cost.share(), code.as_ref()),
        code,
        incomplete: heap.collections_per_s.is_none().then(|| {
            "How often it collects, and how much is alive, could not be read from the process's memory.".into()
        }),
    };
    Some(Case {
        finding: cost.finding(model, pid, told),
        cause: made_by_timers(model, pid)
            .then(|| docket.worst_of(Rule::TimerAbuse, pid))
            .flatten(),
        explains: cost.explained(),
    })
}

fn sentences(
    model: &Model,
    pid: Pid,
    cost: &Cost<'_>,
    heap: &Heap,
    allocators: &[(Frame, u64)],
) -> Vec<String> {
    let assist = cost.works.share(|work| work == Work::Assist);
    let mut told = vec![format!(
        "The garbage collector took {} of the CPU time of {}: {}; what idle processors did for it is not in this.",
        percent(cost.share()),
        model.name(pid),
        cost.of_cpus(),
    )];
    if assist > 0.0 {
        told.push(format!(
            "{} is of goroutines that wanted to allocate and had to help first.",
            percent(assist)
        ));
    }
    let waiting: u64 = model
        .goroutine_groups()
        .iter()
        .filter(|group| group.pid == pid && group.state.starts_with("GC assist"))
        .map(|group| group.count)
        .sum();
    if waiting > 0 {
        told.push(format!(
            "{} for it to get on, when last looked at (GC assist wait).",
            count(waiting, "goroutine waited", "goroutines waited")
        ));
    }
    told.extend(heap.sentence());
    if let Some(lines) = lines(allocators) {
        told.push(format!("Memory is asked for, by samples, in {lines}."));
    }
    told
}

/// Most of what is allocated are timers, or what is made for them at the very line that makes them: the
/// closure that `time.AfterFunc` is given is allocated by its caller.
fn made_by_timers(model: &Model, pid: Pid) -> bool {
    let sets_timers = |frames: &[Frame]| !timer_functions([frames]).is_empty();
    let stacks = || {
        let places = model.places(pid);
        places.map(|((stack, _), number)| (model.frames(stack), number))
    };
    let lines: Vec<&Frame> = stacks()
        .filter(|(frames, _)| sets_timers(frames))
        .filter_map(|(frames, _)| own_frame(frames))
        .collect();
    let for_timers = |frames: &[Frame]| {
        sets_timers(frames) || own_frame(frames).is_some_and(|own| lines.contains(&own))
    };
    let (mut timers, mut all) = (0, 0);
    for (frames, number) in stacks().filter(|(frames, _)| allocates(frames)) {
        all += number;
        timers += number * u64::from(for_timers(frames));
    }
    timers * 2 > all
}

/// What the runtime said of its heap.
struct Heap {
    last: Runtime,
    collections_per_s: Option<f64>,
}

impl Heap {
    fn of(model: &Model, pid: Pid) -> Self {
        let course = model.runtime(pid);
        let rate = course.and_then(|course| {
            let counted = |(at, read): &(BootInstant, Runtime)| Some((*at, read.collections?));
            let (from, first) = course.readings().find_map(counted)?;
            let (until, last) = counted(course.last())?;
            let apart = until.since(from);
            let number = last.saturating_sub(first);
            (apart >= Duration::from_millis(500)).then(|| number as f64 / apart.as_secs_f64())
        });
        Self {
            last: course
                .map(|course| course.last().1.clone())
                .unwrap_or_default(),
            collections_per_s: rate.map(|rate| (rate * 10.0).round() / 10.0),
        }
    }

    fn sentence(&self) -> Option<String> {
        let rate = self.collections_per_s?;
        let mut told = format!("It collects {rate:.1} times a second");
        if let Some(live) = self.last.live_bytes {
            told.push_str(&format!(", with {} alive", bytes(live)));
        }
        if let Some(percent) = self.last.gc_percent {
            match percent {
                ..0 => told.push_str(", GOGC=off"),
                _ => told.push_str(&format!(", GOGC={percent}")),
            }
        }
        if let Some(limit) = self.last.memory_limit {
            told.push_str(&format!(" and GOMEMLIMIT={}", bytes(limit)));
        }
        told.push('.');
        Some(told)
    }

    /// The memory limit leaves less room than `GOGC` would.
    fn is_limited(&self) -> bool {
        let (Some(limit), Some(live)) = (self.last.memory_limit, self.last.live_bytes) else {
            return false;
        };
        match self.last.gc_percent {
            Some(percent @ 0..) => limit < heap_at(live, f64::from(percent)),
            _ => true,
        }
    }
}

/// How large the heap grows before it is collected.
fn heap_at(live: u64, percent: f64) -> u64 {
    (live as f64 * (1.0 + percent / 100.0)) as u64
}

fn advice(heap: &Heap, share: f64, code: Option<&Frame>) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(frame) = code {
        advice.push(format!(
            "Allocate less in {}: reuse buffers (sync.Pool), give slices their capacity, pass values instead of pointers. `go tool pprof -sample_index=alloc_space` on /debug/pprof/allocs counts the bytes.",
            brief(frame)
        ));
    }
    advice.push(room(heap, share));
    advice
}

/// The same program collects as rarely as the heap has room: twice the room, half the work.
fn room(heap: &Heap, share: f64) -> String {
    let live = heap.last.live_bytes;
    if heap.is_limited() {
        let (limit, live) = (
            heap.last.memory_limit.unwrap_or_default(),
            live.unwrap_or_default(),
        );
        return format!(
            "Raise GOMEMLIMIT: {} leaves {} above the {} that are alive, so it collects again and again; with as much room as it has live, {}.",
            bytes(limit),
            bytes(limit.saturating_sub(live)),
            bytes(live),
            bytes(heap_at(live, 100.0))
        );
    }
    let now = heap.last.gc_percent.filter(|percent| *percent > 0);
    let percent_now = f64::from(now.unwrap_or(DEFAULT));
    // The collector's time per request falls in proportion, the program's stays.
    let times = share * (1.0 - AIM) / (AIM * (1.0 - share).max(AIM));
    let wanted = (percent_now * times.max(2.0) / 50.0).ceil() * 50.0;
    let wanted = wanted.min(MOST).max(percent_now);
    match (now, live) {
        (Some(now), Some(live)) => format!(
            "Set GOGC={wanted:.0} instead of {now}: the heap then grows to about {} instead of {} before it is collected, {:.0} times as rarely. A GOMEMLIMIT below the memory there is keeps it from growing beyond.",
            bytes(heap_at(live, wanted)),
            bytes(heap_at(live, percent_now)),
            wanted / percent_now
        ),
        _ => format!(
            "Give the heap more room: GOGC=200 collects half as often as the default of {DEFAULT}, for one and a half times the memory; a GOMEMLIMIT below the memory there is keeps it from growing beyond."
        ),
    }
}
