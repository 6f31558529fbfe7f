//! Unix sockets that a process listens on, as they are reached from here.
//!
//! In: a process, or what a user wrote. Out: connections. A path is the process's own: it is looked up
//! below its root directory, where a symbolic link leads as it does for the process, and never out of
//! there. An abstract name means something in the process's network namespace only, so who connects has
//! to be there.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use procfs::{net::UnixState, process::Process};

use crate::event::Pid;

/// `SOCK_STREAM` as `/proc/net/unix` writes it.
const STREAM: u16 = 1;

/// A Unix socket that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    /// As the listener wrote it: a path, or `@` and an abstract name.
    name: String,
    /// The process whose path it is; `None` for our own.
    of: Option<Pid>,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Socket {
    /// One that a user named.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            of: None,
        }
    }

    /// Those of `process`, of whose descriptors `inodes` are sockets.
    pub(super) fn of(process: &Process, inodes: &HashSet<u64>) -> Vec<Self> {
        let listens = |entry: &procfs::net::UnixNetEntry| {
            // An accepted one has the listener's name, too, and is connected.
            entry.socket_type == STREAM
                && entry.state == UnixState::UNCONNECTED
                && inodes.contains(&entry.inode)
        };
        let entries = process.unix().into_iter().flatten();
        entries
            .filter(listens)
            .filter_map(|entry| {
                Some(Self {
                    name: entry.path?.to_str()?.to_owned(),
                    of: Some(process.pid.cast_unsigned()),
                })
            })
            .collect()
    }

    /// A connection, within this time: who accepts none lets us wait in its queue.
    pub(super) fn connect(&self, within: Option<Duration>) -> io::Result<UnixStream> {
        let stream = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        if let Some(within) = within {
            let seconds = i64::try_from(within.as_secs()).unwrap_or(i64::MAX);
            let limit = TimeVal::new(seconds, within.subsec_micros().into());
            setsockopt(&stream, sockopt::SendTimeout, &limit)?;
        }
        match self.name.strip_prefix('@') {
            Some(name) => {
                let address = UnixAddr::new_abstract(name.as_bytes())?;
                connect(stream.as_raw_fd(), &address)?;
            }
            None => {
                // Whatever the path's length is, this one fits into an address.
                let file = self.open()?;
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                connect(stream.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
            }
        }
        Ok(stream.into())
    }

    /// The file of its path.
    fn open(&self) -> io::Result<OwnedFd> {
        let whose = self.of.map_or("self".to_owned(), |pid| pid.to_string());
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        let (directory, how) = if self.name.starts_with('/') {
            ("root", how.resolve(ResolveFlag::RESOLVE_IN_ROOT))
        } else {
            ("cwd", how)
        };
        let directory = File::open(format!("/proc/{whose}/{directory}"))?;
        Ok(openat2(directory, self.name.as_str(), how)?)
    }
}
