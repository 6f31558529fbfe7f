//! The threads in the report: those that waited most for a CPU first.

use std::{collections::HashSet, time::Duration};

use crate::{
    detect::{Finding, Rule},
    event::{Pid, Thread},
    model::Model,
};

use super::json::ThreadTold;

/// Threads told one by one.
const THREADS: usize = 500;

/// The finding is about what threads did, or could not do.
pub(super) fn is_about_threads(finding: &Finding) -> bool {
    match finding.rule {
        Rule::SchedulerThrash
        | Rule::RunQueueDelay
        | Rule::CpuThrottled
        | Rule::TimerAbuse
        | Rule::GcPressure => true,
        Rule::SlowResponse => ["on_cpu", "run_queue", "throttled", "go_run_queue"]
            .iter()
            .any(|part| finding.measured.parts_s.contains_key(*part)),
        _ => false,
    }
}

/// The threads that are told, and how many are not: those of processes that findings about threads
/// name, then those that were kept longest from running, then the busiest.
pub(super) fn threads(model: &Model, findings: &[Finding]) -> (Vec<ThreadTold>, u64) {
    let about = findings.iter().filter(|finding| is_about_threads(finding));
    let named: HashSet<Pid> = about.map(|finding| finding.process.pid).collect();
    let mut chosen: Vec<&Thread> = model.threads().collect();
    let kept_from = |thread: &Thread| thread.run_queue() + thread.throttled;
    chosen.sort_by_key(|thread| {
        std::cmp::Reverse((
            named.contains(&thread.pid),
            kept_from(thread),
            thread.on_cpu,
        ))
    });
    let too_many = chosen.len().saturating_sub(THREADS) as u64;
    let told = chosen.into_iter().take(THREADS).map(ThreadTold::from);
    (told.collect(), model.threads_left_out() + too_many)
}

impl From<&Thread> for ThreadTold {
    fn from(thread: &Thread) -> Self {
        let seconds = Duration::as_secs_f64;
        let states = [
            thread.on_cpu,
            thread.run_queue(),
            thread.throttled,
            thread.blocked(),
        ];
        Self {
            pid: thread.pid,
            tid: thread.tid,
            comm: thread.comm.clone(),
            on_cpu_s: seconds(&thread.on_cpu),
            run_queue_s: seconds(&thread.run_queue()),
            woken_s: seconds(&thread.woken),
            preempted_s: seconds(&thread.preempted),
            run_queue_p99_s: seconds(&thread.waits.quantile(0.99)),
            throttled_s: seconds(&thread.throttled),
            off_cpu_s: seconds(&thread.blocked()),
            uninterruptible_s: seconds(&thread.uninterruptible),
            watched_s: states.iter().map(seconds).sum(),
            ended: thread.ended,
            slice_p50_s: seconds(&thread.slices.quantile(0.5)),
            switches_voluntary: thread.voluntary,
            switches_involuntary: thread.involuntary,
            migrations: thread.migrations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Histogram,
        model::story::{Story, thread},
    };

    #[test]
    fn threads_that_could_not_run_come_first_and_those_left_out_are_counted() {
        let mut story = Story::new();
        story.go(7, "shop");
        for tid in 0..600 {
            let mut idle = thread(7, tid);
            idle.sleeping = Duration::from_secs(30);
            story.thread(1.0, idle);
        }
        let mut busy = thread(7, 599);
        busy.on_cpu = Duration::from_millis(1500);
        busy.woken = Duration::from_millis(200);
        busy.preempted = Duration::from_millis(300);
        busy.throttled = Duration::from_millis(400);
        busy.sleeping = Duration::from_millis(27_600);
        busy.waits = Histogram(vec![0, 0, 99, 1]);
        story.thread(2.0, busy);
        let model = story.model(30_000.0);
        let (told, left_out) = threads(&model, &[]);
        assert_eq!((told.len(), left_out), (THREADS, 100));
        let first = &told[0];
        assert_eq!(
            (first.tid, first.run_queue_s, first.throttled_s),
            (599, 0.5, 0.4)
        );
        assert_eq!(first.run_queue_p99_s, 1536e-9);
        assert!((first.watched_s - 30.0).abs() < 1e-9);
    }
}
