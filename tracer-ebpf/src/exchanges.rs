//! Requests and responses, told apart by the turn of direction.
//!
//! On the process's own sends and receives: `sock_send_length` and `sock_recv_length`, or
//! `tcp_sendmsg` and `tcp_cleanup_rbuf` where a kernel lacks those; always in process context. A
//! message of a stranger costs one look-up, one of a target about 60 ns, and 60 more at a turn, where
//! the goroutine is read. A busy keep-alive connection tells its first exchanges and what
//! was slow or went wrong; the rest costs no record.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use tracer_ebpf::{Exchange, FLAG_COMPLETE, Header, KIND_EXCHANGE, Loss, PHASE_NEW, Socket};

use crate::{EVENTS, SOCKETS, goroutine::read_owner, heads, kernel::now, losses, sockets};

/// The current thread sent (or read) `bytes` on `sock`.
#[inline(always)]
pub(crate) fn transferred(sock: u64, bytes: i64, sent: bool) -> Option<()> {
    if bytes <= 0 {
        return None; // an error or the end of the stream: no byte, no turn
    }
    let target = sockets::current_target()?;
    let pointer = match SOCKETS.get_ptr_mut(sock) {
        Some(pointer) => pointer,
        None => sockets::found(sock, target)?,
    };
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    let (now, bytes) = (now(), bytes as u64);
    let turned = if socket.asks(sent) {
        if socket.is_complete() {
            if socket.is_remarkable() {
                heads::tell(sock, socket);
                tell(socket, FLAG_COMPLETE, now);
            }
            socket.begin_next();
        }
        socket.asked(now, bytes)
    } else {
        socket.answered(now, bytes)
    };
    if turned {
        read_owner(target, &mut socket.owner);
    }
    Some(())
}

/// Tells the socket's exchange as it stands, if there is one.
#[inline(always)]
pub(crate) fn tell(socket: &Socket, flags: u32, at: u64) {
    if socket.phase == PHASE_NEW {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Exchange>(0) else {
        losses::count(Loss::Events);
        return;
    };
    entry.write(Exchange {
        header: Header {
            kind: KIND_EXCHANGE,
            what: 0,
            flags,
            at,
        },
        socket: socket.id,
        started: socket.started,
        request_ended: socket.request_ended,
        first_byte: socket.first_byte,
        last_byte: socket.last_byte,
        request_bytes: socket.request_bytes,
        response_bytes: socket.response_bytes,
        owner: socket.owner,
        number: socket.number,
        status: socket.status(),
        _pad: 0,
    });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
