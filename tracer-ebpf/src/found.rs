//! Sockets as they stand: an iterator over the file tables of the targets.
//!
//! At the beginning it finds what was open before, at the end it says what still lies unread. Runs when user space reads it, in the reader's context, and sees every network namespace. It asks
//! the inode's mode whether a file is a socket, since `bpf_sock_from_file` is not there on 5.10.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use tracer_ebpf::{FoundSocket, tcp_state::LISTEN};

use crate::{
    TARGETS,
    kernel::{is_listener, is_tcp, limited, netns, offset, read, read_address, round_trip, unread},
};

/// The context of `iter/task_file`.
#[repr(C)]
pub(crate) struct TaskFile {
    meta: *const Meta,
    task: u64,
    _fd: u32,
    file: u64,
}

#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// One file of one task.
#[inline(always)]
pub(crate) fn file(ctx: *mut TaskFile) -> Option<()> {
    // SAFETY: the verifier checks the access to the context; both may be null at the end.
    let (seq, task, file) = unsafe { ((*(*ctx).meta).seq, (*ctx).task, (*ctx).file) };
    if task == 0 || file == 0 {
        return None;
    }
    let tgid: u32 = read(task, offset!(task_tgid))?;
    // SAFETY: the value is not read.
    unsafe { TARGETS.get(tgid) }?;
    let inode: u64 = read(file, offset!(file_inode))?;
    if read::<u16>(inode, offset!(inode_mode))? & S_IFMT != S_IFSOCK {
        return None;
    }
    let socket: u64 = read(file, offset!(file_private_data))?;
    let sock: u64 = read(socket, offset!(socket_sk))?;
    if sock == 0 || !(is_tcp(sock) || is_listener(sock)) {
        return None;
    }
    // SAFETY: all bytes zero is a value of a struct of integers.
    let mut found: FoundSocket = unsafe { core::mem::zeroed() };
    found.sock = sock;
    read_address(sock, &mut found.address)?;
    found.netns = netns(sock);
    found.tgid = tgid;
    found.inode = read(inode, offset!(inode_number))?;
    found.state = read(sock, offset!(skc_state))?;
    if found.state != LISTEN && is_tcp(sock) {
        found.copied = read(sock, offset!(copied_seq))?;
        found.unread = unread(sock, found.state);
        found.srtt_us = round_trip(sock);
        found.limited = limited(sock);
    }
    // SAFETY: `seq` comes from the context, and the helper reads `found` only.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const found).cast::<c_void>(),
            size_of::<FoundSocket>() as u32,
        )
    };
    Some(())
}
