//! Requests that waited for their turn in Go's scheduler.
//!
//! A goroutine runs only while it has one of the `GOMAXPROCS` processors (runtime's P), and when all of
//! them are taken it queues in the program, where the kernel sees nobody wait. That it queued is
//! inferred: it had something to do, and all processors were taken by other goroutines.

use std::time::Duration;

use crate::{
    event::{Pid, Waiting},
    model::TICK,
};

use super::{scene::Scene, schedule::span, spans::Spans};

/// Samples are too few to tell in less.
const FEW: Duration = TICK.saturating_mul(3);

/// That they were all taken is believed although samples show a little less.
const MISSED: f64 = 0.1;

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
