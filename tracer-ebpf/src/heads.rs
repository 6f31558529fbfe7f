//! The heads of requests, kept beside their sockets until the exchange is told.
//!
//! The packet hook writes a head in place when the request passes; most are written over by the next
//! one, unread. There are two places for each socket, in turn: by packets, the next request can come
//! before the process's call that ends this exchange is told.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes},
};
use tracer_ebpf::{HEAD_LONG, HEAD_SHORT, Head, Header, KIND_HEAD, Loss, Socket};

use crate::{
    EVENTS, HEADS,
    kernel::{bounded, now},
    losses,
};

// SAFETY: all bytes zero is a value of a struct of integers.
static EMPTY: Head<HEAD_LONG> = unsafe { core::mem::zeroed() };

/// The place of a socket's head, even and odd exchanges apart.
#[inline(always)]
fn place(sock: u64, number: u32) -> [u64; 2] {
    [sock, u64::from(number & 1)]
}

/// A request begins at byte `at` of a packet.
#[inline(always)]
pub(crate) fn keep(
    skb: *mut __sk_buff,
    at: u32,
    payload: u32,
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
    // SAFETY: an element of the map, written by packets of one direction of one socket; the helper
    // writes at most `HEAD_LONG` bytes.
    unsafe {
        (&raw mut (*head).header).write(Header {
            kind: KIND_HEAD,
            what: 0,
            flags: 0,
            at: now(),
        });
        (*head).socket = socket.id;
        (*head).number = socket.wire_number;
        (*head).length = payload.min(HEAD_LONG as u32);
        let length = bounded::<HEAD_LONG>(&raw const (*head).length);
        if bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*head).bytes).cast(), length) != 0 {
            (*head).length = 0;
        }
    }
    Some(())
}

/// Tells the head of the request that the process is at.
#[inline(always)]
pub(crate) fn tell(sock: u64, socket: &Socket) -> Option<()> {
    let head = HEADS.get_ptr(place(sock, socket.number))?;
    // SAFETY: an element of the map.
    let (id, number, length) = unsafe { ((*head).socket, (*head).number, (*head).length) };
    if id != socket.id || number != socket.number || length == 0 {
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
    let Some(mut entry) = EVENTS.reserve::<Head<N>>(0) else {
        losses::count(Loss::Heads);
        return None;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: `to` points into the reserved record; the helper writes at most `N` bytes.
    unsafe {
        (*to).header = (*head).header;
        (*to).socket = (*head).socket;
        (*to).number = (*head).number;
        (*to).length = (*head).length;
        let length = bounded::<N>(&raw const (*to).length);
        bpf_probe_read_kernel(
            (&raw mut (*to).bytes).cast(),
            length,
            (&raw const (*head).bytes).cast(),
        );
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}

/// The socket is gone.
#[inline(always)]
pub(crate) fn forget(sock: u64) {
    let _ = HEADS.remove(place(sock, 0));
    let _ = HEADS.remove(place(sock, 1));
}
