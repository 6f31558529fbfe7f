//! What gopulse costs, and what it does without when that is more than it may.
//!
//! In: the CPU time of our process, and for a moment of each turn the run time that the kernel counts of our
//! programs (`BPF_ENABLE_STATS`; all the time that would cost 50 ns a run). Out: programs taken away in the
//! order of [`STEPS`], then a share of the connections alone. What always holds: what is shed is told, once
//! and for the rest of the window; it does not come back, since a watch that goes on and off cannot be told
//! from a service that does.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{Program, ProgramType},
    sys::{Stats, enable_stats},
};
use nix::time::{ClockId, clock_gettime};
use tracer_ebpf as wire;

use super::{
    Sink,
    live::{Live, tell},
    seed::bytes,
};
use crate::{
    capabilities::{self, raised},
    event::{Fact, Shed, Unseen},
};

/// Something to do without, and the programs that go with it.
struct Step {
    shed: Shed,
    programs: &'static [&'static str],
}

/// What is shed, in this order: what costs most and is needed least for a verdict goes first.
const STEPS: [Step; 3] = [
    Step {
        shed: Shed::Packets,
        programs: &["packet_out", "packet_in"],
    },
    Step {
        shed: Shed::Samples,
        programs: &["sampled"],
    },
    Step {
        shed: Shed::Scheduler,
        programs: &["switched_with_state", "switched", "woken", "woken_first"],
    },
];
/// When nothing else is left: of the connections one in so many is followed, at the least.
const FEWEST: u32 = 64;

/// Between two looks at the costs.
const TURN: Duration = Duration::from_millis(500);
/// The first look comes soon, since a budget is spent soon.
const FIRST: Duration = Duration::from_millis(150);
/// For so long of each turn the kernel counts.
const COUNTED: Duration = Duration::from_millis(50);
/// What was spent too much is saved again within this time; and what was saved may be spent within it.
const EVEN: f64 = 5.0;
/// Of a turn's excess a step must save so much, or it is left for later.
const WORTH: f64 = 0.05;
/// A breakpoint's trap, which no program's run time holds.
const TRAP: Duration = Duration::from_micros(5);
/// Work beside the draining comes in bursts: its rate is that of so long a time, at least.
const BURSTS: f64 = 10.0;

/// The costs of our programs in CPUs, by name.
type Rates = HashMap<String, f64>;

/// What a program has cost when it was asked.
struct Read {
    ran: Duration,
    runs: u64,
    traps: bool,
}

/// What may be spent, and what was.
pub(super) struct Budget {
    /// CPUs; `None` where there is no bound.
    most: Option<f64>,
    map: Array<MapData, [u8; size_of::<wire::Shed>()]>,
    taken: Taken,
    began: Instant,
    next: Instant,
    /// The kernel counts, since then.
    counting: Option<(Instant, HashMap<String, Read>, OwnedFd)>,
    clocks: Clocks,
    /// CPU seconds spent too much so far; negative where some were saved.
    debt: f64,
    /// The work beside the draining so far.
    beside: f64,
}

/// Our own CPU time so far.
#[derive(Clone, Copy)]
struct Clocks {
    at: Instant,
    process: Duration,
    thread: Duration,
}

impl Clocks {
    fn read() -> Self {
        let time = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        Self {
            at: Instant::now(),
            process: time(ClockId::CLOCK_PROCESS_CPUTIME_ID),
            thread: time(ClockId::CLOCK_THREAD_CPUTIME_ID),
        }
    }
}

impl Budget {
    pub(super) fn new(
        most: Option<f64>,
        map: Array<MapData, [u8; size_of::<wire::Shed>()]>,
    ) -> Self {
        let now = Instant::now();
        Self {
            most,
            map,
            taken: Taken::default(),
            began: now,
            next: now + FIRST,
            counting: None,
            clocks: Clocks::read(),
            debt: 0.0,
            beside: 0.0,
        }
    }

    /// The watch begins: what was spent to get there does not count.
    pub(super) fn begin(&mut self) {
        self.began = Instant::now();
        self.next = self.began + FIRST;
        self.clocks = Clocks::read();
    }

    /// The part of a CPU that goroutines may be read in.
    pub(super) fn for_rounds(most: Option<f64>) -> f64 {
        /// Reading them all is never worth more.
        const ROUNDS: f64 = 0.05;
        most.map_or(ROUNDS, |most| (most / 4.0).min(ROUNDS))
    }

    /// It was shed.
    pub(super) fn lacks(&self, shed: Shed) -> bool {
        let mut steps = STEPS.iter().zip(self.taken.steps);
        steps.any(|(step, taken)| taken && step.shed == shed)
    }

    fn begin_counting(&mut self, ebpf: &Ebpf) -> Result<(), String> {
        let begun = raised(capabilities::Step::Counts, || enable_stats(Stats::RunTime));
        let counts = begun.map_err(|error| error.to_string())?;
        self.counting = Some((Instant::now(), read(ebpf), counts));
        Ok(())
    }

    /// What each program costs now, once it was counted for long enough.
    fn counted(&mut self, ebpf: &Ebpf) -> Option<Rates> {
        let (since, before, counts) = self.counting.take()?;
        let time = since.elapsed();
        if time < COUNTED {
            self.counting = Some((since, before, counts));
            return None;
        }
        let after = read(ebpf);
        drop(counts);
        let rate = |name: String, after: Read| {
            let (ran, runs) = before.get(&name).map_or((after.ran, after.runs), |before| {
                (
                    after.ran.saturating_sub(before.ran),
                    after.runs.saturating_sub(before.runs),
                )
            });
            let traps = if after.traps {
                TRAP.as_secs_f64() * runs as f64
            } else {
                0.0
            };
            (name, (ran.as_secs_f64() + traps) / time.as_secs_f64())
        };
        Some(
            after
                .into_iter()
                .map(|(name, after)| rate(name, after))
                .collect(),
        )
    }

    /// What is shed now, where this costs too much, with what is spent in CPUs.
    fn weigh(&mut self, programs: &Rates) -> (Vec<Shed>, f64) {
        let Some(most) = self.most else {
            return (Vec::new(), 0.0);
        };
        let now = Clocks::read();
        let time = now
            .at
            .duration_since(self.clocks.at)
            .as_secs_f64()
            .max(0.001);
        let process = (now.process.saturating_sub(self.clocks.process)).as_secs_f64();
        let drain = (now.thread.saturating_sub(self.clocks.thread)).as_secs_f64();
        self.clocks = now;
        self.beside += (process - drain).max(0.0);
        let kernel: f64 = programs.values().sum();
        let spent = kernel + process / time;
        self.debt = (self.debt + (spent - most) * time).clamp(-most * EVEN, most * EVEN);
        let ran = now.at.duration_since(self.began).as_secs_f64();
        let costs = Costs {
            programs,
            drain: drain / time,
            beside: self.beside / ran.max(BURSTS),
        };
        let may = (most - self.debt / EVEN).clamp(most / 2.0, most * 1.1);
        // What is told is what it comes to over a while, not the last moment alone.
        let told = spent.max(most + self.debt / EVEN);
        (self.taken.steps(&costs, may), told)
    }
}

/// What was shed so far.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Which of [`STEPS`].
    steps: [bool; STEPS.len()],
    /// One connection in so many is followed; 0 for all.
    one_in: u32,
}

impl Taken {
    /// Takes as many steps as bring the costs down to what may be spent, as far as is known beforehand.
    fn steps(&mut self, costs: &Costs<'_>, may: f64) -> Vec<Shed> {
        let mut shed = Vec::new();
        let mut excess = costs.sum() - may;
        for (step, taken) in STEPS.iter().zip(&mut self.steps) {
            let saves = costs.of(step.programs);
            if !*taken && excess > 0.0 && saves > excess * WORTH {
                *taken = true;
                excess -= saves;
                shed.push(step.shed);
            }
        }
        let saved = costs.sum() - may - excess;
        let followed = costs.sum() - costs.beside - saved;
        let before = self.one_in.max(1);
        let mut one_in = before;
        let saves = |one_in: u32| followed * (1.0 - f64::from(before) / f64::from(one_in));
        while one_in < FEWEST && excess > saves(one_in) {
            one_in *= 2;
        }
        if one_in > before {
            self.one_in = one_in;
            shed.push(Shed::Connections { one_in });
        }
        shed
    }
}

/// What gopulse costs, in CPUs.
struct Costs<'a> {
    programs: &'a Rates,
    /// The thread that drains.
    drain: f64,
    /// All others.
    beside: f64,
}

impl Costs<'_> {
    fn sum(&self) -> f64 {
        self.programs.values().sum::<f64>() + self.drain + self.beside
    }

    fn of(&self, programs: &[&str]) -> f64 {
        let each = programs.iter().filter_map(|name| self.programs.get(*name));
        each.sum()
    }
}

impl Live {
    /// Looks at what we cost, and sheds what is too much.
    pub(super) fn keep_budget(&mut self, sink: &mut dyn Sink) {
        let Some(most) = self.budget.most else {
            return;
        };
        if let Some(rates) = self.budget.counted(&self.probes.ebpf) {
            let (sheds, spent) = self.budget.weigh(&rates);
            for shed in sheds {
                self.shed(shed, sink);
                let budget = most;
                tell(
                    sink,
                    Fact::Shed {
                        shed,
                        spent,
                        budget,
                    },
                );
            }
        }
        if Instant::now() < self.budget.next || self.budget.counting.is_some() {
            return;
        }
        self.budget.next = Instant::now() + TURN;
        if let Err(why) = self.budget.begin_counting(&self.probes.ebpf) {
            self.budget.most = None;
            tell(
                sink,
                Fact::Unseen(Unseen {
                    what: "what gopulse itself costs, so that it keeps to no CPU budget".to_owned(),
                    why: format!("the kernel does not count its programs' time: {why}"),
                    remedy: "Linux 5.8 or later, and CAP_SYS_ADMIN".to_owned(),
                }),
            );
        }
    }

    fn shed(&mut self, shed: Shed, sink: &mut dyn Sink) {
        if shed == Shed::Scheduler {
            // Their sums end here, and are not told again.
            self.tell_sums(true, sink);
        }
        for step in STEPS.iter().filter(|step| step.shed == shed) {
            for name in step.programs {
                take_away(&mut self.probes.ebpf, name);
            }
        }
        let told = wire::Shed {
            packets: self.budget.lacks(Shed::Packets).into(),
            one_in: self.budget.taken.one_in,
        };
        // A map of one entry that is there from the start takes every write.
        let _ = self.budget.map.set(0, bytes(&told), 0);
    }
}

/// Detaches a program wherever it is, and gives it back to the kernel.
fn take_away(ebpf: &mut Ebpf, name: &str) {
    // One that was never loaded on this kernel has nothing to give back.
    let _ = match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::CgroupSkb(program)) => program.unload(),
        Some(Program::PerfEvent(program)) => program.unload(),
        _ => Ok(()),
    };
}

/// What the kernel has counted of each program that is loaded.
fn read(ebpf: &Ebpf) -> HashMap<String, Read> {
    let loaded = ebpf.programs().filter_map(|(name, program)| {
        let info = program.info().ok()?;
        let read = Read {
            ran: info.run_time(),
            runs: info.run_count(),
            traps: program.prog_type() == ProgramType::KProbe,
        };
        Some((name.to_owned(), read))
    });
    loaded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shed where programs cost that much beside a draining thread at 1%.
    fn shed(of: &[(&str, f64)], taken: &mut Taken, may: f64) -> Vec<Shed> {
        let rates: Rates = of
            .iter()
            .map(|(name, rate)| ((*name).to_owned(), *rate))
            .collect();
        let costs = Costs {
            programs: &rates,
            drain: 0.01,
            beside: 0.0,
        };
        taken.steps(&costs, may)
    }

    const BUSY: [(&str, f64); 5] = [
        ("packet_in", 0.05),
        ("packet_out", 0.05),
        ("sampled", 0.001),
        ("switched", 0.04),
        ("socket_state", 0.08),
    ];

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(shed(&BUSY, &mut Taken::default(), 0.25), []);
    }

    #[test]
    fn packets_go_first_and_what_saves_nothing_stays() {
        assert_eq!(shed(&BUSY, &mut Taken::default(), 0.2), [Shed::Packets]);
        let mut taken = Taken::default();
        let both = shed(&BUSY, &mut taken, 0.1);
        assert_eq!(both, [Shed::Packets, Shed::Scheduler]);
        let rest = [("sampled", 0.001), ("socket_state", 0.12)];
        let more = shed(&rest, &mut taken, 0.03);
        assert_eq!(more, [Shed::Connections { one_in: 8 }]);
        // What is left is not what following connections takes.
        let more = shed(&[("socket_state", 0.1)], &mut taken, 0.001);
        assert_eq!(more, [Shed::Connections { one_in: 64 }]);
        assert_eq!(shed(&[("socket_state", 0.1)], &mut taken, 0.001), []);
    }
}
