//! What can go wrong when a Go program is looked at from outside.

use std::io;

use nix::errno::Errno;

use crate::event::Pid;

/// Why a Go program, or its goroutines, could not be read.
///
/// Each message says what failed, what was found, why it is needed and what mends it, so that it can
/// be shown to a user as it is.
#[derive(Debug, thiserror::Error)]
pub enum GoError {
    /// The process ended, or never was.
    #[error(
        "process {pid} is gone; it has to run while it is looked at; `pgrep -a NAME` tells who runs now"
    )]
    Gone {
        /// Which.
        pid: Pid,
    },
    /// `/proc/PID/…` could not be read.
    #[error(
        "cannot read {path}: {source}; function names and the runtime's layout come from there; run \
         gopulse as root, or `sudo setcap cap_sys_ptrace,cap_dac_read_search+ep $(command -v gopulse)`"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The executable is a Go program, but a part that every Go program has is damaged or unknown.
    #[error(
        "cannot understand the Go program of process {pid}: {found}; without it neither functions nor \
         goroutines can be told; rebuild the service with an unmodified Go 1.21 to 1.27 for \
         linux/amd64"
    )]
    Program {
        /// Which process.
        pid: Pid,
        /// What was found instead.
        found: String,
    },
    /// Where the runtime keeps things is not known for this version.
    #[error(
        "the runtime layout of {version} in process {pid} is not known: {found}; it says where a \
         goroutine's id, state and stack lie; use the service's pprof endpoint (`--pprof URL`), or \
         build it with debug information (without `-ldflags=-w`)"
    )]
    Layout {
        /// Which process.
        pid: Pid,
        /// Its Go version, as the executable tells it.
        version: String,
        /// What did not fit.
        found: String,
    },
    /// The process's memory could not be read.
    #[error(
        "cannot read the memory of process {pid} at {address:#x}: {errno}; goroutines are read from \
         there without stopping the process; run gopulse as root, or \
         `sudo setcap cap_sys_ptrace+ep $(command -v gopulse)`"
    )]
    Memory {
        /// Which process.
        pid: Pid,
        /// Where.
        address: u64,
        /// What the kernel said.
        errno: Errno,
    },
    /// The pprof endpoint did not give what was asked for.
    #[error(
        "{url} gave no goroutines: {found}; they are asked for where the process's memory cannot be \
         read; check it with `curl '{url}'`, or name another with `--pprof URL`"
    )]
    Pprof {
        /// What was asked.
        url: String,
        /// What came instead.
        found: String,
    },
}
