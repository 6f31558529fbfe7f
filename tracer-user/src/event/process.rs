//! Processes, and what they hold.

use serde::{Deserialize, Serialize};

/// A process (thread group) id in the initial pid namespace.
pub type Pid = u32;

/// From here on ids are no process ids: a packet capture shows hosts and no processes, so each host
/// stands for one process under such an id, with its address as the name. No kernel gives ids as high
/// (`PID_MAX_LIMIT` is 2²²).
pub const HOSTS: Pid = 1 << 31;

/// The id stands for a host of a packet capture.
#[must_use]
pub fn is_host(pid: Pid) -> bool {
    pid >= HOSTS
}

/// A traced process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its name (`/proc/PID/comm`), as the kernel has it.
    pub comm: String,
    /// Its executable; `None` where it could not be read.
    pub exe: Option<String>,
    /// `go1.27.3`; `None` for a program that is not Go.
    pub go_version: Option<String>,
    /// Its pprof endpoint, where one answered.
    pub pprof_url: Option<String>,
    /// Container id, from the cgroup's path.
    pub container: Option<String>,
    /// Why it is traced.
    pub relation: Relation,
}

impl Process {
    /// What stands for a host of a packet capture, under an id from [`HOSTS`] on.
    #[must_use]
    pub fn of_host(pid: Pid, name: String) -> Self {
        Self {
            pid,
            comm: name,
            exe: None,
            go_version: None,
            pprof_url: None,
            container: None,
            relation: Relation::Target,
        }
    }
}

/// Why a process is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The user asked for it (or it is a child of one the user asked for).
    Target,
    /// It is at the other end of a target's connection on this host.
    Peer,
}

/// In which network a process is: what a loopback address means to it, and to nobody elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The process.
    pub pid: Pid,
    /// Its network namespace, by the inode of `/proc/PID/ns/net`.
    pub namespace: u64,
}

/// The file descriptors of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Whose.
    pub pid: Pid,
    /// How many are open.
    pub open: u64,
    /// How many may be (`RLIMIT_NOFILE`, the soft limit).
    pub limit: u64,
    /// System calls of the process that failed with `EMFILE` or `ENFILE` in the window so far; `None`
    /// where that was not watched.
    pub refused: Option<u64>,
    /// What they are, the most frequent first: `TCP to 10.0.0.2:5432, ESTABLISHED`, `TCP on port 80`,
    /// `file /srv/data/…`, `pipe`, `eventpoll`. Only told where they are near the limit, and much
    /// changed since it was told.
    pub held: Vec<(String, u64)>,
}
