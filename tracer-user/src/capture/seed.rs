//! Sockets that were there before: read from the iterator, entered into the kernel's maps, and told.

use std::{collections::HashSet, io::Read as _};

use aya::{Ebpf, programs::Iter};
use tracer_ebpf::{
    FoundSocket, LYING_KNOWN, LYING_LONGER, Listener, Loss, PORT_LISTENED, PORT_USED, ROLE_CLIENT,
    ROLE_SERVER, Socket, Tuple, tcp_state,
};
use zerocopy::{FromBytes as _, FromZeros as _};

use super::{attach::chain, decode, live::Maps, looks::now};
use crate::event::{BootInstant, Event, Fact, Pid, SocketId};

/// Enters what the targets have open. The events of the connections among it.
///
/// Sockets that the kernel half has entered meanwhile stay as they are.
pub(super) fn seed(ebpf: &mut Ebpf, maps: &mut Maps) -> Result<Vec<Event>, String> {
    let found = read(ebpf)?;
    for socket in &found {
        if socket.state == tcp_state::LISTEN
            && !listens(maps, socket.tgid, socket.netns, socket.address.local_port)
        {
            maps.leave_out(Loss::Listeners, socket.inode);
        }
    }
    let listening: HashSet<(u32, u16)> = found
        .iter()
        .filter(|socket| socket.state == tcp_state::LISTEN)
        .map(|socket| (socket.netns, socket.address.local_port))
        .collect();
    let at = now();
    let mut events = Vec::new();
    for (index, socket) in found.iter().enumerate() {
        // What is still connecting has an unknown beginning, which would be taken for its time to wait.
        if !matches!(socket.state, tcp_state::ESTABLISHED | tcp_state::CLOSE_WAIT) {
            continue;
        }
        let served = listening.contains(&(socket.netns, socket.address.local_port));
        // Within the same nanosecond as no other: the kernel half ends its names in the CPU.
        let id = (at.0 & !0xff).wrapping_sub((index as u64 + 1) << 8);
        let role = if served { ROLE_SERVER } else { ROLE_CLIENT };
        if let Some(entered) = enter(maps, socket, id, role, at) {
            events.push(decode::found(&entered, at));
            if socket.state == tcp_state::CLOSE_WAIT {
                let socket = SocketId(id);
                events.push(Event {
                    at,
                    fact: Fact::PeerClosed { socket },
                });
            }
        }
    }
    Ok(events)
}

/// Enters a port that `pid` listens on in the network namespace of that inode; whether there was room.
pub(super) fn listens(maps: &mut Maps, pid: Pid, netns: u32, port: u16) -> bool {
    let listener = Listener {
        netns,
        port,
        _pad: 0,
    };
    let entered = maps.listeners.insert(bytes(&listener), pid, 0);
    mark_port(maps, port, PORT_LISTENED);
    entered.is_ok()
}

/// Runs the iterator once.
pub(super) fn read(ebpf: &mut Ebpf) -> Result<Vec<FoundSocket>, String> {
    let program = ebpf.program_mut("found_sockets").ok_or("no iterator")?;
    let program: &mut Iter = program.try_into().map_err(|error| chain(&error))?;
    let link = program.attach().map_err(|error| chain(&error))?;
    let link = program.take_link(link).map_err(|error| chain(&error))?;
    let mut file = link.into_file().map_err(|error| chain(&error))?;
    let mut all = Vec::new();
    file.read_to_end(&mut all)
        .map_err(|error| error.to_string())?;
    Ok(all
        .chunks_exact(size_of::<FoundSocket>())
        .filter_map(|chunk| FoundSocket::read_from_bytes(chunk).ok())
        .collect())
}

/// Enters a connection; `None` where it is known already, or finds no room.
fn enter(
    maps: &mut Maps,
    found: &FoundSocket,
    id: u64,
    role: u8,
    at: BootInstant,
) -> Option<Socket> {
    const NOEXIST: u64 = 1;
    let mut socket = Socket::new_zeroed();
    socket.id = id;
    socket.address = found.address;
    socket.owner.tgid = found.tgid;
    socket.role = role;
    socket.copied = found.copied;
    socket.lying = LYING_KNOWN;
    if found.unread != 0 {
        socket.arrived = at.0;
        socket.lying |= LYING_LONGER;
    }
    let tuple = Tuple {
        sock: found.sock,
        socket: id,
    };
    let entered = maps.sockets.insert(found.sock, bytes(&socket), NOEXIST);
    if entered.is_err() {
        if maps.sockets.get(&found.sock, 0).is_err() {
            maps.leave_out(Loss::Sockets, found.inode);
        }
        return None;
    }
    let addressed = maps
        .tuples
        .insert(bytes(&found.address), bytes::<_, 16>(&tuple), 0);
    if addressed.is_err() {
        maps.leave_out(Loss::Tuples, found.inode);
    }
    mark_port(maps, found.address.local_port, PORT_USED);
    Some(socket)
}

fn mark_port(maps: &mut Maps, port: u16, bit: u8) {
    let index = u32::from(port);
    let bits = maps.ports.get(&index, 0).unwrap_or(0);
    let _ = maps.ports.set(index, bits | bit, 0);
}

/// A wire type as the array that the maps take.
pub(super) fn bytes<T: zerocopy::IntoBytes + zerocopy::Immutable, const N: usize>(
    value: &T,
) -> [u8; N] {
    let mut bytes = [0; N];
    let from = value.as_bytes();
    if let Some(to) = bytes.get_mut(..from.len()) {
        to.copy_from_slice(from);
    }
    bytes
}
