//! Stories of queues, descriptors, snapshots, and sockets that are left alone.

use std::net::SocketAddr;

use crate::event::{
    AtChannels, Blocking, Descriptors, Fact, Goroutine, Listening, Lock, Opened, Origin, Pid,
    Process, Relation, Role, Snapshot, SnapshotSource, SocketId, StackId,
};

use super::{Story, actor, frames};

impl Story {
    /// A Go process that is only traced for being at the other end.
    pub(crate) fn peer(&mut self, pid: Pid, comm: &str) -> &mut Self {
        self.tell(
            0.0,
            Fact::Process(Process {
                pid,
                comm: comm.into(),
                exe: None,
                go_version: Some("go1.27.3".into()),
                pprof_url: None,
                container: None,
                relation: Relation::Peer,
            }),
        )
    }

    /// A connect by a goroutine, at a stack, whose handshake took a tenth of a millisecond.
    pub(crate) fn dialled(
        &mut self,
        at: f64,
        (pid, goroutine): (Pid, u64),
        client: &str,
        server: &str,
        stack: Option<StackId>,
    ) -> SocketId {
        self.sockets += 1;
        let socket = SocketId(self.sockets);
        self.tell(
            at,
            Fact::Opened(Opened {
                socket,
                pid,
                role: Role::Client,
                origin: Origin::Connected,
                local: client.parse().unwrap(),
                remote: server.parse().unwrap(),
                actor: Some(actor(pid, goroutine)),
                stack,
            }),
        );
        self.tell(at + 0.1, Fact::Established { socket });
        socket
    }

    /// A server's connection that was there before the window.
    pub(crate) fn found_accepted(&mut self, pid: Pid, client: &str, server: &str) -> SocketId {
        self.open(0.0, (pid, Role::Server, Origin::Found), (client, server))
    }

    /// A listening socket's queue: how many are in it, how many may be, how many were dropped so far.
    pub(crate) fn listening(
        &mut self,
        at: f64,
        pid: Pid,
        address: &str,
        (queued, backlog, dropped): (u32, u32, u64),
    ) -> &mut Self {
        let address: SocketAddr = address.parse().unwrap();
        self.tell(
            at,
            Fact::Listening(Listening {
                pid,
                address,
                queued,
                backlog,
                dropped,
            }),
        )
    }

    /// A process's descriptors: how many are open, how many may be, how many calls failed so far.
    pub(crate) fn descriptors(
        &mut self,
        at: f64,
        pid: Pid,
        (open, limit, refused): (u64, u64, u64),
        held: &[(&str, u64)],
    ) -> &mut Self {
        self.tell(
            at,
            Fact::Descriptors(Descriptors {
                pid,
                open,
                limit,
                refused: Some(refused),
                held: held.iter().map(|(kind, n)| ((*kind).into(), *n)).collect(),
            }),
        )
    }

    /// What goroutines of `pid` are blocked at, in the moment of the snapshot told before.
    pub(crate) fn blocking(
        &mut self,
        at: f64,
        pid: Pid,
        at_channels: Vec<AtChannels>,
        locks: Vec<Lock>,
    ) -> &mut Self {
        self.tell(
            at,
            Fact::Blocking(Blocking {
                pid,
                at_channels,
                locks,
            }),
        )
    }

    /// Every goroutine of `pid`.
    pub(crate) fn goroutines(&mut self, at: f64, pid: Pid, all: Vec<Goroutine>) -> &mut Self {
        self.tell(
            at,
            Fact::Goroutines(Snapshot {
                pid,
                source: SnapshotSource::Memory,
                total: all.len() as u64,
                goroutines: all,
            }),
        )
    }
}

/// A goroutine in this state at this stack.
pub(crate) fn goroutine(id: u64, state: &str, of: &[&str]) -> Goroutine {
    Goroutine {
        id,
        state: state.into(),
        wait: None,
        frames: frames(of),
        created_by: None,
    }
}
