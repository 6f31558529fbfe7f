//! Which request a process was serving when it asked another service.
//!
//! A proxy's two legs are joined, from the surest way to the least sure: by a goroutine that had its
//! hands on both; by the trace context that both carry; by one lying
//! within the other in time with the same method and path; by the one failing as soon as the other
//! had, or answered as soon as the other was. Which it was is part of the answer.

use std::{collections::HashMap, rc::Rc, time::Duration};

use crate::event::{BootInstant, Pid, RequestHead, Role, SocketId};

use super::{Connection, Model, exchange::Exchange};

/// Clocks are the same on both legs, but events come only almost in order.
const SLACK: Duration = Duration::from_millis(2);

/// How soon after an upstream failed the request that needed it is over. And how soon a request is
/// passed on, and an answer, where nothing else joins the two; or a tenth of the wait, where that is
/// more.
const AFTERMATH: Duration = Duration::from_millis(20);

/// Requests looked at for one answer, backwards from the one that began last. Only a process with
/// more requests in flight than this could have its pair missed.
const SEARCHED: usize = 20_000;

/// How the two legs were found to belong together; the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PairedBy {
    /// A goroutine had its hands on both: the one that serves the request decided about the upstream
    /// connection, or the writer of the upstream request read the served one's body. (Go's
    /// `ReverseProxy` passes the body on, so it is the transport's writer that reads from the client.)
    Goroutine,
    /// Both requests carry the same trace id and path.
    TraceContext,
    /// One lies within the other in time, with the same method and path.
    Containment,
    /// It was in flight when the upstream failed, and failed at once.
    Aftermath,
    /// The other was asked as soon as it had come, and it was answered as soon as the other was.
    Timing,
}

/// A request being served, as the cause of another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairing {
    /// The connection it came in on.
    pub socket: SocketId,
    /// The request.
    pub exchange: Exchange,
    /// How it was found.
    pub by: PairedBy,
    /// How many others would have fitted as well.
    pub rivals: usize,
}

/// What is asked: which request was `pid` serving while it did this?
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The process.
    pub pid: Pid,
    /// When it began to ask.
    pub started: BootInstant,
    /// When it gave up, or got its answer.
    pub until: BootInstant,
    /// The goroutine that decided, if known.
    pub decider: Option<u64>,
    /// The goroutine that sent the request, if known.
    pub writer: Option<u64>,
    /// What it asked for, if known.
    pub head: Option<&'a RequestHead>,
}

/// Every request served by a traced process that is still kept, in order of time.
#[derive(Debug)]
pub struct Served {
    by_process: HashMap<Pid, Vec<Serving>>,
}

#[derive(Debug)]
struct Serving {
    socket: SocketId,
    exchange: Exchange,
    ended: BootInstant,
    /// Where the process itself asked it: when, and when it left who serves it.
    asked: Option<(BootInstant, Option<BootInstant>)>,
    /// All that ever read a request of the same connection: its own goroutine is among them.
    readers: Rc<[u64]>,
}

impl Served {
    /// Gathers them from `model`.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let mut by_process: HashMap<Pid, Vec<Serving>> = HashMap::new();
        let servers = model.connections().filter(|c| c.role == Role::Server);
        for connection in servers {
            let gone = connection
                .left()
                .or(connection.closed.map(|(at, _)| at))
                .unwrap_or(model.now());
            let served = by_process.entry(connection.pid).or_default();
            let exchanges = connection.exchanges();
            let readers: Rc<[u64]> = exchanges.iter().filter_map(reader).collect();
            let asked = asked(model, connection);
            served.extend(exchanges.into_iter().map(|exchange| Serving {
                readers: Rc::clone(&readers),
                socket: connection.socket,
                asked: asked.get(&exchange.number).copied(),
                ended: if exchange.answered() {
                    exchange.last_byte
                } else {
                    gone
                },
                exchange,
            }));
        }
        for served in by_process.values_mut() {
            served.sort_by_key(|serving| serving.exchange.started);
        }
        Self { by_process }
    }

    /// The request that was being served while the process waited in vain.
    #[must_use]
    pub fn pair(&self, asking: &Asking<'_>) -> Option<Pairing> {
        let ways = [
            PairedBy::Goroutine,
            PairedBy::TraceContext,
            PairedBy::Containment,
            PairedBy::Aftermath,
        ];
        self.find(asking, &ways)
    }

    /// The request that was being served while the process waited for an answer that came.
    #[must_use]
    pub fn pair_answered(&self, asking: &Asking<'_>) -> Option<Pairing> {
        let ways = [
            PairedBy::Goroutine,
            PairedBy::TraceContext,
            PairedBy::Containment,
            PairedBy::Timing,
        ];
        self.find(asking, &ways)
    }

    fn find(&self, asking: &Asking<'_>, ways: &[PairedBy]) -> Option<Pairing> {
        let served = self.by_process.get(&asking.pid)?;
        let begun = served.partition_point(|s| s.exchange.started <= asking.started.plus(SLACK));
        let in_flight: Vec<&Serving> = served
            .iter()
            .take(begun)
            .rev()
            .take(SEARCHED)
            .filter(|serving| serving.ended.plus(SLACK) >= asking.until)
            // Nobody asks for the sake of a request that comes later, of one that it gave up before, nor
            // of that which it asks: where both ends are one host, or one process, these look as if they
            // were being served.
            .filter(|serving| match serving.asked {
                Some((asked, left)) => {
                    asked < asking.started && left.is_none_or(|left| left >= asking.started)
                }
                None => true,
            })
            .collect();
        ways.iter().find_map(|by| pick(&in_flight, *by, asking))
    }
}

/// For each exchange of `connection`, by its number, when it was asked, and when who asked left; empty
/// where that was another process.
fn asked(
    model: &Model,
    connection: &Connection,
) -> HashMap<u32, (BootInstant, Option<BootInstant>)> {
    let Some(other) = model
        .other_end(connection)
        .filter(|other| other.pid == connection.pid)
    else {
        return HashMap::new();
    };
    let left = other.left();
    other
        .exchanges()
        .into_iter()
        .map(|exchange| (exchange.number, (exchange.started, left)))
        .collect()
}

/// The one among `in_flight` that fits and ended first after the asking did.
fn pick(in_flight: &[&Serving], by: PairedBy, asking: &Asking<'_>) -> Option<Pairing> {
    let fits: Vec<&&Serving> = in_flight
        .iter()
        .filter(|serving| match by {
            PairedBy::Goroutine => same_goroutine(serving, asking),
            PairedBy::TraceContext => same_trace(serving, asking),
            PairedBy::Containment => same_request(serving, asking),
            PairedBy::Aftermath => failed_at_once(serving, asking),
            PairedBy::Timing => passed_on_at_once(serving, asking),
        })
        .collect();
    let best = fits.iter().min_by_key(|serving| serving.ended)?;
    Some(Pairing {
        socket: best.socket,
        exchange: best.exchange.clone(),
        by,
        rivals: fits.len() - 1,
    })
}

fn reader(exchange: &Exchange) -> Option<u64> {
    exchange.actor?.goroutine
}

fn same_goroutine(serving: &Serving, asking: &Asking<'_>) -> bool {
    let decided = asking
        .decider
        .is_some_and(|decider| serving.readers.contains(&decider));
    // The reader of an earlier request of the connection is the handler of this one as well: between
    // requests another goroutine of net/http watches it, and reads the first byte of the next.
    let passed_on = asking
        .writer
        .is_some_and(|writer| serving.readers.contains(&writer));
    decided || passed_on
}

fn same_trace(serving: &Serving, asking: &Asking<'_>) -> bool {
    let (Some(served), Some(asked)) = (&serving.exchange.head, asking.head) else {
        return false;
    };
    trace_id(served).is_some() && trace_id(served) == trace_id(asked) && served.path == asked.path
}

fn same_request(serving: &Serving, asking: &Asking<'_>) -> bool {
    let (Some(served), Some(asked)) = (&serving.exchange.head, asking.head) else {
        return false;
    };
    served.method == asked.method && served.path == asked.path
}

fn failed_at_once(serving: &Serving, asking: &Asking<'_>) -> bool {
    let exchange = &serving.exchange;
    let after =
        |at: BootInstant| at.plus(SLACK) >= asking.until && at.since(asking.until) <= AFTERMATH;
    match exchange.first_byte {
        Some(answered) => exchange.failed() && after(answered),
        None => !exchange.answered() && after(serving.ended),
    }
}

fn passed_on_at_once(serving: &Serving, asking: &Asking<'_>) -> bool {
    let exchange = &serving.exchange;
    let soon = AFTERMATH.max(asking.until.since(asking.started) / 10);
    let at_once = |cause: BootInstant, effect: BootInstant| {
        effect.plus(SLACK) >= cause && effect.since(cause) <= soon
    };
    exchange.answered()
        && at_once(exchange.request_ended, asking.started)
        && exchange
            .first_byte
            .is_some_and(|answered| at_once(asking.until, answered))
}

/// The trace id of a W3C `traceparent`: `version-traceid-parentid-flags`.
fn trace_id(head: &RequestHead) -> Option<&str> {
    head.traceparent
        .as_deref()?
        .split('-')
        .nth(1)
        .filter(|id| id.len() == 32 && id.bytes().any(|digit| digit != b'0'))
}
