//! What is done about records that were lost: it is said before anything behind the gap is told, and what
//! became of the sockets meanwhile is looked up in the kernel's map.
//!
//! In: the kernel half's count of records about sockets that found no room. Out: [`Fact::Gap`] before the
//! first record that may follow a lost one, and again when everything is told; sockets whose opening was
//! lost, as found; [`Fact::Vanished`] for those whose end was; processes that came or went unseen. What
//! always holds: outside a gap everything was told.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData};
use tracer_ebpf::{PROCESS_EXITED, PROCESS_FORKED, Socket};
use zerocopy::FromBytes as _;

use super::{
    Sink, decode,
    drain::BATCH,
    live::{Live, tell},
    looks::now,
};
use crate::event::{BootInstant, Fact, Pid, SocketId};

/// While records are lost all the time the map is looked through so often, at most.
const PAUSE: Duration = Duration::from_secs(5);
/// After a look there is none for so many times as long as it took.
const REST: u32 = 20;
/// Entries read in one look. A map that changes faster than it is read may begin anew without end.
const MOST: usize = 524_288;
/// Batches that are drained before a gap is left open for now.
const BATCHES: usize = 8;

/// Where a gap is, and which sockets are told.
pub(super) struct Gaps {
    lost: Array<MapData, u64>,
    count: u64,
    /// Nothing was lost before.
    sound: BootInstant,
    /// The beginning of the gap that is not over.
    open: Option<BootInstant>,
    rest: Option<Instant>,
    /// Sockets that were told and have not ended, with when they were opened.
    told: HashMap<SocketId, BootInstant>,
    /// Those that end while the map is looked through.
    ended: Option<HashSet<SocketId>>,
}

impl Gaps {
    pub(super) fn new(lost: Array<MapData, u64>) -> Self {
        Self {
            lost,
            count: 0,
            sound: now(),
            open: None,
            rest: None,
            told: HashMap::new(),
            ended: None,
        }
    }

    pub(super) fn opened(&mut self, socket: SocketId, at: BootInstant) {
        self.told.insert(socket, at);
    }

    pub(super) fn closed(&mut self, socket: SocketId) {
        self.told.remove(&socket);
        if let Some(ended) = &mut self.ended {
            ended.insert(socket);
        }
    }

    /// To be asked before records are read: whether some were lost since it was asked last.
    fn grew(&mut self) -> bool {
        let count = self.lost.get(&0, 0).unwrap_or(self.count);
        std::mem::replace(&mut self.count, count) != count
    }

    fn rests(&self) -> bool {
        self.rest.is_some_and(|rest| Instant::now() < rest)
    }
}

impl Live {
    /// Says so if records were lost, before those behind them are read. Whether any were.
    pub(super) fn look_for_gap(&mut self, sink: &mut dyn Sink) -> bool {
        let at = now();
        let lost = self.gaps.grew();
        if lost && self.gaps.open.is_none() {
            let from = self.gaps.sound;
            self.gaps.open = Some(from);
            tell(sink, Fact::Gap { from, until: None });
        }
        self.gaps.sound = at;
        lost
    }

    /// Ends a gap once nothing is lost any more. While something is, what is told of sockets is put right
    /// now and then, so that it does not grow for ever.
    pub(super) fn mend_gap(&mut self, last: bool, sink: &mut dyn Sink) {
        let Some(from) = self.gaps.open else {
            return;
        };
        if self.gaps.rests() && !last {
            return;
        }
        let begun = Instant::now();
        let caught_up = self.catch_up(sink);
        self.look_at_sockets(sink);
        self.call_the_roll(sink);
        self.gaps.rest = Some(Instant::now() + begun.elapsed() * REST);
        if caught_up && !self.look_for_gap(sink) {
            self.gaps.open = None;
            let until = Some(self.gaps.sound);
            tell(sink, Fact::Gap { from, until });
        } else {
            self.gaps.rest = self.gaps.rest.max(Some(Instant::now() + PAUSE));
        }
    }

    /// Drains until nothing was lost from one time to the next, if that comes soon.
    fn catch_up(&mut self, sink: &mut dyn Sink) -> bool {
        for _ in 0..BATCHES {
            let lost = self.look_for_gap(sink);
            if self.drain(sink) < BATCH && !lost {
                return true;
            }
        }
        false
    }

    /// Tells sockets whose opening was lost, and those that are gone and whose end was.
    fn look_at_sockets(&mut self, sink: &mut dyn Sink) {
        let at = now();
        self.gaps.ended = Some(HashSet::new());
        let standing = self.standing();
        // Ends that were told before the look began to read.
        self.drain(sink);
        let ended = self.gaps.ended.take().unwrap_or_default();
        let Some(standing) = standing else {
            return;
        };
        for socket in standing.values() {
            let id = SocketId(socket.id);
            if ended.contains(&id) || socket.address.local_port == 0 {
                continue;
            }
            let event = match self.unaddressed.remove(&id) {
                Some(mut event) => {
                    if let Fact::Opened(opened) = &mut event.fact {
                        (opened.local, opened.remote) = decode::ends(&socket.address);
                    }
                    event
                }
                None if self.gaps.told.contains_key(&id) => continue,
                None => decode::found(socket, at),
            };
            self.opened(&event);
            sink.event(event);
        }
        self.unaddressed
            .retain(|id, event| event.at >= at || standing.contains_key(id));
        let gone: Vec<SocketId> = (self.gaps.told.iter())
            .filter(|(id, opened)| **opened < at && !standing.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        for socket in gone {
            self.gaps.closed(socket);
            tell(sink, Fact::Vanished { socket });
        }
    }

    /// Every socket in the kernel's map, by its name; `None` where it could not be read to its end.
    fn standing(&self) -> Option<HashMap<SocketId, Socket>> {
        let mut standing = HashMap::new();
        for (number, entry) in self.maps.sockets.iter().enumerate() {
            let (_, value) = entry.ok()?;
            let socket = Socket::read_from_bytes(&value).ok()?;
            standing.insert(SocketId(socket.id), socket);
            if number >= MOST {
                return None;
            }
        }
        Some(standing)
    }

    /// Notices processes whose end was lost, and children whose beginning was.
    fn call_the_roll(&mut self, sink: &mut dyn Sink) {
        let gone: Vec<Pid> = (self.processes.all().map(|known| known.process.pid))
            .filter(|pid| !Path::new("/proc").join(pid.to_string()).exists())
            .collect();
        for pid in gone {
            self.process_changed(PROCESS_EXITED, pid, 0, sink);
        }
        for pid in self.processes.unknown_targets() {
            self.process_changed(PROCESS_FORKED, pid, 0, sink);
        }
    }
}
