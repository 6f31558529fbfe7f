//! Every connection that is open, and those closed ones that matter.
//!
//! Bounded: however many connections come and go, at most [`ORDINARY`] closed ones without a mark on
//! them and [`REMARKABLE`] closed ones with one are kept. The rest is counted by [`Peer`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use foldhash::fast::RandomState;

use crate::event::{BootInstant, Network, Opened, Pid, SocketId, StackId};

use super::{
    connection::Connection,
    traffic::{Peer, Traffic},
};

/// Closed connections kept although nothing was wrong with them: the last ones, for a request
/// served on one of them may be known to be harmed only a little later.
const ORDINARY: usize = 4_096;

/// Closed connections kept because something was wrong with them. Past this a finding's numbers are
/// lower bounds, and the report says so.
const REMARKABLE: usize = 16_384;

/// Peers counted apart; those that come later are counted together.
const PEERS: usize = 16_384;

/// How long after one end is gone the other may still be announced: events come almost in order.
const STRAGGLING: Duration = Duration::from_millis(50);

/// The network, where that matters, our address and the peer's.
type Ends = (Option<u64>, SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Boxed, since a table moves its entries about and a connection is large.
    kept: HashMap<SocketId, Box<Connection>, RandomState>,
    /// Those kept, in the order of their first sight.
    order: BTreeSet<SocketId>,
    /// By network, local and remote address, the latest socket that had these.
    by_addresses: HashMap<Ends, SocketId, RandomState>,
    /// In which network each process is.
    networks: HashMap<Pid, u64, RandomState>,
    /// Closed, in the order of closing; whether they are remarkable is seen when they come to leave.
    closed: VecDeque<SocketId>,
    remarkable: VecDeque<SocketId>,
    folded: BTreeMap<Peer, Traffic>,
    left_out: u64,
    forgotten: u64,
}

impl Connections {
    /// A socket appears; where a library opened it, at `asked` somebody asked for it.
    pub(super) fn open(&mut self, at: BootInstant, opened: Opened, asked: Option<StackId>) {
        let (socket, local, remote) = (opened.socket, opened.local, opened.remote);
        let network = self.network_of(&opened);
        let mut connection = Box::new(Connection::opened(at, opened));
        connection.asked_at = asked;
        connection.network = network;
        // A client that was gone before it could be looked at is in an unknown network.
        let twin = self.by_addresses.get(&(network, remote, local));
        if let Some(twin) = twin
            .or_else(|| self.by_addresses.get(&(None, remote, local)))
            .and_then(|twin| self.kept.get_mut(twin))
            .filter(|twin| twin.role != connection.role && open_around(twin, at))
        {
            twin.other_end = Some(socket);
            connection.other_end = Some(twin.socket);
        }
        self.by_addresses.insert((network, local, remote), socket);
        self.kept.insert(socket, connection);
        self.order.insert(socket);
    }

    /// A process is in this network.
    pub(super) fn network(&mut self, told: Network) {
        self.networks.insert(told.pid, told.namespace);
    }

    /// The network that `pid` is in.
    pub(super) fn network_of_process(&self, pid: Pid) -> Option<u64> {
        self.networks.get(&pid).copied()
    }

    /// The network in which a socket's addresses are meant. Each has loopback ones of its own; the others
    /// mean the same in all networks that can reach each other, where a connection may have its two ends.
    fn network_of(&self, opened: &Opened) -> Option<u64> {
        let ends = [opened.local, opened.remote];
        let own = ends.iter().any(|end| end.ip().is_loopback());
        own.then(|| self.network_of_process(opened.pid)).flatten()
    }

    /// The kernel is done with `socket`.
    pub(super) fn close(&mut self, socket: SocketId) {
        self.closed.push_back(socket);
        if self.closed.len() > ORDINARY
            && let Some(leaving) = self.closed.pop_front()
        {
            if self.matters(leaving) {
                self.remarkable.push_back(leaving);
            } else {
                self.fold(leaving);
            }
        }
        if self.remarkable.len() > REMARKABLE
            && let Some(leaving) = self.remarkable.pop_front()
        {
            let wrong = self.kept.get(&leaving).is_some_and(|c| c.went_wrong());
            self.forgotten += u64::from(wrong);
            self.fold(leaving);
        }
    }

    pub(super) fn get(&self, socket: SocketId) -> Option<&Connection> {
        self.kept.get(&socket).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, socket: SocketId) -> Option<&mut Connection> {
        self.kept.get_mut(&socket).map(AsMut::as_mut)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.kept.values_mut().map(AsMut::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        let kept = self.order.iter().filter_map(|socket| self.kept.get(socket));
        kept.map(AsRef::as_ref)
    }

    /// How many are no longer kept.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many of these had something wrong with them, or with exchanges of theirs.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
            + self
                .kept
                .values()
                .map(|connection| connection.exchanges.forgotten())
                .sum::<u64>()
    }

    /// All traffic, kept and folded.
    pub(super) fn traffic(&self) -> BTreeMap<Peer, Traffic> {
        let mut traffic = self.folded.clone();
        for connection in self.iter() {
            connection.count_into(traffic.entry(connection.peer()).or_default());
        }
        traffic
    }

    fn matters(&self, socket: SocketId) -> bool {
        let Some(connection) = self.kept.get(&socket) else {
            return false;
        };
        let other_end = connection.other_end.and_then(|other| self.kept.get(&other));
        connection.remarkable() || other_end.is_some_and(|other| other.remarkable())
    }

    fn fold(&mut self, socket: SocketId) {
        let Some(connection) = self.kept.remove(&socket) else {
            return;
        };
        self.order.remove(&socket);
        let addresses = (connection.network, connection.local, connection.remote);
        if self.by_addresses.get(&addresses) == Some(&socket) {
            self.by_addresses.remove(&addresses);
        }
        let mut peer = connection.peer();
        if self.folded.len() >= PEERS && !self.folded.contains_key(&peer) {
            peer.address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        }
        connection.count_into(self.folded.entry(peer).or_default());
        self.left_out += 1;
    }
}

/// `connection` was open at `at`, or until shortly before.
fn open_around(connection: &Connection, at: BootInstant) -> bool {
    connection.vanished.is_none()
        && connection
            .closed
            .is_none_or(|(closed, _)| at.since(closed) < STRAGGLING)
}
