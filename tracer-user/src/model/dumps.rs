//! Goroutine dumps that somebody took by hand, and the service of the window that they fit.
//!
//! A dump names no address and no time. But it shows whether requests are being served, and whether
//! these wait for another service in turn; the connections show the same from outside. Where one service
//! alone fits, the dump is taken for its own, and what is concluded from that says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use crate::event::{BootInstant, Goroutine, Role, SocketId};

use super::{Asking, Connection, Exchange, Model, Served};

/// A request that took so long may be what somebody took a dump for, where its time is not known.
const LONG: Duration = Duration::from_millis(200);

/// A file carries the time of the tick before it was written (`ktime_get_coarse_real_ts64`), and the slowest
/// kernels tick a hundred times a second.
const TICK: Duration = Duration::from_millis(10);

/// Requests that one dump is shown for.
const SHOWN_FOR: usize = 16;

/// What a dump fits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fit {
    /// Where the service listens; `None` where none fits, or more than one does.
    pub service: Option<SocketAddr>,
    /// Sockets on which it was serving a request, each with the goroutine that may have served it.
    pub looks: Vec<(SocketId, Goroutine)>,
    /// How many services fit.
    pub candidates: usize,
}

/// A service, as its connections show it.
#[derive(Default)]
struct Service {
    /// Requests under way, and since when.
    waiting: BTreeMap<SocketId, BootInstant>,
    /// It asked another service for the sake of one of them.
    asks: bool,
}

impl Model {
    /// The service that a dump with these goroutines fits, taken at `taken` where that is known.
    #[must_use]
    pub fn fit(&self, goroutines: &[Goroutine], taken: Option<BootInstant>) -> Fit {
        let handlers: Vec<&Goroutine> = goroutines.iter().filter(|g| handles(g)).collect();
        let asking: Vec<&Goroutine> = handlers.iter().copied().filter(|g| asks(g)).collect();
        let services = self.services(taken);
        let relays = !asking.is_empty();
        let fitting: Vec<(&SocketAddr, &Service)> = services
            .iter()
            .filter(|(_, service)| {
                if handlers.is_empty() {
                    services.len() == 1 && goroutines.iter().any(accepts)
                } else {
                    service.asks == relays && !service.waiting.is_empty()
                }
            })
            .collect();
        let [(address, service)] = fitting.as_slice() else {
            return Fit {
                candidates: fitting.len(),
                ..Fit::default()
            };
        };
        let serving = if relays { asking } else { handlers };
        Fit {
            service: Some(**address),
            looks: looks(&service.waiting, &serving),
            candidates: 1,
        }
    }

    fn services(&self, taken: Option<BootInstant>) -> BTreeMap<SocketAddr, Service> {
        let mut services: BTreeMap<SocketAddr, Service> = BTreeMap::new();
        for connection in self.connections().filter(|c| c.role == Role::Server) {
            let service = services.entry(connection.local).or_default();
            for exchange in connection.exchanges() {
                if self.is_waiting(connection, &exchange, taken) {
                    service.waiting.insert(connection.socket, exchange.started);
                }
            }
        }
        for address in self.relays(taken) {
            if let Some(service) = services.get_mut(&address) {
                service.asks = true;
            }
        }
        services
    }

    /// Addresses whose requests waited for another service's answer.
    fn relays(&self, taken: Option<BootInstant>) -> BTreeSet<SocketAddr> {
        let served = Served::of(self);
        let mut relays = BTreeSet::new();
        for connection in self.connections().filter(|c| c.role == Role::Client) {
            for exchange in connection.exchanges() {
                if !self.is_waiting(connection, &exchange, taken) {
                    continue;
                }
                let pairing = served.pair(&Asking {
                    pid: connection.pid,
                    started: exchange.started,
                    until: self.over(connection, &exchange),
                    decider: None,
                    writer: None,
                    head: exchange.head.as_ref(),
                });
                let serves = pairing.and_then(|pairing| self.connection(pairing.socket));
                relays.extend(serves.map(|connection| connection.local));
            }
        }
        relays
    }

    /// A request was under way when the dump was taken; or, where that time is not known, for so long
    /// that it may have been taken for its sake.
    fn is_waiting(
        &self,
        connection: &Connection,
        exchange: &Exchange,
        taken: Option<BootInstant>,
    ) -> bool {
        let over = self.over(connection, exchange);
        match taken {
            Some(taken) => exchange.started.since(taken) <= TICK && taken <= over,
            None => over.since(exchange.started) >= LONG,
        }
    }

    /// When a request was answered, or given up.
    fn over(&self, connection: &Connection, exchange: &Exchange) -> BootInstant {
        exchange
            .first_byte
            .or(connection.left())
            .or(connection.peer_left())
            .unwrap_or(self.now())
    }
}

/// The goroutine that served each request, as far as that can be told: where several were served, only
/// if all handlers are at the same place.
fn looks(
    waiting: &BTreeMap<SocketId, BootInstant>,
    handlers: &[&Goroutine],
) -> Vec<(SocketId, Goroutine)> {
    let Some(first) = handlers.first() else {
        return Vec::new();
    };
    let place = |goroutine: &Goroutine| {
        let functions = goroutine.frames.iter().map(|frame| frame.function.clone());
        functions.collect::<Vec<_>>()
    };
    if handlers.iter().any(|other| place(other) != place(first)) {
        return Vec::new();
    }
    let sockets = waiting.keys().take(SHOWN_FOR);
    sockets.map(|socket| (*socket, (*first).clone())).collect()
}

fn calls(goroutine: &Goroutine, functions: &[&str]) -> bool {
    let mut frames = goroutine.frames.iter();
    frames.any(|frame| functions.contains(&frame.function.as_str()))
}

/// A handler of `net/http` is running, other than the one that was asked for the dump.
fn handles(goroutine: &Goroutine) -> bool {
    let mut frames = goroutine.frames.iter();
    calls(goroutine, &["net/http.serverHandler.ServeHTTP"])
        && !frames.any(|frame| frame.function.starts_with("net/http/pprof."))
}

/// It waits for another service's answer.
fn asks(goroutine: &Goroutine) -> bool {
    const ASKING: [&str; 4] = [
        "net/http.(*Transport).RoundTrip",
        "net/http.(*Transport).roundTrip",
        "net/http.(*persistConn).roundTrip",
        "net/http.(*Client).do",
    ];
    calls(goroutine, &ASKING)
}

/// It accepts connections.
fn accepts(goroutine: &Goroutine) -> bool {
    calls(goroutine, &["net/http.(*Server).Serve"])
}
