//! Packets of traced sockets: headers for the capture, and the head of each request.
//!
//! cgroup_skb at the root of cgroup v2, both ways: egress in the context of whoever sends, ingress in
//! softirq, in every network namespace. A packet begins at its IP header. A stranger's packet costs
//! one look-up (about 70 ns), one of ours about 160 ns. Programs of this type may be interrupted by
//! themselves on the same CPU, so nothing is kept in per-CPU memory here.
//!
//! A packet between two traced sockets passes both hooks; the capture has it once, as it was sent.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY},
    helpers::generated::bpf_skb_load_bytes,
};
use tracer_ebpf::{
    Address, Header, KIND_PACKET, Loss, PACKET_LONG, PACKET_SHORT, PORT_LISTENED, PORT_USED,
    Packet, Socket, http_status,
};

use crate::{
    CONNECTING, HANDSHAKES, PACKETS, PORTS, SOCKETS, TUPLES, heads,
    kernel::{
        AF_INET, AF_INET6, bounded, fresh_id, now, offset, packets_wanted, read, received, scope,
        task, untyped,
    },
    losses,
    ring::QUIETLY,
    sockets,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PROTOCOL_TCP: u8 = 6;
/// Bytes of an IPv4 header without options, of an IPv6 header, and of a TCP header up to its flags.
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 14;

/// What is read of a packet.
struct Segment {
    local_port: u16,
    remote_port: u16,
    headers: u32,
    length: u32,
    sequence: u32,
    flags: u8,
}

/// A packet passes; it is never changed or held up.
#[inline(always)]
pub(crate) fn seen(skb: *mut __sk_buff, outgoing: bool) -> Option<()> {
    let segment = parse(skb, outgoing)?;
    let (id, at) = match known(skb, &segment) {
        Some((sock, socket)) => {
            let at = now();
            if segment.length > segment.headers {
                turn(skb, &segment, at, sock, socket, outgoing);
            }
            (socket.id, at)
        }
        None => (owner(skb, &segment, outgoing)?, now()),
    };
    if packets_wanted() && !(!outgoing && captured_when_sent(skb, &segment)) {
        if segment.headers as usize <= PACKET_SHORT {
            capture::<PACKET_SHORT>(skb, &segment, at, id, outgoing);
        } else {
            capture::<PACKET_LONG>(skb, &segment, at, id, outgoing);
        }
    }
    Some(())
}

/// The traced socket that the kernel has found for the packet already. Its ports are compared, since the
/// entry may be of an older socket at that address.
#[inline(always)]
fn known(skb: *mut __sk_buff, segment: &Segment) -> Option<(u64, &'static mut Socket)> {
    if bits(segment.local_port) & PORT_USED == 0 {
        return None;
    }
    // SAFETY: the verifier checks the access to the context.
    let sock = unsafe { (*skb).__bindgen_anon_2.sk } as u64;
    let pointer = SOCKETS.get_ptr_mut(sock)?;
    // SAFETY: an element of the map; see `Socket` on who writes what.
    let socket = unsafe { &mut *pointer };
    let ends = &socket.address;
    (ends.local_port == segment.local_port && ends.remote_port == segment.remote_port)
        .then_some((sock, socket))
}

/// The name of the socket that a packet belongs to, where it is not known by the kernel's pointer: its
/// handshake is not done, or it is closed and this is its last word.
#[inline(always)]
fn owner(skb: *mut __sk_buff, segment: &Segment, outgoing: bool) -> Option<u64> {
    let port = bits(segment.local_port);
    let begins = segment.flags & (SYN | ACK) == SYN;
    let handshake = port & PORT_LISTENED != 0 && packets_wanted();
    if port & PORT_USED == 0 && !handshake && !(begins && outgoing) {
        return None; // a stranger's
    }
    let address = address(skb, segment, outgoing)?;
    if port & PORT_USED != 0 {
        // SAFETY: the value is only replaced as a whole.
        if let Some(tuple) = unsafe { TUPLES.get(&address) } {
            if !(begins && !outgoing) {
                return Some(tuple.socket);
            }
            // A new connection from the addresses of an old one.
            let _ = TUPLES.remove(&address);
        }
    }
    if begins && outgoing {
        // The first SYN leaves within `connect`, whose socket had no port until now.
        // SAFETY: as above.
        let sock = *unsafe { CONNECTING.get(task()) }?;
        let socket = sockets::addressed(sock)?;
        // SAFETY: an element of the map; see `Socket` on who writes what.
        return Some(unsafe { (*socket).id });
    }
    if !handshake {
        return None;
    }
    // SAFETY: as above.
    if let Some(&id) = unsafe { HANDSHAKES.get(&address) } {
        return Some(id);
    }
    if !begins {
        return None;
    }
    let id = fresh_id(now());
    let _ = HANDSHAKES.insert(&address, id, u64::from(BPF_ANY));
    Some(id)
}

/// A packet that comes in is of a traced socket on this host, too, and was captured as it was sent.
#[inline(always)]
fn captured_when_sent(skb: *mut __sk_buff, segment: &Segment) -> bool {
    if bits(segment.remote_port) & PORT_USED == 0 {
        return false;
    }
    let Some(mut address) = address(skb, segment, false) else {
        return false;
    };
    mirror(&mut address);
    // SAFETY: the value is not read.
    unsafe { TUPLES.get(&address) }.is_some()
}

/// What is known of a local port.
#[inline(always)]
fn bits(port: u16) -> u8 {
    PORTS
        .get(u32::from(port))
        // SAFETY: an element of the map; volatile since others set its bits.
        .map_or(0, |bits| unsafe { core::ptr::read_volatile(bits) })
}

/// The headers, from the packet's linear part, where the stack keeps them. No helper is called, and
/// no address is read, since most packets are not ours.
#[inline(always)]
fn parse(skb: *mut __sk_buff, outgoing: bool) -> Option<Segment> {
    // SAFETY: the verifier checks the accesses to the context.
    let (data, end, length) =
        unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    // One comparison for all of it: the verifier understands no smaller ones after it.
    if data + IPV4 + TCP > end {
        return None;
    }
    let first: u8 = at(data);
    let tcp = match first {
        // With options, and in fragments, TCP is not followed.
        0x45 => {
            let fragment = u16::from_be(at(data + 6));
            if at::<u8>(data + 9) != PROTOCOL_TCP || fragment & 0x1fff != 0 {
                return None;
            }
            IPV4
        }
        0x60..=0x6f => {
            if data + IPV6 + TCP > end || at::<u8>(data + 6) != PROTOCOL_TCP {
                return None; // extension headers before TCP are not followed
            }
            IPV6
        }
        _ => return None,
    };
    let header = data + tcp;
    let ports = (u16::from_be(at(header)), u16::from_be(at(header + 2)));
    let (local_port, remote_port) = ordered(ports.0, ports.1, outgoing);
    Some(Segment {
        local_port,
        remote_port,
        headers: tcp as u32 + u32::from(at::<u8>(header + 12) >> 4) * 4,
        length,
        sequence: u32::from_be(at(header + 4)),
        flags: at(header + 13),
    })
}

/// Both ends of a packet that was parsed.
#[inline(always)]
fn address(skb: *mut __sk_buff, segment: &Segment, outgoing: bool) -> Option<Address> {
    // SAFETY: the verifier checks the accesses to the context.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    // SAFETY: all bytes zero is a value of a struct of integers.
    let mut address: Address = unsafe { core::mem::zeroed() };
    address.local_port = segment.local_port;
    address.remote_port = segment.remote_port;
    if data + IPV4 > end {
        return None;
    }
    if at::<u8>(data) == 0x45 {
        let (source, destination): ([u8; 4], [u8; 4]) = (at(data + 12), at(data + 16));
        let (local, remote) = ordered(source, destination, outgoing);
        address.family = AF_INET;
        address.local[..4].copy_from_slice(&local);
        address.remote[..4].copy_from_slice(&remote);
    } else {
        if data + IPV6 > end {
            return None;
        }
        address.family = AF_INET6;
        (address.local, address.remote) = ordered(at(data + 8), at(data + 24), outgoing);
    }
    if address.is_loopback() {
        // Set for every packet that gets here; of a listener where there is no socket of its own yet.
        // SAFETY: the verifier checks the access to the context.
        let sock = unsafe { (*skb).__bindgen_anon_2.sk } as u64;
        address.scope = scope(untyped(sock)?);
    }
    Some(address)
}

/// A value in the packet's linear part, which the caller has compared with its end.
#[inline(always)]
fn at<T: Copy>(address: usize) -> T {
    // SAFETY: the verifier refuses a read that was not compared, or whose alignment this kernel does not
    // bear; every `T` here is plain data. (`read_unaligned` would be taken apart into bytes.)
    unsafe { (address as *const T).read_volatile() }
}

/// Ours and theirs, of a source and a destination.
#[inline(always)]
fn ordered<T>(source: T, destination: T, outgoing: bool) -> (T, T) {
    if outgoing {
        (source, destination)
    } else {
        (destination, source)
    }
}

/// A segment with payload: where it begins a message, its head is taken.
#[inline(always)]
fn turn(
    skb: *mut __sk_buff,
    segment: &Segment,
    at: u64,
    sock: u64,
    socket: &mut Socket,
    outgoing: bool,
) {
    let payload = segment.length - segment.headers;
    if !outgoing {
        let kernel = || received(untyped(sock)?);
        socket.arrives(segment.sequence, payload, || at, kernel);
    }
    if !socket.begins_message(outgoing, segment.sequence, payload) {
        return;
    }
    if socket.asks(outgoing) {
        heads::seen(skb, segment.headers, payload, at, sock, socket);
    } else if let Some(line) = load(skb, segment.headers) {
        socket.set_status(http_status(&line));
    }
}

/// Copies the headers into the packets' ring.
#[inline(always)]
fn capture<const N: usize>(
    skb: *mut __sk_buff,
    segment: &Segment,
    at: u64,
    socket: u64,
    outgoing: bool,
) {
    let Some(mut entry) = PACKETS.reserve::<Packet<N>>(0) else {
        losses::count(Loss::Packets);
        return;
    };
    let packet = entry.as_mut_ptr();
    // SAFETY: `packet` points into the reserved record; the helper writes at most `N` bytes; the
    // verifier checks the access to the context.
    let loaded = unsafe {
        (&raw mut (*packet).header).write(Header {
            kind: KIND_PACKET,
            what: 0,
            flags: 0,
            at,
        });
        (*packet).socket = socket;
        (*packet).ifindex = (*skb).ifindex;
        (*packet).wire_length = segment.length;
        (*packet).captured = segment.headers;
        (*packet).outgoing = u32::from(outgoing);
        let length = bounded::<N>((*packet).captured);
        bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*packet).bytes).cast(), length)
    };
    if loaded == 0 {
        entry.submit(QUIETLY);
    } else {
        entry.discard(QUIETLY);
    }
}

#[inline(always)]
fn mirror(address: &mut Address) {
    core::mem::swap(&mut address.local, &mut address.remote);
    core::mem::swap(&mut address.local_port, &mut address.remote_port);
}

#[inline(always)]
fn load<T>(skb: *mut __sk_buff, at: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of `value` or fails; every `T` here is plain data.
    unsafe {
        let failed = bpf_skb_load_bytes(
            skb.cast::<c_void>(),
            at,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        );
        (failed == 0).then(|| value.assume_init())
    }
}

/// The traced socket that sent a packet which nobody owns any more (dropped on its way in).
#[inline(always)]
pub(crate) fn sender(skb: u64) -> Option<u64> {
    let head: u64 = read(skb, offset!(skb_head))?;
    let at: u16 = read(skb, offset!(skb_network_header))?;
    let ip = head + u64::from(at);
    let first: u8 = read(ip, 0)?;
    // SAFETY: all bytes zero is a value of a struct of integers.
    let mut address: Address = unsafe { core::mem::zeroed() };
    let tcp = match first >> 4 {
        4 if read::<u8>(ip, 9) == Some(PROTOCOL_TCP) => {
            address.family = AF_INET;
            address.local[..4].copy_from_slice(&read::<[u8; 4]>(ip, 12)?);
            address.remote[..4].copy_from_slice(&read::<[u8; 4]>(ip, 16)?);
            u32::from(first & 0xf) * 4
        }
        6 if read::<u8>(ip, 6) == Some(PROTOCOL_TCP) => {
            address.family = AF_INET6;
            address.local = read(ip, 8)?;
            address.remote = read(ip, 24)?;
            40
        }
        _ => return None,
    };
    address.local_port = u16::from_be(read(ip, tcp)?);
    address.remote_port = u16::from_be(read(ip, tcp + 2)?);
    if address.is_loopback() {
        address.scope = device_scope(skb)?;
    }
    // SAFETY: the value is only replaced as a whole.
    Some(unsafe { TUPLES.get(&address) }?.sock)
}

/// [`Address::scope`] of a packet on the loopback device, which its way leads to from where it was sent on.
/// The packet's own note of its device is gone once TCP has it.
#[inline(always)]
fn device_scope(skb: u64) -> Option<u16> {
    // Its last bit says whether the entry is counted.
    let way = read::<u64>(skb, offset!(skb_dst))? & !1;
    let device: u64 = read(way, offset!(dst_dev))?;
    let network: u64 = read(device, offset!(device_net))?;
    Some(read::<u32>(network, offset!(net_inum))? as u16)
}
