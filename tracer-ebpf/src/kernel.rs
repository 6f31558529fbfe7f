//! Reading the kernel's and the process's memory.
//!
//! Rust has no CO-RE relocations, so offsets come from user space, which takes them from the running
//! kernel's BTF. They lie in read-only data that the verifier knows as constants.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user,
    generated::{
        bpf_get_current_task, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns,
    },
};
use tracer_ebpf::{
    Address, Config, KernelOffsets,
    tcp_state::{ESTABLISHED, LISTEN},
};

/// Filled in by the loader.
// SAFETY: all bytes zero is a value of a struct of integers.
#[unsafe(no_mangle)]
static OFFSETS: KernelOffsets = unsafe { core::mem::zeroed() };

/// Filled in by the loader.
#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    packets: 0,
    timeline: 0,
};

/// The offset of a field, as the loader set it.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: a read of a static; volatile since the loader writes it behind the compiler.
        unsafe {
            core::ptr::read_volatile(
                $crate::kernel::offsets()
                    .cast::<u32>()
                    .byte_add(core::mem::offset_of!(tracer_ebpf::KernelOffsets, $field)),
            )
        }
    };
}
pub(crate) use offset;

pub(crate) fn offsets() -> *const KernelOffsets {
    &raw const OFFSETS
}

/// Whether packets are wanted.
#[inline(always)]
pub(crate) fn packets_wanted() -> bool {
    // SAFETY: as in `offset`.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.packets) != 0 }
}

/// Whether every switch of a target is wanted.
#[inline(always)]
pub(crate) fn timeline_wanted() -> bool {
    // SAFETY: as in `offset`.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.timeline) != 0 }
}

/// A member of a struct that the verifier knows the type of, since it came as an argument: one load, where
/// [`read`] calls a helper.
#[inline(always)]
pub(crate) fn member<T>(base: u64, offset: u32) -> T {
    // SAFETY: the verifier accepts only members that are there, and the kernel catches a fault.
    unsafe { core::ptr::read((base + u64::from(offset)) as *const T) }
}

/// A value in kernel memory.
#[inline(always)]
pub(crate) fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; every `T` here is plain data.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T).ok() }
}

/// A value in the current process's memory.
#[inline(always)]
pub(crate) fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address; every `T` here is plain data.
    unsafe { bpf_probe_read_user(address as *const T).ok() }
}

/// A pointer that the verifier knows the type of, as the number that it is: a typed one may not be
/// added to.
#[inline(always)]
pub(crate) fn untyped(pointer: u64) -> Option<u64> {
    read(&raw const pointer as u64, 0)
}

/// Nanoseconds since boot, suspension included.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Process and thread id of the current thread.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// The current thread's `task_struct`.
#[inline(always)]
pub(crate) fn task() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task() }
}

/// The CPU that this runs on.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// A name for a socket that no other socket of this boot has.
#[inline(always)]
pub(crate) fn fresh_id(now: u64) -> u64 {
    (now & !0xff) | (u64::from(cpu()) & 0xff)
}

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;
/// The beginning of an IPv4-mapped address as two words in memory order.
const MAPPED: [u32; 3] = [0, 0, 0xffff_0000];

/// Whether this is a TCP socket.
#[inline(always)]
pub(crate) fn is_tcp(sock: u64) -> bool {
    matches!(
        read::<u16>(sock, offset!(skc_family)),
        Some(AF_INET | AF_INET6)
    ) && read::<u16>(sock, offset!(sk_protocol)) == Some(IPPROTO_TCP)
}

/// Whether this is a listener that TCP connections are accepted from. Go listens with MPTCP from 1.24 on,
/// and gets plain TCP sockets from there whenever the client speaks plain TCP.
#[inline(always)]
pub(crate) fn is_listener(sock: u64) -> bool {
    read::<u8>(sock, offset!(skc_state)) == Some(LISTEN)
        && matches!(
            read::<u16>(sock, offset!(sk_protocol)),
            Some(IPPROTO_TCP | IPPROTO_MPTCP)
        )
}

/// Writes both ends of a socket to `to`.
#[inline(always)]
pub(crate) fn read_address(sock: u64, to: &mut Address) -> Option<()> {
    let mut family: u16 = read(sock, offset!(skc_family))?;
    let mut local_port: u16 = read(sock, offset!(skc_num))?;
    if local_port == 0 {
        // A socket on its way out has given its port back; the copy in the header is still there.
        local_port = u16::from_be(read(sock, offset!(inet_sport))?);
    }
    to.local = [0; 16];
    to.remote = [0; 16];
    if family == AF_INET6 {
        to.remote = read(sock, offset!(skc_v6_daddr))?;
        to.local = read(sock, offset!(skc_v6_rcv_saddr))?;
        let start: [u32; 3] = read(sock, offset!(skc_v6_daddr))?;
        if start == MAPPED {
            family = AF_INET;
            to.local = [0; 16];
            to.remote = [0; 16];
        }
    }
    if family == AF_INET {
        let remote: [u8; 4] = read(sock, offset!(skc_daddr))?;
        let local: [u8; 4] = read(sock, offset!(skc_rcv_saddr))?;
        to.remote[..4].copy_from_slice(&remote);
        to.local[..4].copy_from_slice(&local);
    }
    to.family = family;
    to.local_port = local_port;
    to.remote_port = u16::from_be(read(sock, offset!(skc_dport))?);
    to.scope = if to.is_loopback() { scope(sock) } else { 0 };
    Some(())
}

/// [`Address::scope`] of a socket's loopback addresses.
#[inline(always)]
pub(crate) fn scope(sock: u64) -> u16 {
    netns(sock) as u16
}

/// The inode of the socket's network namespace.
#[inline(always)]
pub(crate) fn netns(sock: u64) -> u32 {
    read::<u64>(sock, offset!(skc_net))
        .and_then(|net| read(net, offset!(net_inum)))
        .unwrap_or(0)
}

/// Up to where the kernel has handed bytes out (`copied_seq`), and has them in order (`rcv_nxt`).
#[inline(always)]
pub(crate) fn received(sock: u64) -> Option<(u32, u32)> {
    Some((
        read(sock, offset!(copied_seq))?,
        read(sock, offset!(rcv_nxt))?,
    ))
}

/// Payload bytes that lie in the socket, which is or was in `state`.
#[inline(always)]
pub(crate) fn unread(sock: u64, state: u8) -> u32 {
    let Some((copied, expected)) = received(sock) else {
        return 0;
    };
    let bytes = expected.wrapping_sub(copied);
    // The peer's FIN takes a number too. Where it may not have come, a byte is the smaller error.
    if bytes != 0 && state != ESTABLISHED {
        bytes - 1
    } else {
        bytes
    }
}

/// Smoothed round-trip time in microseconds, 0 where there is none yet.
#[inline(always)]
pub(crate) fn round_trip(sock: u64) -> u32 {
    read::<u32>(sock, offset!(srtt_us)).unwrap_or(0) >> 3
}

/// `TCP_CHRONO_RWND_LIMITED`, and its place among `tcp_sock.chrono_stat`, which has none for the first.
const RWND_LIMITED: u8 = 2;
const RWND_LIMITED_AT: u32 = 4;

/// One more than the jiffies for which the peer's window has kept the socket from sending
/// (`tcp_get_info_chrono_stats` in `net/ipv4/tcp.c`); 0 where it cannot be read.
#[inline(always)]
pub(crate) fn limited(sock: u64) -> u32 {
    let Some(before) = read::<u32>(sock, offset!(chrono_stat) + RWND_LIMITED_AT) else {
        return 0;
    };
    let running = read::<u8>(sock, offset!(chrono_type)).map(|kind| kind & 3);
    let since = if running == Some(RWND_LIMITED) {
        let start: u32 = read(sock, offset!(chrono_start)).unwrap_or(0);
        // SAFETY: a helper without arguments.
        (unsafe { bpf_jiffies64() } as u32).wrapping_sub(start)
    } else {
        0
    };
    before.wrapping_add(since).wrapping_add(1)
}

/// A length between 1 and `N`; `length` is not 0. One less of it is read behind the compiler, which would
/// leave out what it knows and the verifier does not. That it is compared, and one is added to it, even old
/// verifiers follow; that what is not 0 is at least 1 they do not.
#[inline(always)]
pub(crate) fn bounded<const N: usize>(length: u32) -> u32 {
    let below = length.wrapping_sub(1);
    // SAFETY: a read of the variable above.
    let below = unsafe { (&raw const below).read_volatile() };
    if below < N as u32 {
        below + 1
    } else {
        N as u32
    }
}
