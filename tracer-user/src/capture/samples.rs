//! CPU samples: the profiler's clock on every CPU, and where it met the targets and everybody else.
//!
//! In: the kernel half's samples, its map of stacks, its counts of neighbours. Out: a [`Sample`] each,
//! its stacks told before it, and now and then [`Neighbours`]. What always holds: a CPU that comes on
//! line is sampled within a second or so.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuHashMap, StackTraceMap},
    programs::{
        PerfEvent, ProgramError,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util,
};
use tracer_ebpf as wire;
use zerocopy::FromBytes as _;

use super::{
    Sink,
    live::{Live, tell},
    stacks::KERNEL,
    threads::text,
};
use crate::{
    event::{BootInstant, Event, Fact, Neighbours, Pid, Sample, Shed, StackId},
    target,
};

/// Ticks in a second: not a divisor of what programs do at round intervals.
const HZ: u64 = 99;
/// Neighbours that are told.
const BUSIEST: usize = 12;
/// Between two tellings of them.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of the samples.
pub(super) struct Samples {
    stacks: StackTraceMap<MapData>,
    neighbours: PerCpuHashMap<MapData, Pid, [u8; size_of::<wire::Neighbour>()]>,
    /// Names of the stacks by their place in the kernel's map, which they keep.
    names: HashMap<(Pid, u32), Option<StackId>>,
    /// CPUs whose clock ticks for us; `None` where there is none to be had.
    cpus: Option<BTreeSet<u32>>,
    told: Instant,
}

impl Samples {
    pub(super) fn new(
        stacks: StackTraceMap<MapData>,
        neighbours: PerCpuHashMap<MapData, Pid, [u8; size_of::<wire::Neighbour>()]>,
        ebpf: &Ebpf,
    ) -> Self {
        let loaded = ebpf
            .program(PROGRAM)
            .is_some_and(|program| program.fd().is_ok());
        let cpus = loaded.then(|| online().unwrap_or_default().into_iter().collect());
        Self {
            stacks,
            neighbours,
            names: HashMap::new(),
            cpus,
            told: Instant::now(),
        }
    }

    /// A process's addresses mean something else from now on.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.names.retain(|(of, _), _| *of != pid);
    }

    /// Attaches to CPUs that came on line since. The clock of one that went is gone with it.
    fn follow_cpus(&mut self, ebpf: &mut Ebpf) {
        let (Some(cpus), Ok(online)) = (&mut self.cpus, online()) else {
            return;
        };
        cpus.retain(|cpu| online.contains(cpu));
        for cpu in online {
            if cpus.contains(&cpu) {
                continue;
            }
            let program = ebpf.program_mut(PROGRAM);
            let program: Option<&mut PerfEvent> = program.and_then(|it| it.try_into().ok());
            // One that goes again at once is tried again when it is back.
            if program.is_some_and(|program| attach(program, cpu).is_ok()) {
                cpus.insert(cpu);
            }
        }
    }
}

/// The program's name in the object.
const PROGRAM: &str = "sampled";

/// The CPUs that are on line.
pub(super) fn online() -> io::Result<Vec<u32>> {
    util::online_cpus().map_err(|(_, error)| error)
}

/// Lets a CPU's clock tick for the program.
pub(super) fn attach(program: &mut PerfEvent, cpu: u32) -> Result<(), ProgramError> {
    program
        .attach(
            PerfEventConfig::Software(SoftwareEvent::CpuClock),
            PerfEventScope::AllProcessesOneCpu { cpu },
            SamplePolicy::Frequency(HZ),
            false,
        )
        .map(drop)
}

impl Live {
    /// Hands on a sample, whose stacks stand beside it or are kept in the kernel's map.
    pub(super) fn sampled(
        &mut self,
        from: &wire::Sample,
        user: &[u64],
        kernel: &[u64],
        sink: &mut dyn Sink,
    ) {
        let at = BootInstant(from.header.at);
        let mut name = |pid: Pid, beside: &[u64], place: i32| match u32::try_from(place) {
            Ok(place) if beside.is_empty() => self.kept(at, pid, place, sink),
            _ => self.name(at, pid, beside, sink),
        };
        let stack = name(from.tgid, user, from.user);
        let kernel = name(KERNEL, kernel, from.kernel);
        sink.event(Event {
            at,
            fact: Fact::Sampled(Sample {
                pid: from.tgid,
                tid: from.tid,
                goroutine: (from.goid != 0).then_some(from.goid),
                stack,
                kernel,
            }),
        });
    }

    /// The name of the stack at a place in the kernel's map.
    fn kept(
        &mut self,
        at: BootInstant,
        pid: Pid,
        place: u32,
        sink: &mut dyn Sink,
    ) -> Option<StackId> {
        if let Some(name) = self.samples.names.get(&(pid, place)) {
            return *name;
        }
        let found = self.samples.stacks.get(&place, 0).ok()?;
        let addresses: Vec<u64> = found.frames().iter().map(|frame| frame.ip).collect();
        let name = self.name(at, pid, &addresses, sink);
        self.samples.names.insert((pid, place), name);
        name
    }

    /// The name of a stack; told where it is new.
    fn name(
        &mut self,
        at: BootInstant,
        pid: Pid,
        addresses: &[u64],
        sink: &mut dyn Sink,
    ) -> Option<StackId> {
        let program = self
            .processes
            .get(pid)
            .and_then(|known| known.program.as_deref());
        let (name, told) = self.stacks.name(at, pid, addresses, program);
        if let Some(told) = told {
            sink.event(told);
        }
        name
    }

    /// Looks after CPUs that come on line; tells who else has the CPUs if it is time, or at `last`.
    pub(super) fn look_at_cpus(&mut self, last: bool, sink: &mut dyn Sink) {
        if self.budget.lacks(Shed::Samples) {
            return;
        }
        self.samples.follow_cpus(&mut self.probes.ebpf);
        if self.samples.cpus.is_none() || !(last || self.samples.told.elapsed() >= PAUSE) {
            return;
        }
        self.samples.told = Instant::now();
        let met = self.samples.neighbours.iter().flatten();
        let mut busiest: Vec<(Pid, String, Duration)> = met
            // Someone who is a target by now was met before.
            .filter(|(pid, _)| self.processes.get(*pid).is_none())
            .map(|(pid, each)| neighbour(pid, &each))
            .collect();
        busiest.sort_by_key(|(pid, _, time)| (std::cmp::Reverse(*time), *pid));
        busiest.truncate(BUSIEST);
        for (pid, comm, _) in &mut busiest {
            // A process by its own name, not by one of its threads'; where it is gone by that.
            if let Some(name) = target::comm(*pid) {
                *comm = name;
            }
        }
        tell(sink, Fact::Neighbours(Neighbours { busiest }));
    }
}

/// One neighbour on all CPUs.
fn neighbour(pid: Pid, each: &[[u8; size_of::<wire::Neighbour>()]]) -> (Pid, String, Duration) {
    let met: Vec<_> = each
        .iter()
        .filter_map(|bytes| wire::Neighbour::read_from_bytes(bytes).ok())
        .filter(|met| met.samples != 0)
        .collect();
    let samples: u64 = met.iter().map(|met| met.samples).sum();
    // Only the CPU that met it first took its name.
    let mut names = met.iter().map(|met| text(&met.comm));
    let comm = names.find(|name| !name.is_empty());
    let time = Duration::from_nanos(samples * 1_000_000_000 / HZ);
    (pid, comm.unwrap_or_default(), time)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn a_neighbour_bears_the_name_that_one_of_the_cpus_took_down() {
        let met = |samples: u64, name: &[u8]| {
            let mut comm = [0; 16];
            comm[..name.len()].copy_from_slice(name);
            let met = wire::Neighbour { samples, comm };
            <[u8; size_of::<wire::Neighbour>()]>::try_from(met.as_bytes()).unwrap()
        };
        let each = [met(3, b""), met(0, b""), met(96, b"cc1plus")];
        let told = neighbour(7, &each);
        assert_eq!(told, (7, "cc1plus".to_owned(), Duration::from_secs(1)));
        assert_eq!(neighbour(7, &[met(1, b"")]).1, "");
    }
}
