//! The programs' entry points and the maps they share. What each does, in whose context it runs and
//! what it costs stands at the head of the file it calls.
//!
//! A program is one way to learn one thing. Which of them are loaded is the loader's choice, made by
//! asking the kernel: where a tracepoint's signature differs between kernels there is one program for
//! each, since reading an argument that is not there fails verification.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod decisions;
mod exchanges;
mod found;
mod goroutine;
mod heads;
mod kernel;
mod losses;
mod packets;
mod processes;
mod ring;
mod samples;
mod scheduler;
mod shed;
mod sockets;

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_NO_PREALLOC,
    macros::{
        btf_tracepoint, cgroup_skb, fentry, fexit, kprobe, kretprobe, map, perf_event, uprobe,
    },
    maps::{Array, HashMap, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf, StackTrace},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, PerfEventContext, ProbeContext,
        RetProbeContext, SkBuffContext,
    },
};
use tracer_ebpf::{
    Address, DECIDER_CLIENT_TIMEOUT, DECIDER_SERVER_SHUTDOWN, DECIDER_TRANSPORT_CANCEL,
    DECIDER_TRANSPORT_CLOSE, DECIDER_TRANSPORT_DIAL, HEAD_LONG, Head, Listener, Loss, Neighbour,
    Shed, Socket, Target, Thread, Tuple,
};

/// Events, drained on a timer: never with a wake-up, which costs twenty times the event.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// Packets, apart from events so that a flood of one does not lose the other.
#[map]
static PACKETS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Who is traced, by tgid, and how to find its running goroutine.
#[map]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(16_384, 0);
/// Traced sockets, by the address of their `struct sock`.
#[map]
static SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);
/// Traced sockets by their two ends, for the packets' sake.
#[map]
static TUPLES: HashMap<Address, Tuple> = HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);
/// The head of the request that each socket is at, and of the one before: see `heads.rs`.
#[map]
static HEADS: HashMap<[u64; 2], Head<HEAD_LONG>> =
    HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);
/// Local ports of traced sockets, `PORT_…` bits: a stranger's packet is told by one load.
#[map]
static PORTS: Array<u8> = Array::with_max_entries(65_536, 0);
/// Ports that targets listen on, and who does.
#[map]
static LISTENERS: HashMap<Listener, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
/// The names of sockets to be, from the SYN to the end of the handshake. Old ones are pushed out by a
/// flood of SYNs.
#[map]
static HANDSHAKES: LruHashMap<Address, u64> = LruHashMap::with_max_entries(16_384, 0);
/// The socket that a task is connecting, from `connect` to its SYN. An old one that is pushed out
/// belongs to a SYN that never came.
#[map]
static CONNECTING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);
/// The socket a thread is sending on, from `tcp_sendmsg` to its return (kprobe only).
#[map]
static SENDING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);
/// How often a deadline passed in each process that the probe for it sits in. Old ones are pushed out.
#[map]
static DEADLINES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(4096, 0);
/// Calls of each target that failed for want of a file descriptor, while somebody counts.
#[map]
static REFUSED: LruPerCpuHashMap<u32, u64> = LruPerCpuHashMap::with_max_entries(4096, 0);
/// 1 where some target's tgid ends in these sixteen bits: a stranger's switch is told by one load.
#[map]
static MARKS: Array<u8> = Array::with_max_entries(65_536, 0);
/// The targets' threads, by tid. Allocated beforehand: under a run queue's lock nothing can be.
#[map]
static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(16_384, 0);
/// Stacks of samples, each once.
#[map]
static STACKS: StackTrace = StackTrace::with_max_entries(16_384, 0);
/// Who else was met by the profiler's clock. Old ones are pushed out.
#[map]
static NEIGHBOURS: LruPerCpuHashMap<u32, Neighbour> = LruPerCpuHashMap::with_max_entries(4096, 0);
/// What was lost, by `Loss`.
#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);
/// How much of it leaves a hole in the story of sockets.
#[map]
static LOST: Array<u64> = Array::with_max_entries(1, 0);
/// What is done without.
#[map]
static SHED: Array<Shed> = Array::with_max_entries(1, 0);

// The life of a socket.

#[btf_tracepoint(function = "inet_sock_set_state")]
fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let (sock, old, new): (u64, i32, i32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    sockets::state_changed(ctx.as_ptr(), sock, old as u8, new as u8);
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
fn reset_sent_with_reason(ctx: BtfTracePointContext) -> i32 {
    sockets::reset_sent(ctx.arg(0), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "tcp_send_reset")]
fn reset_sent(ctx: BtfTracePointContext) -> i32 {
    sockets::reset_sent(ctx.arg(0), u32::MAX);
    0
}

#[btf_tracepoint(function = "tcp_receive_reset")]
fn reset_received(ctx: BtfTracePointContext) -> i32 {
    sockets::reset_received(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn retransmitted(ctx: BtfTracePointContext) -> i32 {
    sockets::retransmitted(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "kfree_skb")]
fn dropped(ctx: BtfTracePointContext) -> i32 {
    sockets::dropped(ctx.arg(0), ctx.arg(2));
    0
}

// Bytes sent and read by the process.

#[btf_tracepoint(function = "sock_send_length")]
fn sent(ctx: BtfTracePointContext) -> i32 {
    exchanges::transferred(ctx.arg(0), i64::from(ctx.arg::<i32>(1)), true);
    0
}

#[btf_tracepoint(function = "sock_recv_length")]
fn received(ctx: BtfTracePointContext) -> i32 {
    exchanges::transferred(ctx.arg(0), i64::from(ctx.arg::<i32>(1)), false);
    0
}

#[fexit(function = "tcp_sendmsg")]
fn sent_fexit(ctx: FExitContext) -> i32 {
    exchanges::transferred(ctx.arg(0), i64::from(ctx.arg::<i32>(3)), true);
    0
}

#[fentry(function = "tcp_cleanup_rbuf")]
fn received_fentry(ctx: FEntryContext) -> i32 {
    exchanges::transferred(ctx.arg(0), i64::from(ctx.arg::<i32>(1)), false);
    0
}

#[kprobe]
fn sent_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg::<u64>(0) {
        let _ = SENDING.insert(kernel::task(), sock, 0);
    }
    0
}

#[kretprobe]
fn sent_kretprobe(ctx: RetProbeContext) -> u32 {
    let task = kernel::task();
    // SAFETY: the value is only replaced as a whole, by this same task.
    if let Some(&sock) = unsafe { SENDING.get(task) } {
        let _ = SENDING.remove(task);
        exchanges::transferred(sock, i64::from(ctx.ret::<i32>()), true);
    }
    0
}

#[kprobe]
fn received_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sock), Some(bytes)) = (ctx.arg::<u64>(0), ctx.arg::<i32>(1)) {
        exchanges::transferred(sock, i64::from(bytes), false);
    }
    0
}

// Packets.

#[cgroup_skb]
fn packet_out(ctx: SkBuffContext) -> i32 {
    packets::seen(ctx.skb.skb, true);
    1
}

#[cgroup_skb]
fn packet_in(ctx: SkBuffContext) -> i32 {
    packets::seen(ctx.skb.skb, false);
    1
}

// Processes.

#[btf_tracepoint(function = "sched_process_fork")]
fn process_forked(ctx: BtfTracePointContext) -> i32 {
    processes::forked(ctx.arg(0), ctx.arg(1));
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
fn process_execed(ctx: BtfTracePointContext) -> i32 {
    processes::execed(ctx.arg::<i32>(1) as u32);
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exited(ctx: BtfTracePointContext) -> i32 {
    processes::exited(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sys_exit")]
fn call_ended(ctx: BtfTracePointContext) -> i32 {
    processes::call_ended(ctx.arg(1));
    0
}

// Threads on CPUs.

#[btf_tracepoint(function = "sched_switch")]
fn switched_with_state(ctx: BtfTracePointContext) -> i32 {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    scheduler::switched(preempted, ctx.arg(1), ctx.arg(2), Some(ctx.arg(3)));
    0
}

#[btf_tracepoint(function = "sched_switch")]
fn switched(ctx: BtfTracePointContext) -> i32 {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    scheduler::switched(preempted, ctx.arg(1), ctx.arg(2), None);
    0
}

#[btf_tracepoint(function = "sched_wakeup")]
fn woken(ctx: BtfTracePointContext) -> i32 {
    scheduler::woken(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "sched_wakeup_new")]
fn woken_first(ctx: BtfTracePointContext) -> i32 {
    scheduler::woken_first(ctx.arg(0));
    0
}

#[perf_event]
fn sampled(ctx: PerfEventContext) -> u32 {
    samples::taken(&ctx);
    0
}

// Go's deciders.

#[uprobe]
fn transport_close(ctx: ProbeContext) -> u32 {
    decisions::decided(&ctx, DECIDER_TRANSPORT_CLOSE);
    0
}

#[uprobe]
fn transport_cancel(ctx: ProbeContext) -> u32 {
    decisions::decided(&ctx, DECIDER_TRANSPORT_CANCEL);
    0
}

#[uprobe]
fn client_timeout(ctx: ProbeContext) -> u32 {
    decisions::decided(&ctx, DECIDER_CLIENT_TIMEOUT);
    0
}

#[uprobe]
fn server_shutdown(ctx: ProbeContext) -> u32 {
    decisions::decided(&ctx, DECIDER_SERVER_SHUTDOWN);
    0
}

#[uprobe]
fn transport_dial(ctx: ProbeContext) -> u32 {
    decisions::decided(&ctx, DECIDER_TRANSPORT_DIAL);
    0
}

#[uprobe]
fn deadline_passed(ctx: ProbeContext) -> u32 {
    decisions::deadline_passed(&ctx);
    0
}

// Sockets as they stand.

/// aya-ebpf has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn found_sockets(ctx: *mut c_void) -> i32 {
    found::file(ctx.cast());
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are only for programs under a licence that is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
