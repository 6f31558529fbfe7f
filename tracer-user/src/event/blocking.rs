//! What goroutines are blocked at, as the structures of their runtime tell.

use serde::{Deserialize, Serialize};

use super::Pid;

/// What the goroutines of a process are blocked at. Told after the snapshot of the same moment, where
/// that was read from memory. Addresses are names within the process, no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocking {
    /// The process.
    pub pid: Pid,
    /// Those that wait at channels.
    pub at_channels: Vec<AtChannels>,
    /// Locks at which somebody waits.
    pub locks: Vec<Lock>,
}

/// A goroutine that waits at channels: at one to send or receive, in a `select` at several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtChannels {
    /// Its id.
    pub goroutine: u64,
    /// The addresses of the channels (`sudog.c`), the first eight of them.
    pub channels: Vec<u64>,
    /// One of them is fed by a timer (`hchan.timer`, since Go 1.23): it will wake up by itself.
    pub timed: bool,
}

/// A `sync.Mutex` or `sync.RWMutex` at which goroutines wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The address of the semaphore that they wait at (`sudog.elem`).
    pub address: u64,
    /// Somebody has it (the lowest bit of `Mutex.state`); `None` for an `RWMutex`.
    pub held: Option<bool>,
    /// The ids of those that wait.
    pub waiters: Vec<u64>,
    /// The ids of others on whose stacks the lock's address lies, or that of what it is a part of.
    pub known_to: Vec<u64>,
}
