//! The wire: the records and map values that the two halves of gopulse agree on.
//!
//! Everything here is `#[repr(C)]`, padded by hand, and its size asserted at compile time, so that
//! both compilers lay it out alike. Times are nanoseconds of `CLOCK_BOOTTIME`. Ports are in host
//! order; addresses are in network order, IPv4 in the first four bytes, an IPv4-mapped IPv6 address
//! as IPv4. Each record in a ring begins with a [`Header`] whose `kind` says what the rest is.
//! The loader embeds an object that was built from this very source, so records carry no version.
#![no_std]

#[cfg(test)]
extern crate std;

/// Names a record type and a Rust type that can be made safely from bytes in the user half.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident = $size:literal { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[cfg_attr(
            feature = "zerocopy",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size, "the halves would disagree");
    };
}

mod maps;
mod turns;

pub use maps::{Config, KernelOffsets, Listener, Loss, Socket, Target, Tuple};
pub use turns::{begins_request, http_status};

/// Longest user stack in a record, innermost first.
pub const STACK_DEPTH: usize = 40;
/// Bytes of a short [`Packet`]: IPv4 without options, and TCP with timestamps.
pub const PACKET_SHORT: usize = 96 - Packet::<0>::BYTES_AT;
/// Bytes of a long [`Packet`]: the longest headers there are, 60 bytes of IPv4 and 60 of TCP.
pub const PACKET_LONG: usize = 160 - Packet::<0>::BYTES_AT;
/// Bytes of a message's beginning in a short [`Head`].
pub const HEAD_SHORT: usize = 256 - Head::<0>::BYTES_AT;
/// Bytes of a message's beginning in a long [`Head`].
pub const HEAD_LONG: usize = 1024 - Head::<0>::BYTES_AT;
/// Longest text of a Go error in a [`Decision`].
pub const ERROR_TEXT: usize = 96;

record! {
    /// The beginning of each record.
    pub struct Header = 16 {
        /// One of the `KIND_…` constants.
        pub kind: u16,
        /// What of the variants of `kind` this is: a `CHANGE_…`, `DECIDER_…` or `PROCESS_…`.
        pub what: u16,
        /// Record-specific bits, `FLAG_…`.
        pub flags: u32,
        /// When it happened.
        pub at: u64,
    }
}

/// A [`Change`] (with a [`Stack`] behind it if `FLAG_STACK`).
pub const KIND_CHANGE: u16 = 1;
/// An [`Exchange`].
pub const KIND_EXCHANGE: u16 = 2;
/// A [`Head`] of a request.
pub const KIND_HEAD: u16 = 3;
/// A [`Decision`] with a [`Stack`] behind it.
pub const KIND_DECISION: u16 = 4;
/// A [`ProcessChange`].
pub const KIND_PROCESS: u16 = 5;
/// A [`Packet`] (in the packets' own ring).
pub const KIND_PACKET: u16 = 6;

/// A [`Stack`] follows the record.
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

/// A target forked.
pub const PROCESS_FORKED: u16 = 1;
/// A target called `execve`.
pub const PROCESS_EXECED: u16 = 2;
/// A target's last thread ended.
pub const PROCESS_EXITED: u16 = 3;

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
    /// The end.
    pub const CLOSE: u8 = 7;
    /// The peer closed first.
    pub const CLOSE_WAIT: u8 = 8;
    /// Both closed, the peer first.
    pub const LAST_ACK: u8 = 9;
    /// A listener.
    pub const LISTEN: u8 = 10;
}

record! {
    /// Both ends of a connection, from one end's point of view.
    pub struct Address = 40 {
        /// `AF_INET` (2) or `AF_INET6` (10).
        pub family: u16,
        /// Our port.
        pub local_port: u16,
        /// The peer's port.
        pub remote_port: u16,
        /// Zero.
        pub _pad: u16,
        /// Our address.
        pub local: [u8; 16],
        /// The peer's address.
        pub remote: [u8; 16],
    }
}

record! {
    /// Who did something: a thread and, in Go programs, the goroutine on it.
    pub struct Owner = 24 {
        /// The process; 0 where nobody is known.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// The goroutine's id; 0 where there is none.
        pub goid: u64,
        /// The address of its `runtime.g`.
        pub g: u64,
    }
}

record! {
    /// A step in a socket's life.
    pub struct Change = 120 {
        /// `what` is a `CHANGE_…`.
        pub header: Header,
        /// [`Socket::id`].
        pub socket: u64,
        /// As known at that moment.
        pub address: Address,
        /// Who did it, or last used the socket (`FLAG_LAST_OWNER`).
        pub owner: Owner,
        /// Payload bytes sent so far.
        pub bytes_sent: u64,
        /// Payload bytes read so far.
        pub bytes_received: u64,
        /// `sk_err` for `CHANGE_CLOSED`.
        pub error: i32,
        /// The state before, a [`tcp_state`].
        pub old_state: u8,
        /// [`ROLE_CLIENT`] or [`ROLE_SERVER`].
        pub role: u8,
        /// Zero.
        pub _pad: u16,
        /// Smoothed round-trip time, microseconds; 0 where unknown.
        pub srtt_us: u32,
        /// Segments sent again (`CHANGE_CLOSED`); otherwise the reason of a reset or drop.
        pub number: u32,
    }
}

record! {
    /// Return addresses, innermost first.
    pub struct Stack = 328 {
        /// Bytes of `frames` that are set (a multiple of eight), or a negative errno.
        pub length: i64,
        /// The addresses.
        pub frames: [u64; STACK_DEPTH],
    }
}

record! {
    /// A request and its response.
    pub struct Exchange = 104 {
        /// `FLAG_COMPLETE` or not.
        pub header: Header,
        /// [`Socket::id`].
        pub socket: u64,
        /// First byte of the request.
        pub started: u64,
        /// Last byte of the request.
        pub request_ended: u64,
        /// First byte of the response, or 0.
        pub first_byte: u64,
        /// Last byte of either.
        pub last_byte: u64,
        /// Payload bytes.
        pub request_bytes: u64,
        /// Payload bytes.
        pub response_bytes: u64,
        /// Who sent or read the request.
        pub owner: Owner,
        /// From 0 on each socket.
        pub number: u32,
        /// HTTP/1 status, or 0.
        pub status: u16,
        /// Zero.
        pub _pad: u16,
    }
}

/// The first bytes of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Head<const N: usize> {
    /// Kind [`KIND_HEAD`].
    pub header: Header,
    /// [`Socket::id`].
    pub socket: u64,
    /// The exchange it begins.
    pub number: u32,
    /// Bytes set in `bytes`.
    pub length: u32,
    /// The beginning of the message.
    pub bytes: [u8; N],
}

impl<const N: usize> Head<N> {
    /// Where the bytes begin.
    pub const BYTES_AT: usize = 32;
}

const _: () = assert!(size_of::<Head<HEAD_SHORT>>() == 256);
const _: () = assert!(size_of::<Head<HEAD_LONG>>() == 1024);

record! {
    /// A decider ran. A [`Stack`] follows.
    pub struct Decision = 160 {
        /// `what` is a `DECIDER_…`.
        pub header: Header,
        /// Who ran it.
        pub owner: Owner,
        /// [`Socket::id`] of the connection in its argument, or 0.
        pub socket: u64,
        /// The return address: at a function's entry its caller has no frame pointer yet to be found by,
        /// so the stack lacks it.
        pub caller: u64,
        /// Bytes of the error's text, 0 where it is not text.
        pub error_length: u32,
        /// Zero.
        pub _pad: u32,
        /// The error's text.
        pub error: [u8; ERROR_TEXT],
    }
}

record! {
    /// A process appeared, changed or went.
    pub struct ProcessChange = 24 {
        /// `what` is a `PROCESS_…`.
        pub header: Header,
        /// The process.
        pub tgid: u32,
        /// Its parent (`PROCESS_FORKED`).
        pub parent: u32,
    }
}

/// A packet's headers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Packet<const N: usize> {
    /// Kind [`KIND_PACKET`].
    pub header: Header,
    /// [`Socket::id`].
    pub socket: u64,
    /// The interface.
    pub ifindex: u32,
    /// Bytes of the IP packet.
    pub wire_length: u32,
    /// Bytes set in `bytes`.
    pub captured: u32,
    /// 1 where we sent it.
    pub outgoing: u32,
    /// From the IP header on.
    pub bytes: [u8; N],
}

impl<const N: usize> Packet<N> {
    /// Where the bytes begin.
    pub const BYTES_AT: usize = 40;
}

const _: () = assert!(size_of::<Packet<PACKET_SHORT>>() == 96);
const _: () = assert!(size_of::<Packet<PACKET_LONG>>() == 160);

record! {
    /// A socket in a process's file table, from the iterator.
    pub struct FoundSocket = 72 {
        /// The `struct sock`: the key of the map of sockets.
        pub sock: u64,
        /// Its ends.
        pub address: Address,
        /// The network namespace's inode.
        pub netns: u32,
        /// Whose file table.
        pub tgid: u32,
        /// Which descriptor.
        pub fd: u32,
        /// A [`tcp_state`].
        pub state: u8,
        /// Zero.
        pub _pad: [u8; 11],
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that nothing went over yet.
    pub(crate) fn socket(role: u8) -> Socket {
        Socket {
            id: 1,
            address: Address {
                family: 2,
                local_port: 1,
                remote_port: 2,
                _pad: 0,
                local: [0; 16],
                remote: [0; 16],
            },
            owner: Owner {
                tgid: 1,
                tid: 1,
                goid: 0,
                g: 0,
            },
            started: 0,
            request_ended: 0,
            first_byte: 0,
            last_byte: 0,
            request_bytes: 0,
            response_bytes: 0,
            bytes_sent: 0,
            bytes_received: 0,
            number: 0,
            wire_number: 0,
            status: [0; 2],
            next_sent: 0,
            next_received: 0,
            role,
            phase: PHASE_NEW,
            wire_phase: PHASE_NEW,
            flags: 0,
        }
    }
}
