//! A capture that runs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use tracer_ebpf::{Address, Config, HEAD_LONG, Head, Listener, Loss, Socket, Tuple};

use super::{
    Attached, CaptureError, Sink,
    attach::{Probes, chain},
    budget::Budget,
    deciders::Deciders,
    decode::Decoder,
    descriptors::Tables,
    drain::BATCH,
    early::Early,
    gaps::Gaps,
    linger::Linger,
    looks::{Answer, Looks, Pprof, now},
    newcomers::Newcomers,
    overdue::Overdue,
    peers::Peers,
    processes::Processes,
    queues::Watched,
    samples::Samples,
    stacks::Stacks,
    surroundings::Surroundings,
    threads::Threads,
};
use crate::event::{Event, Fact, Pid, Relation, SocketId, Source, SourceKind, Unseen};

/// Rings are drained on a timer: a wake-up for each record would cost more than the record.
const DRAIN: Duration = Duration::from_millis(5);
/// And less often under load, where each turn of ours takes a CPU from the service. The rings hold ten
/// times what a fully loaded CPU produces in this time.
const DRAIN_LOADED: Duration = Duration::from_millis(10);
/// Records in one turn from which on that holds.
const LOADED: usize = 500;
/// A process that ended is remembered for its last events.
const REMEMBERED: Duration = Duration::from_secs(3);
/// The last snapshots of goroutines may take this long.
const LAST_LOOK: Duration = Duration::from_millis(1500);

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Take packets.
    pub packets: bool,
    /// Tell every switch of a CPU to or from a target.
    pub timeline: bool,
    /// Look at goroutines.
    pub goroutines: bool,
    /// Where goroutines come from when memory cannot be read.
    pub pprof: Pprof,
    /// What all this may cost, in CPUs; `None` for no bound.
    pub cpu_budget: Option<f64>,
}

/// The maps of the kernel half that are used while it runs; structs as bytes of the wire's types.
pub(super) struct Maps {
    pub(super) sockets: BpfHashMap<MapData, u64, [u8; size_of::<Socket>()]>,
    pub(super) tuples: BpfHashMap<MapData, [u8; size_of::<Address>()], [u8; size_of::<Tuple>()]>,
    pub(super) listeners: BpfHashMap<MapData, [u8; size_of::<Listener>()], u32>,
    pub(super) heads: BpfHashMap<MapData, [u64; 2], [u8; size_of::<Head<HEAD_LONG>>()]>,
    pub(super) ports: Array<MapData, u8>,
    losses: PerCpuArray<MapData, u64>,
    /// Sockets for which we ourselves found no room, by [`Loss`] and inode; the kernel half counts its own.
    left_out: [HashSet<u64>; Loss::COUNT as usize],
}

impl Maps {
    /// A map has no room for something of the socket of that inode, which may come up more than once.
    pub(super) fn leave_out(&mut self, loss: Loss, inode: u64) {
        if let Some(sockets) = self.left_out.get_mut(loss as usize) {
            sockets.insert(inode);
        }
    }
}

/// A running capture.
pub struct Live {
    pub(super) probes: Probes,
    pub(super) events: RingBuf<MapData>,
    pub(super) packets: RingBuf<MapData>,
    pub(super) maps: Maps,
    pub(super) processes: Processes,
    pub(super) deciders: Deciders,
    pub(super) queues: Watched,
    pub(super) tables: Tables,
    pub(super) surroundings: Surroundings,
    pub(super) decoder: Decoder,
    pub(super) stacks: Stacks,
    pub(super) threads: Threads,
    pub(super) samples: Samples,
    pub(super) peers: Peers,
    pub(super) newcomers: Newcomers,
    pub(super) early: Early,
    pub(super) overdue: Overdue,
    pub(super) looks: Looks,
    pub(super) options: Options,
    /// Sockets whose local port is not known yet, with what was told of them.
    pub(super) unaddressed: HashMap<SocketId, Event>,
    pub(super) linger: Linger,
    pub(super) gaps: Gaps,
    pub(super) budget: Budget,
    pub(super) ended: Vec<(Instant, Pid)>,
    pub(super) lost: [u64; Loss::COUNT as usize],
}

impl Live {
    /// Loads and attaches everything, and reads meanwhile what is to be known of `pids` before they are
    /// [followed](Self::follow); nobody is traced yet.
    ///
    /// # Errors
    /// Where the host does not allow it.
    pub fn start(
        options: Options,
        pids: &BTreeSet<Pid>,
    ) -> Result<(Self, Source, Vec<Unseen>), CaptureError> {
        let config = Config {
            packets: u32::from(options.packets),
            timeline: u32::from(options.timeline),
        };
        let (attached, early) = thread::scope(|scope| {
            let early = scope.spawn(|| Early::read(pids.iter().copied()));
            let attached = Attached::new(config);
            // What was not read then is read when it is asked for.
            (attached, early.join().unwrap_or_default())
        });
        let attached = attached?;
        attached.require()?;
        let (hooks, unseen) = (attached.hooks(), attached.unseen());
        let Attached { mut probes, .. } = attached;
        let ebpf = &mut probes.ebpf;
        let maps = Maps {
            sockets: take(ebpf, "SOCKETS")?,
            tuples: take(ebpf, "TUPLES")?,
            listeners: take(ebpf, "LISTENERS")?,
            heads: take(ebpf, "HEADS")?,
            ports: take(ebpf, "PORTS")?,
            losses: take(ebpf, "LOSSES")?,
            left_out: std::array::from_fn(|_| HashSet::new()),
        };
        let (stacks, neighbours) = (take(ebpf, "STACKS")?, take(ebpf, "NEIGHBOURS")?);
        let samples = Samples::new(stacks, neighbours, ebpf);
        let decoder = Decoder::new(&probes.kernel);
        let cpu_budget = options.cpu_budget;
        let source = Source {
            kind: SourceKind::Live,
            host: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            kernel: nix::sys::utsname::uname()
                .map(|uname| uname.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            started: now(),
            started_wall: jiff::Timestamp::now(),
            hooks,
        };
        let live = Self {
            events: take(ebpf, "EVENTS")?,
            packets: take(ebpf, "PACKETS")?,
            maps,
            processes: Processes::new(take(ebpf, "TARGETS")?, take(ebpf, "MARKS")?),
            deciders: Deciders::new(take(ebpf, "DEADLINES")?),
            queues: Watched::default(),
            tables: Tables::new(take(ebpf, "REFUSED")?),
            surroundings: Surroundings::default(),
            decoder,
            stacks: Stacks::new(),
            threads: Threads::new(take(ebpf, "THREADS")?),
            samples,
            peers: Peers::default(),
            newcomers: Newcomers::default(),
            early,
            overdue: Overdue::default(),
            looks: Looks::new(options.pprof.clone(), Budget::for_rounds(cpu_budget)),
            options,
            unaddressed: HashMap::new(),
            linger: Linger::default(),
            gaps: Gaps::new(take(ebpf, "LOST")?),
            budget: Budget::new(cpu_budget, take(ebpf, "SHED")?),
            ended: Vec::new(),
            lost: [0; Loss::COUNT as usize],
            probes,
        };
        Ok((live, source, unseen))
    }

    /// Hands on everything that happens until `window` is over, `stop` is set, or every traced process
    /// has ended.
    pub fn run(&mut self, window: Duration, stop: &AtomicBool, sink: &mut dyn Sink) {
        let end = Instant::now() + window;
        self.budget.begin();
        let mut second = Instant::now();
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            self.look_for_gap(sink);
            let taken = self.drain(sink);
            self.mend_gap(false, sink);
            self.housekeeping(sink);
            self.keep_budget(sink);
            if second.elapsed() >= Duration::from_secs(1) {
                let since = second.elapsed();
                second = Instant::now();
                self.tell_threads(false, sink);
                self.look_at_cpus(false, sink);
                self.tell_losses(sink);
                self.look_for_newcomers(sink);
                for unseen in self.deciders.relieve(since, &mut self.probes.ebpf) {
                    tell(sink, Fact::Unseen(unseen));
                }
                sink.tick();
            }
            if self.everybody_ended() {
                break;
            }
            match taken {
                BATCH.. => {}
                LOADED.. => thread::sleep(DRAIN_LOADED),
                _ => thread::sleep(DRAIN),
            }
        }
    }

    /// Takes what is left, tells the exchanges that are still open, looks at all goroutines once more.
    pub fn finish(mut self, sink: &mut dyn Sink) {
        self.look_at_all();
        let end = Instant::now() + LAST_LOOK;
        self.look_for_gap(sink);
        while self.drain(sink) >= BATCH && Instant::now() < end {}
        self.mend_gap(true, sink);
        self.tell_threads(true, sink);
        self.look_at_cpus(true, sink);
        // Threads that ended while they were told.
        self.look_for_gap(sink);
        self.drain(sink);
        self.tell_standing(sink);
        self.look_at_queues(true, sink);
        self.look_at_descriptors(true, sink);
        self.look_around(true, sink);
        let busy = |live: &Self| !(live.looks.idle() && live.stacks.natives.idle());
        while busy(&self) && Instant::now() < end {
            thread::sleep(DRAIN);
            self.take_answers(sink);
        }
        if !self.looks.idle() {
            tell(
                sink,
                Fact::Unseen(Unseen {
                    what: "goroutines at the end of the window".to_owned(),
                    why: format!(
                        "reading them takes longer than {} s",
                        LAST_LOOK.as_secs_f32()
                    ),
                    remedy: "trace fewer processes at once".to_owned(),
                }),
            );
        }
        for (_, event) in self.unaddressed.drain() {
            sink.event(event);
        }
        self.tell_losses(sink);
    }

    fn housekeeping(&mut self, sink: &mut dyn Sink) {
        self.take_answers(sink);
        if let Some(pid) = self.looks.due() {
            self.ask_for_goroutines(pid);
        }
        if let Some(peer) = self.peers.next() {
            self.begin_with([peer], Relation::Peer, sink);
        }
        self.linger.sweep(&mut self.maps);
        self.look_at_queues(false, sink);
        self.look_at_descriptors(false, sink);
        self.look_around(false, sink);
        let (processes, tables) = (&mut self.processes, &mut self.tables);
        let threads = &mut self.threads;
        let (stacks, samples) = (&mut self.stacks, &mut self.samples);
        self.ended.retain(|(when, pid)| {
            let kept = when.elapsed() < REMEMBERED;
            if !kept {
                stacks.forget(*pid);
                samples.forget(*pid);
                processes.forget(*pid);
                tables.forget(*pid);
                threads.forget(*pid);
            }
            kept
        });
    }

    fn take_answers(&mut self, sink: &mut dyn Sink) {
        for named in self.stacks.natives.answers() {
            sink.event(named);
        }
        for answer in self.looks.answers() {
            match answer {
                Answer::Event(event) => sink.event(event),
                Answer::Unseen(unseen) => tell(sink, Fact::Unseen(unseen)),
                Answer::Endpoint(pid, url) => {
                    if let Some(process) = self.processes.has_endpoint(pid, url) {
                        tell(sink, Fact::Process(process));
                    }
                }
                Answer::Done(_) => {}
            }
        }
    }

    fn tell_losses(&mut self, sink: &mut dyn Sink) {
        let ours = self
            .maps
            .left_out
            .iter()
            .map(|sockets| sockets.len() as u64);
        let ours = Loss::ALL.into_iter().zip(ours);
        for ((loss, left_out), told) in ours.zip(&mut self.lost) {
            let Ok(each) = self.maps.losses.get(&(loss as u32), 0) else {
                continue;
            };
            let mut count = each.iter().sum::<u64>() + left_out;
            if loss == Loss::Threads {
                count += self.threads.left_out();
            }
            if count != *told {
                *told = count;
                tell(
                    sink,
                    Fact::Lost {
                        probe: name(loss).to_owned(),
                        count,
                    },
                );
            }
        }
    }
}

pub(super) fn tell(sink: &mut dyn Sink, fact: Fact) {
    sink.event(Event { at: now(), fact });
}

fn name(loss: Loss) -> &'static str {
    match loss {
        Loss::Openings => "openings of sockets",
        Loss::Changes => "changes of sockets",
        Loss::Ends => "ends of sockets",
        Loss::Exchanges => "exchanges",
        Loss::Stalls => "gaps in messages",
        Loss::Heads => "request heads",
        Loss::Decisions => "decisions",
        Loss::Processes => "changes of processes",
        Loss::ThreadEnds => "ends of threads",
        Loss::Waits => "waits for a CPU",
        Loss::Switches => "switches",
        Loss::Samples => "samples",
        Loss::Packets => "packets",
        Loss::Sockets => "sockets",
        Loss::Tuples => "addresses",
        Loss::Targets => "children",
        Loss::Listeners => "listeners",
        Loss::Threads => "threads",
        Loss::Stacks => "stacks of samples",
    }
}

/// The map of that name, as what it is used for.
fn take<M>(ebpf: &mut Ebpf, map: &'static str) -> Result<M, CaptureError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let found = ebpf.take_map(map).ok_or_else(|| CaptureError::Map {
        map,
        why: "the object does not have it".to_owned(),
    })?;
    M::try_from(found).map_err(|error| CaptureError::Map {
        map,
        why: chain(&error),
    })
}
