//! The values and keys of the maps that both halves use, and what the loader tells the programs.

use crate::{
    Address, CHANGE_ACCEPTED, CHANGE_CLOSED, CHANGE_CONNECTING, CHANGE_FOUND, Owner, Turn,
};

record! {
    /// What the kernel half knows of one socket: the value of the map of sockets.
    ///
    /// Written without a lock by whatever CPU handles the socket. The calls of the process (`turn`,
    /// `phase`, `buffer_full`, `limited`) and the packets (`wire_phase`, `wire_number`, `next_…`,
    /// `retransmits`) keep to fields of their own, and a half-duplex protocol never has two calls at one
    /// turn. `arrived` is set by packets and settled by reads: see `arrivals.rs` on what a race does.
    pub struct Socket = 200 {
        /// Unique in this boot: the nanosecond it was first seen, its last eight bits the CPU.
        pub id: u64,
        /// Its ends.
        pub address: Address,
        /// Who last used it in process context.
        pub owner: Owner,
        /// The exchange it is in, by the process's calls.
        pub turn: Turn,
        /// Payload bytes of exchanges before this one, sent.
        pub bytes_sent: u64,
        /// Payload bytes of exchanges before this one, read.
        pub bytes_received: u64,
        /// When the first byte that the process has not read lay in the socket; 0 where there is none, or
        /// it is not known.
        pub arrived: u64,
        /// Since the last byte sent: when the process first found the socket's buffer full, or 0.
        pub buffer_full: u64,
        /// The exchange, by the packets.
        pub wire_number: u32,
        /// HTTP status of the even and of the odd exchange: by packets, the next response can come
        /// before the process's call that ends this one is told.
        pub status: [u16; 2],
        /// Sequence number after the last payload sent, by packets.
        pub next_sent: u32,
        /// Sequence number after the last payload received, by packets.
        pub next_received: u32,
        /// Sequence number after the last byte that the process read (`LYING_KNOWN`).
        pub copied: u32,
        /// At the last byte sent: one more than the jiffies for which the peer's window kept the socket
        /// from sending until then; 0 where that was not asked.
        pub limited: u32,
        /// Segments sent again since the last byte that the process sent.
        pub retransmits: u16,
        /// `LYING_…` bits.
        pub lying: u8,
        /// Zero.
        pub _pad: u8,
        /// `ROLE_…`.
        pub role: u8,
        /// `PHASE_…`, by the process's calls.
        pub phase: u8,
        /// `PHASE_…`, by the packets.
        pub wire_phase: u8,
        /// `SOCKET_…` bits.
        pub flags: u8,
    }
}

record! {
    /// The value of the map from addresses to sockets.
    pub struct Tuple = 16 {
        /// The `struct sock`.
        pub sock: u64,
        /// [`Socket::id`].
        pub socket: u64,
    }
}

record! {
    /// A listening port of a target: the key of the map of listeners.
    pub struct Listener = 8 {
        /// The network namespace's inode.
        pub netns: u32,
        /// The port.
        pub port: u16,
        /// Zero.
        pub _pad: u16,
    }
}

record! {
    /// A traced process: the value of the map of targets. Offsets in bytes; all zero for a program that
    /// is not Go or whose layout is not known.
    pub struct Target = 32 {
        /// Of the pointer to the running `g`, from the thread's `fs` base; 0 where it is not known.
        pub tls: i32,
        /// `runtime.g.m`.
        pub g_m: u32,
        /// `runtime.m.curg`.
        pub m_curg: u32,
        /// `runtime.g.goid`.
        pub g_goid: u32,
        /// `net/http.persistConn.conn`.
        pub persist_conn_conn: u32,
        /// `runtime.pollDesc.rseq`.
        pub poll_read_seq: u32,
        /// `runtime.pollDesc.wseq`.
        pub poll_write_seq: u32,
        /// Zero.
        pub _pad: u32,
    }
}

record! {
    /// Where this kernel keeps things, from its BTF; bytes from the beginning of the struct.
    pub struct KernelOffsets = 188 {
        /// `sock_common.skc_family`.
        pub skc_family: u32,
        /// `sock_common.skc_state`.
        pub skc_state: u32,
        /// `sock_common.skc_num`.
        pub skc_num: u32,
        /// `sock_common.skc_dport`.
        pub skc_dport: u32,
        /// `sock_common.skc_daddr`.
        pub skc_daddr: u32,
        /// `sock_common.skc_rcv_saddr`.
        pub skc_rcv_saddr: u32,
        /// `sock_common.skc_v6_daddr`.
        pub skc_v6_daddr: u32,
        /// `sock_common.skc_v6_rcv_saddr`.
        pub skc_v6_rcv_saddr: u32,
        /// `sock_common.skc_net`.
        pub skc_net: u32,
        /// `net.ns.inum`.
        pub net_inum: u32,
        /// `sock.sk_protocol`.
        pub sk_protocol: u32,
        /// `sock.sk_err`.
        pub sk_err: u32,
        /// `inet_sock.inet_sport`.
        pub inet_sport: u32,
        /// `tcp_sock.srtt_us` (eight times the value).
        pub srtt_us: u32,
        /// `tcp_sock.total_retrans`.
        pub total_retrans: u32,
        /// `tcp_sock.copied_seq`.
        pub copied_seq: u32,
        /// `tcp_sock.rcv_nxt`.
        pub rcv_nxt: u32,
        /// `tcp_sock.chrono_type` (its lowest two bits).
        pub chrono_type: u32,
        /// `tcp_sock.chrono_start`.
        pub chrono_start: u32,
        /// `tcp_sock.chrono_stat`.
        pub chrono_stat: u32,
        /// `sk_buff.sk`.
        pub skb_sk: u32,
        /// `sk_buff.head`.
        pub skb_head: u32,
        /// `sk_buff.network_header`.
        pub skb_network_header: u32,
        /// `task_struct.tgid`.
        pub task_tgid: u32,
        /// `task_struct.thread.fsbase`.
        pub task_fsbase: u32,
        /// `task_struct.files`.
        pub task_files: u32,
        /// `files_struct.fdt`.
        pub files_fdt: u32,
        /// `fdtable.fd`.
        pub fdtable_fd: u32,
        /// `file.private_data`.
        pub file_private_data: u32,
        /// `file.f_inode`.
        pub file_inode: u32,
        /// `inode.i_mode`.
        pub inode_mode: u32,
        /// `inode.i_ino`.
        pub inode_number: u32,
        /// `socket.sk`.
        pub socket_sk: u32,
        /// `task_struct.pid`.
        pub task_pid: u32,
        /// `task_struct.__state`, before 5.14 `state`.
        pub task_state: u32,
        /// `task_struct.prio`.
        pub task_prio: u32,
        /// `task_struct.throttled`; 0 on a kernel that throttles run queues and not tasks (before 6.18), or
        /// not at all.
        pub task_throttled: u32,
        /// `task_struct.se.cfs_rq`; 0 where there are no groups.
        pub task_cfs_rq: u32,
        /// `cfs_rq.throttle_count`; 0 where there are no quotas.
        pub cfs_rq_throttle_count: u32,
        /// `task_struct.se.sum_exec_runtime`.
        pub task_ran: u32,
        /// `task_struct.se.prev_sum_exec_runtime`: the same when it last got a CPU.
        pub task_ran_before: u32,
        /// `task_struct.signal`.
        pub task_signal: u32,
        /// `signal_struct.live`.
        pub signal_live: u32,
        /// `sk_buff._skb_refdst`.
        pub skb_dst: u32,
        /// `dst_entry.dev`.
        pub dst_dev: u32,
        /// `net_device.nd_net`.
        pub device_net: u32,
        /// Zero.
        pub _pad: u32,
    }
}

record! {
    /// What the loader tells the programs.
    pub struct Config = 8 {
        /// 1 where packets are wanted.
        pub packets: u32,
        /// 1 where every switch of a target is wanted.
        pub timeline: u32,
    }
}

record! {
    /// A process that is no target and had a CPU: the value of the map of neighbours, by tgid.
    pub struct Neighbour = 24 {
        /// Ticks of the profiler's clock that met it.
        pub samples: u64,
        /// The name of the thread that was met first.
        pub comm: [u8; 16],
    }
}

record! {
    /// What the kernel half does without by now, to keep within its budget of CPU time.
    pub struct Shed = 8 {
        /// 1 where packets are not seen any more.
        pub packets: u32,
        /// Of the connections that are opened, one in so many is followed; 0 stands for all.
        pub one_in: u32,
    }
}

/// What can be lost; the index into the map of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// The first record of a socket.
    Openings = 0,
    /// A step in a socket's life between its first record and its last.
    Changes = 1,
    /// The last record of a socket.
    Ends = 2,
    /// An exchange.
    Exchanges = 3,
    /// A gap in a message, or bytes left unread.
    Stalls = 4,
    /// The head of a request, whose place may be the ring or the map of heads.
    Heads = 5,
    /// A decider ran.
    Decisions = 6,
    /// A process appeared, changed or went.
    Processes = 7,
    /// The last record of a thread.
    ThreadEnds = 8,
    /// A long wait for a CPU.
    Waits = 9,
    /// A switch of the timeline.
    Switches = 10,
    /// A sample.
    Samples = 11,
    /// A packet found its ring full.
    Packets = 12,
    /// The map of sockets is full: a socket is not followed.
    Sockets = 13,
    /// The map of addresses is full: a socket's packets are not seen.
    Tuples = 14,
    /// The map of targets is full: a child is not followed.
    Targets = 15,
    /// The map of listeners is full: what a target accepts is seen from its first use on.
    Listeners = 16,
    /// The map of threads is full: a thread's time is not summed up.
    Threads = 17,
    /// A sample's stack found no place.
    Stacks = 18,
}

impl Loss {
    /// How many there are.
    pub const COUNT: u32 = 19;
    /// Each, in order of its index.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Openings,
        Self::Changes,
        Self::Ends,
        Self::Exchanges,
        Self::Stalls,
        Self::Heads,
        Self::Decisions,
        Self::Processes,
        Self::ThreadEnds,
        Self::Waits,
        Self::Switches,
        Self::Samples,
        Self::Packets,
        Self::Sockets,
        Self::Tuples,
        Self::Targets,
        Self::Listeners,
        Self::Threads,
        Self::Stacks,
    ];

    /// Whether what is told of sockets has a hole where this is lost.
    #[inline(always)]
    #[must_use]
    pub const fn leaves_hole(self) -> bool {
        self as u32 <= Self::Processes as u32
    }

    /// What a `CHANGE_…` is as a loss.
    #[inline(always)]
    #[must_use]
    pub const fn of_change(what: u16) -> Self {
        match what {
            CHANGE_CONNECTING | CHANGE_ACCEPTED | CHANGE_FOUND => Self::Openings,
            CHANGE_CLOSED => Self::Ends,
            _ => Self::Changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_stands_at_its_index() {
        for (index, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, index);
        }
    }
}
