//! Who listens where, in every network namespace of the host, from `/proc/PID/net/tcp`.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{every_pid, queues::Queues};
use crate::event::Pid;

/// `TCP_LISTEN` as `/proc/net/tcp` writes it.
const LISTEN: &str = "0A";

/// A listening socket.
struct Listener {
    address: SocketAddr,
    inode: u64,
}

/// The processes that listen on `port`, in whatever network namespace.
#[must_use]
pub fn of_port(port: u16) -> Vec<Pid> {
    let pids = every_pid();
    let inodes: BTreeSet<u64> = namespaces(&pids)
        .into_values()
        .flat_map(listening)
        .filter(|listener| listener.address.port() == port)
        .map(|listener| listener.inode)
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    pids.into_iter()
        .filter(|pid| sockets(*pid).any(|inode| inodes.contains(&inode)))
        .collect()
}

/// The TCP ports that a process listens on, as far as `sock_diag` tells them: a table of `/proc` has every
/// connection of the network namespace, also those in `TIME_WAIT`.
#[must_use]
pub fn ports(pid: Pid) -> BTreeSet<u16> {
    let listening = Queues::of(pid).and_then(|queues| queues.look());
    let listening = listening.unwrap_or_default();
    if listening.is_empty() {
        return BTreeSet::new();
    }
    let owned: BTreeSet<u64> = sockets(pid).collect();
    let own = listening
        .iter()
        .filter(|queue| owned.contains(&queue.inode));
    own.map(|queue| queue.address.port()).collect()
}

/// The process that listens at `address`, as process `from` would reach it on this host.
#[must_use]
pub fn of_address(address: SocketAddr, from: Pid) -> Option<Pid> {
    let pids = every_pid();
    let namespaces = namespaces(&pids);
    let own = network(from)?;
    let inode = namespaces.into_iter().find_map(|(namespace, member)| {
        let here = if address.ip().is_loopback() {
            namespace == own
        } else {
            local_addresses(member).contains(&address.ip())
        };
        here.then(|| {
            listening(member)
                .into_iter()
                .find(|listener| accepts(listener.address, address))
                .map(|listener| listener.inode)
        })?
    })?;
    pids.into_iter()
        .find(|pid| sockets(*pid).any(|found| found == inode))
}

/// Whether processes of this host are in more than one network namespace.
#[must_use]
pub fn several_namespaces() -> bool {
    namespaces(&every_pid()).len() > 1
}

/// Whether the process owns a TCP socket.
#[must_use]
pub fn owns_tcp(pid: Pid) -> bool {
    let owned: BTreeSet<u64> = sockets(pid).collect();
    !owned.is_empty() && rows(pid).any(|row| owned.contains(&row.inode))
}

fn accepts(listens: SocketAddr, asked: SocketAddr) -> bool {
    listens.port() == asked.port()
        && (listens.ip().is_unspecified() || listens.ip().to_canonical() == asked.ip())
}

/// One member of each network namespace, by its inode.
fn namespaces(pids: &[Pid]) -> HashMap<u64, Pid> {
    let mut members = HashMap::new();
    for pid in pids {
        if let Some(namespace) = network(*pid) {
            members.entry(namespace).or_insert(*pid);
        }
    }
    members
}

/// The network namespace of a process, by its inode.
#[must_use]
pub fn network(pid: Pid) -> Option<u64> {
    bracketed(
        fs::read_link(format!("/proc/{pid}/ns/net"))
            .ok()?
            .to_str()?,
        "net:[",
    )
}

/// The inodes of a process's sockets.
fn sockets(pid: Pid) -> impl Iterator<Item = u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            bracketed(
                fs::read_link(entry.ok()?.path()).ok()?.to_str()?,
                "socket:[",
            )
        })
}

fn bracketed(text: &str, start: &str) -> Option<u64> {
    text.strip_prefix(start)?.strip_suffix(']')?.parse().ok()
}

fn listening(member: Pid) -> Vec<Listener> {
    rows(member)
        .filter(|row| row.state == LISTEN)
        .map(|row| Listener {
            address: row.local,
            inode: row.inode,
        })
        .collect()
}

struct Row {
    local: SocketAddr,
    state: String,
    inode: u64,
}

/// The rows of both tables of the network namespace that `member` is in.
fn rows(member: Pid) -> impl Iterator<Item = Row> {
    ["tcp", "tcp6"].into_iter().flat_map(move |table| {
        let text = fs::read_to_string(format!("/proc/{member}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).filter_map(row).collect::<Vec<_>>()
    })
}

/// `sl local_address rem_address st … inode`: `Documentation/networking/proc_net_tcp.rst`.
fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?.to_owned();
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Row {
        local: SocketAddr::new(hexadecimal(address)?, port),
        state,
        inode,
    })
}

/// The kernel prints each 32-bit word of an address in the host's order.
fn hexadecimal(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(IpAddr::from(Ipv6Addr::from(sixteen)).to_canonical())
}

/// The addresses of the network namespace that `member` is in.
fn local_addresses(member: Pid) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    let trie = fs::read_to_string(format!("/proc/{member}/net/fib_trie")).unwrap_or_default();
    let mut last = None;
    for line in trie.lines() {
        if let Some(leaf) = line.trim_start().strip_prefix("|-- ") {
            last = leaf.parse().ok().map(IpAddr::V4);
        } else if line.contains("/32 host LOCAL") {
            addresses.extend(last);
        }
    }
    let six = fs::read_to_string(format!("/proc/{member}/net/if_inet6")).unwrap_or_default();
    for line in six.lines() {
        let address = line
            .get(..32)
            .and_then(|text| u128::from_str_radix(text, 16).ok());
        addresses.extend(address.map(|address| IpAddr::V6(Ipv6Addr::from(address))));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_listens_on_its_own_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(ports(std::process::id()).contains(&port));
        drop(listener);
        assert!(!ports(std::process::id()).contains(&port));
    }
}
