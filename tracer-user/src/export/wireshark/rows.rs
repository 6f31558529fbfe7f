//! What happened and has no packet, each as an entry of a journal.
//!
//! In: every event, in the order in which the model takes them, with the model that has just taken it.
//! Out: rows in the order of time. Of each kind at most [`MOST`] are kept; how many more there were is
//! told in the last one.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::{
    detect::{
        Finding, brief, deciding_frame, own_frame,
        wording::{bytes, count, seconds},
    },
    event::{
        BootInstant, ConnectFailure, Decider, Decision, Descriptors, Event, Fact, Frame, Goroutine,
        Listening, Message, Pid, Relation, Role, SocketId, Source, Stall,
    },
    model::{Connection, Model},
    plain::clean,
};

use super::{cut_short, proofs::word, search::Ends};

/// Rows kept of each kind.
const MOST: u64 = 4_096;

/// When it happened, in microseconds since 1970: the journal's own field.
pub(super) const REALTIME: &str = "__REALTIME_TIMESTAMP";

/// The names of our own fields; the others are systemd's (systemd.journal-fields(7)).
pub(super) mod field {
    pub(in crate::export::wireshark) const EVENT: &str = "GOPULSE_EVENT";
    pub(super) const RULE: &str = "GOPULSE_RULE";
    pub(super) const FINDING: &str = "GOPULSE_FINDING";
    pub(super) const SEVERITY: &str = "GOPULSE_SEVERITY";
    pub(super) const GOID: &str = "GOPULSE_GOID";
    pub(super) const CLIENT: &str = "GOPULSE_CLIENT";
    pub(super) const SERVER: &str = "GOPULSE_SERVER";
}

/// How loud a row is (syslog(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Microseconds since 1970, as an entry tells it; set when rows are put in order.
    pub(super) at: u64,
    /// One word, the same as in evidence where it is told there.
    pub(super) event: &'static str,
    happened: BootInstant,
    priority: Priority,
    message: String,
    process: Option<(Pid, String)>,
    goroutine: Option<u64>,
    code: Option<Frame>,
    ends: Option<Ends>,
}

impl Row {
    fn new(event: &'static str, priority: Priority, message: String) -> Self {
        Self {
            at: 0,
            event,
            happened: BootInstant::default(),
            priority,
            message,
            process: None,
            goroutine: None,
            code: None,
            ends: None,
        }
    }

    fn by(mut self, model: &Model, pid: Pid) -> Self {
        self.process = Some((pid, model.name(pid)));
        self
    }

    fn goroutine(mut self, id: Option<u64>) -> Self {
        self.goroutine = id;
        self
    }

    fn code(mut self, frame: Option<&Frame>) -> Self {
        self.code = frame.cloned();
        self
    }

    fn on(mut self, connection: Option<&Connection>) -> Self {
        self.ends = connection.map(|connection| (connection.client(), connection.server()));
        self
    }

    /// Its fields, in which text from outside is made harmless; `proved` are the findings it proves.
    pub(super) fn fields<'f>(
        &self,
        host: &str,
        proved: impl Iterator<Item = &'f Finding>,
    ) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("MESSAGE", self.message.clone()),
            ("_HOSTNAME", host.to_owned()),
            ("SYSLOG_IDENTIFIER", "gopulse".to_owned()),
            ("PRIORITY", (self.priority as u8).to_string()),
        ];
        if let Some((pid, name)) = &self.process {
            fields.push(("_PID", pid.to_string()));
            fields.push(("_COMM", name.clone()));
        }
        if let Some(frame) = &self.code {
            fields.push(("CODE_FUNC", frame.function.clone()));
            fields.extend(frame.file.clone().map(|file| ("CODE_FILE", file)));
            fields.extend(frame.line.map(|line| ("CODE_LINE", line.to_string())));
        }
        fields.push((field::EVENT, self.event.to_owned()));
        fields.extend(self.goroutine.map(|id| (field::GOID, id.to_string())));
        if let Some((client, server)) = self.ends {
            fields.push((field::CLIENT, client.to_string()));
            fields.push((field::SERVER, server.to_string()));
        }
        for finding in proved {
            fields.push((field::FINDING, finding.id.clone()));
            fields.push((field::RULE, word(finding.rule)));
            fields.push((field::SEVERITY, word(finding.severity)));
        }
        for (_, value) in &mut fields {
            *value = cut_short(&clean(value)).to_owned();
        }
        fields
    }
}

/// What was told of a process's file descriptors so far.
#[derive(Clone, Copy, Default)]
struct Table {
    most: u64,
    refused: u64,
}

/// Gathers the rows of a window.
#[derive(Default)]
pub struct Rows {
    rows: Vec<Row>,
    /// How many there were of each kind.
    told: BTreeMap<&'static str, u64>,
    processes: BTreeMap<Pid, String>,
    queues: BTreeMap<(Pid, SocketAddr), Listening>,
    tables: BTreeMap<Pid, Table>,
    lost: BTreeMap<String, u64>,
}

impl Rows {
    /// Takes the next event; `model` has taken it already.
    pub fn tell(&mut self, event: &Event, model: &Model) {
        let at = event.at;
        let connection = |socket: SocketId| model.connection(socket);
        let row = match &event.fact {
            Fact::Process(process) => self.process(process),
            Fact::ProcessEnded { pid } => {
                let told = format!("{} ended", named(model, *pid));
                Some(Row::new("exit", Priority::Notice, told).by(model, *pid))
            }
            Fact::Decision(decision) => Some(decided(model, decision)),
            Fact::Goroutine {
                pid,
                socket,
                goroutine,
            } => Some(looked(model, *pid, socket.and_then(connection), goroutine)),
            Fact::Goroutines(snapshot) => {
                let total = count(snapshot.total, "goroutine", "goroutines");
                let told = format!("{} has {total}", named(model, snapshot.pid));
                Some(Row::new("goroutines", Priority::Info, told).by(model, snapshot.pid))
            }
            Fact::ConnectFailed { socket, why, .. } => {
                connection(*socket).and_then(|connection| connect_failed(model, connection, *why))
            }
            Fact::Dropped { socket, reason } => {
                // What the kernel frees without a reason is most often only done with.
                let reason = (reason != "NOT_SPECIFIED").then_some(reason);
                let connection = connection(*socket);
                connection
                    .zip(reason)
                    .map(|(connection, reason)| dropped(model, connection, reason))
            }
            Fact::Stalled(stall) => {
                let row = connection(stall.socket).map(|on| stalled(model, on, stall));
                return self.add(stall.from, row);
            }
            Fact::Unread {
                socket,
                since,
                bytes: unread,
            } => {
                let row = connection(*socket).map(|on| left_unread(model, on, *unread));
                return self.add(*since, row);
            }
            Fact::Listening(listening) => self.listening(model, listening),
            Fact::Descriptors(descriptors) => self.descriptors(model, descriptors),
            Fact::Lost { probe, count } => self.lost(probe, *count),
            _ => None,
        };
        self.add(at, row);
    }

    /// By time. None is from before the window: a gap or bytes may be older than it.
    pub(super) fn in_order(&self, source: &Source) -> Vec<Row> {
        let mut rows = self.rows.clone();
        let last = rows.iter().map(|row| row.happened).max();
        for (event, told) in &self.told {
            if let (Some(more), Some(last)) = (told.checked_sub(MOST + 1), last) {
                let told = format!("{} more of the kind {event:?} are not shown", more + 1);
                let mut row = Row::new("more", Priority::Notice, told);
                row.happened = last;
                rows.push(row);
            }
        }
        for row in &mut rows {
            let at = source.wall(row.happened.max(source.started));
            row.at = u64::try_from(at.as_microsecond()).unwrap_or_default();
        }
        rows.sort_by_key(|row| row.at);
        rows
    }

    fn add(&mut self, at: BootInstant, row: Option<Row>) {
        let Some(mut row) = row else {
            return;
        };
        row.happened = at;
        let told = self.told.entry(row.event).or_default();
        *told += 1;
        if *told <= MOST {
            self.rows.push(row);
        }
    }

    fn process(&mut self, process: &crate::event::Process) -> Option<Row> {
        let pid = process.pid;
        let known = self.processes.insert(pid, process.comm.clone());
        let told = match known {
            Some(name) if name == process.comm => return None,
            Some(name) => format!("{name} (pid {pid}) is {} from now on", process.comm),
            None => {
                let why = match process.relation {
                    Relation::Target => "is traced",
                    Relation::Peer => "is traced, being at the other end of a connection",
                };
                let mut told = format!("{} (pid {pid}) {why}", process.comm);
                let more = [&process.exe, &process.go_version, &process.container];
                for more in more.into_iter().flatten() {
                    told.extend([", ", more]);
                }
                told
            }
        };
        let mut row = Row::new("process", Priority::Info, told);
        row.process = Some((pid, process.comm.clone()));
        Some(row)
    }

    /// That a queue is fuller than ever before, or dropped something.
    fn listening(&mut self, model: &Model, told: &Listening) -> Option<Row> {
        let who = format!("{} on {}", named(model, told.pid), told.address);
        let queued = count(u64::from(told.queued), "connection", "connections");
        let full = format!("{queued} queued, room for {}", told.backlog);
        let key = (told.pid, told.address);
        // The first count of drops is of all the time before.
        let before = self.queues.get(&key).copied();
        let dropped = before.map_or(0, |before| told.dropped.saturating_sub(before.dropped));
        let fullest = before.map_or(0, |before| before.queued);
        self.queues.insert(
            key,
            Listening {
                queued: told.queued.max(fullest),
                ..*told
            },
        );
        let row = if dropped > 0 {
            let dropped = count(dropped, "handshake", "handshakes");
            let message = format!("the listener of {who} drops {dropped}: {full}");
            Row::new("overflow", Priority::Warning, message)
        } else if told.queued > fullest {
            let message = format!("the listener of {who} has {full}");
            Row::new("queue", Priority::Info, message)
        } else {
            return None;
        };
        Some(row.by(model, told.pid))
    }

    /// That more descriptors are open than ever before, or calls failed for want of one.
    fn descriptors(&mut self, model: &Model, told: &Descriptors) -> Option<Row> {
        let who = named(model, told.pid);
        let full = format!("{} open, room for {}", told.open, told.limit);
        let before = self.tables.get(&told.pid).copied().unwrap_or_default();
        let refused = told.refused.unwrap_or(before.refused);
        self.tables.insert(
            told.pid,
            Table {
                most: told.open.max(before.most),
                refused: refused.max(before.refused),
            },
        );
        let row = if refused > before.refused {
            let calls = count(refused - before.refused, "call", "calls");
            let message = format!("{calls} of {who} failed for want of a file descriptor: {full}");
            Row::new("refused", Priority::Warning, message)
        } else if told.open > before.most {
            let message = format!("file descriptors of {who}: {full}");
            Row::new("descriptors", Priority::Info, message)
        } else {
            return None;
        };
        Some(row.by(model, told.pid))
    }

    fn lost(&mut self, probe: &str, lost: u64) -> Option<Row> {
        let before = self.lost.insert(probe.to_owned(), lost).unwrap_or(0);
        let more = lost.checked_sub(before).filter(|more| *more > 0)?;
        let message = format!(
            "{} lost by {probe}",
            count(more, "record was", "records were")
        );
        Some(Row::new("lost", Priority::Warning, message))
    }
}

fn named(model: &Model, pid: Pid) -> String {
    format!("{} (pid {pid})", model.name(pid))
}

/// `gateway (pid 2585)` or `goroutine 18 of gateway (pid 2585)`.
fn who(model: &Model, pid: Pid, goroutine: Option<u64>) -> String {
    let process = named(model, pid);
    match goroutine {
        Some(id) => format!("goroutine {id} of {process}"),
        None => process,
    }
}

fn decided(model: &Model, decision: &Decision) -> Row {
    let actor = decision.actor;
    let connection = decision.socket.and_then(|socket| model.connection(socket));
    let which = match connection {
        Some(connection) => format!("its connection to {}", connection.remote),
        None => "a connection".to_owned(),
    };
    let what = match decision.decider {
        Decider::TransportClose => format!("gives up {which}"),
        Decider::TransportCancel => format!("cancels the request on {which}"),
        Decider::ClientTimeoutChecked => "asks whether http.Client.Timeout has passed".to_owned(),
        Decider::ReadDeadline => format!("finds the read deadline of {which} passed"),
        Decider::WriteDeadline => format!("finds the write deadline of {which} passed"),
        Decider::ServerShutdown => "shuts its server down".to_owned(),
        Decider::TransportDial => "asks its transport for a new connection".to_owned(),
    };
    let mut told = format!("{} {what}", who(model, actor.pid, actor.goroutine));
    let frames = model.frames(decision.stack);
    let frame = match decision.decider {
        Decider::TransportDial => own_frame(frames).or(frames.first()),
        _ => deciding_frame(frames),
    };
    if let Some(frame) = frame {
        told.extend([" in ", &brief(frame)]);
    }
    if let Some(error) = &decision.error {
        told.extend([": ", error]);
    }
    let event = match decision.decider {
        Decider::ReadDeadline | Decider::WriteDeadline => "deadline",
        Decider::TransportDial => "dial",
        _ => "decision",
    };
    Row::new(event, Priority::Notice, told)
        .by(model, actor.pid)
        .goroutine(actor.goroutine)
        .code(frame)
        .on(connection)
}

fn looked(model: &Model, pid: Pid, connection: Option<&Connection>, goroutine: &Goroutine) -> Row {
    let frame = own_frame(&goroutine.frames).or(goroutine.frames.first());
    let mut told = who(model, pid, Some(goroutine.id));
    if let Some(connection) = connection {
        told.push_str(&format!(", which serves {},", connection.remote));
    }
    told.extend([" is in state ", &goroutine.state]);
    if let Some(wait) = goroutine.wait {
        told.push_str(&format!(" for {}", seconds(wait)));
    }
    if let Some(frame) = frame {
        told.extend([" at ", &brief(frame)]);
    }
    Row::new("look", Priority::Info, told)
        .by(model, pid)
        .goroutine(Some(goroutine.id))
        .code(frame)
        .on(connection)
}

/// Of failed connects only those that no packet tells; the words are those of evidence.
fn connect_failed(model: &Model, connection: &Connection, why: ConnectFailure) -> Option<Row> {
    let to = connection.remote;
    let process = named(model, connection.pid);
    let (event, told) = match why {
        // Its RST is a packet.
        ConnectFailure::Refused => return None,
        ConnectFailure::TimedOut => (
            "timeout",
            format!("the kernel gives up connecting {process} to {to}: no answer (ETIMEDOUT)"),
        ),
        ConnectFailure::Abandoned => (
            "close",
            format!("{process} gives up connecting to {to}: no answer had come"),
        ),
        ConnectFailure::Error(errno) => (
            "error",
            format!("the kernel gives up connecting {process} to {to} (errno {errno})"),
        ),
    };
    let row = Row::new(event, Priority::Warning, told).by(model, connection.pid);
    Some(row.on(Some(connection)))
}

fn dropped(model: &Model, connection: &Connection, reason: &str) -> Row {
    let what = if connection.connecting() {
        "a SYN"
    } else {
        "a packet"
    };
    let told = format!(
        "the kernel drops {what} between {} and {}: {reason}",
        named(model, connection.pid),
        connection.remote
    );
    Row::new("drop", Priority::Notice, told)
        .by(model, connection.pid)
        .on(Some(connection))
}

fn stalled(model: &Model, connection: &Connection, stall: &Stall) -> Row {
    let message = match stall.message {
        Message::Request => "request",
        Message::Response => "response",
    };
    let sending = (connection.role == Role::Client) == (stall.message == Message::Request);
    let moves = if sending { "sends" } else { "reads" };
    let silent: Duration = stall.until.since(stall.from);
    let told = format!(
        "{} {moves} no byte of the {message} {} {} for {}, after {}{}",
        named(model, connection.pid),
        if sending { "to" } else { "from" },
        connection.remote,
        seconds(silent),
        bytes(stall.bytes_before),
        if stall.resumed {
            ""
        } else {
            ", and none after"
        },
    );
    Row::new("stall", Priority::Notice, told)
        .by(model, connection.pid)
        .on(Some(connection))
}

fn left_unread(model: &Model, connection: &Connection, unread: Option<u64>) -> Row {
    let what = unread.map_or_else(|| "what came".to_owned(), bytes);
    let told = format!(
        "{} leaves {what} from {} unread from now on",
        named(model, connection.pid),
        connection.remote
    );
    Row::new("unread", Priority::Notice, told)
        .by(model, connection.pid)
        .on(Some(connection))
}
