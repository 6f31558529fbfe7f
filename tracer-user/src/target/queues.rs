//! How full the queues of listening sockets are, from the kernel's `sock_diag`, and how often one of them
//! was too full, from `/proc/PID/net/netstat`.
//!
//! In: a process, for its network namespace. Out: every listening socket of that namespace. The kernel
//! walks its table of listeners only, so a look costs some ten microseconds however many connections
//! there are, and as much again for the count. It tells of the TCP socket below an MPTCP listener, which
//! is where connections queue, under the inode of the listener.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use crate::event::Pid;

/// The kernel fills at most this much at a time (`netlink_dump` in `net/netlink/af_netlink.c`).
const BUFFER: usize = 32 << 10;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its inode.
    pub inode: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may.
    pub backlog: u32,
    /// Packets it has dropped, for whatever reason (`sk_drops`).
    pub dropped: u64,
}

impl Queue {
    /// One more than its backlog are in it (`sk_acceptq_is_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued > self.backlog
    }
}

/// A way to ask for the listening sockets of one network namespace.
#[derive(Debug)]
pub struct Queues {
    sock_diag: OwnedFd,
    /// It tells of the namespace that it was opened in, at each reading from its beginning.
    netstat: File,
}

impl Queues {
    /// Of the network namespace that `pid` is in.
    ///
    /// # Errors
    /// In words, where the namespace cannot be entered or the kernel has no `sock_diag`.
    pub fn of(pid: Pid) -> Result<Self, String> {
        let path = format!("/proc/{pid}/net/netstat");
        let netstat = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self {
            sock_diag: sock_diag_of(pid)?,
            netstat,
        })
    }

    /// How often a handshake found its listener's queue full there, since the namespace exists
    /// (`TcpExt: ListenOverflows`).
    ///
    /// # Errors
    /// In words, where the kernel does not tell.
    pub fn overflows(&self) -> Result<u64, String> {
        let mut text = vec![0; BUFFER];
        let length = self
            .netstat
            .read_at(&mut text, 0)
            .map_err(|error| format!("/proc/net/netstat: {error}"))?;
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        listen_overflows(&text).ok_or_else(|| "/proc/net/netstat has no ListenOverflows".to_owned())
    }

    /// Every listening TCP socket there, now.
    ///
    /// # Errors
    /// In words, where the kernel refuses.
    pub fn look(&self) -> Result<Vec<Queue>, String> {
        let mut queues = Vec::new();
        for id in [SocketId::new_v4(), SocketId::new_v6()] {
            let family = if id.source_address.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            };
            self.dump(family, id, &mut queues)?;
        }
        Ok(queues)
    }

    fn dump(&self, family: u8, socket_id: SocketId, to: &mut Vec<Queue>) -> Result<(), String> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::SKMEMINFO,
            states: StateFlags::LISTEN,
            socket_id,
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let fd = self.sock_diag.as_raw_fd();
        send(fd, &bytes, MsgFlags::empty()).map_err(|error| error.to_string())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            // The kernel answers within the call, so nothing is ever waited for.
            let length =
                recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT).map_err(|error| error.to_string())?;
            if take(buffer.get(..length).unwrap_or_default(), to)? {
                return Ok(());
            }
        }
    }
}

fn sock_diag_of(pid: Pid) -> Result<OwnedFd, String> {
    let (path, own) = (format!("/proc/{pid}/ns/net"), "/proc/self/ns/net");
    if fs::read_link(&path).ok() == fs::read_link(own).ok() {
        return open();
    }
    let namespace = File::open(&path).map_err(|error| error.to_string())?;
    // A socket stays in the namespace it was made in; a thread of its own spares us the way back.
    let opened = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("its network namespace cannot be entered: {error}"))?;
        open()
    });
    opened
        .join()
        .map_err(|_| "its network namespace cannot be entered".to_owned())?
}

fn open() -> Result<OwnedFd, String> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )
    .map_err(|error| format!("sock_diag: {error}"))
}

/// Names and counts are two lines, each in the same order.
fn listen_overflows(netstat: &str) -> Option<u64> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, counts) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(counts.split_whitespace());
    let (_, number) = pairs.find(|(name, _)| *name == "ListenOverflows")?;
    number.parse().ok()
}

/// The messages of one datagram; whether that was the last.
fn take(mut bytes: &[u8], to: &mut Vec<Queue>) -> Result<bool, String> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes)
            .map_err(|error| error.to_string())?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                to.push(queue(&response));
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(error.to_io().to_string());
            }
            NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
        // Messages begin at multiples of four.
        let length = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(length.max(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn queue(response: &InetResponse) -> Queue {
    let header = &response.header;
    let dropped = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::MemInfo(info) => Some(info.drops),
        _ => None,
    });
    Queue {
        inode: header.inode.into(),
        address: SocketAddr::new(
            header.socket_id.source_address.to_canonical(),
            header.socket_id.source_port,
        ),
        queued: header.recv_queue,
        backlog: header.send_queue,
        dropped: dropped.unwrap_or(0).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn look_at(queues: &Queues, address: SocketAddr) -> Queue {
        let all = queues.look().expect("sock_diag");
        *all.iter()
            .find(|queue| queue.address == address)
            .expect("our listener")
    }

    #[test]
    fn a_connection_that_waits_to_be_accepted_is_counted() {
        let Ok(queues) = Queues::of(std::process::id()) else {
            return; // no sock_diag on this kernel
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        assert_eq!(look_at(&queues, address).queued, 0);
        let client = TcpStream::connect(address).expect("connect");
        let full = look_at(&queues, address);
        assert_eq!((full.queued, full.dropped), (1, 0));
        assert!(full.backlog >= 1 && full.inode > 0);
        listener.accept().expect("accept");
        assert_eq!(look_at(&queues, address).queued, 0);
        drop(client);
        assert!(queues.overflows().is_ok());
    }

    #[test]
    fn the_count_of_overflows_is_found_by_its_name() {
        let netstat =
            "TcpExt: TW ListenOverflows ListenDrops\nTcpExt: 5 420 7\nIpExt: A\nIpExt: 1\n";
        assert_eq!(listen_overflows(netstat), Some(420));
        assert_eq!(listen_overflows("TcpExt: ListenOverflows\n"), None);
        assert_eq!(listen_overflows("IpExt: ListenOverflows\nIpExt: 1\n"), None);
    }

    #[test]
    fn a_datagram_of_nonsense_is_an_error_or_nothing() {
        let mut to = Vec::new();
        assert!(take(&[1, 2, 3], &mut to).is_err());
        assert!(take(&[0; 64], &mut to).is_err());
        assert!(to.is_empty());
    }
}
