//! `timer-abuse`: the Go runtime's timers eat the CPU.
//!
//! Every timer that is set, stopped or fires is work in a heap, under a lock. One that fires makes a
//! goroutine runnable, too. A hundred thousand of them that do so every second leave a service little
//! time for anything else, and those that nobody stops become more until it is restarted.
//!
//! Not accused: timers that many requests have and that cost next to nothing; tickers of an idle
//! service, which wakes for little else; any number of goroutines asleep. Where no request was late for
//! it, it is worth knowing only.

use crate::{
    event::{Frame, Pid},
    model::{Group, Model},
};

use super::{
    docket::{Case, Docket},
    finding::{Measured, Rule, Severity},
    grounds::{
        cost::{Cost, Way},
        lost_time::{Told, lines},
        runtime_work::{Work, timer_functions},
        scene::Scene,
        works::own_lines,
    },
    own_code::{brief, own_frame},
    wording::{count, join, percent},
};

/// Who gets rid of a quarter of the work has a third more time for the rest. Less is no reason to
/// rebuild a service.
const MUCH: f64 = 0.25;

/// Where requests were late for it, in bursts maybe, so much of the whole window is enough. An ordinary
/// service, with several limits of time for each request, has less than half of that.
const HARMFUL: f64 = 0.1;

/// Nobody looks for a part of a CPU that is smaller.
const CPUS: f64 = 0.25;

/// So many goroutines at one line are a crowd that somebody meant to have ended, or should not have
/// started one by one.
const CROWD: u64 = 1_000;

/// By so much of itself a crowd grows in a second, if it leaks.
const GROWS: f64 = 0.001;

/// Adds a case for each process.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    for process in scene.model.processes() {
        if let Some(case) = case(scene, process.about.pid) {
            docket.add(case);
        }
    }
}

fn case(scene: &Scene<'_>, pid: Pid) -> Option<Case> {
    let cost = Cost::of(scene, pid, Way::Crowding, |work| work == Work::Timers)?;
    let harms = cost.severity() > Severity::Info && cost.share() >= HARMFUL;
    if !harms && (cost.share() < MUCH || cost.cpus < CPUS) {
        return None;
    }
    let model = scene.model;
    let makers = own_lines(model, pid, |work, _| work == Work::Timers);
    let crowd = crowd(model, pid, &makers);
    let timers = timers(model, pid);
    let line = makers.first().map(|(frame, _)| frame.clone());
    let code = line.or_else(|| own_frame(&crowd.as_ref()?.frames).cloned());
    let mut measured = Measured {
        timers,
        ..Measured::default()
    };
    if let Some(crowd) = &crowd {
        measured.goroutines = Some(crowd.count);
        measured.growth_per_s = crowd.growth_per_second;
    }
    let scheduling = cost.works.share(|work| work == Work::Scheduling);
    let mut sentences = vec![format!(
        "The timers of the Go runtime took {} of the CPU time of {}: {}.",
        percent(cost.share()),
        model.name(pid),
        cost.of_cpus(),
    )];
    if scheduling >= HARMFUL {
        sentences.push(format!(
            "Scheduling, much of it of the goroutines that they wake, took another {}.",
            percent(scheduling)
        ));
    }
    if let Some(timers) = timers {
        sentences.push(format!(
            "There are {} in its heaps.",
            count(timers, "timer", "timers")
        ));
    }
    if let Some(lines) = lines(&makers) {
        sentences.push(format!(
            "Of what the program itself does with them, by samples: {lines}."
        ));
    }
    sentences.extend(crowd.as_ref().and_then(crowded));
    let told = Told {
        rule: Rule::TimerAbuse,
        what: "timers",
        sentences,
        measured,
        advice: advice(model, pid, code.as_ref(), crowd.as_ref()),
        code,
        incomplete: timers.is_none().then(|| {
            "How many timers there are could not be read from the process's memory.".into()
        }),
    };
    Some(Case {
        finding: cost.finding(model, pid, told),
        cause: None,
        explains: cost.explained(),
    })
}

/// Timers in the heaps when they were counted last.
fn timers(model: &Model, pid: Pid) -> Option<u64> {
    model.runtime(pid)?.last().1.timers
}

/// The goroutines at the lines that set timers; where none is, the largest crowd of those that may be
/// waiting for one.
fn crowd(model: &Model, pid: Pid, makers: &[(Frame, u64)]) -> Option<Group> {
    let mut groups = model.goroutine_groups();
    groups.retain(|group| group.pid == pid && group.count >= CROWD && may_wait_for_a_timer(group));
    let at_one = |group: &Group| {
        own_frame(&group.frames).is_some_and(|own| {
            makers
                .iter()
                .any(|(frame, _)| frame.function == own.function)
        })
    };
    let known = groups.iter().position(at_one).unwrap_or(0);
    (known < groups.len()).then(|| groups.swap_remove(known))
}

fn may_wait_for_a_timer(group: &Group) -> bool {
    ["select", "chan receive", "sleep"].contains(&group.state.as_str())
}

/// `200012 goroutines wait (select) at …, started by …`.
fn crowded(crowd: &Group) -> Option<String> {
    let at = own_frame(&crowd.frames)?;
    let mut told = format!(
        "{} goroutines wait ({}) at {}",
        crowd.count,
        crowd.state,
        brief(at)
    );
    if let Some(starter) = &crowd.created_by {
        told.push_str(&format!(", started by {}", brief(starter)));
    }
    match crowd
        .growth_per_second
        .filter(|growth| leaks(crowd, *growth))
    {
        Some(growth) => told.push_str(&format!(
            "; they become {growth:.0} more in a second, so they leak as well."
        )),
        None => told.push('.'),
    }
    Some(told)
}

fn leaks(crowd: &Group, growth: f64) -> bool {
    growth >= (crowd.count as f64 * GROWS).max(1.0)
}

fn advice(model: &Model, pid: Pid, code: Option<&Frame>, crowd: Option<&Group>) -> Vec<String> {
    let at = code.map_or_else(String::new, |frame| format!(" at {}", brief(frame)));
    let used = timer_functions(model.places(pid).map(|((stack, _), _)| model.frames(stack)));
    let has = |name: &str| used.iter().any(|function| function == name);
    let mut advice = Vec::new();
    if has("time.After") {
        advice.push(format!(
            "Make one time.Timer before the loop{at} and Reset it each time round: time.After makes a new one every time, which before Go 1.23 stays in the heap until it fires."
        ));
    } else if has("time.(*Timer).Reset") || has("time.(*Ticker).Reset") {
        advice.push(format!(
            "Set the timer less often{at}: note the time of the last activity, and let the timer, when it fires, see whether it is due."
        ));
    } else if has("context.WithTimeout") || has("context.WithDeadline") {
        advice.push(format!(
            "Call what context.WithTimeout and WithDeadline return{at} as soon as the work is done (defer cancel()): a context that nobody cancels keeps its timer in the heap until its deadline. Or let one context with a deadline do for many steps."
        ));
    } else if !used.is_empty() {
        advice.push(format!("Make fewer timers{at} (it calls {}).", join(&used)));
    }
    if let Some(crowd) = crowd {
        let starter = crowd.created_by.as_ref().map_or_else(String::new, |frame| {
            format!(" that {} starts", brief(frame))
        });
        advice.push(format!(
            "End the goroutines{starter} when what they look after is gone, and stop their tickers and timers (defer ticker.Stop()); or let one goroutine with one time.Ticker look after all of it."
        ));
    }
    if advice.is_empty() {
        advice.push(
            "Let one time.Ticker look after many things instead of a timer for each; a minute's limit does not need a timer of its own.".into(),
        );
    }
    advice
}
