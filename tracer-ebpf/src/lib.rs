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

mod arrivals;
mod codes;
mod gaps;
mod maps;
mod threads;
mod turns;

pub use arrivals::Read;
pub use codes::*;
pub use gaps::{BULK, FULL, STALL};
pub use maps::{Config, KernelOffsets, Listener, Loss, Neighbour, Shed, Socket, Target, Tuple};
pub use threads::{
    Before, ENDED, LONG_WAIT, NO_CPU, PREEMPTED, RANGES, RUNNING, SLEEPING, THROTTLED, Thread,
    UNINTERRUPTIBLE, WOKEN,
};
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

record! {
    /// Both ends of a connection, from one end's point of view.
    pub struct Address = 40 {
        /// `AF_INET` (2) or `AF_INET6` (10).
        pub family: u16,
        /// Our port.
        pub local_port: u16,
        /// The peer's port.
        pub remote_port: u16,
        /// Of loopback addresses, which each network namespace has for itself, the last bits of its inode
        /// number, which no two of less than 65,536 namespaces share; 0 for others.
        pub scope: u16,
        /// Our address.
        pub local: [u8; 16],
        /// The peer's address.
        pub remote: [u8; 16],
    }
}

impl Address {
    /// Whether it is of a connection within one network namespace, whose addresses others have, too:
    /// 127.0.0.0/8 or `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        const SIX: u128 = 1_u128.to_be();
        if self.family == 2 {
            self.local[0] == 127 || self.remote[0] == 127
        } else {
            u128::from_ne_bytes(self.local) == SIX || u128::from_ne_bytes(self.remote) == SIX
        }
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
    /// A request and its response, by the calls of the process.
    pub struct Turn = 64 {
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
        /// When the first byte of what the process reads of it (server: the request, client: the response)
        /// lay in the socket; 0 where that is not known exactly.
        pub arrived: u64,
        /// From 0 on each socket.
        pub number: u32,
        /// Zero.
        pub _pad: u32,
    }
}

record! {
    /// An exchange is told.
    pub struct Exchange = 120 {
        /// `FLAG_COMPLETE` or not.
        pub header: Header,
        /// [`Socket::id`].
        pub socket: u64,
        /// What it was.
        pub turn: Turn,
        /// Who sent or read the request.
        pub owner: Owner,
        /// Smoothed round-trip time, microseconds; 0 where unknown.
        pub srtt_us: u32,
        /// HTTP/1 status, or 0.
        pub status: u16,
        /// Zero.
        pub _pad: u16,
    }
}

record! {
    /// No call of the process moved a byte of a message for [`STALL`], between two that did.
    pub struct Stall = 80 {
        /// `what` is the message that stopped, `PHASE_…`; `FLAG_RESUMED` or not.
        pub header: Header,
        /// [`Socket::id`].
        pub socket: u64,
        /// The last byte before the gap.
        pub from: u64,
        /// The first byte after it, or the socket's end.
        pub until: u64,
        /// Bytes of the message before it.
        pub bytes_before: u64,
        /// Receiving: when the bytes that ended it lay in the socket, or 0.
        pub arrived: u64,
        /// Sending: when the process first found the buffer full, or 0.
        pub buffer_full: u64,
        /// Sending: jiffies for which the peer's window kept the socket from sending.
        pub window_limited: u32,
        /// Sending: segments sent again.
        pub retransmits: u32,
        /// [`Turn::number`].
        pub number: u32,
        /// Zero.
        pub _pad: u32,
    }
}

record! {
    /// A socket ends with bytes in it that the process has not read.
    pub struct Unread = 40 {
        /// `at` is the socket's end.
        pub header: Header,
        /// [`Socket::id`].
        pub socket: u64,
        /// Since when the first of them lies there.
        pub since: u64,
        /// How many.
        pub bytes: u64,
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
    /// A decider ran. A [`Stack`] follows if `FLAG_STACK`.
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

record! {
    /// A thread got a CPU after a long wait.
    pub struct Waited = 64 {
        /// `what` is what it waited in: [`WOKEN`], [`PREEMPTED`] or [`THROTTLED`].
        pub header: Header,
        /// Since when it waited.
        pub from: u64,
        /// The goroutine that it was running when it lost its CPU, or 0.
        pub goid: u64,
        /// Its process.
        pub tgid: u32,
        /// Which thread.
        pub tid: u32,
        /// The process of the thread that had the CPU right before it; 0 where that was idle.
        pub by_tgid: u32,
        /// That thread.
        pub by_tid: u32,
        /// Its name.
        pub by_comm: [u8; 16],
    }
}

record! {
    /// A CPU went from one thread to another.
    pub struct Switch = 48 {
        /// `what` is the state that the one went over to.
        pub header: Header,
        /// The goroutine that it was running, or 0.
        pub goid: u64,
        /// Which CPU.
        pub cpu: u32,
        /// The process of the one that left; 0 for a stranger.
        pub from_tgid: u32,
        /// The one that left.
        pub from_tid: u32,
        /// The process of the one that came; 0 for a stranger.
        pub to_tgid: u32,
        /// The one that came.
        pub to_tid: u32,
        /// Zero.
        pub _pad: u32,
    }
}

record! {
    /// A target was running when the profiler's clock ticked. With `FLAG_STACK`, because a stack found its
    /// place taken, its two [`Stack`]s follow, that in the program and that in the kernel.
    pub struct Sample = 40 {
        /// Kind [`KIND_SAMPLE`].
        pub header: Header,
        /// The goroutine that was running, or 0.
        pub goid: u64,
        /// The process.
        pub tgid: u32,
        /// The thread.
        pub tid: u32,
        /// Its stack in the program, in the map of stacks; negative where there is none.
        pub user: i32,
        /// Its stack in the kernel; negative in user mode, and where there is none.
        pub kernel: i32,
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
    pub struct FoundSocket = 88 {
        /// The `struct sock`: the key of the map of sockets.
        pub sock: u64,
        /// Its inode, as `/proc/PID/fd` and `sock_diag` name it.
        pub inode: u64,
        /// Its ends.
        pub address: Address,
        /// The network namespace's inode.
        pub netns: u32,
        /// Whose file table.
        pub tgid: u32,
        /// Sequence number after the last byte that the process read.
        pub copied: u32,
        /// Bytes that lie in it unread.
        pub unread: u32,
        /// Smoothed round-trip time, microseconds; 0 where unknown.
        pub srtt_us: u32,
        /// Jiffies for which the peer's window has kept it from sending.
        pub limited: u32,
        /// A [`tcp_state`].
        pub state: u8,
        /// Zero.
        pub _pad: [u8; 7],
    }
}

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
                scope: 0,
                local: [0; 16],
                remote: [0; 16],
            },
            owner: Owner {
                tgid: 1,
                tid: 1,
                goid: 0,
                g: 0,
            },
            turn: Turn {
                started: 0,
                request_ended: 0,
                first_byte: 0,
                last_byte: 0,
                request_bytes: 0,
                response_bytes: 0,
                arrived: 0,
                number: 0,
                _pad: 0,
            },
            bytes_sent: 0,
            bytes_received: 0,
            arrived: 0,
            buffer_full: 0,
            wire_number: 0,
            status: [0; 2],
            next_sent: 0,
            next_received: 0,
            copied: 0,
            limited: 0,
            retransmits: 0,
            lying: 0,
            _pad: 0,
            role,
            phase: PHASE_NEW,
            wire_phase: PHASE_NEW,
            flags: 0,
        }
    }
}
