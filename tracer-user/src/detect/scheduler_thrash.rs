//! `scheduler-thrash`: who works is changed so often that it costs the requests.
//!
//! Handing a piece of work to another goroutine takes from a tenth of a microsecond, where the other one
//! runs next on the same thread, to some tens, where a thread must be woken on another CPU. It pays for
//! pieces that take longer than that. Where more CPU time goes into changing who works than into work,
//! the pieces are too small.
//!
//! Not accused: who switches often because it waits for the network often, and answers in time; a
//! pipeline that is busy, and harms nobody; a service that does little, whose CPU time is mostly waking up.

use std::time::Duration;

use crate::{
    event::{Frame, Histogram, Pid},
    model::{Group, Model},
};

use super::{
    docket::{Case, Docket},
    finding::{Measured, Rule, Severity},
    grounds::{
        cost::{Cost, WAITS_FOR_ANOTHER, Way},
        lost_time::{Told, lines},
        runtime_work::Work,
        scene::Scene,
        works::own_lines,
    },
    own_code::{brief, own_frame},
    wording::{count, join, percent, seconds},
};

/// More goes into changing who works than into work.
const MUCH: f64 = 0.5;

/// Nobody looks for a part of a CPU that is smaller.
const CPUS: f64 = 0.25;

/// Groups of goroutines that are named.
const GROUPS: usize = 3;

/// Adds a case for each process.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for process in scene.model.processes() {
        if let Some(case) = case(scene, docket, process.about.pid) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, docket: &Docket, pid: Pid) -> Option<Case> {
    let cost = Cost::of(scene, pid, Way::HandingOver, |work| {
        work == Work::Scheduling
    })?;
    if cost.share() < MUCH || cost.cpus < CPUS {
        return None;
    }
    let model = scene.model;
    let switching = Switching::of(model, pid);
    let givers = own_lines(model, pid, |work, _| work == Work::Scheduling);
    let meeting = meeting(model, pid, &givers);
    let code = givers.first().map(|(frame, _)| frame.clone());
    let code = code.or_else(|| own_frame(&meeting.first()?.frames).cloned());
    let measured = Measured {
        switches_per_s: Some(switching.per_second.round()),
        slice_s: Some(switching.slice.as_secs_f64()).filter(|slice| *slice > 0.0),
        goroutines: Some(meeting.iter().map(|group| group.count).sum()).filter(|n| *n > 0),
        ..Measured::default()
    };
    let told = Told {
        rule: Rule::SchedulerThrash,
        what: "changing who works",
        sentences: sentences(model, pid, &cost, &switching, &givers, &meeting),
        measured,
        advice: vec![advice(code.as_ref(), &switching)],
        code,
        incomplete: None,
    };
    Some(Case {
        finding: cost.finding(model, pid, told),
        // Timers that wake goroutines all the time make them be scheduled all the time.
        cause: docket
            .worst_of(Rule::TimerAbuse, pid)
            .filter(|place| harms(docket, *place)),
        explains: cost.explained(),
    })
}

fn harms(docket: &Docket, place: usize) -> bool {
    docket
        .finding(place)
        .is_some_and(|finding| finding.severity > Severity::Info)
}

fn sentences(
    model: &Model,
    pid: Pid,
    cost: &Cost<'_>,
    switching: &Switching,
    givers: &[(Frame, u64)],
    meeting: &[Group],
) -> Vec<String> {
    let by = if model.is_go(pid) {
        "by Go's scheduler, its channels and locks, and the kernel's switches of threads"
    } else {
        "by the kernel, which wakes threads and puts them to sleep"
    };
    let mut told = vec![format!(
        "{} of the CPU time of {} ({}) went into changing who works, {by}.",
        percent(cost.share()),
        model.name(pid),
        cost.of_cpus(),
    )];
    told.extend(switching.sentence());
    if let Some(lines) = lines(givers) {
        told.push(format!("Work is handed over, by samples, in {lines}."));
    }
    let told_of = meeting.iter().take(GROUPS).filter_map(|group| {
        let at = own_frame(&group.frames)?;
        Some(format!(
            "{} in {} ({})",
            group.count,
            brief(at),
            group.state
        ))
    });
    let groups: Vec<String> = told_of.collect();
    if !groups.is_empty() {
        told.push(format!(
            "Of the goroutines that wait for each other, when last looked at: {}.",
            join(&groups)
        ));
    }
    told
}

fn advice(code: Option<&Frame>, switching: &Switching) -> String {
    let at = code.map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
    let threads = if switching.is_of_threads() {
        " Who is bound to a thread (runtime.LockOSThread) makes every hand-over one of threads: unbind it, or let it take many pieces at once."
    } else {
        ""
    };
    format!(
        "Hand over more at a time{at}: batches instead of single items, a channel with room (make(chan T, n)), fewer stages, or the work done where it arises.{threads}"
    )
}

/// The goroutines that wait where work is handed over; where none is known, the largest groups of
/// those that wait for each other.
fn meeting(model: &Model, pid: Pid, givers: &[(Frame, u64)]) -> Vec<Group> {
    let mut groups = model.goroutine_groups();
    groups.retain(|group| {
        group.pid == pid
            && WAITS_FOR_ANOTHER.contains(&group.state.as_str())
            && own_frame(&group.frames).is_some()
    });
    let (known, others): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|group| {
        own_frame(&group.frames).is_some_and(|own| {
            givers
                .iter()
                .any(|(frame, _)| frame.function == own.function)
        })
    });
    if known.is_empty() { others } else { known }
}

/// How a process's threads are switched.
struct Switching {
    per_second: f64,
    /// The median time for which a thread has a CPU.
    slice: Duration,
    on_cpu: Duration,
    switches: u64,
    /// Switches because the thread blocked.
    voluntary: u64,
}

impl Switching {
    fn of(model: &Model, pid: Pid) -> Self {
        let mut slices = Histogram::default();
        let (mut on_cpu, mut voluntary, mut involuntary) = (Duration::ZERO, 0, 0);
        let threads = model.threads().chain(model.threads_gone());
        for thread in threads.filter(|thread| thread.pid == pid) {
            slices.add(&thread.slices);
            on_cpu += thread.on_cpu;
            voluntary += thread.voluntary;
            involuntary += thread.involuntary;
        }
        let switches = voluntary + involuntary;
        let watched = model.watched().as_secs_f64();
        Self {
            per_second: if watched > 0.0 {
                switches as f64 / watched
            } else {
                0.0
            },
            slice: slices.quantile(0.5),
            on_cpu,
            switches,
            voluntary,
        }
    }

    /// The threads themselves are switched all the time, and not only what they work on: at less than
    /// this they cannot do more than a few hand-overs in between.
    fn is_of_threads(&self) -> bool {
        self.switches > 0
            && self.on_cpu / u32::try_from(self.switches).unwrap_or(u32::MAX)
                < Duration::from_micros(100)
    }

    fn sentence(&self) -> Option<String> {
        let mean = self
            .on_cpu
            .checked_div(u32::try_from(self.switches).ok()?)?;
        let often = count(self.per_second as u64, "time", "times");
        let blocked = self.voluntary as f64 / self.switches as f64;
        let median = if self.slice.is_zero() {
            String::new()
        } else {
            format!(", half of the times for less than {}", micros(self.slice))
        };
        Some(format!(
            "Its threads were switched {often} a second, {} because they had to wait; they ran {} at a time{median}.",
            percent(blocked),
            micros(mean),
        ))
    }
}

/// `4 µs`; as other times are written from a millisecond on.
fn micros(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{:.0} µs", time.as_secs_f64() * 1e6)
    } else {
        seconds(time)
    }
}
