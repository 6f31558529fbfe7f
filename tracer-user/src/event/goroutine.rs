//! Goroutines, and the functions of theirs that decide the fate of connections.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, Frame, Pid, SocketId, StackId};

/// All goroutines of a process at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The process.
    pub pid: Pid,
    /// How they were read.
    pub source: SnapshotSource,
    /// Each that is not dead. May be fewer than `total` where reading was cut short.
    pub goroutines: Vec<Goroutine>,
    /// How many there are.
    pub total: u64,
}

/// How goroutines were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotSource {
    /// From the process's memory; nobody was stopped.
    Memory,
    /// From a pprof endpoint.
    Pprof,
    /// From a dump in a file.
    File,
}

/// One goroutine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goroutine {
    /// Its id; 0 where the source gives none.
    pub id: u64,
    /// As the runtime's dumps word it: the wait reason (`IO wait`, `chan send`, `sleep`), or
    /// `running`, `runnable`, `syscall`.
    pub state: String,
    /// How long it has waited, where known.
    pub wait: Option<Duration>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started it.
    pub created_by: Option<Creation>,
}

/// The `go` statement that started a goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// Where the statement stands.
    pub frame: Frame,
    /// The goroutine that ran it.
    pub goroutine: Option<u64>,
}

/// A function of Go's library that is only called when a connection's fate is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The function that ran.
    pub decider: Decider,
    /// The connection, where it could be read from the function's argument.
    pub socket: Option<SocketId>,
    /// Who ran it.
    pub actor: Actor,
    /// The error it was given, where it is text (`net/http: timeout awaiting response headers`).
    pub error: Option<String>,
    /// From where it was called.
    pub stack: Option<StackId>,
}

/// Which function decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decider {
    /// `net/http.(*persistConn).closeLocked(err)`: the transport gives a connection up.
    TransportClose,
    /// `net/http.(*persistConn).cancelRequest(err)`: the request's context ended; the error is its cause.
    TransportCancel,
    /// `net/http.setRequestCancel`'s check, run after an error when `http.Client.Timeout` is set and is
    /// what bounds the request.
    ClientTimeoutChecked,
    /// `runtime.netpolldeadlineimpl` with `read`: a read deadline that the program had set on a
    /// connection has passed.
    ReadDeadline,
    /// The same with `write`: a write deadline has passed. (Where one call is both, it is told twice.)
    WriteDeadline,
    /// `net/http.(*Server).Shutdown` or `Close`: the server ends on purpose.
    ServerShutdown,
    /// `net/http.(*Transport).queueForDial`: a request found no idle connection, so that a goroutine of
    /// the transport opens one. The stack is that of who asks.
    TransportDial,
}
