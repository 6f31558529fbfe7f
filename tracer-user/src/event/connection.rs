//! Connections as their ends saw them, and what went over them.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Actor, BootInstant, Pid, StackId};

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
    /// SYNs and last ACKs of handshakes that found the queue full since gopulse looks at it
    /// (`ListenOverflows`, as far as they are this listener's). What else it drops does not count.
    pub dropped: u64,
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
