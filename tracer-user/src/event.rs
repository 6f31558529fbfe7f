//! What sources give and models take.
//!
//! A live capture, a recording and a packet capture all speak in these events, so everything
//! behind this file neither knows nor asks where they came from. An event is a fact with the time at
//! which it happened; it never holds a judgement. Events arrive almost in the order of their times:
//! a reader must bear an event that is a few milliseconds older than the one before it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

mod blocking;
mod connection;
mod goroutine;
mod host;
mod labels;
mod process;
mod scheduler;
mod shed;
mod source;

pub use blocking::{AtChannels, Blocking, Lock};
pub use connection::{
    Closed, ConnectFailure, Exchange, Listening, Message, Opened, Origin, Packet, RequestHead,
    Role, SocketId, Stall,
};
pub use goroutine::{Creation, Decider, Decision, Goroutine, Snapshot, SnapshotSource};
pub use host::{Host, Memory, MemoryLimit, Neighbours, Pressures, Quota, Runtime};
pub use labels::{Labelled, Labels};
pub use process::{Descriptors, HOSTS, Network, Pid, Process, Relation, is_host};
pub use scheduler::{Histogram, Left, Running, Sample, Switch, Thread, Waited, Waiting};
pub use shed::Shed;
pub use source::{Hook, Source, SourceKind, Unseen};

/// A point on the boot clock (`CLOCK_BOOTTIME`): nanoseconds since the host booted, suspension included.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BootInstant(pub u64);

impl BootInstant {
    /// The time from `earlier` to `self`; zero where `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `before` earlier; the boot where there is none.
    #[must_use]
    pub fn minus(self, before: Duration) -> Self {
        let before = u64::try_from(before.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(before))
    }

    /// The instant `after` later.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// One stack, told by [`Fact::Stack`] before anything refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StackId(pub u32);

/// A fact and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened (not when it was read).
    pub at: BootInstant,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A process is traced from now on, or more became known of it (the later one replaces the earlier).
    Process(Process),
    /// A traced process ended.
    ProcessEnded {
        /// Which.
        pid: Pid,
    },
    /// The frames of a stack that later events refer to; innermost first. Told again where names of
    /// functions are found later (the later one replaces the earlier).
    Stack {
        /// The name used from now on.
        id: StackId,
        /// Innermost first, inlined calls as frames of their own.
        frames: Vec<Frame>,
    },
    /// A socket of a traced process was opened, accepted, or found already open.
    Opened(Opened),
    /// The three-way handshake of a connecting socket is done.
    Established {
        /// Which socket.
        socket: SocketId,
    },
    /// A connecting socket will never be established.
    ConnectFailed {
        /// Which socket.
        socket: SocketId,
        /// Why.
        why: ConnectFailure,
        /// Who gave up, where it was the process itself.
        actor: Option<Actor>,
        /// Where it gave up.
        stack: Option<StackId>,
    },
    /// The peer sent FIN: nothing more will come from it.
    PeerClosed {
        /// Which socket.
        socket: SocketId,
    },
    /// The process shut down or closed its side (FIN, or RST if `abort`).
    LocalClosed {
        /// Which socket.
        socket: SocketId,
        /// It was closed with a reset: unread data, linger 0, or an abort.
        abort: bool,
        /// Who closed; in Go often not the goroutine that decided to.
        actor: Option<Actor>,
        /// Where.
        stack: Option<StackId>,
    },
    /// The kernel is done with the socket; nothing follows for it.
    Closed(Closed),
    /// We sent RST on a socket.
    ResetSent {
        /// Which socket.
        socket: SocketId,
        /// The kernel's own word for why, where this kernel gives one (`enum sk_rst_reason`).
        reason: Option<String>,
    },
    /// The peer's RST arrived.
    ResetReceived {
        /// Which socket.
        socket: SocketId,
    },
    /// A segment was sent again.
    Retransmitted {
        /// Which socket.
        socket: SocketId,
        /// It was the SYN.
        syn: bool,
    },
    /// The kernel dropped a packet that this socket sent or should have received.
    Dropped {
        /// Which socket.
        socket: SocketId,
        /// The kernel's own word (`enum skb_drop_reason`), such as `NETFILTER_DROP`.
        reason: String,
    },
    /// The head of an HTTP/1 request went over a socket.
    Request {
        /// Which socket.
        socket: SocketId,
        /// Which exchange of it, counted as in [`Exchange::number`].
        number: u32,
        /// What of the head is kept.
        head: RequestHead,
    },
    /// An exchange is over, or is told as it stands because the socket or the window ended.
    Exchange(Exchange),
    /// Bytes stopped flowing in the middle of a message.
    Stalled(Stall),
    /// Bytes of the peer lie in a socket and the process does not read them. Told when the socket or
    /// the window ends.
    Unread {
        /// Which socket.
        socket: SocketId,
        /// Since when the first of them lies there.
        since: BootInstant,
        /// How many; `None` where that is not known.
        bytes: Option<u64>,
    },
    /// How full a listening socket's queue is; told when that changes.
    Listening(Listening),
    /// How many file descriptors a process has; told when that changes much.
    Descriptors(Descriptors),
    /// A function of the Go runtime or library ran that decides the fate of a connection.
    Decision(Decision),
    /// Every goroutine of a process at one moment.
    Goroutines(Snapshot),
    /// One goroutine, looked at because something happened on a socket that it serves.
    Goroutine {
        /// Its process.
        pid: Pid,
        /// The socket it serves; what happened, happened at the other end.
        socket: Option<SocketId>,
        /// As it was at the event's time.
        goroutine: Goroutine,
    },
    /// What was lost so far, by the name of the probe; told again when it grows.
    Lost {
        /// The probe or buffer.
        probe: String,
        /// Records lost since the start.
        count: u64,
    },
    /// Something could not be seen.
    Unseen(Unseen),
    /// What a target's thread did on the scheduler so far.
    Thread(Thread),
    /// A runnable thread got a CPU after a long wait.
    Waited(Waited),
    /// A CPU went from one thread to another; only with the whole timeline.
    Switched(Switch),
    /// A target was running when the profiler's clock ticked.
    Sampled(Sample),
    /// The host's figures.
    Host(Host),
    /// Who else had the CPUs.
    Neighbours(Neighbours),
    /// The CPU quota of a target.
    Quota(Quota),
    /// What a target's Go runtime says of itself.
    Runtime(Runtime),
    /// What goroutines of a process are blocked at.
    Blocking(Blocking),
    /// Records about sockets were lost. Told before the first event that may be the next one after a lost
    /// one, with its beginning alone; and once more when everything is told again.
    Gap {
        /// Up to here everything was told.
        from: BootInstant,
        /// From here on everything is told again.
        until: Option<BootInstant>,
    },
    /// A socket is gone, and when and how it ended was lost.
    Vanished {
        /// Which socket.
        socket: SocketId,
    },
    /// From now on less is looked at, to keep within the budget of CPU time.
    Shed {
        /// What is not looked at any more.
        shed: Shed,
        /// What gopulse cost until then, in CPUs.
        spent: f64,
        /// What it may cost.
        budget: f64,
    },
    /// The memory limit of a target's cgroup.
    MemoryLimit(MemoryLimit),
    /// The pprof labels that goroutines of a process carry.
    Labels(Labels),
    /// In which network a process is.
    Network(Network),
}

/// A line of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Go's full name (`net/http.(*persistConn).roundTrip`), the symbol, or `0x…` where nothing is known.
    pub function: String,
    /// The source file as the compiler recorded it.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if let Some(file) = &self.file {
            write!(f, " ({file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// How sure it is that an event belongs to a goroutine or process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribution {
    /// Read at the event, in the context of the thread that caused it.
    Direct,
    /// The event happened in interrupt context; this is who last used the socket.
    LastOwner,
    /// Concluded from other facts.
    Inferred,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: u32,
    /// The goroutine's id, for Go programs whose layout is known.
    pub goroutine: Option<u64>,
    /// How sure that is.
    pub attribution: Attribution,
}
