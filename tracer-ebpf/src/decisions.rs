//! Who decided to give a connection up.
//!
//! In Go the goroutine that closes a socket is often not the one that decided to. These uprobes sit
//! on functions that only run when a connection's fate is decided, in the context of the goroutine
//! that decides. One costs about 6 µs, so none sits on a path that every request takes; how often a
//! deadline passes is up to the program, so that is counted, and user space takes the probe away from
//! a program that makes a clock of it. Arguments are Go's register ABI: RAX, RBX, RCX, RDI.

use aya_ebpf::{EbpfContext as _, programs::ProbeContext};
use tracer_ebpf::{
    DECIDER_READ_DEADLINE, DECIDER_TRANSPORT_CANCEL, DECIDER_TRANSPORT_CLOSE,
    DECIDER_WRITE_DEADLINE, Decision, ERROR_TEXT, FLAG_STACK, Header, KIND_DECISION, Loss, Stack,
    Target,
};

use crate::{
    DEADLINES, SOCKETS,
    goroutine::read_owner,
    kernel::{current, now, offset, read, read_user, task},
    ring::{self, QUIETLY},
    sockets::{current_target, read_stack},
};

#[repr(C)]
struct DecisionWithStack {
    decision: Decision,
    stack: Stack,
}

/// `runtime.pollDesc.fd`, in every Go from 1.21 to 1.27.
const POLL_FD: u64 = 8;

/// `what` ran: a method of `*persistConn` with an error, a method of `*Server`, the question for the
/// client's timeout, or the call for a new connection.
#[inline(always)]
pub(crate) fn decided(ctx: &ProbeContext, what: u16) -> Option<()> {
    // The probe sits in the file: other processes of the same program pass here too.
    let target = current_target()?;
    let mut entry = ring::reserve::<DecisionWithStack>(Loss::Decisions)?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points into the reserved record, and `regs` to the registers of the context.
    unsafe {
        let decision = &raw mut (*record).decision;
        begin(decision, what, FLAG_STACK, target);
        (*decision).caller = read_user((*ctx.regs).rsp).unwrap_or(0);
        if matches!(what, DECIDER_TRANSPORT_CLOSE | DECIDER_TRANSPORT_CANCEL) {
            let (connection, error) = ((*ctx.regs).rax, (*ctx.regs).rcx);
            (*decision).socket = socket_of(target, connection).unwrap_or(0);
            (*decision).error_length = read_error(error, &mut (*decision).error).unwrap_or(0);
        }
        read_stack(ctx.as_ptr(), &raw mut (*record).stack);
    }
    entry.submit(QUIETLY);
    Some(())
}

/// `runtime.netpolldeadlineimpl(pd, seq, read, write)`: a timer of a deadline ran off, on the scheduler's
/// stack. Whoever set another deadline meanwhile has changed the sequence number, and it means nothing.
#[inline(always)]
pub(crate) fn deadline_passed(ctx: &ProbeContext) -> Option<()> {
    count();
    let target = current_target()?;
    // SAFETY: `regs` points to the registers of the context.
    let (poll, sequence, read, write) = unsafe {
        let regs = &*ctx.regs;
        (regs.rax, regs.rbx, regs.rcx as u8 != 0, regs.rdi as u8 != 0)
    };
    let place = if read {
        target.poll_read_seq
    } else {
        target.poll_write_seq
    };
    if place == 0 || read_user::<u64>(poll + u64::from(place))? != sequence {
        return None;
    }
    let fd: u64 = read_user(poll + POLL_FD)?;
    let socket = socket_of_fd(u32::try_from(fd).ok()?)?;
    if read {
        tell_deadline(DECIDER_READ_DEADLINE, socket, target);
    }
    if write {
        tell_deadline(DECIDER_WRITE_DEADLINE, socket, target);
    }
    Some(())
}

#[inline(always)]
fn tell_deadline(what: u16, socket: u64, target: &Target) {
    let Some(mut entry) = ring::reserve::<Decision>(Loss::Decisions) else {
        return;
    };
    let decision = entry.as_mut_ptr();
    // SAFETY: `decision` points into the reserved record.
    unsafe {
        begin(decision, what, 0, target);
        (*decision).socket = socket;
    }
    entry.submit(QUIETLY);
}

/// Counts the probe's hits by process, traced or not: each of them pays.
#[inline(always)]
fn count() {
    let (tgid, _) = current();
    if let Some(hits) = DEADLINES.get_ptr_mut(tgid) {
        // SAFETY: an element of the map; two threads at once may lose a count, which is no matter.
        unsafe { *hits += 1 };
    } else {
        let _ = DEADLINES.insert(tgid, 1, 0);
    }
}

/// # Safety
/// `decision` must point to a whole `Decision`.
#[inline(always)]
unsafe fn begin(decision: *mut Decision, what: u16, flags: u32, target: &Target) {
    // SAFETY: the caller's promise.
    unsafe {
        (*decision).header = Header {
            kind: KIND_DECISION,
            what,
            flags,
            at: now(),
        };
        (*decision).socket = 0;
        (*decision).caller = 0;
        (*decision).error_length = 0;
        (*decision)._pad = 0;
        (*decision).error = [0; ERROR_TEXT];
        read_owner(target, &mut (*decision).owner);
    }
}

/// The socket below a `*persistConn`: its `net.Conn` is a `*net.TCPConn`, or a `*tls.Conn` that begins
/// with one.
#[inline(always)]
fn socket_of(target: &Target, connection: u64) -> Option<u64> {
    let conn = u64::from(target.persist_conn_conn);
    let value: u64 = read_user(connection + conn + 8)?;
    if let Some(id) = socket_of_tcp_conn(value) {
        return Some(id);
    }
    socket_of_tcp_conn(read_user(value + 8)?)
}

/// `net.TCPConn` → `conn.fd` → `netFD.pfd` → `FD.Sysfd`, behind its 16 bytes of `fdMutex`. What is no
/// `*TCPConn` leads to no socket of ours.
#[inline(always)]
fn socket_of_tcp_conn(conn: u64) -> Option<u64> {
    let net_fd: u64 = read_user(conn)?;
    socket_of_fd(read_user(net_fd + 16)?)
}

/// The traced socket behind a descriptor of the current process, through its file table.
#[inline(always)]
fn socket_of_fd(fd: u32) -> Option<u64> {
    if fd > 1 << 24 {
        return None;
    }
    let files: u64 = read(task(), offset!(task_files))?;
    let table: u64 = read(files, offset!(files_fdt))?;
    let array: u64 = read(table, offset!(fdtable_fd))?;
    let file: u64 = read(array, fd * 8)?;
    let socket: u64 = read(file, offset!(file_private_data))?;
    let sock: u64 = read(socket, offset!(socket_sk))?;
    let pointer = SOCKETS.get_ptr(sock)?;
    // SAFETY: an element of the map.
    Some(unsafe { (*pointer).id })
}

/// The text of an error whose value begins with a string, as `errors.errorString` and net/http's
/// `timeoutError` do. An error without a value (`context.deadlineExceededError`) has none.
#[inline(always)]
fn read_error(value: u64, to: &mut [u8; ERROR_TEXT]) -> Option<u32> {
    let text: u64 = read_user(value)?;
    let length: u64 = read_user(value + 8)?;
    if text == 0 || length == 0 || length > 1 << 12 {
        return None;
    }
    let mut length = length as u32;
    if length > ERROR_TEXT as u32 {
        length = ERROR_TEXT as u32;
    }
    // SAFETY: the helper writes at most `ERROR_TEXT` bytes.
    let failed = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_user(
            to.as_mut_ptr().cast(),
            length,
            text as *const core::ffi::c_void,
        )
    };
    (failed == 0).then_some(length)
}
