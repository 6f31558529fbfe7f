//! The numbers in records and maps: what a record is, what happened, and what is known of a socket.

/// A [`crate::Change`] (with a [`crate::Stack`] behind it if `FLAG_STACK`).
pub const KIND_CHANGE: u16 = 1;
/// An [`crate::Exchange`].
pub const KIND_EXCHANGE: u16 = 2;
/// A [`crate::Head`] of a request.
pub const KIND_HEAD: u16 = 3;
/// A [`crate::Decision`] with a [`crate::Stack`] behind it.
pub const KIND_DECISION: u16 = 4;
/// A [`crate::ProcessChange`].
pub const KIND_PROCESS: u16 = 5;
/// A [`crate::Packet`] (in the packets' own ring).
pub const KIND_PACKET: u16 = 6;
/// A [`crate::Stall`].
pub const KIND_STALL: u16 = 7;
/// An [`crate::Unread`].
pub const KIND_UNREAD: u16 = 8;
/// A [`crate::Thread`] that has ended.
pub const KIND_THREAD: u16 = 9;
/// A [`crate::Waited`].
pub const KIND_WAITED: u16 = 10;
/// A [`crate::Switch`].
pub const KIND_SWITCH: u16 = 11;
/// A [`crate::Sample`].
pub const KIND_SAMPLE: u16 = 12;

/// A [`crate::Stack`] follows the record.
pub const FLAG_STACK: u32 = 1;
/// The owner in the record is not the thread the event happened in, but the socket's last one.
pub const FLAG_LAST_OWNER: u32 = 2;
/// The socket waits for a response: a request was sent or read, nothing was answered.
pub const FLAG_AWAITING: u32 = 4;
/// The exchange is complete: the next one has begun.
pub const FLAG_COMPLETE: u32 = 8;
/// The owner is the process that listens, not one seen using the socket.
pub const FLAG_LISTENER: u32 = 16;
/// We ended the connection at once, without FIN: `CHANGE_LOCAL_CLOSED` was told with it, and
/// `CHANGE_CLOSED` follows with it too.
pub const FLAG_ABORT: u32 = 32;
/// Bytes flowed again at the end of a [`crate::Stall`].
pub const FLAG_RESUMED: u32 = 64;

/// `connect` was called; the local port may not be known yet.
pub const CHANGE_CONNECTING: u16 = 1;
/// The connecting socket's local address is known now.
pub const CHANGE_ADDRESSED: u16 = 2;
/// An incoming connection was established.
pub const CHANGE_ACCEPTED: u16 = 3;
/// A socket used by a target that was there before tracing began.
pub const CHANGE_FOUND: u16 = 4;
/// The connecting socket was established.
pub const CHANGE_ESTABLISHED: u16 = 5;
/// The peer's FIN arrived.
pub const CHANGE_PEER_CLOSED: u16 = 6;
/// Our side was shut down or closed.
pub const CHANGE_LOCAL_CLOSED: u16 = 7;
/// The socket is closed for good; `error`, the byte counts, `srtt_us` and `retransmits` are set.
pub const CHANGE_CLOSED: u16 = 8;
/// RST was sent; `reason` is `enum sk_rst_reason`, or `u32::MAX` where the kernel has none.
pub const CHANGE_RESET_SENT: u16 = 9;
/// RST arrived.
pub const CHANGE_RESET_RECEIVED: u16 = 10;
/// A segment was sent again.
pub const CHANGE_RETRANSMITTED: u16 = 11;
/// A packet was dropped; `reason` is `enum skb_drop_reason`.
pub const CHANGE_DROPPED: u16 = 12;

/// `net/http.(*persistConn).closeLocked`.
pub const DECIDER_TRANSPORT_CLOSE: u16 = 1;
/// `net/http.(*persistConn).cancelRequest`.
pub const DECIDER_TRANSPORT_CANCEL: u16 = 2;
/// The closure in `net/http.setRequestCancel` that asks whether `http.Client.Timeout` ran out.
pub const DECIDER_CLIENT_TIMEOUT: u16 = 3;
/// `runtime.netpolldeadlineimpl` with `read`.
pub const DECIDER_READ_DEADLINE: u16 = 4;
/// The same with `write`.
pub const DECIDER_WRITE_DEADLINE: u16 = 5;
/// `net/http.(*Server).Shutdown` or `Close`.
pub const DECIDER_SERVER_SHUTDOWN: u16 = 6;
/// `net/http.(*Transport).queueForDial`.
pub const DECIDER_TRANSPORT_DIAL: u16 = 7;

/// A target forked.
pub const PROCESS_FORKED: u16 = 1;
/// A target called `execve`.
pub const PROCESS_EXECED: u16 = 2;
/// A target's last thread ended.
pub const PROCESS_EXITED: u16 = 3;

/// The role of a socket that connected.
pub const ROLE_CLIENT: u8 = 0;
/// The role of a socket that was accepted.
pub const ROLE_SERVER: u8 = 1;

/// Nothing went over the socket yet.
pub const PHASE_NEW: u8 = 0;
/// The last byte was of a request.
pub const PHASE_REQUEST: u8 = 1;
/// The last byte was of a response.
pub const PHASE_RESPONSE: u8 = 2;

/// A bit of the map of ports: a traced socket has, or had, this local port.
pub const PORT_USED: u8 = 1;
/// A bit of the map of ports: a target listens on it.
pub const PORT_LISTENED: u8 = 2;

/// RST arrived on the socket.
pub const SOCKET_RESET_RECEIVED: u8 = 1;
/// [`CHANGE_LOCAL_CLOSED`] was told.
pub const SOCKET_LOCAL_CLOSED: u8 = 2;
/// The exchange before was answered by an interim response (`100 Continue`).
pub const SOCKET_INTERIM: u8 = 4;

/// [`crate::Socket::copied`] is known.
pub const LYING_KNOWN: u8 = 1;
/// [`crate::Socket::arrived`] is when the bytes were first seen to lie there; they may have come before.
pub const LYING_LONGER: u8 = 2;
/// A segment came before its turn: what arrives is readable only once the hole is filled.
pub const LYING_HOLE: u8 = 4;

/// `TCP_ESTABLISHED` and its kin, `include/net/tcp_states.h`.
pub mod tcp_state {
    /// Both sides may send.
    pub const ESTABLISHED: u8 = 1;
    /// SYN sent, no answer yet.
    pub const SYN_SENT: u8 = 2;
    /// SYN received and answered.
    pub const SYN_RECV: u8 = 3;
    /// We closed first.
    pub const FIN_WAIT1: u8 = 4;
    /// We closed first, and the peer knows.
    pub const FIN_WAIT2: u8 = 5;
    /// The end.
    pub const CLOSE: u8 = 7;
    /// The peer closed first.
    pub const CLOSE_WAIT: u8 = 8;
    /// Both closed, the peer first.
    pub const LAST_ACK: u8 = 9;
    /// A listener.
    pub const LISTEN: u8 = 10;

    /// Its name, as `ss` and the kernel write it.
    #[must_use]
    pub fn name(state: u8) -> &'static str {
        match state {
            ESTABLISHED => "ESTABLISHED",
            SYN_SENT => "SYN_SENT",
            SYN_RECV => "SYN_RECV",
            FIN_WAIT1 => "FIN_WAIT1",
            FIN_WAIT2 => "FIN_WAIT2",
            CLOSE_WAIT => "CLOSE_WAIT",
            LAST_ACK => "LAST_ACK",
            LISTEN => "LISTEN",
            CLOSE => "CLOSE",
            _ => "closing",
        }
    }
}
