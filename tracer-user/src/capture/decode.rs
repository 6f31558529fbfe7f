//! The kernel's records as events.
//!
//! In: the bytes of one record. Out: what it says, in the types of [`crate::event`]; text of requests
//! is cut down to what is kept before it leaves this file. A record of a shape that we do not know is
//! none: the loader and the object are of one version.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tracer_ebpf as wire;
use zerocopy::FromBytes;

use super::{threads, transfers};
use crate::event::{
    Actor, Attribution, BootInstant, Closed, ConnectFailure, Decider, Decision, Event, Fact,
    Opened, Origin, Packet, Pid, Role, SocketId,
};
use crate::http;

/// What one record says.
pub(super) enum Record {
    /// A fact of its own.
    Event(Event),
    /// A step in a socket's life.
    Change(Change),
    /// A decider ran.
    Decision {
        /// The event, its stack still missing.
        event: Event,
        /// The process whose stack it is.
        pid: Pid,
        /// Innermost first.
        stack: Vec<u64>,
    },
    /// The profiler's clock met a target.
    Sample {
        /// As it was told.
        sample: wire::Sample,
        /// Innermost first; empty where the sample says where its stacks are kept.
        user: Vec<u64>,
        /// The same in the kernel.
        kernel: Vec<u64>,
    },
    /// A process changed.
    Process {
        /// `PROCESS_…`.
        what: u16,
        /// Which.
        pid: Pid,
        /// Its parent, for a fork.
        parent: Pid,
    },
}

/// A step in a socket's life, with what housekeeping needs of it.
pub(super) struct Change {
    /// The event; `None` where the step is only told to complete an earlier one.
    pub(super) event: Option<Event>,
    /// Which socket.
    pub(super) socket: SocketId,
    /// Both ends as the kernel half has them.
    pub(super) address: wire::Address,
    /// `CHANGE_…`.
    pub(super) what: u16,
    /// The peer had closed before the socket was found.
    pub(super) peer_closed: bool,
    /// A request of ours waits for its response.
    pub(super) awaiting: bool,
    /// Who asks.
    pub(super) role: Role,
    /// The process that did it, whose stack it is.
    pub(super) pid: Pid,
    /// Innermost first.
    pub(super) stack: Vec<u64>,
    /// When.
    pub(super) at: BootInstant,
}

/// The enums of this kernel by which records name reasons.
pub(super) struct Decoder {
    reset_reasons: HashMap<u32, String>,
    drop_reasons: HashMap<u32, String>,
}

impl Decoder {
    pub(super) fn new(kernel: &crate::host::btf::Btf) -> Self {
        let named = |name: &str, prefix: &str| {
            kernel
                .enum_names(name)
                .into_iter()
                .map(|(number, name)| {
                    (
                        number,
                        name.strip_prefix(prefix).unwrap_or(&name).to_owned(),
                    )
                })
                .collect()
        };
        Self {
            reset_reasons: named("sk_rst_reason", "SK_RST_REASON_"),
            drop_reasons: named("skb_drop_reason", "SKB_DROP_REASON_"),
        }
    }

    /// What a record of the events' ring says.
    pub(super) fn record(&self, bytes: &[u8]) -> Option<Record> {
        let (header, _) = wire::Header::read_from_prefix(bytes).ok()?;
        let at = BootInstant(header.at);
        match header.kind {
            wire::KIND_CHANGE => self.change(bytes).map(Record::Change),
            wire::KIND_EXCHANGE => {
                let (exchange, _) = wire::Exchange::read_from_prefix(bytes).ok()?;
                Some(Record::Event(transfers::exchange(&exchange)))
            }
            wire::KIND_STALL => {
                let (stall, _) = wire::Stall::read_from_prefix(bytes).ok()?;
                Some(Record::Event(transfers::stall(&stall)))
            }
            wire::KIND_UNREAD => {
                let (unread, _) = wire::Unread::read_from_prefix(bytes).ok()?;
                Some(Record::Event(transfers::unread(&unread)))
            }
            wire::KIND_THREAD => {
                let (thread, _) = wire::Thread::read_from_prefix(bytes).ok()?;
                Some(Record::Event(threads::ended(&thread)))
            }
            wire::KIND_WAITED => {
                let (waited, _) = wire::Waited::read_from_prefix(bytes).ok()?;
                Some(Record::Event(threads::waited(&waited)))
            }
            wire::KIND_SWITCH => {
                let (switch, _) = wire::Switch::read_from_prefix(bytes).ok()?;
                Some(Record::Event(threads::switched(&switch)))
            }
            wire::KIND_SAMPLE => {
                let (sample, rest) = wire::Sample::read_from_prefix(bytes).ok()?;
                let behind = rest.get(size_of::<wire::Stack>()..).unwrap_or_default();
                Some(Record::Sample {
                    sample,
                    user: stack(header.flags, rest),
                    kernel: stack(header.flags, behind),
                })
            }
            wire::KIND_HEAD => request(at, bytes).map(Record::Event),
            wire::KIND_DECISION => decision(at, bytes),
            wire::KIND_PROCESS => {
                let (process, _) = wire::ProcessChange::read_from_prefix(bytes).ok()?;
                Some(Record::Process {
                    what: header.what,
                    pid: process.tgid,
                    parent: process.parent,
                })
            }
            _ => None,
        }
    }

    fn dropped(&self, change: &wire::Change) -> Option<Fact> {
        let socket = SocketId(change.socket);
        let reason = match self.drop_reasons.get(&change.number) {
            Some(reason) if reason == BYSTANDER => return None,
            Some(reason) => reason.clone(),
            None => format!("reason {}", change.number),
        };
        Some(Fact::Dropped { socket, reason })
    }

    fn change(&self, bytes: &[u8]) -> Option<Change> {
        let (change, rest) = wire::Change::read_from_prefix(bytes).ok()?;
        let header = change.header;
        let at = BootInstant(header.at);
        let socket = SocketId(change.socket);
        let actor = actor(&change.owner, header.flags);
        let fact = match header.what {
            wire::CHANGE_CONNECTING => Some(opened(&change, Origin::Connected, actor)),
            wire::CHANGE_ACCEPTED => Some(opened(&change, Origin::Accepted, actor)),
            wire::CHANGE_FOUND => Some(opened(&change, Origin::Found, actor)),
            wire::CHANGE_ESTABLISHED => Some(Fact::Established { socket }),
            wire::CHANGE_PEER_CLOSED => Some(Fact::PeerClosed { socket }),
            wire::CHANGE_LOCAL_CLOSED => Some(locally_closed(&change, actor)),
            wire::CHANGE_CLOSED => closed(&change),
            wire::CHANGE_RESET_SENT => Some(Fact::ResetSent {
                socket,
                reason: self.reset_reasons.get(&change.number).cloned(),
            }),
            wire::CHANGE_RESET_RECEIVED => Some(Fact::ResetReceived { socket }),
            wire::CHANGE_RETRANSMITTED => Some(Fact::Retransmitted {
                socket,
                syn: change.old_state == wire::tcp_state::SYN_SENT,
            }),
            wire::CHANGE_DROPPED => self.dropped(&change),
            _ => None, // CHANGE_ADDRESSED completes an opening
        };
        Some(Change {
            event: fact.map(|fact| Event { at, fact }),
            socket,
            address: change.address,
            what: header.what,
            peer_closed: header.what == wire::CHANGE_FOUND
                && change.old_state == wire::tcp_state::CLOSE_WAIT,
            awaiting: header.flags & wire::FLAG_AWAITING != 0,
            role: role(change.role),
            pid: change.owner.tgid,
            stack: stack(header.flags, rest),
            at,
        })
    }
}

/// What a bystander on this host drops because it was for another host says nothing of the packet.
const BYSTANDER: &str = "OTHERHOST";

/// A packet of the packets' ring.
pub(super) fn packet(bytes: &[u8]) -> Option<Packet> {
    const FIXED: usize = wire::Packet::<0>::BYTES_AT;
    let (header, rest) = wire::Header::read_from_prefix(bytes).ok()?;
    let (socket, rest) = u64::read_from_prefix(rest).ok()?;
    let ([interface, wire_length, captured, outgoing], _) =
        <[u32; 4]>::read_from_prefix(rest).ok()?;
    Some(Packet {
        at: BootInstant(header.at),
        interface,
        outgoing: outgoing != 0,
        bytes: bytes.get(FIXED..FIXED + captured as usize)?.to_vec(),
        wire_length,
        socket: SocketId(socket),
    })
}

/// Both ends in the types of the standard library.
pub(super) fn ends(address: &wire::Address) -> (SocketAddr, SocketAddr) {
    let ip = |bytes: &[u8; 16]| match address.family {
        2 => {
            let [a, b, c, d, ..] = *bytes;
            IpAddr::from(Ipv4Addr::new(a, b, c, d))
        }
        _ => IpAddr::from(Ipv6Addr::from(*bytes)),
    };
    (
        SocketAddr::new(ip(&address.local), address.local_port),
        SocketAddr::new(ip(&address.remote), address.remote_port),
    )
}

/// `ROLE_…` in words.
pub(super) fn role(role: u8) -> Role {
    if role == wire::ROLE_SERVER {
        Role::Server
    } else {
        Role::Client
    }
}

/// Who a record names.
pub(super) fn actor(owner: &wire::Owner, flags: u32) -> Option<Actor> {
    let attribution = if flags & wire::FLAG_LISTENER != 0 {
        Attribution::Inferred
    } else if flags & wire::FLAG_LAST_OWNER != 0 {
        Attribution::LastOwner
    } else {
        Attribution::Direct
    };
    (owner.tgid != 0).then(|| Actor {
        pid: owner.tgid,
        tid: owner.tid,
        goroutine: (owner.goid != 0).then_some(owner.goid),
        attribution,
    })
}

fn opened(change: &wire::Change, origin: Origin, actor: Option<Actor>) -> Fact {
    let (local, remote) = ends(&change.address);
    Fact::Opened(Opened {
        socket: SocketId(change.socket),
        pid: change.owner.tgid,
        role: role(change.role),
        origin,
        local,
        remote,
        actor,
        stack: None,
    })
}

/// A socket that is in the kernel's map and whose opening was not told, as it is found there.
pub(super) fn found(socket: &wire::Socket, at: BootInstant) -> Event {
    let (local, remote) = ends(&socket.address);
    Event {
        at,
        fact: Fact::Opened(Opened {
            socket: SocketId(socket.id),
            pid: socket.owner.tgid,
            role: role(socket.role),
            origin: Origin::Found,
            local,
            remote,
            actor: None,
            stack: None,
        }),
    }
}

/// Closing a socket that was still connecting is giving the connect up.
fn locally_closed(change: &wire::Change, actor: Option<Actor>) -> Fact {
    let socket = SocketId(change.socket);
    if change.old_state == wire::tcp_state::SYN_SENT {
        return Fact::ConnectFailed {
            socket,
            why: ConnectFailure::Abandoned,
            actor,
            stack: None,
        };
    }
    let abort = change.header.flags & wire::FLAG_ABORT != 0;
    Fact::LocalClosed {
        socket,
        abort,
        actor,
        stack: None,
    }
}

/// `None` where the end of a connect that we gave up was told before.
fn closed(change: &wire::Change) -> Option<Fact> {
    let socket = SocketId(change.socket);
    if change.old_state == wire::tcp_state::SYN_SENT {
        if change.header.flags & wire::FLAG_ABORT != 0 {
            return None;
        }
        const REFUSED: i32 = nix::errno::Errno::ECONNREFUSED as i32;
        const TIMED_OUT: i32 = nix::errno::Errno::ETIMEDOUT as i32;
        let why = match change.error {
            REFUSED => ConnectFailure::Refused,
            TIMED_OUT => ConnectFailure::TimedOut,
            0 => ConnectFailure::Abandoned,
            error => ConnectFailure::Error(error),
        };
        return Some(Fact::ConnectFailed {
            socket,
            why,
            actor: None,
            stack: None,
        });
    }
    Some(Fact::Closed(Closed {
        socket,
        bytes_sent: change.bytes_sent,
        bytes_received: change.bytes_received,
        srtt: (change.srtt_us != 0).then(|| Duration::from_micros(change.srtt_us.into())),
        retransmits: change.number,
    }))
}

fn stack(flags: u32, rest: &[u8]) -> Vec<u64> {
    if flags & wire::FLAG_STACK == 0 {
        return Vec::new();
    }
    let Ok((stack, _)) = wire::Stack::read_from_prefix(rest) else {
        return Vec::new();
    };
    let depth = usize::try_from(stack.length).unwrap_or(0) / size_of::<u64>();
    stack
        .frames
        .iter()
        .take(depth)
        .copied()
        .filter(|address| *address != 0)
        .collect()
}

fn request(at: BootInstant, bytes: &[u8]) -> Option<Event> {
    const FIXED: usize = wire::Head::<0>::BYTES_AT;
    let socket = u64::from_ne_bytes(bytes.get(16..24)?.try_into().ok()?);
    let number = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
    let length = u32::from_ne_bytes(bytes.get(28..FIXED)?.try_into().ok()?) as usize;
    let head = http::parse(bytes.get(FIXED..FIXED + length)?)?;
    Some(Event {
        at,
        fact: Fact::Request {
            socket: SocketId(socket),
            number,
            head,
        },
    })
}

fn decision(at: BootInstant, bytes: &[u8]) -> Option<Record> {
    let (decision, rest) = wire::Decision::read_from_prefix(bytes).ok()?;
    let decider = match decision.header.what {
        wire::DECIDER_TRANSPORT_CLOSE => Decider::TransportClose,
        wire::DECIDER_TRANSPORT_CANCEL => Decider::TransportCancel,
        wire::DECIDER_CLIENT_TIMEOUT => Decider::ClientTimeoutChecked,
        wire::DECIDER_READ_DEADLINE => Decider::ReadDeadline,
        wire::DECIDER_WRITE_DEADLINE => Decider::WriteDeadline,
        wire::DECIDER_SERVER_SHUTDOWN => Decider::ServerShutdown,
        wire::DECIDER_TRANSPORT_DIAL => Decider::TransportDial,
        _ => return None,
    };
    let text = decision
        .error
        .get(..decision.error_length as usize)
        .unwrap_or_default();
    let error = (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned());
    let event = Event {
        at,
        fact: Fact::Decision(Decision {
            decider,
            socket: (decision.socket != 0).then_some(SocketId(decision.socket)),
            actor: actor(&decision.owner, 0)?,
            error,
            stack: None,
        }),
    };
    let mut stack = stack(decision.header.flags, rest);
    if decision.caller != 0 && !stack.is_empty() && stack.get(1) != Some(&decision.caller) {
        stack.insert(1, decision.caller);
    }
    Some(Record::Decision {
        event,
        pid: decision.owner.tgid,
        stack,
    })
}
