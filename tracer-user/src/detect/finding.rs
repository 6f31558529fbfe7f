//! What a finding is.
//!
//! The names and units of the fields are those of the JSON report; they are promised to scripts.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    event::{Actor, Attribution, Creation, Frame, Goroutine, Pid, Role, SocketId},
    model::{Connection, Model},
};

/// Something that is wrong, with the proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `f1`, `f2`, … in the order of the report.
    pub id: String,
    /// The finding this one is a consequence of; its harm is counted there.
    pub caused_by: Option<String>,
    /// What kind of trouble it is.
    pub rule: Rule,
    /// How much harm it does.
    pub severity: Severity,
    /// From 0 to 1; see [`Confidence`](super::Confidence).
    pub confidence: f64,
    /// How often it happened in the window.
    pub count: u64,
    /// One line.
    pub title: String,
    /// Two or three sentences.
    pub explanation: String,
    /// Who did it.
    pub process: Subject,
    /// On which connection; the one of the occurrence that `evidence` tells.
    pub connection: Option<Ends>,
    /// Other connections of the same story.
    pub related_connections: Vec<Ends>,
    /// The setting that made it so, where it is known.
    pub setting: Option<Setting>,
    /// The line that decided.
    pub code: Option<Frame>,
    /// Who decided, and who was still at work.
    pub goroutines: Vec<Witness>,
    /// Numbers.
    pub measured: Measured,
    /// One occurrence, in the order of time.
    pub evidence: Vec<Evidence>,
    /// What to change.
    pub advice: Vec<String>,
    /// Shows the packets of that occurrence in any capture of this host.
    pub wireshark_filter: Option<String>,
    /// What was missing to be sure.
    pub incomplete: Option<String>,
}

/// What kind of trouble; its name never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// SYNs went unanswered.
    ConnectTimeout,
    /// A SYN was answered by RST.
    ConnectRefused,
    /// A process gave up on its upstream, harming a request it was serving.
    ProxyTimeout,
    /// A process gave up on its server, with no request being served.
    ClientTimeout,
    /// A server's own limit of time cut a request off.
    ServerTimeout,
    /// A request went out on a pooled connection that the peer was closing.
    KeepaliveRace,
    /// A connection with work in flight was reset.
    ConnectionReset,
    /// A connection that carried a request ended with no response byte.
    EmptyResponse,
    /// The first byte of a response came late.
    SlowResponse,
    /// Bytes stopped flowing in the middle of a message.
    StalledTransfer,
    /// Packets were lost, and requests waited until they were sent again.
    PacketLoss,
    /// A request was taken, or sat unread, and never answered while the connection stayed open.
    NoResponse,
    /// The accept queue of a listening socket overflowed.
    AcceptBacklog,
    /// The peer closed, the process never did.
    CloseWaitLeak,
    /// Calls fail, or soon will, because file descriptors run out.
    FdExhaustion,
    /// Short connections are opened over and over where one would do.
    ConnectionChurn,
    /// Threads are switched so often, or for so short, that it costs the requests.
    SchedulerThrash,
    /// Runnable threads waited for a CPU.
    RunQueueDelay,
    /// The quota of the cgroup stopped the process.
    CpuThrottled,
    /// The Go runtime's timers eat the CPU.
    TimerAbuse,
    /// Garbage collection costs the requests.
    GcPressure,
    /// Goroutines of one origin grow and do not end.
    GoroutineLeak,
    /// Goroutines queue for a lock.
    LockContention,
    /// A set of goroutines waits for itself.
    Deadlock,
}

/// How much harm is done. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nobody was harmed, or it passed by itself.
    Info,
    /// Requests fail.
    Warning,
    /// A good part of the requests fail.
    Critical,
}

/// A process, named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id; of several workers of a service that of the one whose case is told. `null` for a host of a packet
    /// capture, which stands for processes that are not known.
    #[serde(with = "known_pid")]
    pub pid: Pid,
    /// Its name; of a host its address, with the port it serves on.
    pub comm: String,
}

/// Writes no id where there is none.
pub(crate) mod known_pid {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::event::{HOSTS, Pid, is_host};

    pub(crate) fn serialize<S: Serializer>(pid: &Pid, to: S) -> Result<S::Ok, S::Error> {
        Some(*pid).filter(|pid| !is_host(*pid)).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pid, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(HOSTS))
    }
}

impl Subject {
    /// Who owns this end of a connection.
    pub(super) fn owner(model: &Model, connection: &Connection) -> Self {
        Self {
            pid: connection.pid,
            comm: model.owner(connection),
        }
    }

    pub(super) fn of(model: &Model, pid: Pid) -> Self {
        Self {
            pid,
            comm: model.name(pid),
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Who asks.
    pub client: SocketAddr,
    /// Who answers.
    pub server: SocketAddr,
    /// Which of both the process is.
    pub role: Role,
}

impl From<&Connection> for Ends {
    fn from(connection: &Connection) -> Self {
        Self {
            client: connection.client(),
            server: connection.server(),
            role: connection.role,
        }
    }
}

/// A setting of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// `net/http.Transport.ResponseHeaderTimeout` and the like.
    pub name: String,
    /// What it is set to, as far as the waits tell; `None` where they are of more than one length.
    pub value_s: Option<f64>,
}

/// A goroutine that has to do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// Its process.
    pub process: Subject,
    /// Its id.
    pub id: u64,
    /// What it was doing.
    pub state: String,
    /// For how long it had been waiting.
    pub wait_s: Option<f64>,
    /// How it is known to be this one.
    pub attribution: Attribution,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started it.
    pub created_by: Option<Starter>,
}

impl Witness {
    /// Who did something, at these frames; `None` where its goroutine is not known.
    pub(super) fn acting(model: &Model, actor: Actor, frames: &[Frame]) -> Option<Self> {
        Some(Self {
            process: Subject::of(model, actor.pid),
            id: actor.goroutine?,
            state: "running".into(),
            wait_s: None,
            attribution: actor.attribution,
            frames: frames.to_vec(),
            created_by: None,
        })
    }

    pub(super) fn looked_at(process: Subject, goroutine: &Goroutine, how: Attribution) -> Self {
        Self {
            process,
            id: goroutine.id,
            state: goroutine.state.clone(),
            wait_s: goroutine.wait.map(|wait| wait.as_secs_f64()),
            attribution: how,
            frames: goroutine.frames.clone(),
            created_by: goroutine.created_by.as_ref().map(Starter::from),
        }
    }
}

/// The `go` statement that started a goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starter {
    /// Where it stands.
    #[serde(flatten)]
    pub frame: Frame,
    /// The goroutine that ran it.
    pub goroutine: Option<u64>,
}

impl From<&Creation> for Starter {
    fn from(creation: &Creation) -> Self {
        Self {
            frame: creation.frame.clone(),
            goroutine: creation.goroutine,
        }
    }
}

/// Numbers. Only those are written that the rule measures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The median wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_s: Option<f64>,
    /// The shortest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_min_s: Option<f64>,
    /// The longest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_max_s: Option<f64>,
    /// Size of the request in the occurrence that `evidence` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// What came of the response in that occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Requests served on the same port in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Of these, harmed by this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_harmed: Option<u64>,
    /// Of these, answered without failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_fine: Option<u64>,
    /// Harmed requests by the status their client got; `none` where it got no byte.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub harmed_by_status: BTreeMap<String, u64>,
    /// Bytes per second at which the request of that occurrence came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_rate_bytes: Option<u64>,
    /// Bytes that the process had not read of that occurrence when its connection or the window ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_bytes: Option<u64>,
    /// How long that occurrence's connection had been idle when its client sent the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_idle_s: Option<f64>,
    /// How long it had been idle when its server closed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_idle_s: Option<f64>,
    /// Requests that the client sent again, so that nothing was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried: Option<u64>,
    /// Attempts to connect to the same address in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Of these, established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established: Option<u64>,
    /// SYNs sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_retransmits: Option<u64>,
    /// Requests that took this long, or were held up, and were answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_slow: Option<u64>,
    /// Half of the requests of the same kind were answered within this time, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_s: Option<f64>,
    /// Where the time of the occurrence that `evidence` tells went; the parts add up to the whole.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub parts_s: BTreeMap<String, f64>,
    /// Gaps of 200 ms or more in the middle of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<u64>,
    /// Segments sent again, SYNs apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    /// Packets that this kernel dropped, by its own reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub drops: BTreeMap<String, u64>,
    /// Connections in the queue of the listening socket when it was fullest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// How many may be in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Handshakes that were dropped because it was full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes_dropped: Option<u64>,
    /// Connections that the finding is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// By how many they, or the descriptors, grow in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_per_s: Option<f64>,
    /// How many of them are opened in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_s: Option<f64>,
    /// Requests that each carries, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<f64>,
    /// Their median life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<f64>,
    /// The share of it that goes into connecting, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connecting_share: Option<f64>,
    /// File descriptors open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<u64>,
    /// How many may be open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors_limit: Option<u64>,
    /// Calls that failed for want of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_refused: Option<u64>,
    /// In how many seconds they run out, if it goes on like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted_in_s: Option<f64>,
    /// What the descriptors are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub held: BTreeMap<String, u64>,
    /// The share of the process's CPU time that went for it, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_share: Option<f64>,
    /// CPUs that it had on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_used: Option<f64>,
    /// Half of the slow requests lost no more time to it; an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_s: Option<f64>,
    /// Timers in the runtime's heaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timers: Option<u64>,
    /// Goroutines that the finding is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goroutines: Option<u64>,
    /// Garbage collections in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collections_per_s: Option<f64>,
    /// Bytes that the last collection found live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_bytes: Option<u64>,
    /// The share of the process's CPU time in which goroutines that allocated helped the collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assist_share: Option<f64>,
    /// Context switches of the process's threads in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switches_per_s: Option<f64>,
    /// Half of the times a thread had a CPU it ran for no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice_s: Option<f64>,
    /// `GOMAXPROCS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_procs: Option<u32>,
    /// How many CPUs the quota of the cgroup is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_cpus: Option<f64>,
    /// Periods of the quota in the window in which there was something to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub periods: Option<u64>,
    /// Those in which the quota was used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
    /// For so long threads were stopped by it, on all CPUs together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_s: Option<f64>,
    /// Threads of the host that ran or could, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runnable_avg: Option<f64>,
    /// CPUs of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Who had the CPUs that requests waited for, with its share of all CPU time there was, from 0 to 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub taken_by: BTreeMap<String, f64>,
    /// What their stacks take at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacks_at_least_bytes: Option<u64>,
    /// What the memory grows by for each of them; their stacks alone where that is not seen. An estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_each_bytes: Option<u64>,
    /// How much memory the process may have: the limit that is met first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

impl Measured {
    /// The shortest, the median and the longest of `waits`.
    pub(super) fn waits(&mut self, mut waits: Vec<Duration>) {
        waits.sort();
        let seconds = |wait: Option<&Duration>| wait.map(Duration::as_secs_f64);
        self.waited_min_s = seconds(waits.first());
        self.waited_s = seconds(waits.get(waits.len() / 2));
        self.waited_max_s = seconds(waits.last());
    }
}

/// One event of an occurrence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// When, on the wall clock.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub time: jiff::Timestamp,
    /// One or two words.
    pub event: String,
    /// The rest.
    pub detail: String,
    /// The packet's number in the recording's capture (Wireshark's `frame.number`), where there is one.
    pub frame: Option<u64>,
    /// On which socket it happened, where it did on one: so its packet can be found.
    #[serde(skip)]
    pub socket: Option<SocketId>,
}

/// Writes a time as RFC 3339 with all nine digits of its fraction.
pub(crate) fn rfc3339_nanoseconds<S: Serializer>(
    time: &jiff::Timestamp,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.9}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_nanoseconds() {
        let evidence = Evidence {
            time: "2026-01-01T00:00:01.5Z".parse().unwrap(),
            event: "close".into(),
            detail: String::new(),
            frame: None,
            socket: None,
        };
        let json = serde_json::to_value(&evidence).unwrap();
        assert_eq!(json["time"], "2026-01-01T00:00:01.500000000Z");
    }

    #[test]
    fn rules_and_severities_have_the_promised_names() {
        let json = serde_json::to_value((Rule::ProxyTimeout, Severity::Critical)).unwrap();
        assert_eq!(json, serde_json::json!(["proxy-timeout", "critical"]));
    }
}
