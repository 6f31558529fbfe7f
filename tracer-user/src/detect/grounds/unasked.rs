//! Requests that a proxy failed at once because of what had happened before.
//!
//! Who was refused by an upstream may take it for down for a while, and then asks nobody: nginx logs
//! `no live upstreams` and answers 502 for `fail_timeout`. Counted is a 502 that was answered while no
//! upstream was asked for anything, the last that was heard of this one was the refusal, nothing had gone wrong
//! with another, and a request of the same method and path was refused there. A 503 has too many other reasons
//! (`limit_req`, maintenance).

use std::{collections::HashSet, net::SocketAddr};

use crate::{
    event::{BootInstant, ConnectFailure, Pid},
    model::{Connection, Exchange, Kind},
};

use super::scene::Scene;

/// What a gateway answers for an upstream that it cannot use (RFC 9110, section 15.6.3).
const BAD_GATEWAY: u16 = 502;

/// What a process heard of its upstreams over the window; times are in order.
struct Heard {
    /// Refusals, and by whom.
    refused: Vec<(BootInstant, SocketAddr)>,
    /// Connects and answers that came from the one.
    reached: Vec<BootInstant>,
    /// When something else went wrong with another for the first time.
    otherwise: Option<BootInstant>,
    /// When it was asking one, each stretch of time once.
    asking: Vec<(BootInstant, BootInstant)>,
}

/// The requests that `pid` answered so after it was refused by `remote`.
pub(crate) fn answered<'m>(
    scene: &Scene<'m>,
    pid: Pid,
    remote: SocketAddr,
) -> Vec<(&'m Connection, Exchange)> {
    let mut failed: Vec<(&Connection, Exchange)> = Vec::new();
    for connection in scene.servers().filter(|connection| connection.pid == pid) {
        let exchanges = connection.exchanges().into_iter();
        let bad = exchanges.filter(|exchange| exchange.status == Some(BAD_GATEWAY));
        failed.extend(bad.map(|exchange| (connection, exchange)));
    }
    if failed.is_empty() {
        return failed;
    }
    let heard = Heard::by(scene, pid, remote);
    let led_there: HashSet<String> = failed
        .iter()
        .filter(|(_, exchange)| heard.refused_during(remote, exchange))
        .filter_map(|(_, exchange)| Some(Kind::of(exchange)?.route))
        .collect();
    failed.retain(|(_, exchange)| {
        let route = Kind::of(exchange).map(|kind| kind.route);
        route.is_some_and(|route| led_there.contains(&route)) && heard.explains(remote, exchange)
    });
    failed
}

impl Heard {
    fn by(scene: &Scene<'_>, pid: Pid, remote: SocketAddr) -> Self {
        let mut heard = Self {
            refused: Vec::new(),
            reached: Vec::new(),
            otherwise: None,
            asking: Vec::new(),
        };
        for connection in scene.clients_of(pid) {
            heard.hear(connection, remote, scene.model.now());
        }
        heard.refused.sort_unstable();
        heard.reached.sort_unstable();
        heard.asking.sort_unstable();
        heard.asking.dedup_by(|next, last| {
            let joined = next.0 <= last.1;
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        heard
    }

    fn hear(&mut self, connection: &Connection, remote: SocketAddr, now: BootInstant) {
        let end = connection.ended().unwrap_or(now);
        let elsewhere = connection.remote != remote;
        match connection.connect_failed {
            Some(failed) if failed.why == ConnectFailure::Refused => {
                self.refused.push((failed.at, connection.remote));
            }
            Some(failed) if elsewhere => self.trouble(failed.at),
            _ => {}
        }
        if !connection.was_established() {
            self.asking.push((connection.opened, end));
        } else if let Some(established) = connection.established {
            self.asking.push((connection.opened, established));
        }
        let exchanges = connection.exchanges();
        if connection.tally().exchanges > exchanges.len() as u64 {
            // When the others were is not known.
            self.asking.push((connection.opened, end));
        }
        for exchange in &exchanges {
            let over = if exchange.answered() {
                exchange.last_byte
            } else {
                end
            };
            self.asking.push((exchange.started, over));
            if !exchange.answered() && elsewhere {
                self.trouble(end);
            }
        }
        if !elsewhere {
            self.reached.extend(connection.established);
            let answered = exchanges.iter().filter(|exchange| exchange.answered());
            self.reached
                .extend(answered.map(|exchange| exchange.last_byte));
        }
    }

    fn trouble(&mut self, at: BootInstant) {
        self.otherwise = Some(self.otherwise.map_or(at, |first| first.min(at)));
    }

    fn refused_during(&self, remote: SocketAddr, exchange: &Exchange) -> bool {
        let from = self
            .refused
            .partition_point(|(at, _)| *at < exchange.started);
        let refusals = self.refused.iter().skip(from);
        refusals
            .take_while(|(at, _)| *at <= exchange.last_byte)
            .any(|(_, by)| *by == remote)
    }

    fn explains(&self, remote: SocketAddr, exchange: &Exchange) -> bool {
        let (began, over) = (exchange.started, exchange.last_byte);
        let before = self.refused.partition_point(|(at, _)| *at <= began);
        let Some((refused, by)) = before
            .checked_sub(1)
            .and_then(|last| self.refused.get(last))
        else {
            return false;
        };
        let reached = self.reached.partition_point(|at| at <= refused);
        let back = self.reached.get(reached).is_some_and(|at| *at <= began);
        let otherwise = self.otherwise.is_some_and(|at| at <= over);
        let asking = self.asking.partition_point(|(from, _)| *from <= over);
        let asked = asking
            .checked_sub(1)
            .and_then(|last| self.asking.get(last))
            .is_some_and(|(_, until)| *until >= began);
        *by == remote && !back && !otherwise && !asked
    }
}
