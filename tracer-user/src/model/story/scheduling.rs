//! What threads and their surroundings do, in stories.

use std::time::Duration;

use crate::event::{
    Fact, Histogram, Host, MemoryLimit, Neighbours, Pid, Quota, Running, Runtime, Sample, StackId,
    Thread, Waited, Waiting,
};

use super::{Story, ms};

/// A thread of `pid` that was watched from the beginning and did nothing.
pub(crate) fn thread(pid: Pid, tid: u32) -> Thread {
    Thread {
        pid,
        tid,
        comm: "worker".into(),
        since: ms(0.0),
        ended: false,
        on_cpu: Duration::ZERO,
        woken: Duration::ZERO,
        preempted: Duration::ZERO,
        throttled: Duration::ZERO,
        sleeping: Duration::ZERO,
        uninterruptible: Duration::ZERO,
        voluntary: 0,
        involuntary: 0,
        migrations: 0,
        slices: Histogram::default(),
        waits: Histogram::default(),
    }
}

impl Story {
    /// A thread's sums at `at`.
    pub(crate) fn thread(&mut self, at: f64, thread: Thread) -> &mut Self {
        self.tell(at, Fact::Thread(thread))
    }

    /// Thread `tid` of `pid`, with `goroutine` on it, got a CPU at `until` for which it had waited since
    /// `from`; before it `by` had it: process and name.
    pub(crate) fn waited(
        &mut self,
        (from, until): (f64, f64),
        (pid, tid, goroutine): (Pid, u32, Option<u64>),
        why: Waiting,
        by: Option<(Pid, &str)>,
    ) -> &mut Self {
        let by = by.map(|(pid, comm)| Running {
            pid,
            tid: pid,
            comm: comm.into(),
        });
        let waited = Waited {
            pid,
            tid,
            goroutine,
            from: ms(from),
            why,
            by,
        };
        self.tell(until, Fact::Waited(waited))
    }

    /// `pid` was seen `number` times at `stack`, with `goroutine`, evenly between two moments.
    pub(crate) fn samples(
        &mut self,
        (from, until): (f64, f64),
        (pid, goroutine): (Pid, Option<u64>),
        stack: Option<StackId>,
        number: u32,
    ) -> &mut Self {
        for n in 0..number {
            let at = from + (until - from) * (f64::from(n) + 0.5) / f64::from(number);
            let sample = Sample {
                pid,
                tid: pid,
                goroutine,
                stack,
                kernel: None,
            };
            self.tell(at, Fact::Sampled(sample));
        }
        self
    }

    pub(crate) fn quota(&mut self, at: f64, quota: Quota) -> &mut Self {
        self.tell(at, Fact::Quota(quota))
    }

    pub(crate) fn memory_limit(&mut self, at: f64, limit: MemoryLimit) -> &mut Self {
        self.tell(at, Fact::MemoryLimit(limit))
    }

    pub(crate) fn runtime(&mut self, at: f64, runtime: Runtime) -> &mut Self {
        self.tell(at, Fact::Runtime(runtime))
    }

    pub(crate) fn host(&mut self, at: f64, host: Host) -> &mut Self {
        self.tell(at, Fact::Host(host))
    }

    /// Who is no target and had the CPUs since the window began: process, name and milliseconds.
    pub(crate) fn neighbours(&mut self, at: f64, busiest: &[(Pid, &str, u64)]) -> &mut Self {
        let busiest = busiest
            .iter()
            .map(|(pid, comm, took)| (*pid, (*comm).into(), Duration::from_millis(*took)))
            .collect();
        self.tell(at, Fact::Neighbours(Neighbours { busiest }))
    }
}
