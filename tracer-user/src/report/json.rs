//! The report as JSON: `gopulse.report/1`.
//!
//! Keys are promised: a key keeps its meaning and unit for ever. Seconds are floats named `…_s`,
//! bytes are integers named `…_bytes`, times are RFC 3339 with nanoseconds. What is not known is
//! `null`, what is not measured an empty list.

use std::{io, net::SocketAddr};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    detect::{Finding, known_pid, rfc3339_nanoseconds},
    event::{Frame, Hook, Pid, Role, SnapshotSource, SourceKind, Unseen},
    plain::write_json,
    recording::Losses,
};

use super::host::HostTold;

/// The name and version of this form.
pub(super) const SCHEMA: &str = "gopulse.report/1";

/// All there is to say about one window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `gopulse.report/1`.
    pub schema: &'static str,
    /// Where and when.
    pub source: SourceTold,
    /// Whom the user asked for.
    pub targets: Vec<TargetTold>,
    /// Who else was traced, being at the other end of a target's connection on this host.
    pub peers: Vec<TargetTold>,
    /// What was lost.
    pub losses: Losses,
    /// What was watched, and what was not.
    pub coverage: Coverage,
    /// What is wrong; causes before their consequences, the worst first.
    pub findings: Vec<Finding>,
    /// Connections: those that findings name, then those where something went wrong, then the others.
    pub connections: Vec<ConnectionTold>,
    /// How many connections are not in the list.
    pub connections_left_out: u64,
    /// Threads; empty where the scheduler was not watched.
    pub threads: Vec<ThreadTold>,
    /// How many threads are not in the list.
    pub threads_left_out: u64,
    /// Goroutines.
    pub goroutines: GoroutinesTold,
    /// The host around them; `null` where nobody read its figures, as in a packet capture.
    pub host: Option<HostTold>,
}

/// Where and when events were seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceTold {
    /// What they come from.
    pub kind: SourceKind,
    /// The host's name.
    pub host: String,
    /// Its kernel.
    pub kernel: String,
    /// When the window began.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub started: Timestamp,
    /// When it ended.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub ended: Timestamp,
    /// How long it was.
    pub duration_s: f64,
}

/// A traced process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetTold {
    /// Its id; `null` for a host of a packet capture.
    #[serde(serialize_with = "known_pid::serialize")]
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Its executable.
    pub exe: Option<String>,
    /// `go1.27.3`; `null` for a program that is not Go.
    pub go_version: Option<String>,
    /// Its pprof endpoint.
    pub pprof_url: Option<String>,
    /// Its container.
    pub container: Option<String>,
}

/// What was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// `tcp`, `http`, `goroutines`, …: of which something was seen.
    pub watched: Vec<String>,
    /// What is learnt by which hook.
    pub hooks: Vec<Hook>,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionTold {
    /// Who asks.
    pub client: SocketAddr,
    /// Who answers.
    pub server: SocketAddr,
    /// Whose end this is; `null` in a packet capture.
    #[serde(serialize_with = "known_pid::serialize")]
    pub pid: Pid,
    /// Which of both it is.
    pub role: Role,
    /// When it was opened; `null` where that was before the window.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub opened: Option<Timestamp>,
    /// When it ended; `null` while it is open.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub closed: Option<Timestamp>,
    /// How long the handshake took.
    pub connect_s: Option<f64>,
    /// Smoothed round-trip time.
    pub srtt_s: Option<f64>,
    /// Payload sent.
    pub bytes_sent: u64,
    /// Payload received.
    pub bytes_received: u64,
    /// How many exchanges it carried; `exchanges` holds the last of them, and those gone wrong.
    pub requests: u64,
    /// Segments sent again, SYNs included.
    pub retransmits: u32,
    /// How it ended.
    pub end: &'static str,
    /// Requests and their responses.
    pub exchanges: Vec<ExchangeTold>,
}

/// A request and its response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExchangeTold {
    /// When its first byte went.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub started: Timestamp,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the response.
    pub response_bytes: u64,
    /// From the first byte of the request to the first of the response.
    pub first_byte_s: Option<f64>,
    /// From the first byte to the last.
    pub total_s: f64,
    /// What is known of it as HTTP.
    pub http: Option<HttpTold>,
    /// Who sent or served it.
    pub goroutine: Option<u64>,
}

/// An HTTP/1 exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpTold {
    /// `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Of the response.
    pub status: Option<u16>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// What a thread did on the scheduler.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadTold {
    /// Its process.
    #[serde(serialize_with = "known_pid::serialize")]
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Running.
    pub on_cpu_s: f64,
    /// Runnable, waiting for a CPU.
    pub run_queue_s: f64,
    /// Of that, since it was woken.
    pub woken_s: f64,
    /// And since another thread took the CPU.
    pub preempted_s: f64,
    /// The 99th percentile of one such wait.
    pub run_queue_p99_s: f64,
    /// Runnable, and stopped by the quota of its cgroup.
    pub throttled_s: f64,
    /// Blocked.
    pub off_cpu_s: f64,
    /// Of that, where no signal reaches it: as a rule on a disk.
    pub uninterruptible_s: f64,
    /// For how long it was watched: all of the above but the parts together.
    pub watched_s: f64,
    /// It ended in the window.
    pub ended: bool,
    /// The median of how long it ran each time.
    pub slice_p50_s: f64,
    /// Switched out because it blocked.
    pub switches_voluntary: u64,
    /// Switched out while runnable.
    pub switches_involuntary: u64,
    /// Moved to another CPU.
    pub migrations: u64,
}

/// Goroutines by snapshot and place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GoroutinesTold {
    /// Each snapshot.
    pub snapshots: Vec<SnapshotTold>,
    /// Where they are; the largest groups of the last snapshot of each process.
    pub groups: Vec<GroupTold>,
    /// How many groups are not in the list.
    pub groups_left_out: u64,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotTold {
    /// Of which process.
    #[serde(serialize_with = "known_pid::serialize")]
    pub pid: Pid,
    /// When.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub time: Timestamp,
    /// How many goroutines.
    pub total: u64,
    /// How it was read.
    pub source: SnapshotSource,
}

/// Goroutines at the same place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupTold {
    /// Of which process.
    #[serde(serialize_with = "known_pid::serialize")]
    pub pid: Pid,
    /// How many.
    pub count: u64,
    /// What they are doing.
    pub state: String,
    /// The longest wait among them.
    pub wait_max_s: Option<f64>,
    /// Growth from the first snapshot to the last; `null` with one alone.
    pub growth_per_s: Option<f64>,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started them.
    pub created_by: Option<Frame>,
}

impl Report {
    /// Writes it as indented JSON with a newline at the end.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        write_json(&mut out, self)
    }
}

fn maybe_rfc3339<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_nanoseconds(time, to),
        None => to.serialize_none(),
    }
}
