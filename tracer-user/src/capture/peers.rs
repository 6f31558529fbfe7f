//! The other ends on this host: whoever listens where a target connects to.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{event::Pid, target::listeners};

/// Looking somebody up walks `/proc`: not more often than this.
const PAUSE: Duration = Duration::from_millis(250);
/// An address where nobody was found is asked again after this: services restart.
const FORGET: Duration = Duration::from_secs(2);
/// Addresses remembered; a target that connects to more is a scanner.
const MOST: usize = 4096;

/// An address, and where it is a loopback one the network namespace in which it is meant.
type Place = (SocketAddr, Option<u64>);

/// Who was found where.
#[derive(Default)]
pub(super) struct Peers {
    known: HashMap<Place, (Option<Pid>, Instant)>,
    waiting: Vec<(Place, Pid)>,
    last: Option<Instant>,
}

impl Peers {
    /// `from` connects to `address` from its network; cheap.
    pub(super) fn connected(&mut self, address: SocketAddr, from: Pid, network: Option<u64>) {
        let place = (address, network.filter(|_| address.ip().is_loopback()));
        let known = match self.known.get(&place) {
            Some((Some(_), _)) => true,
            Some((None, when)) => when.elapsed() < FORGET,
            None => self.known.len() >= MOST,
        };
        if !known && !self.waiting.iter().any(|(waiting, _)| *waiting == place) {
            self.waiting.push((place, from));
        }
    }

    /// Looks up one address that waits, if enough time has passed since the last one; the process that
    /// listens there, the first time it is found.
    pub(super) fn next(&mut self) -> Option<Pid> {
        if self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        self.look_up()
    }

    /// Looks up all that wait, for the beginning, when nothing is missed meanwhile.
    pub(super) fn all(&mut self) -> Vec<Pid> {
        let mut found = Vec::new();
        while !self.waiting.is_empty() {
            found.extend(self.look_up());
        }
        found
    }

    fn look_up(&mut self) -> Option<Pid> {
        let (place, from) = self.waiting.pop()?;
        let pid = listeners::of_address(place.0, from).filter(|pid| *pid != from);
        self.last = Some(Instant::now());
        let new = !self.known.values().any(|(known, _)| *known == pid);
        self.known.insert(place, (pid, Instant::now()));
        pid.filter(|_| new)
    }
}
