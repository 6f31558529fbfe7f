//! The life of a socket, from `connect` or the handshake to the last state.
//!
//! On `inet_sock_set_state`, `tcp_send_reset`, `tcp_receive_reset`, `tcp_retransmit_skb` and
//! `kfree_skb`. Opening and closing happen in the context of the process; the peer's FIN and RST,
//! retransmissions and drops in whatever context the packet was handled, so they carry the socket's
//! last owner. A change of a stranger's socket costs one look-up (about 60 ns), one of a target's
//! about 150 ns, and 600 ns more where the user stack is taken.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_USER_STACK},
    helpers::generated::bpf_get_stack,
};
use tracer_ebpf::{
    Address, CHANGE_ACCEPTED, CHANGE_ADDRESSED, CHANGE_CLOSED, CHANGE_CONNECTING, CHANGE_DROPPED,
    CHANGE_ESTABLISHED, CHANGE_FOUND, CHANGE_LOCAL_CLOSED, CHANGE_PEER_CLOSED,
    CHANGE_RESET_RECEIVED, CHANGE_RESET_SENT, CHANGE_RETRANSMITTED, Change, FLAG_ABORT,
    FLAG_AWAITING, FLAG_LAST_OWNER, FLAG_LISTENER, FLAG_STACK, Header, KIND_CHANGE, Listener, Loss,
    PHASE_REQUEST, PORT_LISTENED, PORT_USED, ROLE_CLIENT, ROLE_SERVER, SOCKET_LOCAL_CLOSED,
    SOCKET_RESET_RECEIVED, STACK_DEPTH, Socket, Stack, Target, Tuple,
    tcp_state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
};

use crate::{
    CONNECTING, HANDSHAKES, LISTENERS, PORTS, SOCKETS, TARGETS, TUPLES, exchanges,
    goroutine::read_owner,
    heads,
    kernel::{
        current, fresh_id, is_tcp, netns, now, offset, packets_wanted, read, read_address,
        round_trip, task,
    },
    losses,
    ring::{self, QUIETLY},
    shed,
};

/// A socket of which nothing is known. In read-only data, since it is large for a stack of 512 bytes.
// SAFETY: all bytes zero is a value of a struct of integers.
static UNKNOWN: Socket = unsafe { core::mem::zeroed() };

/// A change with the user stack behind it.
#[repr(C)]
struct ChangeWithStack {
    change: Change,
    stack: Stack,
}

/// `inet_sock_set_state(sk, old, new)`.
#[inline(always)]
pub(crate) fn state_changed(ctx: *mut c_void, sock: u64, old: u8, new: u8) -> Option<()> {
    match (old, new) {
        (CLOSE, SYN_SENT) => connecting(ctx, sock),
        (SYN_SENT, ESTABLISHED) => established(sock),
        (SYN_RECV, ESTABLISHED) => accepted(sock),
        (CLOSE, LISTEN) => listening(sock),
        (ESTABLISHED, CLOSE_WAIT) => tell(sock, CHANGE_PEER_CLOSED, old, 0),
        (ESTABLISHED, FIN_WAIT1) | (CLOSE_WAIT, LAST_ACK) => closed_by_us(ctx, sock, old),
        (_, CLOSE) => closed(ctx, sock, old),
        _ => None,
    }
}

/// `connect`, in process context. The kernel chooses the local port after this.
#[inline(always)]
fn connecting(ctx: *mut c_void, sock: u64) -> Option<()> {
    let target = current_target()?;
    if !is_tcp(sock) || !shed::follows() {
        return None;
    }
    let socket = enter(sock, ROLE_CLIENT)?;
    read_owner(target, &mut socket.owner);
    // The SYN leaves in this same call: see `addressed`.
    let _ = CONNECTING.insert(task(), sock, u64::from(BPF_ANY));
    tell_with_stack(ctx, CHANGE_CONNECTING, CLOSE, socket)
}

/// The SYN of the current thread's `connect` leaves: now the local port is known.
#[inline(always)]
pub(crate) fn addressed(sock: u64) -> Option<*mut Socket> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    if socket.address.local_port != 0 {
        return None; // an older connect of this thread
    }
    learn_address(sock, socket)?;
    tell_of(CHANGE_ADDRESSED, SYN_SENT, 0, 0, 0, socket)?;
    Some(pointer)
}

#[inline(always)]
fn established(sock: u64) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    if socket.address.local_port == 0 {
        learn_address(sock, socket)?;
    }
    tell_of(CHANGE_ESTABLISHED, SYN_SENT, FLAG_LAST_OWNER, 0, 0, socket)
}

/// The handshake of an incoming connection is done, in softirq: nobody owns the socket yet.
#[inline(always)]
fn accepted(sock: u64) -> Option<()> {
    let port: u16 = read(sock, offset!(skc_num))?;
    let listener = Listener {
        netns: netns(sock),
        port,
        _pad: 0,
    };
    // SAFETY: the value is only read.
    let tgid = *unsafe { LISTENERS.get(listener) }?;
    if !shed::follows() {
        return None;
    }
    let socket = enter(sock, ROLE_SERVER)?;
    socket.owner.tgid = tgid;
    read_address(sock, &mut socket.address)?;
    if packets_wanted() {
        // SAFETY: the value is only replaced as a whole.
        if let Some(&id) = unsafe { HANDSHAKES.get(&socket.address) } {
            socket.id = id;
            let _ = HANDSHAKES.remove(&socket.address);
        }
    }
    enter_address(sock, socket);
    tell_of(
        CHANGE_ACCEPTED,
        SYN_RECV,
        FLAG_LAST_OWNER | FLAG_LISTENER,
        0,
        0,
        socket,
    )
}

/// A target listens, in process context.
#[inline(always)]
fn listening(sock: u64) -> Option<()> {
    let (tgid, _) = current();
    current_target()?;
    let port: u16 = read(sock, offset!(skc_num))?;
    let listener = Listener {
        netns: netns(sock),
        port,
        _pad: 0,
    };
    if LISTENERS
        .insert(listener, tgid, u64::from(BPF_ANY))
        .is_err()
    {
        losses::count(Loss::Listeners);
    }
    mark_port(port, PORT_LISTENED);
    None
}

/// Enters a socket that a target uses and that nobody has told of: it was there before, or it was
/// handed over by a process that is not traced.
#[inline(always)]
pub(crate) fn found(sock: u64, target: &Target) -> Option<*mut Socket> {
    if shed::connections() || !is_tcp(sock) {
        return None; // it may be one of those that are not followed
    }
    let state: u8 = read(sock, offset!(skc_state))?;
    if state == SYN_SENT || state == LISTEN || state == CLOSE {
        return None;
    }
    let port: u16 = read(sock, offset!(skc_num))?;
    let listener = Listener {
        netns: netns(sock),
        port,
        _pad: 0,
    };
    // SAFETY: the value is not read.
    let listened = unsafe { LISTENERS.get(listener) }.is_some();
    let socket = enter(sock, if listened { ROLE_SERVER } else { ROLE_CLIENT })?;
    read_owner(target, &mut socket.owner);
    learn_address(sock, socket)?;
    tell_of(CHANGE_FOUND, state, 0, 0, 0, socket)?;
    Some(socket)
}

/// Our side closes: FIN leaves. In process context, except where the kernel tears down a process.
#[inline(always)]
fn closed_by_us(ctx: *mut c_void, sock: u64, old: u8) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    socket.flags |= SOCKET_LOCAL_CLOSED;
    exchanges::tell_stuck(sock, socket);
    let Some(target) = current_target() else {
        return tell_of(CHANGE_LOCAL_CLOSED, old, FLAG_LAST_OWNER, 0, 0, socket);
    };
    if socket.is_complete() && !socket.is_unusual() {
        // An ordinary end: nobody will ask which line it was, and a stack is dear.
        return by_current_owner(CHANGE_LOCAL_CLOSED, old, socket, target);
    }
    with_current_owner(ctx, CHANGE_LOCAL_CLOSED, old, 0, socket, target)
}

/// The end. A connection that goes from established to closed at once was aborted: by the peer's RST
/// (told before), by the kernel (`sk_err`), or by us, and then we are in process context.
#[inline(always)]
fn closed(ctx: *mut c_void, sock: u64, old: u8) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    if socket.address.local_port == 0 {
        // Never learnt where the SYN did not get as far as the packet hook.
        let _ = read_address(sock, &mut socket.address);
    }
    let error: i32 = read(sock, offset!(sk_err)).unwrap_or(0);
    let live = matches!(old, ESTABLISHED | CLOSE_WAIT | SYN_SENT);
    let (tgid, _) = current();
    let by_us = live
        && error == 0
        && socket.flags & SOCKET_RESET_RECEIVED == 0
        && tgid == socket.owner.tgid;
    let abort = if by_us { FLAG_ABORT } else { 0 };
    if by_us && let Some(target) = current_target() {
        with_current_owner(ctx, CHANGE_LOCAL_CLOSED, old, abort, socket, target);
    }
    heads::tell(sock, socket);
    exchanges::tell_end(sock, socket, old);
    heads::forget(sock, socket);
    let retransmits: u32 = read(sock, offset!(total_retrans)).unwrap_or(0);
    let srtt_us = round_trip(sock);
    let entry = ring::reserve::<Change>(Loss::Ends);
    if let Some(mut entry) = entry {
        let change = entry.as_mut_ptr();
        fill(change, CHANGE_CLOSED, old, FLAG_LAST_OWNER | abort, socket);
        // SAFETY: `change` points into the reserved record.
        unsafe {
            (*change).error = error;
            (*change).srtt_us = srtt_us;
            (*change).number = retransmits;
        }
        entry.submit(QUIETLY);
    }
    // The address stays for the packets that are still on their way; user space removes it.
    let _ = SOCKETS.remove(sock);
    Some(())
}

/// `tcp_send_reset(sk, skb, reason)`; without a socket it answers a stranger.
#[inline(always)]
pub(crate) fn reset_sent(sock: u64, reason: u32) -> Option<()> {
    if SOCKETS.get_ptr(sock).is_some() {
        return tell(sock, CHANGE_RESET_SENT, 0, reason);
    }
    if sock == 0 {
        return None;
    }
    // An abort changes the state first, so all that is left of the socket are its ends.
    // SAFETY: all bytes zero is a value of a struct of integers.
    let mut address: Address = unsafe { core::mem::zeroed() };
    read_address(sock, &mut address)?;
    // SAFETY: the value is only replaced as a whole.
    let socket = unsafe { TUPLES.get(&address) }?.socket;
    let mut entry = ring::reserve::<Change>(Loss::Changes)?;
    let change = entry.as_mut_ptr();
    // SAFETY: `change` points to a whole reserved `Change`, which is set from end to end.
    unsafe {
        change.write_bytes(0, 1);
        (*change).header = Header {
            kind: KIND_CHANGE,
            what: CHANGE_RESET_SENT,
            flags: FLAG_LAST_OWNER,
            at: now(),
        };
        (*change).socket = socket;
        (*change).address = address;
        (*change).number = reason;
    }
    entry.submit(QUIETLY);
    Some(())
}

/// `tcp_receive_reset(sk)`.
#[inline(always)]
pub(crate) fn reset_received(sock: u64) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    unsafe { (*pointer).flags |= SOCKET_RESET_RECEIVED };
    tell(sock, CHANGE_RESET_RECEIVED, 0, 0)
}

/// `tcp_retransmit_skb(sk, …)`.
#[inline(always)]
pub(crate) fn retransmitted(sock: u64) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    socket.retransmits = socket.retransmits.saturating_add(1);
    let state: u8 = read(sock, offset!(skc_state))?;
    tell_of(CHANGE_RETRANSMITTED, state, FLAG_LAST_OWNER, 0, 0, socket)
}

/// `kfree_skb(skb, …, reason)`: a packet of a socket of ours was dropped on its way out or in.
#[inline(always)]
pub(crate) fn dropped(skb: u64, reason: u32) -> Option<()> {
    let sock: u64 = read(skb, offset!(skb_sk))?;
    let sock = if sock == 0 {
        crate::packets::sender(skb)?
    } else {
        sock
    };
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    if socket.address.local_port == 0 {
        learn_address(sock, socket)?;
    }
    let state: u8 = read(sock, offset!(skc_state))?;
    tell_of(CHANGE_DROPPED, state, FLAG_LAST_OWNER, 0, reason, socket)
}

/// The current process, if it is traced.
#[inline(always)]
pub(crate) fn current_target() -> Option<&'static Target> {
    // SAFETY: the value is only replaced as a whole, by user space.
    unsafe { TARGETS.get(current().0) }
}

/// Enters `sock` anew and gives it its name.
#[inline(always)]
fn enter(sock: u64, role: u8) -> Option<&'static mut Socket> {
    // Over an older entry at this address, which is of a socket whose end was not seen.
    if SOCKETS.insert(sock, &UNKNOWN, u64::from(BPF_ANY)).is_err() {
        losses::count(Loss::Sockets);
        return None;
    }
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    socket.id = fresh_id(now());
    socket.role = role;
    Some(socket)
}

/// Reads the addresses and enters them, so that packets find the socket.
#[inline(always)]
fn learn_address(sock: u64, socket: &mut Socket) -> Option<()> {
    read_address(sock, &mut socket.address)?;
    enter_address(sock, socket);
    Some(())
}

/// Enters the addresses, so that packets find the socket.
#[inline(always)]
fn enter_address(sock: u64, socket: &Socket) {
    let tuple = Tuple {
        sock,
        socket: socket.id,
    };
    if TUPLES
        .insert(&socket.address, &tuple, u64::from(BPF_ANY))
        .is_err()
    {
        losses::count(Loss::Tuples);
    }
    mark_port(socket.address.local_port, PORT_USED);
}

#[inline(always)]
fn mark_port(port: u16, bit: u8) {
    if let Some(bits) = PORTS.get_ptr_mut(u32::from(port)) {
        // SAFETY: an element of the map, whose bits are only ever set.
        unsafe { *bits |= bit };
    }
}

#[inline(always)]
fn tell(sock: u64, what: u16, old: u8, number: u32) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &*pointer };
    tell_of(what, old, FLAG_LAST_OWNER, 0, number, socket)
}

#[inline(always)]
fn tell_of(what: u16, old: u8, flags: u32, error: i32, number: u32, socket: &Socket) -> Option<()> {
    let mut entry = ring::reserve::<Change>(Loss::of_change(what))?;
    let change = entry.as_mut_ptr();
    fill(change, what, old, flags, socket);
    // SAFETY: `change` points into the reserved record.
    unsafe {
        (*change).error = error;
        (*change).number = number;
    }
    entry.submit(QUIETLY);
    Some(())
}

/// Tells a change of the current thread's doing; the socket keeps its owner, whose its last exchange is.
#[inline(always)]
fn by_current_owner(what: u16, old: u8, socket: &Socket, target: &Target) -> Option<()> {
    let mut entry = ring::reserve::<Change>(Loss::of_change(what))?;
    let change = entry.as_mut_ptr();
    fill(change, what, old, 0, socket);
    // SAFETY: `change` points into the reserved record.
    unsafe { read_owner(target, &mut (*change).owner) };
    entry.submit(QUIETLY);
    Some(())
}

/// The same with its stack.
#[inline(always)]
fn with_current_owner(
    ctx: *mut c_void,
    what: u16,
    old: u8,
    flags: u32,
    socket: &Socket,
    target: &Target,
) -> Option<()> {
    let mut entry = ring::reserve::<ChangeWithStack>(Loss::of_change(what))?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points into the reserved record.
    unsafe {
        fill(
            &raw mut (*record).change,
            what,
            old,
            flags | FLAG_STACK,
            socket,
        );
        read_owner(target, &mut (*record).change.owner);
        read_stack(ctx, &raw mut (*record).stack);
    }
    entry.submit(QUIETLY);
    Some(())
}

#[inline(always)]
fn tell_with_stack(ctx: *mut c_void, what: u16, old: u8, socket: &Socket) -> Option<()> {
    let mut entry = ring::reserve::<ChangeWithStack>(Loss::of_change(what))?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points into the reserved record.
    unsafe {
        fill(&raw mut (*record).change, what, old, FLAG_STACK, socket);
        read_stack(ctx, &raw mut (*record).stack);
    }
    entry.submit(QUIETLY);
    Some(())
}

/// The user stack of the current thread, by frame pointers, which Go always keeps.
///
/// # Safety
/// `to` must point to a whole `Stack`.
#[inline(always)]
pub(crate) unsafe fn read_stack(ctx: *mut c_void, to: *mut Stack) {
    // SAFETY: the helper writes at most the given size into `frames`.
    unsafe {
        (*to).length = bpf_get_stack(
            ctx,
            (&raw mut (*to).frames).cast(),
            (STACK_DEPTH * size_of::<u64>()) as u32,
            u64::from(BPF_F_USER_STACK),
        );
    }
}

#[inline(always)]
fn fill(to: *mut Change, what: u16, old: u8, flags: u32, socket: &Socket) {
    let awaiting = if socket.phase == PHASE_REQUEST {
        FLAG_AWAITING
    } else {
        0
    };
    let (sent, received) = socket.totals();
    // SAFETY: `to` points to a whole reserved `Change`.
    unsafe {
        to.write(Change {
            header: Header {
                kind: KIND_CHANGE,
                what,
                flags: flags | awaiting,
                at: now(),
            },
            socket: socket.id,
            address: socket.address,
            owner: socket.owner,
            bytes_sent: sent,
            bytes_received: received,
            error: 0,
            old_state: old,
            role: socket.role,
            _pad: 0,
            srtt_us: 0,
            number: 0,
        });
    }
}
