//! The report, from a model and what was found in it.
//!
//! Lists are bounded; what does not fit is counted, and what comes first is what findings name.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use crate::{
    detect::{Finding, Severity},
    event::{BootInstant, Origin, Relation, Role, Shed, SourceKind, Unseen},
    model::{Connection, End, Exchange, Group, Model, Process, WentWithout},
    recording::Losses,
};

use super::host::HostTold;
use super::json::{
    ConnectionTold, Coverage, ExchangeTold, GoroutinesTold, GroupTold, HttpTold, Report, SCHEMA,
    SnapshotTold, SourceTold, TargetTold,
};
use super::threads::threads;

/// Connections told one by one.
const CONNECTIONS: usize = 1_000;

/// Groups of goroutines told.
const GROUPS: usize = 200;

impl Report {
    /// Tells `model` and what was found in it.
    #[must_use]
    pub fn new(model: &Model, findings: &[Finding]) -> Self {
        let source = model.source();
        let (targets, peers): (Vec<&Process>, Vec<&Process>) = model
            .processes()
            .partition(|process| process.about.relation == Relation::Target);
        let (connections, left_out) = connections(model, findings);
        let (threads, threads_left_out) = threads(model, findings);
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
            losses: losses(model),
            coverage: Coverage::of(model),
            findings: findings.to_vec(),
            connections,
            connections_left_out: left_out,
            threads,
            threads_left_out,
            goroutines: GoroutinesTold::of(model),
            host: HostTold::of(model),
        }
    }

    /// The worst severity found; the exit status follows from it.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
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

/// What was lost until now; packets by the probes whose name says `packet`.
#[must_use]
pub fn losses(model: &Model) -> Losses {
    let mut losses = Losses::default();
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

impl Coverage {
    fn of(model: &Model) -> Self {
        let mut watched = vec!["tcp".to_owned()];
        if model.threads().chain(model.threads_gone()).next().is_some() {
            watched.push("scheduler".into());
        }
        let looked_at = model
            .connections()
            .any(|connection| !connection.looks.is_empty());
        if looked_at || model.snapshots().next().is_some() {
            watched.push("goroutines".into());
        }
        let mut unseen = model.unseen().to_vec();
        unseen.extend(model.went_without().iter().map(|shed| without(model, shed)));
        unseen.extend(forgotten(model));
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

/// What was not looked at any more, to keep within the budget of CPU time.
fn without(model: &Model, went: &WentWithout) -> Unseen {
    let what = match went.shed {
        Shed::Packets => "packets: no capture, and no HTTP method, path and status".to_owned(),
        Shed::Samples => "CPU samples: where the CPU time goes, and who else takes it".to_owned(),
        Shed::Scheduler => {
            "threads on CPUs: for how long they ran, waited for a CPU and were blocked".to_owned()
        }
        Shed::Connections { one_in } => {
            format!("all but one in {one_in} of the connections opened since")
        }
    };
    let percent = |cpus: f64| format!("{:.1}%", cpus * 100.0);
    Unseen {
        what,
        why: format!(
            "shed at {}, when gopulse cost {} of a CPU and may cost {}",
            model.source().wall(went.at).strftime("%H:%M:%S%.3f"),
            percent(went.spent),
            percent(went.budget)
        ),
        remedy: "a larger --cpu-budget, or fewer processes at once (--pid, --port)".to_owned(),
    }
}

/// What a long window had too much of to be kept one by one.
fn forgotten(model: &Model) -> impl Iterator<Item = Unseen> {
    let many: [(u64, &str); 3] = [
        (model.waits_forgotten(), "waits of threads for a CPU"),
        (model.samples_forgotten(), "CPU samples"),
        (model.processes_forgotten(), "processes that ended"),
    ];
    many.into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| Unseen {
            what: format!("{number} {what}, one by one"),
            why: "there were more than are kept in memory".to_owned(),
            remedy: "a shorter window (-d)".to_owned(),
        })
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
        .filter(|connection| told_once(model, connection))
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
    (told, left_out(model) + too_many)
}

/// A packet capture shows both ends of every connection; it is told by the end that asks.
fn told_once(model: &Model, connection: &Connection) -> bool {
    model.source().kind != SourceKind::Pcap || connection.role == Role::Client
}

/// Connections no longer kept one by one, counted as they are told.
fn left_out(model: &Model) -> u64 {
    if model.source().kind != SourceKind::Pcap {
        return model.connections_left_out();
    }
    let asked = model.traffic().into_iter().filter(|(peer, _)| !peer.serves);
    let all: u64 = asked.map(|(_, traffic)| traffic.connections).sum();
    let kept = model.connections().filter(|c| c.role == Role::Client);
    all.saturating_sub(kept.count() as u64)
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
            closed: connection
                .ended()
                .filter(|at| connection.vanished != Some(*at))
                .map(wall),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        detect::{findings, large_uploads_fail},
        event::{Fact, Snapshot, SnapshotSource},
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
            "host",
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
                goroutines: vec![crate::detect::saving()],
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
