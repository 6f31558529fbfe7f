//! The heads of requests: told as they pass, while every exchange of the connection is told; kept
//! beside their sockets from then on, until it is known whether the exchange is worth telling.
//!
//! The packet hook writes a kept head in place; most are written over by the next one, unread. There
//! are two places for each socket, in turn: by packets, the next request can come before the process's
//! call that ends this exchange is told. So a connection of few requests takes no place at all.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY},
    helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes},
};
use tracer_ebpf::{HEAD_LONG, HEAD_SHORT, Head, Header, KIND_HEAD, Loss, Socket, begins_request};

use crate::{
    HEADS,
    kernel::bounded,
    losses,
    ring::{self, QUIETLY},
};

// SAFETY: all bytes zero is a value of a struct of integers.
static EMPTY: Head<HEAD_LONG> = unsafe { core::mem::zeroed() };

/// The place of a socket's head, even and odd exchanges apart.
#[inline(always)]
fn place(sock: u64, number: u32) -> [u64; 2] {
    [sock, u64::from(number & 1)]
}

/// A request begins behind the headers of a packet, which holds `payload` bytes of it.
#[inline(always)]
pub(crate) fn seen(
    skb: *mut __sk_buff,
    headers: u32,
    payload: u32,
    at: u64,
    sock: u64,
    socket: &Socket,
) {
    if !Socket::is_told_at_first(socket.wire_number) {
        let _ = keep(skb, headers, payload, at, sock, socket);
    } else if payload as usize <= HEAD_SHORT {
        pass_on::<HEAD_SHORT>(skb, headers, payload, at, socket);
    } else {
        pass_on::<HEAD_LONG>(skb, headers, payload, at, socket);
    }
}

/// Tells a head at once.
#[inline(always)]
fn pass_on<const N: usize>(
    skb: *mut __sk_buff,
    headers: u32,
    payload: u32,
    at: u64,
    socket: &Socket,
) {
    let Some(mut entry) = ring::reserve::<Head<N>>(Loss::Heads) else {
        return;
    };
    // SAFETY: the entry is a whole `Head<N>`.
    if unsafe { write(entry.as_mut_ptr(), skb, headers, payload, at, socket) } {
        entry.submit(QUIETLY);
    } else {
        entry.discard(QUIETLY);
    }
}

/// Writes the head that begins behind the headers of a packet to `head`; whether that went well and it
/// is one of HTTP/1.
///
/// # Safety
/// `head` must point to a whole `Head<N>`.
#[inline(always)]
unsafe fn write<const N: usize>(
    head: *mut Head<N>,
    skb: *mut __sk_buff,
    headers: u32,
    payload: u32,
    at: u64,
    socket: &Socket,
) -> bool {
    // SAFETY: the caller's promise; the helper writes at most `N` bytes.
    unsafe {
        (&raw mut (*head).header).write(Header {
            kind: KIND_HEAD,
            what: 0,
            flags: 0,
            at,
        });
        (*head).socket = socket.id;
        (*head).number = socket.wire_number;
        (*head).length = payload.min(N as u32);
        let length = bounded::<N>((*head).length);
        let bytes = &raw mut (*head).bytes;
        if bpf_skb_load_bytes(skb.cast(), headers, bytes.cast(), length) != 0 {
            return false;
        }
        let [a, b, c, d] = [0, 1, 2, 3].map(|place| (*bytes)[place]);
        length >= 4 && begins_request(&[a, b, c, d])
    }
}

/// Keeps a head until its exchange is told.
#[inline(always)]
fn keep(
    skb: *mut __sk_buff,
    headers: u32,
    payload: u32,
    at: u64,
    sock: u64,
    socket: &Socket,
) -> Option<()> {
    let place = place(sock, socket.wire_number);
    let head = match HEADS.get_ptr_mut(place) {
        Some(head) => head,
        None => {
            if HEADS.insert(place, &EMPTY, u64::from(BPF_ANY)).is_err() {
                losses::count(Loss::Heads);
                return None;
            }
            HEADS.get_ptr_mut(place)?
        }
    };
    // SAFETY: an element of the map, written by packets of one direction of one socket.
    unsafe {
        if !write(head, skb, headers, payload, at, socket) {
            (*head).length = 0;
        }
    }
    Some(())
}

/// Tells the kept head of the request that the process is at.
#[inline(always)]
pub(crate) fn tell(sock: u64, socket: &Socket) -> Option<()> {
    if Socket::is_told_at_first(socket.turn.number) {
        return None; // told when it passed
    }
    let head = HEADS.get_ptr(place(sock, socket.turn.number))?;
    // SAFETY: an element of the map.
    let (id, number, length) = unsafe { ((*head).socket, (*head).number, (*head).length) };
    if id != socket.id || number != socket.turn.number || length == 0 {
        return None; // not HTTP, or not seen
    }
    if length as usize <= HEAD_SHORT {
        copy::<HEAD_SHORT>(head)
    } else {
        copy::<HEAD_LONG>(head)
    }
}

#[inline(always)]
fn copy<const N: usize>(head: *const Head<HEAD_LONG>) -> Option<()> {
    let mut entry = ring::reserve::<Head<N>>(Loss::Heads)?;
    let to = entry.as_mut_ptr();
    // SAFETY: `to` points into the reserved record; the helper writes at most `N` bytes.
    unsafe {
        (*to).header = (*head).header;
        (*to).socket = (*head).socket;
        (*to).number = (*head).number;
        (*to).length = (*head).length;
        let length = bounded::<N>((*to).length);
        bpf_probe_read_kernel(
            (&raw mut (*to).bytes).cast(),
            length,
            (&raw const (*head).bytes).cast(),
        );
    }
    entry.submit(QUIETLY);
    Some(())
}

/// The socket is gone.
#[inline(always)]
pub(crate) fn forget(sock: u64, socket: &Socket) {
    if !Socket::is_told_at_first(socket.wire_number) {
        let _ = HEADS.remove(place(sock, 0));
        let _ = HEADS.remove(place(sock, 1));
    }
}
