//! From the kernel's rings to the sink, completed on the way: an opening waits for its address, an event
//! gets the name of its stack, and a target that gives up has its other end looked at.

use std::time::Duration;

use tracer_ebpf::{Address, CHANGE_CLOSED, CHANGE_LOCAL_CLOSED, Socket, Tuple};
use zerocopy::FromBytes as _;

use super::{
    Sink,
    decode::{self, Change, Record},
    live::Live,
    looks::now,
    seed::bytes,
};
use crate::event::{BootInstant, Decider, Event, Fact, Origin, Pid, Role, SocketId};

/// Records taken before housekeeping gets its turn.
pub(super) const BATCH: usize = 100_000;

impl Live {
    /// Hands on what lies in the rings; how many records that was.
    pub(super) fn drain(&mut self, sink: &mut dyn Sink) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(item) = self.events.next() else {
                break;
            };
            let record = self.decoder.record(&item);
            drop(item);
            taken += 1;
            match record {
                Some(Record::Event(event)) => {
                    if let Fact::Thread(thread) = &event.fact {
                        self.threads.ended(thread.tid);
                    }
                    sink.event(event);
                }
                Some(Record::Sample {
                    sample,
                    user,
                    kernel,
                }) => self.sampled(&sample, &user, &kernel, sink),
                Some(Record::Change(change)) => self.change(change, sink),
                Some(Record::Decision { event, pid, stack }) => {
                    if matches!(&event.fact, Fact::Decision(decision) if decision.decider == Decider::TransportDial)
                    {
                        self.deciders.dialled(pid, &mut self.probes.ebpf);
                    }
                    let at = event.at;
                    let overdue = too_late_to_write(&event);
                    self.with_stack(event, pid, &stack, sink);
                    if let Some(socket) = overdue {
                        self.look_at_handler(socket, at, sink);
                    }
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

    pub(super) fn change(&mut self, change: Change, sink: &mut dyn Sink) {
        let Change {
            event,
            socket,
            address,
            what,
            peer_closed,
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
        if peer_closed {
            sink.event(Event {
                at,
                fact: Fact::PeerClosed { socket },
            });
        }
        match what {
            CHANGE_LOCAL_CLOSED if awaiting && role == Role::Client => {
                self.look_at_other_end(&address, at, sink);
            }
            CHANGE_CLOSED => {
                self.gaps.closed(socket);
                self.linger.closed(&address, socket);
            }
            _ => {}
        }
    }

    /// Hands on an event with the name of its stack, and before it, where that is new, its frames.
    pub(super) fn with_stack(
        &mut self,
        mut event: Event,
        pid: Pid,
        stack: &[u64],
        sink: &mut dyn Sink,
    ) {
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
    pub(super) fn look_at_other_end(
        &mut self,
        address: &Address,
        at: BootInstant,
        sink: &mut dyn Sink,
    ) {
        if is_past(at) {
            return;
        }
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
            Some((value.owner.tgid, SocketId(value.id), goroutine))
        })();
        if let Some((pid, socket, goroutine)) = found {
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
}

/// What happened so long ago, as where the rings were not drained for a while, is not where a goroutine
/// stands now.
const PAST: Duration = Duration::from_millis(100);

/// It happened too long ago for a look at what goes on to say anything of it.
pub(super) fn is_past(at: BootInstant) -> bool {
    now().since(at) > PAST
}

/// The socket whose deadline for writing has passed.
fn too_late_to_write(event: &Event) -> Option<SocketId> {
    match &event.fact {
        Fact::Decision(decision) if decision.decider == Decider::WriteDeadline => decision.socket,
        _ => None,
    }
}
