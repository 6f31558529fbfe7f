//! A capture that runs.

use std::{
    collections::HashMap,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf};
use tracer_ebpf::{
    self as wire, Address, CHANGE_CLOSED, CHANGE_LOCAL_CLOSED, Listener, Loss, Socket, Tuple,
};
use zerocopy::FromBytes as _;

use super::{
    Attached, CaptureError, Sink,
    attach::{Probes, chain},
    decode::{self, Change, Decoder, Record},
    linger::Linger,
    looks::{Answer, Looks, Pprof, now},
    peers::Peers,
    processes::Processes,
    seed::{bytes, seed},
    stacks::Stacks,
};
use crate::event::{
    Event, Fact, Origin, Pid, Relation, Role, SocketId, Source, SourceKind, Unseen,
};

/// Rings are drained on a timer: a wake-up for each record would cost more than the record.
const DRAIN: Duration = Duration::from_millis(5);
/// Records taken before housekeeping gets its turn.
const BATCH: usize = 100_000;
/// A process that ended is remembered for its last events.
const REMEMBERED: Duration = Duration::from_secs(3);
/// The last snapshots of goroutines may take this long.
const LAST_LOOK: Duration = Duration::from_millis(1500);

/// What to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Take packets.
    pub packets: bool,
    /// Look at goroutines.
    pub goroutines: bool,
    /// Where goroutines come from when memory cannot be read.
    pub pprof: Pprof,
}

/// The maps of the kernel half that are used while it runs; structs as bytes of the wire's types.
pub(super) struct Maps {
    pub(super) sockets: BpfHashMap<MapData, u64, [u8; size_of::<Socket>()]>,
    pub(super) tuples: BpfHashMap<MapData, [u8; size_of::<Address>()], [u8; size_of::<Tuple>()]>,
    pub(super) listeners: BpfHashMap<MapData, [u8; size_of::<Listener>()], u32>,
    losses: PerCpuArray<MapData, u64>,
}

/// A running capture.
pub struct Live {
    probes: Probes,
    events: RingBuf<MapData>,
    packets: RingBuf<MapData>,
    maps: Maps,
    processes: Processes,
    decoder: Decoder,
    stacks: Stacks,
    peers: Peers,
    looks: Looks,
    options: Options,
    /// Sockets whose local port is not known yet, with what was told of them.
    unaddressed: HashMap<SocketId, Event>,
    linger: Linger,
    ended: Vec<(Instant, Pid)>,
    lost: [u64; Loss::COUNT as usize],
}

impl Live {
    /// Loads and attaches everything; nobody is traced yet.
    ///
    /// # Errors
    /// Where the host does not allow it.
    pub fn start(options: Options) -> Result<(Self, Source, Vec<Unseen>), CaptureError> {
        let attached = Attached::new(options.packets)?;
        attached.require()?;
        let (hooks, unseen) = (attached.hooks(), attached.unseen());
        let Attached { mut probes, .. } = attached;
        let ebpf = &mut probes.ebpf;
        let mut map = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or_else(|| map_error(name, "the object does not have it"))
        };
        let events =
            RingBuf::try_from(map("EVENTS")?).map_err(|e| map_error("EVENTS", chain(&e)))?;
        let packets =
            RingBuf::try_from(map("PACKETS")?).map_err(|e| map_error("PACKETS", chain(&e)))?;
        let targets =
            BpfHashMap::try_from(map("TARGETS")?).map_err(|e| map_error("TARGETS", chain(&e)))?;
        let maps = Maps {
            sockets: BpfHashMap::try_from(map("SOCKETS")?)
                .map_err(|e| map_error("SOCKETS", chain(&e)))?,
            tuples: BpfHashMap::try_from(map("TUPLES")?)
                .map_err(|e| map_error("TUPLES", chain(&e)))?,
            listeners: BpfHashMap::try_from(map("LISTENERS")?)
                .map_err(|e| map_error("LISTENERS", chain(&e)))?,
            losses: PerCpuArray::try_from(map("LOSSES")?)
                .map_err(|e| map_error("LOSSES", chain(&e)))?,
        };
        let decoder = Decoder::new(&probes.kernel);
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
            probes,
            events,
            packets,
            maps,
            processes: Processes::new(targets),
            decoder,
            stacks: Stacks::default(),
            peers: Peers::default(),
            looks: Looks::new(options.pprof.clone()),
            options,
            unaddressed: HashMap::new(),
            linger: Linger::default(),
            ended: Vec::new(),
            lost: [0; Loss::COUNT as usize],
        };
        Ok((live, source, unseen))
    }

    /// Traces processes from now on, and whoever serves them on this host.
    pub fn follow(&mut self, pids: impl IntoIterator<Item = Pid>, sink: &mut dyn Sink) {
        for pid in pids {
            self.look_at(pid, Relation::Target, sink);
        }
        self.seed(sink);
        let peers = self.peers.all();
        if !peers.is_empty() {
            self.follow_peers(peers, sink);
        }
    }

    /// Starts a command and traces it from its first instruction on.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, CaptureError> {
        // The kernel half follows the children of whoever is traced: for a moment that is us.
        let us = std::process::id();
        self.processes.mark(us, true);
        let child = command.spawn();
        self.processes.mark(us, false);
        child.map_err(|error| CaptureError::Command {
            command: command.get_program().to_string_lossy().into_owned(),
            why: error.to_string(),
        })
    }

    /// Hands on everything that happens until `window` is over, `stop` is set, or every traced process
    /// has ended.
    pub fn run(&mut self, window: Duration, stop: &AtomicBool, sink: &mut dyn Sink) {
        let end = Instant::now() + window;
        let mut second = Instant::now();
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            let taken = self.drain(sink);
            self.housekeeping(sink);
            if second.elapsed() >= Duration::from_secs(1) {
                second = Instant::now();
                self.tell_losses(sink);
                sink.tick();
            }
            if self.everybody_ended() {
                break;
            }
            if taken < BATCH {
                thread::sleep(DRAIN);
            }
        }
    }

    /// Takes what is left, tells the exchanges that are still open, looks at all goroutines once more.
    pub fn finish(mut self, sink: &mut dyn Sink) {
        self.look_at_all();
        let end = Instant::now() + LAST_LOOK;
        while self.drain(sink) >= BATCH && Instant::now() < end {}
        self.tell_open_exchanges(sink);
        while !self.looks.idle() && Instant::now() < end {
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

    fn everybody_ended(&self) -> bool {
        let mut targets = self
            .processes
            .all()
            .filter(|known| known.process.relation == Relation::Target)
            .peekable();
        !self.ended.is_empty()
            && targets.peek().is_some()
            && targets.all(|known| {
                self.ended.iter().any(|(when, pid)| {
                    // Their last packets and closes come after the end.
                    *pid == known.process.pid && when.elapsed() > Duration::from_millis(200)
                })
            })
    }

    // Processes.

    fn look_at(&mut self, pid: Pid, relation: Relation, sink: &mut dyn Sink) {
        let Some((process, unseen)) = self.processes.follow(pid, relation, &mut self.probes.ebpf)
        else {
            return;
        };
        let is_go = process.go_version.is_some();
        tell(sink, Fact::Process(process));
        for unseen in unseen {
            tell(sink, Fact::Unseen(unseen));
        }
        if self.options.goroutines && is_go {
            self.ask_for_goroutines(pid);
        }
    }

    fn follow_peers(&mut self, pids: Vec<Pid>, sink: &mut dyn Sink) {
        for pid in pids {
            if self.processes.get(pid).is_none() {
                self.look_at(pid, Relation::Peer, sink);
            }
        }
        self.seed(sink);
    }

    fn seed(&mut self, sink: &mut dyn Sink) {
        match seed(&mut self.probes.ebpf, &mut self.maps) {
            Ok(events) => {
                for event in events {
                    self.opened(&event);
                    sink.event(event);
                }
            }
            Err(why) => tell(
                sink,
                Fact::Unseen(Unseen {
                    what: "connections that were open already".to_owned(),
                    why,
                    remedy: "they are seen from their next use on".to_owned(),
                }),
            ),
        }
    }

    /// A socket of ours is told: who is at its other end?
    fn opened(&mut self, event: &Event) {
        if let Fact::Opened(opened) = &event.fact
            && opened.role == Role::Client
            && self
                .processes
                .get(opened.pid)
                .is_some_and(|known| known.process.relation == Relation::Target)
        {
            self.peers.connected(opened.remote, opened.pid);
        }
    }

    fn process_changed(&mut self, what: u16, pid: Pid, parent: Pid, sink: &mut dyn Sink) {
        match what {
            wire::PROCESS_FORKED => {
                let relation = self.processes.relation_of_child(parent);
                self.look_at(pid, relation, sink);
            }
            wire::PROCESS_EXECED => {
                let relation = self
                    .processes
                    .get(pid)
                    .map_or(Relation::Target, |known| known.process.relation);
                self.stacks.forget(pid);
                self.look_at(pid, relation, sink);
            }
            _ => {
                if self.processes.get(pid).is_some() {
                    self.ended.push((Instant::now(), pid));
                    tell(sink, Fact::ProcessEnded { pid });
                }
            }
        }
    }

    // Records.

    /// Hands on what lies in the rings; how many records that was.
    fn drain(&mut self, sink: &mut dyn Sink) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(item) = self.events.next() else {
                break;
            };
            let record = self.decoder.record(&item);
            drop(item);
            taken += 1;
            match record {
                Some(Record::Event(event)) => sink.event(event),
                Some(Record::Change(change)) => self.change(change, sink),
                Some(Record::Decision { event, pid, stack }) => {
                    self.with_stack(event, pid, &stack, sink);
                }
                Some(Record::Process {
                    what, pid, parent, ..
                }) => {
                    self.process_changed(what, pid, parent, sink);
                }
                None => {}
            }
        }
        let mut packets = 0;
        while packets < BATCH {
            let Some(item) = self.packets.next() else {
                break;
            };
            let packet = decode::packet(&item);
            drop(item);
            packets += 1;
            if let Some(packet) = packet {
                sink.packet(packet);
            }
        }
        taken.max(packets)
    }

    fn change(&mut self, change: Change, sink: &mut dyn Sink) {
        let Change {
            event,
            socket,
            address,
            what,
            awaiting,
            role,
            pid,
            stack,
            at,
        } = change;
        if address.local_port != 0
            && let Some(mut opened) = self.unaddressed.remove(&socket)
        {
            if let Fact::Opened(opened) = &mut opened.fact {
                (opened.local, opened.remote) = decode::ends(&address);
            }
            self.opened(&opened);
            sink.event(opened);
        }
        if let Some(event) = event {
            self.with_stack(event, pid, &stack, sink);
        }
        match what {
            CHANGE_LOCAL_CLOSED if awaiting && role == Role::Client => {
                self.look_at_other_end(socket, &address, at, sink);
            }
            CHANGE_CLOSED => self.linger.closed(&address, socket),
            _ => {}
        }
    }

    /// Hands on an event with the name of its stack, and before it, where that is new, its frames.
    fn with_stack(&mut self, mut event: Event, pid: Pid, stack: &[u64], sink: &mut dyn Sink) {
        let program = self
            .processes
            .get(pid)
            .and_then(|known| known.program.as_deref());
        let (name, told) = self.stacks.name(event.at, pid, stack, program);
        if let Some(told) = told {
            sink.event(told);
        }
        match &mut event.fact {
            Fact::Opened(opened) => {
                opened.stack = name;
                if opened.origin == Origin::Connected && opened.local.port() == 0 {
                    self.unaddressed.insert(opened.socket, event);
                    return;
                }
            }
            Fact::ConnectFailed { stack, .. } | Fact::LocalClosed { stack, .. } => *stack = name,
            Fact::Decision(decision) => decision.stack = name,
            _ => {}
        }
        if matches!(event.fact, Fact::Opened(_)) {
            self.opened(&event);
        }
        sink.event(event);
    }

    /// A target gave a connection up before an answer came: what does whoever serves it do now?
    fn look_at_other_end(
        &mut self,
        socket: SocketId,
        address: &Address,
        at: crate::event::BootInstant,
        sink: &mut dyn Sink,
    ) {
        let mut mirrored = *address;
        (mirrored.local, mirrored.remote) = (address.remote, address.local);
        (mirrored.local_port, mirrored.remote_port) = (address.remote_port, address.local_port);
        let found = (|| {
            let tuple = self.maps.tuples.get(&bytes(&mirrored), 0).ok()?;
            let tuple = Tuple::read_from_bytes(&tuple).ok()?;
            let value = self.maps.sockets.get(&tuple.sock, 0).ok()?;
            let value = Socket::read_from_bytes(&value).ok()?;
            let program = self.processes.get(value.owner.tgid)?.program.as_deref()?;
            let goroutine = self.looks.one(program, value.owner.g, value.owner.goid)?;
            Some((value.owner.tgid, goroutine))
        })();
        if let Some((pid, goroutine)) = found {
            sink.event(Event {
                at,
                fact: Fact::Goroutine {
                    pid,
                    socket: Some(socket),
                    goroutine,
                },
            });
        }
    }

    fn tell_open_exchanges(&self, sink: &mut dyn Sink) {
        let at = now();
        for entry in self.maps.sockets.iter() {
            let Ok((_, value)) = entry else { break };
            let Ok(socket) = Socket::read_from_bytes(&value) else {
                continue;
            };
            if let Some(exchange) = decode::open_exchange(&socket) {
                sink.event(Event {
                    at,
                    fact: Fact::Exchange(exchange),
                });
            }
        }
    }

    // Housekeeping.

    fn housekeeping(&mut self, sink: &mut dyn Sink) {
        self.take_answers(sink);
        if let Some(peer) = self.peers.next() {
            self.follow_peers(vec![peer], sink);
        }
        self.linger.sweep(&mut self.maps);
        let processes = &mut self.processes;
        self.ended.retain(|(when, pid)| {
            let kept = when.elapsed() < REMEMBERED;
            if !kept {
                processes.forget(*pid);
            }
            kept
        });
    }

    fn take_answers(&mut self, sink: &mut dyn Sink) {
        for answer in self.looks.answers() {
            match answer {
                Answer::Event(event) => sink.event(event),
                Answer::Unseen(unseen) => tell(sink, Fact::Unseen(unseen)),
                Answer::Endpoint(pid, url) => {
                    if let Some(process) = self.processes.has_endpoint(pid, url) {
                        tell(sink, Fact::Process(process));
                    }
                }
                Answer::Done => {}
            }
        }
    }

    fn look_at_all(&mut self) {
        if !self.options.goroutines {
            return;
        }
        let pids: Vec<Pid> = self
            .processes
            .all()
            .filter(|known| known.process.go_version.is_some())
            .map(|known| known.process.pid)
            .filter(|pid| !self.ended.iter().any(|(_, ended)| ended == pid))
            .collect();
        for pid in pids {
            self.ask_for_goroutines(pid);
        }
    }

    fn ask_for_goroutines(&mut self, pid: Pid) {
        if let Some(program) = self
            .processes
            .get(pid)
            .and_then(|known| known.program.clone())
        {
            self.looks.ask_all(pid, program);
        }
    }

    fn tell_losses(&mut self, sink: &mut dyn Sink) {
        for (loss, told) in Loss::ALL.into_iter().zip(&mut self.lost) {
            let Ok(each) = self.maps.losses.get(&(loss as u32), 0) else {
                continue;
            };
            let count = each.iter().sum();
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

fn tell(sink: &mut dyn Sink, fact: Fact) {
    sink.event(Event { at: now(), fact });
}

fn name(loss: Loss) -> &'static str {
    match loss {
        Loss::Events => "events",
        Loss::Packets => "packets",
        Loss::Heads => "request heads",
        Loss::Sockets => "sockets",
        Loss::Tuples => "addresses",
        Loss::Targets => "children",
    }
}

fn map_error(map: &'static str, why: impl ToString) -> CaptureError {
    CaptureError::Map {
        map,
        why: why.to_string(),
    }
}
