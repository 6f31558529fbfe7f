//! What leads to what: flows between slices, by their numbers.

use std::collections::HashMap;

use crate::{
    detect::Finding,
    event::{BootInstant, Pid, Role, SocketId},
    model::{Asking, Connection, Exchange, Model, Served, Wait},
};

use super::{connections::over, findings};

/// A wait for a CPU: its process, its thread and when it began.
type WaitKey = (Pid, u32, BootInstant);

/// Which flows touch what.
#[derive(Default)]
pub(super) struct Flows {
    last: u64,
    exchanges: HashMap<(SocketId, u32), Vec<u64>>,
    waits: HashMap<WaitKey, Vec<u64>>,
    findings: HashMap<String, Vec<u64>>,
}

impl Flows {
    pub(super) fn of(model: &Model, findings: &[Finding]) -> Self {
        let mut flows = Self::default();
        flows.across(model);
        flows.passed_on(model);
        flows.held_up(model);
        flows.found(model, findings);
        flows
    }

    pub(super) fn of_exchange(&self, socket: SocketId, number: u32) -> &[u64] {
        self.exchanges
            .get(&(socket, number))
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn of_wait(&self, wait: &Wait) -> &[u64] {
        self.waits.get(&key(wait)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn of_finding(&self, id: &str) -> &[u64] {
        self.findings.get(id).map_or(&[], Vec::as_slice)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn leave(&mut self, socket: SocketId, number: u32) -> u64 {
        let flow = self.next();
        let of = self.exchanges.entry((socket, number));
        of.or_default().push(flow);
        flow
    }

    fn arrive(&mut self, flow: u64, socket: SocketId, number: u32) {
        let of = self.exchanges.entry((socket, number));
        of.or_default().push(flow);
    }

    /// From who asks to who answers, where both ends of the connection are here.
    fn across(&mut self, model: &Model) {
        for (connection, other) in
            clients(model).filter_map(|connection| Some((connection, model.other_end(connection)?)))
        {
            let served = other.exchanges();
            for asked in connection.exchanges() {
                let answers = served.iter().find(|served| {
                    served.number == asked.number
                        && served.started >= asked.started
                        && served.started <= over(model, connection, &asked)
                });
                if let Some(served) = answers {
                    let flow = self.leave(connection.socket, asked.number);
                    self.arrive(flow, other.socket, served.number);
                }
            }
        }
    }

    /// From a request that is served to what was asked for its sake.
    fn passed_on(&mut self, model: &Model) {
        let served = Served::of(model);
        for connection in clients(model) {
            for exchange in connection.exchanges() {
                let asking = Asking {
                    pid: connection.pid,
                    started: exchange.started,
                    until: over(model, connection, &exchange),
                    decider: connection
                        .decisions
                        .first()
                        .and_then(|decided| decided.decision.actor.goroutine),
                    writer: exchange.actor.and_then(|actor| actor.goroutine),
                    head: exchange.head.as_ref(),
                };
                let pairing = if exchange.answered() {
                    served.pair_answered(&asking)
                } else {
                    served.pair(&asking)
                };
                if let Some(pairing) = pairing {
                    let flow = self.leave(pairing.socket, pairing.exchange.number);
                    self.arrive(flow, connection.socket, exchange.number);
                }
            }
        }
    }

    /// From a request to the waits for a CPU of its own goroutine, or thread outside Go.
    fn held_up(&mut self, model: &Model) {
        for process in model.processes() {
            let waits = Waits::of(model, process.about.pid);
            let served = model.connections().filter(|connection| {
                connection.pid == process.about.pid && connection.role == Role::Server
            });
            for connection in served {
                for exchange in connection.exchanges() {
                    let until = over(model, connection, &exchange);
                    for wait in waits.of_request(&exchange, until) {
                        let flow = self.leave(connection.socket, exchange.number);
                        self.waits.entry(wait).or_default().push(flow);
                    }
                }
            }
        }
    }

    /// From the exchange that its evidence is about to a finding.
    fn found(&mut self, model: &Model, all: &[Finding]) {
        for finding in all {
            let about = finding.evidence.iter().find_map(|event| {
                let connection = model.connection(event.socket?)?;
                let at = findings::at(model, event.time);
                let exchanges = connection.exchanges();
                let exchange = exchanges.iter().find(|exchange| {
                    exchange.started <= at && at <= over(model, connection, exchange)
                })?;
                Some((connection.socket, exchange.number))
            });
            if let Some((socket, number)) = about {
                let flow = self.leave(socket, number);
                let of = self.findings.entry(finding.id.clone());
                of.or_default().push(flow);
            }
        }
    }
}

/// The waits of one process, by whose they are, in the order of their beginnings.
struct Waits {
    by_goroutine: HashMap<u64, Vec<WaitKey>>,
    by_thread: HashMap<u32, Vec<WaitKey>>,
}

impl Waits {
    fn of(model: &Model, pid: Pid) -> Self {
        let mut waits = Self {
            by_goroutine: HashMap::new(),
            by_thread: HashMap::new(),
        };
        for wait in model.waits(pid) {
            let key = key(wait);
            if let Some(id) = wait.told.goroutine {
                waits.by_goroutine.entry(id).or_default().push(key);
            }
            waits.by_thread.entry(wait.told.tid).or_default().push(key);
        }
        let each = waits.by_goroutine.values_mut();
        for of_one in each.chain(waits.by_thread.values_mut()) {
            of_one.sort_unstable_by_key(|(_, _, from)| *from);
        }
        waits
    }

    /// Those that began while `exchange` was being served by who waited.
    fn of_request(&self, exchange: &Exchange, until: BootInstant) -> impl Iterator<Item = WaitKey> {
        let whose = exchange.actor.and_then(|actor| match actor.goroutine {
            Some(id) => self.by_goroutine.get(&id),
            None => self.by_thread.get(&actor.tid),
        });
        let waits = whose.map_or(&[][..], Vec::as_slice);
        let first = waits.partition_point(|(_, _, from)| *from < exchange.started);
        waits
            .iter()
            .skip(first)
            .take_while(move |(_, _, from)| *from < until)
            .copied()
    }
}

fn key(wait: &Wait) -> WaitKey {
    (wait.told.pid, wait.told.tid, wait.told.from)
}

fn clients(model: &Model) -> impl Iterator<Item = &Connection> {
    model
        .connections()
        .filter(|connection| connection.role == Role::Client)
}
