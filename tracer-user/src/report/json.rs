//! The report as JSON: `gopulse.report/1`.
//!
//! Keys are promised: a key keeps its meaning and unit for ever. Seconds are floats named `…_s`,
//! bytes are integers named `…_bytes`, times are RFC 3339 with nanoseconds. What is not known is
//! `null`, what is not measured an empty list.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    detect::{Finding, Severity, rfc3339_nanoseconds},
    event::{
        BootInstant, Frame, Hook, Origin, Pid, Relation, Role, SnapshotSource, SourceKind, Unseen,
    },
    model::{Connection, End, Exchange, Group, Model, Process},
};

/// The name and version of this form.
const SCHEMA: &str = "gopulse.report/1";

/// Connections told one by one.
const CONNECTIONS: usize = 1_000;

/// Groups of goroutines told.
const GROUPS: usize = 200;

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
    /// Goroutines.
    pub goroutines: GoroutinesTold,
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
    /// Its id.
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

/// What was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Records of events.
    pub events_lost: u64,
    /// Captured packets: what was lost by probes whose name says `packet`.
    pub packets_lost: u64,
    /// Both, by the name of the probe.
    pub by_probe: BTreeMap<String, u64>,
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
    /// Whose end this is.
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
    pub pid: Pid,
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Running.
    pub on_cpu_s: f64,
    /// Runnable, waiting for a CPU.
    pub run_queue_s: f64,
    /// The 99th percentile of one such wait.
    pub run_queue_p99_s: f64,
    /// Blocked.
    pub off_cpu_s: f64,
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
    /// Tells `model` and what was found in it.
    #[must_use]
    pub fn new(model: &Model, findings: &[Finding]) -> Self {
        let source = model.source();
        let (targets, peers): (Vec<&Process>, Vec<&Process>) = model
            .processes()
            .partition(|process| process.about.relation == Relation::Target);
        let (connections, left_out) = connections(model, findings);
        Self {
            schema: SCHEMA,
            source: SourceTold {
                kind: source.kind,
                host: source.host.clone(),
                kernel: source.kernel.clone(),
                started: source.wall(source.started),
                ended: source.wall(model.now()),
                duration_s: model.watched().as_secs_f64(),
            },
            targets: targets.into_iter().map(TargetTold::from).collect(),
            peers: peers.into_iter().map(TargetTold::from).collect(),
            losses: Losses::of(model),
            coverage: Coverage::of(model),
            findings: findings.to_vec(),
            connections,
            connections_left_out: left_out,
            threads: Vec::new(),
            goroutines: GoroutinesTold::of(model),
        }
    }

    /// The worst severity found; the exit status follows from it.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Writes it as indented JSON with a newline at the end.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, mut out: impl std::io::Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }
}

impl From<&Process> for TargetTold {
    fn from(process: &Process) -> Self {
        let about = &process.about;
        Self {
            pid: about.pid,
            comm: about.comm.clone(),
            exe: about.exe.clone(),
            go_version: about.go_version.clone(),
            pprof_url: about.pprof_url.clone(),
            container: about.container.clone(),
        }
    }
}

impl Losses {
    fn of(model: &Model) -> Self {
        let mut losses = Self::default();
        for (probe, count) in model.losses() {
            if probe.contains("packet") {
                losses.packets_lost += count;
            } else {
                losses.events_lost += count;
            }
            losses.by_probe.insert(probe.to_owned(), count);
        }
        losses
    }
}

impl Coverage {
    fn of(model: &Model) -> Self {
        let mut watched = vec!["tcp".to_owned()];
        let looked_at = model
            .connections()
            .any(|connection| !connection.looks.is_empty());
        if looked_at || model.snapshots().next().is_some() {
            watched.push("goroutines".into());
        }
        let mut unseen = model.unseen().to_vec();
        if model.strays() > 0 {
            unseen.push(Unseen {
                what: format!(
                    "{} events of sockets whose opening was not seen",
                    model.strays()
                ),
                why: "the record of their opening was lost, or came too late".into(),
                remedy: "trace fewer processes at once (--pid, --port)".into(),
            });
        }
        Self {
            watched,
            hooks: model.source().hooks.clone(),
            unseen,
        }
    }
}

impl GoroutinesTold {
    fn of(model: &Model) -> Self {
        let source = model.source();
        let groups = model.goroutine_groups();
        Self {
            snapshots: model
                .snapshots()
                .map(|taken| SnapshotTold {
                    pid: taken.pid,
                    time: source.wall(taken.at),
                    total: taken.total,
                    source: taken.source,
                })
                .collect(),
            groups_left_out: groups.len().saturating_sub(GROUPS) as u64,
            groups: groups
                .into_iter()
                .take(GROUPS)
                .map(GroupTold::from)
                .collect(),
        }
    }
}

impl From<Group> for GroupTold {
    fn from(group: Group) -> Self {
        Self {
            pid: group.pid,
            count: group.count,
            state: group.state,
            wait_max_s: group.wait_max.map(|wait| wait.as_secs_f64()),
            growth_per_s: group.growth_per_second,
            frames: group.frames,
            created_by: group.created_by,
        }
    }
}

/// The connections that are told, and how many are not.
fn connections(model: &Model, findings: &[Finding]) -> (Vec<ConnectionTold>, u64) {
    let named: HashSet<(SocketAddr, SocketAddr)> = findings
        .iter()
        .flat_map(|finding| {
            finding
                .connection
                .iter()
                .chain(&finding.related_connections)
        })
        .map(|ends| (ends.client, ends.server))
        .collect();
    let mut chosen: Vec<(u8, &Connection)> = model
        .connections()
        .map(|connection| {
            let rank = if named.contains(&(connection.client(), connection.server())) {
                0
            } else {
                u8::from(went_well(connection)) + 1
            };
            (rank, connection)
        })
        .collect();
    chosen.sort_by_key(|(rank, connection)| (*rank, connection.opened));
    let too_many = chosen.len().saturating_sub(CONNECTIONS) as u64;
    chosen.truncate(CONNECTIONS);
    let told = chosen
        .into_iter()
        .map(|(_, connection)| ConnectionTold::of(model, connection))
        .collect();
    (told, model.connections_left_out() + too_many)
}

fn went_well(connection: &Connection) -> bool {
    matches!(connection.end(), End::FinLocal | End::FinRemote | End::Open)
        && connection.tally().fine() == connection.tally().exchanges
}

impl ConnectionTold {
    fn of(model: &Model, connection: &Connection) -> Self {
        let wall = |at: BootInstant| model.source().wall(at);
        let tally = connection.tally();
        let (sent, received) = match (connection.closed, connection.role) {
            (Some((_, closed)), _) => (closed.bytes_sent, closed.bytes_received),
            (None, Role::Client) => (tally.request_bytes, tally.response_bytes),
            (None, Role::Server) => (tally.response_bytes, tally.request_bytes),
        };
        let counted = connection
            .closed
            .map_or(0, |(_, closed)| closed.retransmits);
        Self {
            client: connection.client(),
            server: connection.server(),
            pid: connection.pid,
            role: connection.role,
            opened: (connection.origin != Origin::Found).then(|| wall(connection.opened)),
            closed: connection.ended().map(wall),
            connect_s: connection.connect_time().map(seconds),
            srtt_s: connection
                .closed
                .and_then(|(_, closed)| closed.srtt)
                .map(seconds),
            bytes_sent: sent,
            bytes_received: received,
            requests: tally.exchanges,
            retransmits: counted.max(connection.retransmits + connection.syn_retransmits),
            end: end(connection.end()),
            exchanges: connection
                .exchanges()
                .into_iter()
                .map(|exchange| ExchangeTold::of(model, exchange))
                .collect(),
        }
    }
}

impl ExchangeTold {
    fn of(model: &Model, exchange: Exchange) -> Self {
        Self {
            started: model.source().wall(exchange.started),
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes,
            first_byte_s: exchange.time_to_first_byte().map(seconds),
            total_s: seconds(exchange.duration()),
            goroutine: exchange.actor.and_then(|actor| actor.goroutine),
            http: exchange.head.map(|head| HttpTold {
                method: head.method,
                path: head.path,
                status: exchange.status,
                traceparent: head.traceparent,
            }),
        }
    }
}

fn end(end: End) -> &'static str {
    match end {
        End::FinLocal => "fin-local",
        End::FinRemote => "fin-remote",
        End::ResetLocal => "rst-local",
        End::ResetRemote => "rst-remote",
        End::Refused => "refused",
        End::Timeout => "timeout",
        End::Open => "open",
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn maybe_rfc3339<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339_nanoseconds(time, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        detect::{findings, tests::large_uploads_fail},
        event::{Fact, Snapshot},
        model::story::{Asked, Story},
    };

    fn report(story: &mut Story) -> Report {
        let model = story.model(30_000.0);
        Report::new(&model, &findings(&model))
    }

    #[test]
    fn the_whole_report_has_the_promised_keys() {
        let mut told = report(&mut large_uploads_fail(1000.0));
        // Two connections show every key.
        told.connections.truncate(2);
        let mut json = Vec::new();
        told.write_json(&mut json).unwrap();
        insta::assert_snapshot!(String::from_utf8(json).unwrap());
    }

    #[test]
    fn an_empty_window_is_told_with_every_key() {
        let told = serde_json::to_value(report(&mut Story::new())).unwrap();
        for key in [
            "schema",
            "source",
            "targets",
            "losses",
            "coverage",
            "findings",
            "connections",
            "threads",
            "goroutines",
        ] {
            assert!(told.get(key).is_some(), "{key}");
        }
        assert_eq!(told["schema"], "gopulse.report/1");
        assert_eq!(told["source"]["duration_s"], 30.0);
        assert_eq!(told["threads"], serde_json::json!([]));
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        let mut story = Story::new();
        let socket = story.connected(0.0, 7, "[::1]:5000", "[::1]:80");
        story.http(socket, 0, "GET /", Asked::at(1.0, 90).answered(2.0, 200));
        let told = serde_json::to_value(report(&mut story)).unwrap();
        let connection = &told["connections"][0];
        assert_eq!(connection["server"], "[::1]:80");
        assert_eq!(connection["end"], "open");
        assert_eq!(connection["closed"], serde_json::Value::Null);
        assert_eq!(connection["bytes_sent"], 90);
        assert_eq!(connection["exchanges"][0]["http"]["status"], 200);
        assert_eq!(connection["exchanges"][0]["first_byte_s"], 0.001);
    }

    #[test]
    fn connections_of_findings_come_first_and_those_left_out_are_counted() {
        let mut story = large_uploads_fail(1000.0);
        for nth in 0..1_500_u16 {
            let socket = story.connected(
                100.0,
                7,
                &format!("10.0.0.1:{}", 10_000 + nth),
                "10.0.0.2:80",
            );
            story.http(
                socket,
                0,
                "GET /",
                Asked::at(101.0, 90).answered(102.0, 200),
            );
        }
        let told = report(&mut story);
        assert_eq!(told.connections.len(), CONNECTIONS);
        assert_eq!(told.connections_left_out, 1_500 + 21 - CONNECTIONS as u64);
        let named = told.findings[0].related_connections[0];
        assert_eq!(told.connections[0].client, named.client);
    }

    #[test]
    fn lost_packets_are_counted_apart_from_lost_events() {
        let mut story = Story::new();
        for (probe, count) in [("packets", 3), ("exchanges", 5), ("exchanges", 9)] {
            story.tell(
                1.0,
                Fact::Lost {
                    probe: probe.into(),
                    count,
                },
            );
        }
        let losses = report(&mut story).losses;
        assert_eq!((losses.packets_lost, losses.events_lost), (3, 9));
    }

    #[test]
    fn goroutine_snapshots_make_groups() {
        let mut story = Story::new();
        story.tell(
            1.0,
            Fact::Goroutines(Snapshot {
                pid: 7,
                source: SnapshotSource::Memory,
                total: 1,
                goroutines: vec![crate::detect::tests::saving()],
            }),
        );
        let told = report(&mut story);
        assert_eq!(told.coverage.watched, ["tcp", "goroutines"]);
        assert_eq!(told.goroutines.groups[0].state, "sleep");
        assert_eq!(told.goroutines.snapshots[0].total, 1);
    }

    #[test]
    fn the_worst_severity_decides() {
        assert_eq!(report(&mut Story::new()).worst(), None);
        assert_eq!(
            report(&mut large_uploads_fail(1000.0)).worst(),
            Some(Severity::Critical)
        );
    }
}
