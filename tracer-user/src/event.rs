//! What sources give and models take.
//!
//! A live capture, a recording and a packet capture all speak in these events, so everything
//! behind this file neither knows nor asks where they came from. An event is a fact with the time at
//! which it happened; it never holds a judgement. Events arrive almost in the order of their times:
//! a reader must bear an event that is a few milliseconds older than the one before it.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

mod blocking;
mod host;
mod scheduler;

pub use blocking::{AtChannels, Blocking, Lock};
pub use host::{Host, Memory, Neighbours, Pressures, Quota, Runtime};
pub use scheduler::{Histogram, Left, Running, Sample, Switch, Thread, Waited, Waiting};

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

    /// The instant `after` later.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// One TCP socket for as long as it lives. Unique within a boot; it says when the socket was first
/// seen, never where it lies in the kernel's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SocketId(pub u64);

impl SocketId {
    /// One end of a connection of a packet capture, by the connection's number, which is that of
    /// Wireshark's `tcp.stream`.
    #[must_use]
    pub fn of_stream(stream: u32, role: Role) -> Self {
        Self(u64::from(stream) * 2 + u64::from(role == Role::Server))
    }

    /// The number of the connection, of a socket made by [`Self::of_stream`].
    #[must_use]
    pub fn stream(self) -> u64 {
        self.0 / 2
    }
}

/// One stack, told by [`Fact::Stack`] before anything refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StackId(pub u32);

/// A process (thread group) id in the initial pid namespace.
pub type Pid = u32;

/// From here on ids are no process ids: a packet capture shows hosts and no processes, so each host
/// stands for one process under such an id, with its address as the name. No kernel gives ids as high
/// (`PID_MAX_LIMIT` is 2²²).
pub const HOSTS: Pid = 1 << 31;

/// The id stands for a host of a packet capture.
#[must_use]
pub fn is_host(pid: Pid) -> bool {
    pid >= HOSTS
}

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
}

/// A traced process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its name (`/proc/PID/comm`), as the kernel has it.
    pub comm: String,
    /// Its executable; `None` where it could not be read.
    pub exe: Option<String>,
    /// `go1.27.3`; `None` for a program that is not Go.
    pub go_version: Option<String>,
    /// Its pprof endpoint, where one answered.
    pub pprof_url: Option<String>,
    /// Container id, from the cgroup's path.
    pub container: Option<String>,
    /// Why it is traced.
    pub relation: Relation,
}

/// Why a process is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The user asked for it (or it is a child of one the user asked for).
    Target,
    /// It is at the other end of a target's connection on this host.
    Peer,
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

/// Who asks and who answers on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Our socket connected.
    Client,
    /// Our socket was accepted.
    Server,
}

/// How a socket came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// `connect` was called in the window.
    Connected,
    /// The handshake of an incoming connection was done in the window.
    Accepted,
    /// It was there before the window, with an unknown past.
    Found,
}

/// A socket appears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Its name from now on.
    pub socket: SocketId,
    /// The process that owns it (for an accepted one: that of the listener, until somebody uses it).
    pub pid: Pid,
    /// Who asks on it.
    pub role: Role,
    /// How it came to be known.
    pub origin: Origin,
    /// Our address. IPv4-mapped addresses are told as IPv4.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Who opened it.
    pub actor: Option<Actor>,
    /// Where it was opened.
    pub stack: Option<StackId>,
}

/// Why a connect failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectFailure {
    /// RST in answer to the SYN (`ECONNREFUSED`).
    Refused,
    /// The kernel gave up sending SYNs (`ETIMEDOUT`).
    TimedOut,
    /// The process closed the socket before an answer came.
    Abandoned,
    /// Another error of the socket (errno), such as `EHOSTUNREACH`.
    Error(i32),
}

/// The end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Which.
    pub socket: SocketId,
    /// Payload bytes the process sent.
    pub bytes_sent: u64,
    /// Payload bytes the process read.
    pub bytes_received: u64,
    /// Smoothed round-trip time as the kernel last had it.
    pub srtt: Option<Duration>,
    /// Segments sent again.
    pub retransmits: u32,
}

/// What is kept of a request's head; no query string, no header values but `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// `GET`.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The W3C trace context header, where there was one.
    pub traceparent: Option<String>,
}

/// What went over a socket from one turn of direction to the next: a request and its response.
///
/// Byte counts and times are of the process's own calls, so they say what the service read and
/// wrote, not what lay in the kernel's buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// On which socket.
    pub socket: SocketId,
    /// Counted from 0 on each socket; a turn from answering to asking adds one.
    pub number: u32,
    /// First byte of the request sent (client) or read (server).
    pub started: BootInstant,
    /// Last byte of the request so far.
    pub request_ended: BootInstant,
    /// First byte of the response read (client) or sent (server).
    pub first_byte: Option<BootInstant>,
    /// Last byte either way.
    pub last_byte: BootInstant,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the response.
    pub response_bytes: u64,
    /// HTTP/1 status of the response.
    pub status: Option<u16>,
    /// Who last sent or read the request: on a Go server the connection's (handler's) goroutine,
    /// on a Go client the transport's writer.
    pub actor: Option<Actor>,
    /// A later exchange followed on the socket, so this one is complete.
    pub complete: bool,
    /// When the first byte of what we receive (server: the request, client: the response) lay in the
    /// socket for us to read. What lies between that and our reading it is our own delay.
    pub arrived: Option<BootInstant>,
    /// Smoothed round-trip time as the kernel had it when the exchange was told.
    pub round_trip: Option<Duration>,
}

/// A gap in the middle of a message, as one end of the connection saw it: no call of the process
/// moved a byte of it for at least 200 ms, between two that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// On which socket.
    pub socket: SocketId,
    /// In which exchange of it.
    pub number: u32,
    /// The message that stopped. With the socket's role it says whether we were sending or receiving.
    pub message: Message,
    /// The last byte before the gap.
    pub from: BootInstant,
    /// The first byte after it; the end of the window or of the socket where none came.
    pub until: BootInstant,
    /// Bytes flowed again at its end.
    pub resumed: bool,
    /// Bytes of the message before the gap.
    pub bytes_before: u64,
    /// Receiving: when the bytes that ended it lay in our socket. From then on we did not read them;
    /// until then there was nothing to read.
    pub arrived: Option<BootInstant>,
    /// Sending: the process wanted to send, and found the socket's buffer full, from then on.
    pub buffer_full: Option<BootInstant>,
    /// Sending: for so long in the gap the peer's receive window kept us from sending.
    pub window_limited: Duration,
    /// Sending: segments sent again in the gap.
    pub retransmits: u32,
}

/// One of the two messages of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// What is asked.
    Request,
    /// What is answered.
    Response,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Whose it is.
    pub pid: Pid,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections established and not yet accepted (`sk_ack_backlog`).
    pub queued: u32,
    /// How many may be queued (`sk_max_ack_backlog`); with one more the queue is full.
    pub backlog: u32,
    /// SYNs and last ACKs of handshakes that it dropped since it listens (`sk_drops`).
    pub dropped: u64,
}

/// The file descriptors of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Whose.
    pub pid: Pid,
    /// How many are open.
    pub open: u64,
    /// How many may be (`RLIMIT_NOFILE`, the soft limit).
    pub limit: u64,
    /// System calls of the process that failed with `EMFILE` or `ENFILE` in the window so far; `None`
    /// where that was not watched.
    pub refused: Option<u64>,
    /// What they are, the most frequent first: `TCP to 10.0.0.2:5432, ESTABLISHED`, `TCP on port 80`,
    /// `file /srv/data/…`, `pipe`, `eventpoll`. Only told where they are near the limit, and much
    /// changed since it was told.
    pub held: Vec<(String, u64)>,
}

/// A function of Go's library that is only called when a connection's fate is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The function that ran.
    pub decider: Decider,
    /// The connection, where it could be read from the function's argument.
    pub socket: Option<SocketId>,
    /// Who ran it.
    pub actor: Actor,
    /// The error it was given, where it is text (`net/http: timeout awaiting response headers`).
    pub error: Option<String>,
    /// From where it was called.
    pub stack: Option<StackId>,
}

/// Which function decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decider {
    /// `net/http.(*persistConn).closeLocked(err)`: the transport gives a connection up.
    TransportClose,
    /// `net/http.(*persistConn).cancelRequest(err)`: the request's context ended; the error is its cause.
    TransportCancel,
    /// `net/http.setRequestCancel`'s check, run after an error when `http.Client.Timeout` is set and is
    /// what bounds the request.
    ClientTimeoutChecked,
    /// `runtime.netpolldeadlineimpl` with `read`: a read deadline that the program had set on a
    /// connection has passed.
    ReadDeadline,
    /// The same with `write`: a write deadline has passed. (Where one call is both, it is told twice.)
    WriteDeadline,
    /// `net/http.(*Server).Shutdown` or `Close`: the server ends on purpose.
    ServerShutdown,
    /// `net/http.(*Transport).queueForDial`: a request found no idle connection, so that a goroutine of
    /// the transport opens one. The stack is that of who asks.
    TransportDial,
}

/// All goroutines of a process at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The process.
    pub pid: Pid,
    /// How they were read.
    pub source: SnapshotSource,
    /// Each that is not dead. May be fewer than `total` where reading was cut short.
    pub goroutines: Vec<Goroutine>,
    /// How many there are.
    pub total: u64,
}

/// How goroutines were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotSource {
    /// From the process's memory; nobody was stopped.
    Memory,
    /// From a pprof endpoint.
    Pprof,
    /// From a dump in a file.
    File,
}

/// One goroutine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goroutine {
    /// Its id; 0 where the source gives none.
    pub id: u64,
    /// As the runtime's dumps word it: the wait reason (`IO wait`, `chan send`, `sleep`), or
    /// `running`, `runnable`, `syscall`.
    pub state: String,
    /// How long it has waited, where known.
    pub wait: Option<Duration>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started it.
    pub created_by: Option<Creation>,
}

/// The `go` statement that started a goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// Where the statement stands.
    pub frame: Frame,
    /// The goroutine that ran it.
    pub goroutine: Option<u64>,
}

/// Something that could not be seen, told so that silence is not taken for health.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// What would give it.
    pub remedy: String,
}

/// One captured packet: headers, no payload unless asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When the kernel handled it.
    pub at: BootInstant,
    /// The interface's index.
    pub interface: u32,
    /// Sent by a traced socket (else received).
    pub outgoing: bool,
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Length of the whole IP packet.
    pub wire_length: u32,
    /// Whose it is.
    pub socket: SocketId,
}

/// Where and when events were seen; told before the first one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What they come from.
    pub kind: SourceKind,
    /// The host's name.
    pub host: String,
    /// Its kernel (`uname -r`).
    pub kernel: String,
    /// When the window began, on both clocks; the pair converts one to the other.
    pub started: BootInstant,
    /// The same moment on the wall clock.
    pub started_wall: jiff::Timestamp,
    /// Which hook tells what, in the words of `doctor`.
    pub hooks: Vec<Hook>,
}

impl Source {
    /// The wall-clock time of `at`.
    #[must_use]
    pub fn wall(&self, at: BootInstant) -> jiff::Timestamp {
        let shift = i128::from(at.0) - i128::from(self.started.0);
        jiff::Timestamp::from_nanosecond(self.started_wall.as_nanosecond() + shift)
            .unwrap_or(self.started_wall)
    }
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// This kernel, now.
    Live,
    /// A directory written by `record`.
    Recording,
    /// A packet capture.
    Pcap,
}

/// What one thing is learnt by on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What is wanted (`bytes sent`).
    pub wants: String,
    /// What gives it (`tp_btf/sock_send_length`).
    pub by: String,
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
