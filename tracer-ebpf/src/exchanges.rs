//! Requests and responses, told apart by the turn of direction, and the gaps in them.
//!
//! On the process's own sends and receives: `sock_send_length` and `sock_recv_length`, or
//! `tcp_sendmsg` and `tcp_cleanup_rbuf` where a kernel lacks those; always in process context. A
//! message of a stranger costs one look-up, one of a target about 60 ns (a read some 15 ns more, for
//! where the kernel stands), and 60 more at a turn, where the goroutine is read. A busy keep-alive
//! connection tells its first exchanges and what was slow or went wrong; the rest costs no record.

use tracer_ebpf::{
    BULK, FLAG_COMPLETE, FLAG_RESUMED, FULL, Header, KIND_UNREAD, Loss, Read, Socket, Stall, Unread,
};

use crate::{
    SOCKETS,
    goroutine::read_owner,
    heads,
    kernel::{limited, now, offset, read, round_trip, unread},
    ring, shed, sockets,
};

/// The current thread sent (or read) `bytes` on `sock`.
#[inline(always)]
pub(crate) fn transferred(sock: u64, bytes: i64, sent: bool) -> Option<()> {
    if bytes <= 0 {
        // An error or the end of the stream: no byte, no turn.
        return if sent && bytes == FULL {
            full(sock)
        } else {
            None
        };
    }
    let target = sockets::current_target()?;
    let pointer = match SOCKETS.get_ptr_mut(sock) {
        Some(pointer) => pointer,
        None => sockets::found(sock, target)?,
    };
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    if shed::packets() {
        socket.forget_packets();
    }
    let (now, bytes) = (now(), bytes as u64);
    let read = if sent {
        if socket.ends_gap(true, now) {
            tell_stall(socket.sending_gap(now, limited(sock), FLAG_RESUMED));
        }
        None
    } else {
        // A value on both ways: verifiers before 6.3 refuse to copy a half that was never written.
        Some(received(sock, socket, now, bytes)?)
    };
    let asks = socket.asks(sent);
    if asks && socket.is_complete() {
        if socket.is_remarkable() {
            heads::tell(sock, socket);
            tell(sock, socket, FLAG_COMPLETE, now, false);
        }
        socket.begin_next();
    }
    if let Some(read) = read {
        socket.notes_arrival(read);
    }
    let turned = if asks {
        socket.asked(now, bytes)
    } else {
        socket.answered(now, bytes)
    };
    if sent {
        let bulk = socket.message_bytes() >= BULK;
        socket.has_sent(if bulk { limited(sock) } else { 0 });
    }
    if turned {
        read_owner(target, &mut socket.owner);
    }
    Some(())
}

/// The current thread reads: since when did that lie there, and was there a gap before it?
#[inline(always)]
fn received(sock: u64, socket: &mut Socket, now: u64, bytes: u64) -> Option<Read> {
    let copied: u32 = read(sock, offset!(copied_seq))?;
    let read = socket.reads(now, bytes, copied, || read(sock, offset!(rcv_nxt)));
    // Where bytes were read unseen, the silence is only ours.
    if read.unbroken && socket.ends_gap(false, now) {
        tell_stall(socket.receiving_gap(now, read));
    }
    Some(read)
}

/// The current thread found no room in the socket for what it wanted to send.
#[inline(always)]
fn full(sock: u64) -> Option<()> {
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    socket.finds_full(now());
    if socket.limited == 0 {
        socket.limited = limited(sock);
    }
    Some(())
}

/// The process ends its side, or the socket ends, while it could not send what it wanted to.
#[inline(always)]
pub(crate) fn tell_stuck(sock: u64, socket: &mut Socket) {
    let now = now();
    if socket.is_stuck(now) {
        tell_stall(socket.sending_gap(now, limited(sock), 0));
        socket.buffer_full = 0; // told once
    }
}

/// The socket ends: what stands is told.
#[inline(always)]
pub(crate) fn tell_end(sock: u64, socket: &mut Socket, old_state: u8) {
    tell_stuck(sock, socket);
    // By packets something may lie there that was read unseen (`splice`): the kernel knows.
    let bytes = if socket.arrived == 0 {
        0
    } else {
        unread(sock, old_state)
    };
    tell(sock, socket, 0, now(), bytes != 0);
    if bytes == 0 {
        return;
    }
    let unread = Unread {
        header: Header {
            kind: KIND_UNREAD,
            what: 0,
            flags: 0,
            at: now(),
        },
        socket: socket.id,
        since: socket.arrived,
        bytes: u64::from(bytes),
    };
    ring::tell(unread, Loss::Stalls);
}

#[inline(always)]
fn tell_stall(stall: Stall) {
    ring::tell(stall, Loss::Stalls);
}

/// Tells the socket's exchange as it stands, if there is one. `unread` says that bytes lie in it.
#[inline(always)]
fn tell(sock: u64, socket: &Socket, flags: u32, at: u64, unread: bool) {
    let Some(exchange) = socket.exchange(flags, at, round_trip(sock), unread) else {
        return;
    };
    ring::tell(exchange, Loss::Exchanges);
}
