//! What packets told, as events about sockets.
//!
//! A capture sees both ends of each connection, and no process. So each connection gives two sockets,
//! that of who asks and that of who answers, both with the exchanges as they were on the wire where the
//! capture was made; and each host, by its address, stands for a process of its own (see
//! [`crate::event::HOSTS`]). A gateway is then the host that asks one connection while it serves another.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tracer_ebpf::http_status;

use super::{
    frames::Frames,
    silence::Gap,
    turns::{Moment, Wire},
};
use crate::{
    event::{
        BootInstant, Closed, ConnectFailure, Event, Exchange, Fact, HOSTS, Message, Opened, Origin,
        Pid, Process, RequestHead, Role, SocketId, Stall,
    },
    http,
};

/// Hosts told apart. Of more, each connection has hosts of its own, so nobody is taken for another.
const KNOWN_HOSTS: usize = 16_384;

/// Listening addresses remembered, by which the ends of connections found open are told.
const LISTENERS: usize = 65_536;

/// Services below this port need privileges, so clients do not use them by chance.
const PRIVILEGED: u16 = 1_024;

/// The two ends of a connection, and who of them asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) stream: u32,
    pub(super) ends: [SocketAddr; 2],
    pub(super) client: usize,
}

impl Who {
    fn role(&self, side: usize) -> Role {
        if side == self.client {
            Role::Client
        } else {
            Role::Server
        }
    }

    fn socket(&self, side: usize) -> SocketId {
        SocketId::of_stream(self.stream, self.role(side))
    }

    fn end(&self, side: usize) -> SocketAddr {
        let [low, high] = self.ends;
        if side == 0 { low } else { high }
    }

    fn both(&self) -> [usize; 2] {
        [self.client, 1 - self.client]
    }
}

/// What a side sent in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) bytes: u64,
    pub(super) retransmits: u32,
}

/// A gap in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) sender: usize,
    pub(super) number: u32,
    pub(super) message: Message,
    pub(super) from: Moment,
    pub(super) until: Moment,
    pub(super) resumed: bool,
    pub(super) bytes_before: u64,
    pub(super) gap: Gap,
}

/// Makes events, and remembers who is who and which packet told what.
#[derive(Debug, Default)]
pub(super) struct Teller {
    pub(super) events: Vec<Event>,
    pub(super) frames: Frames,
    /// Requests told whose first bytes the capture did not keep.
    pub(super) cut_requests: u64,
    hosts: HashMap<IpAddr, Pid>,
    /// Ends of connections whose host has no number of its own.
    strangers: u32,
    listeners: HashSet<SocketAddr>,
}

impl Teller {
    /// The client sends its SYN.
    pub(super) fn connects(&mut self, who: &Who, now: Moment) {
        self.open(who, who.client, Origin::Connected, now);
    }

    /// The handshake is done.
    pub(super) fn established(&mut self, who: &Who, now: Moment) {
        if self.listeners.len() < LISTENERS {
            self.listeners.insert(who.end(1 - who.client));
        }
        let socket = who.socket(who.client);
        self.say(who, now, Fact::Established { socket });
        self.open(who, 1 - who.client, Origin::Accepted, now);
    }

    /// A connection from before the capture.
    pub(super) fn found(&mut self, who: &Who, now: Moment) {
        for side in who.both() {
            self.open(who, side, Origin::Found, now);
        }
    }

    /// Connecting came to nothing.
    pub(super) fn connect_failed(&mut self, who: &Who, why: ConnectFailure, now: Moment) {
        let socket = who.socket(who.client);
        let fact = Fact::ConnectFailed {
            socket,
            why,
            actor: None,
            stack: None,
        };
        self.say(who, now, fact);
    }

    /// A segment was sent again.
    pub(super) fn sent_again(&mut self, who: &Who, sender: usize, now: Moment, syn: bool) {
        let socket = who.socket(sender);
        self.say(who, now, Fact::Retransmitted { socket, syn });
    }

    /// A FIN.
    pub(super) fn finished(&mut self, who: &Who, sender: usize, now: Moment) {
        self.local_closed(who, sender, now, false);
        let socket = who.socket(1 - sender);
        self.say(who, now, Fact::PeerClosed { socket });
    }

    /// An RST; `abort` where its sender had not closed before.
    pub(super) fn reset(&mut self, who: &Who, sender: usize, now: Moment, abort: bool) {
        if abort {
            self.local_closed(who, sender, now, true);
        }
        let socket = who.socket(sender);
        let sent = Fact::ResetSent {
            socket,
            reason: None,
        };
        self.say(who, now, sent);
        let socket = who.socket(1 - sender);
        self.say(who, now, Fact::ResetReceived { socket });
    }

    fn local_closed(&mut self, who: &Who, sender: usize, now: Moment, abort: bool) {
        let closed = Fact::LocalClosed {
            socket: who.socket(sender),
            abort,
            actor: None,
            stack: None,
        };
        self.say(who, now, closed);
    }

    /// An exchange, over or as it stands, as one side knows it.
    pub(super) fn exchange(
        &mut self,
        who: &Who,
        side: usize,
        wire: &Wire,
        head: Option<RequestHead>,
        complete: bool,
        round_trip: Option<Duration>,
    ) {
        let told = [wire.started, wire.request_ended, wire.last_byte];
        for moment in told.into_iter().chain(wire.first_byte) {
            self.frames.note(who.stream, moment);
        }
        let socket = who.socket(side);
        if let Some(head) = head {
            let number = wire.number;
            let request = Fact::Request {
                socket,
                number,
                head,
            };
            self.say(who, wire.started, request);
        }
        let first_byte = wire.first_byte.map(instant);
        let exchange = Exchange {
            socket,
            number: wire.number,
            started: instant(wire.started),
            request_ended: instant(wire.request_ended),
            first_byte,
            last_byte: instant(wire.last_byte),
            request_bytes: wire.request_bytes,
            response_bytes: wire.response_bytes,
            status: (wire.status != 0).then_some(wire.status),
            actor: None,
            complete,
            arrived: match who.role(side) {
                Role::Client => first_byte,
                Role::Server => Some(instant(wire.started)),
            },
            round_trip,
        };
        self.say(who, wire.last_byte, Fact::Exchange(exchange));
    }

    /// A gap in a message, as each of the two ends would have seen it.
    pub(super) fn gap(&mut self, who: &Who, told: &Break) {
        let gap = told.gap;
        let span = told.until.at.saturating_sub(told.from.at);
        let receiver_was_full = gap.window_limited >= span / 2 && gap.window_limited > 0;
        for side in who.both() {
            let sends = side == told.sender;
            let arrived = match (sends, receiver_was_full, told.resumed) {
                (true, _, _) | (false, false, false) => None,
                // Its window was closed: what had come before was not read.
                (false, true, _) => Some(instant(told.from)),
                (false, false, true) => Some(instant(told.until)),
            };
            let stall = Stall {
                socket: who.socket(side),
                number: told.number,
                message: told.message,
                from: instant(told.from),
                until: instant(told.until),
                resumed: told.resumed,
                bytes_before: told.bytes_before,
                arrived,
                buffer_full: gap.held_back_since.filter(|_| sends).map(BootInstant),
                window_limited: if sends {
                    Duration::from_nanos(gap.window_limited)
                } else {
                    Duration::ZERO
                },
                retransmits: if sends { gap.retransmits } else { 0 },
            };
            self.frames.note(who.stream, told.from);
            self.say(who, told.until, Fact::Stalled(stall));
        }
    }

    /// Somebody's window stays closed.
    pub(super) fn unread(&mut self, who: &Who, side: usize, since: u64, now: Moment) {
        let unread = Fact::Unread {
            socket: who.socket(side),
            since: BootInstant(since),
            bytes: None,
        };
        self.say(who, now, unread);
    }

    /// Nothing follows.
    pub(super) fn closed(
        &mut self,
        who: &Who,
        totals: [Totals; 2],
        srtt: Option<Duration>,
        now: Moment,
    ) {
        let [low, high] = totals;
        for side in who.both() {
            let (own, other) = if side == 0 { (low, high) } else { (high, low) };
            let closed = Closed {
                socket: who.socket(side),
                bytes_sent: own.bytes,
                bytes_received: other.bytes,
                srtt,
                retransmits: own.retransmits,
            };
            self.say(who, now, Fact::Closed(closed));
        }
    }

    /// Which side asks on a connection whose handshake was not seen. The first bytes tell best; then
    /// where other connections were opened to; then which port is more like a service's.
    pub(super) fn who_asks(&self, ends: [SocketAddr; 2], sender: usize, payload: &[u8]) -> usize {
        if http::parse(payload).is_some() {
            return sender;
        }
        if payload
            .first_chunk()
            .is_some_and(|line| http_status(line) != 0)
        {
            return 1 - sender;
        }
        let [low, high] = ends;
        let serves = |end: &SocketAddr| self.listeners.contains(end);
        let by_port = low.port() < PRIVILEGED || low.port() < high.port();
        match (serves(&low), serves(&high)) {
            (true, false) => 1,
            (false, true) => 0,
            _ if high.port() < PRIVILEGED && high.port() < low.port() => 0,
            _ => usize::from(by_port),
        }
    }

    fn open(&mut self, who: &Who, side: usize, origin: Origin, now: Moment) {
        let local = who.end(side);
        let pid = self.host(local.ip(), now);
        let opened = Opened {
            socket: who.socket(side),
            pid,
            role: who.role(side),
            origin,
            local,
            remote: who.end(1 - side),
            actor: None,
            stack: None,
        };
        self.say(who, now, Fact::Opened(opened));
    }

    /// The process that stands for a host.
    fn host(&mut self, address: IpAddr, now: Moment) -> Pid {
        if let Some(pid) = self.hosts.get(&address) {
            return *pid;
        }
        let known = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        if self.hosts.len() >= KNOWN_HOSTS {
            let pid = HOSTS.saturating_add(known).saturating_add(self.strangers);
            self.strangers = self.strangers.saturating_add(1);
            return pid;
        }
        let pid = HOSTS.saturating_add(known);
        self.hosts.insert(address, pid);
        self.events.push(Event {
            at: instant(now),
            fact: Fact::Process(Process::of_host(pid, address.to_string())),
        });
        pid
    }

    fn say(&mut self, who: &Who, now: Moment, fact: Fact) {
        self.frames.note(who.stream, now);
        self.events.push(Event {
            at: instant(now),
            fact,
        });
    }
}

fn instant(moment: Moment) -> BootInstant {
    BootInstant(moment.at)
}
