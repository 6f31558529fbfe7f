//! What every rule looks at: the model, and what is concluded from it once for all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    detect::confidence::Doubt,
    event::{BootInstant, Pid, Role, SocketId},
    model::{Connection, Kind, Model, PairedBy, Pairing, Peer, Served, Service, Services, Traffic},
};

use super::{
    give_up::{self, GiveUp},
    held_up::{self, HeldUp},
    limit::Limit,
    schedule::Schedule,
    upstreams::Upstreams,
    usual::Usual,
};

/// How long before a process is told to have ended its sockets may be closed by its exit, and after.
const EXITING: Duration = Duration::from_millis(100);

/// How long before one of several addresses wins the others may have been tried (Happy Eyeballs
/// starts the next one after 250 to 300 ms, RFC 8305 section 5).
const RACING: Duration = Duration::from_secs(1);

/// How long after one address won the sockets of the losers are closed.
const LOSING: Duration = Duration::from_millis(20);

/// The whole scene.
pub(crate) struct Scene<'m> {
    pub(crate) model: &'m Model,
    pub(crate) served: Served,
    pub(crate) give_ups: Vec<GiveUp<'m>>,
    pub(crate) upstreams: Upstreams<'m>,
    pub(crate) schedule: Schedule<'m>,
    usual: Usual,
    pub(crate) services: Services,
    /// By process, in the order of opening.
    clients: HashMap<Pid, Vec<&'m Connection>>,
    traffic: BTreeMap<Peer, Traffic>,
    held_up: HashMap<Pid, Vec<HeldUp<'m>>>,
    /// Requests served that a give-up harmed, and that is known better than by one failing after the
    /// other.
    given_up_for: HashSet<(SocketId, u32)>,
}

impl<'m> Scene<'m> {
    pub(crate) fn of(model: &'m Model) -> Self {
        let mut clients: HashMap<Pid, Vec<&Connection>> = HashMap::new();
        for connection in model.connections().filter(|c| c.role == Role::Client) {
            clients.entry(connection.pid).or_default().push(connection);
        }
        for of_process in clients.values_mut() {
            of_process.sort_by_key(|connection| connection.opened);
        }
        let traffic = model.traffic();
        let services = Services::of(model, &traffic);
        let mut scene = Self {
            model,
            served: Served::of(model),
            give_ups: Vec::new(),
            upstreams: Upstreams::default(),
            schedule: Schedule::of(model),
            usual: Usual::of(&traffic, &services),
            services,
            clients,
            traffic,
            held_up: HashMap::new(),
            given_up_for: HashSet::new(),
        };
        scene.upstreams = Upstreams::of(model, &scene.served);
        scene.held_up = held_up::all(&scene);
        scene.give_ups = give_up::all(&scene);
        scene.given_up_for = scene
            .give_ups
            .iter()
            .filter_map(|give_up| give_up.serving.as_ref())
            .filter(|pairing| pairing.by < PairedBy::Aftermath)
            .map(|pairing| (pairing.socket, pairing.exchange.number))
            .collect();
        scene.drop_coincidences();
        scene
    }

    /// A request that failed just after a give-up, but for another reason that is known, or one of
    /// several that did, is no proof that the give-up harmed it. What was believed for its sake alone
    /// is believed no more.
    fn drop_coincidences(&mut self) {
        let given_up_for = &self.given_up_for;
        self.give_ups.retain_mut(|give_up| {
            let Some(pairing) = &give_up.serving else {
                return true;
            };
            let key = (pairing.socket, pairing.exchange.number);
            let coincidence = pairing.by == PairedBy::Aftermath
                && (pairing.rivals > 0 || given_up_for.contains(&key));
            if coincidence {
                give_up.serving = None;
                give_up
                    .doubts
                    .retain(|doubt| !matches!(doubt, Doubt::RequestInferred | Doubt::Ambiguous));
            }
            !coincidence || give_up.limit != Limit::Unknown
        });
    }

    /// What `pid` is a worker of; itself, where it serves alone.
    pub(crate) fn service(&self, pid: Pid) -> Service {
        self.services.of_process(pid)
    }

    /// Half of the requests of `kind` that are served where `connection` is took no longer; `None` where too
    /// few were counted.
    pub(crate) fn usual(&self, connection: &Connection, kind: &Kind) -> Option<Duration> {
        let place = (self.service(connection.pid), connection.local.port());
        self.usual.at(place, kind)
    }

    /// Requests that `pid` served that waited for a CPU, or for its quota, at all.
    pub(crate) fn held_up(&self, pid: Pid) -> &[HeldUp<'m>] {
        self.held_up.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Every connection on which `pid` asks.
    pub(crate) fn clients_of(&self, pid: Pid) -> &[&'m Connection] {
        self.clients.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Every connection on which a traced process asks.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &'m Connection> {
        self.model.connections().filter(|c| c.role == Role::Client)
    }

    /// Every connection on which a traced process answers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &'m Connection> {
        self.model.connections().filter(|c| c.role == Role::Server)
    }

    /// What happened to `pid` at `at` was its exit, or after it.
    pub(crate) fn exiting(&self, pid: Pid, at: BootInstant) -> bool {
        self.model
            .process(pid)
            .and_then(|process| process.ended)
            .is_some_and(|ended| at.plus(EXITING) >= ended)
    }

    /// Connecting failed, but another address of the same name was tried at the same time and won.
    pub(crate) fn lost_a_race(&self, connection: &Connection) -> bool {
        let Some(failed) = connection.connect_failed else {
            return false;
        };
        let of_process = self.clients_of(connection.pid);
        let early =
            of_process.partition_point(|other| other.opened.plus(RACING) < connection.opened);
        of_process
            .iter()
            .skip(early)
            .take_while(|other| other.opened <= connection.opened.plus(RACING))
            .any(|other| {
                other.remote.port() == connection.remote.port()
                    && other.remote.ip() != connection.remote.ip()
                    && other.established.is_some_and(|won| {
                        won >= connection.opened && won <= failed.at.plus(LOSING)
                    })
            })
    }

    /// A give-up is known to have harmed this request.
    pub(crate) fn given_up_for(&self, pairing: &Pairing) -> bool {
        self.given_up_for
            .contains(&(pairing.socket, pairing.exchange.number))
    }

    /// A give-up may be what this request failed for, however that is known.
    pub(crate) fn harmed_by_give_up(&self, socket: SocketId, number: u32) -> bool {
        self.give_ups
            .iter()
            .filter_map(|give_up| give_up.serving.as_ref())
            .any(|pairing| pairing.socket == socket && pairing.exchange.number == number)
    }

    /// All that the service of `pid` served on the port of `address`, whichever of its addresses a client
    /// chose.
    pub(crate) fn served_at(&self, pid: Pid, address: SocketAddr) -> Traffic {
        let service = self.service(pid);
        self.sum(|peer| {
            peer.serves
                && peer.address.port() == address.port()
                && self.service(peer.pid) == service
        })
    }

    /// All that the service of `pid` served, on whichever port.
    pub(crate) fn served_by(&self, pid: Pid) -> Traffic {
        let service = self.service(pid);
        self.sum(|peer| peer.serves && self.service(peer.pid) == service)
    }

    /// All that the service of `pid` asked of `whom`.
    pub(crate) fn asked(&self, pid: Pid, whom: SocketAddr) -> Traffic {
        let service = self.service(pid);
        self.sum(|peer| !peer.serves && peer.address == whom && self.service(peer.pid) == service)
    }

    /// The same of `pid` alone.
    pub(crate) fn asked_by(&self, pid: Pid, whom: SocketAddr) -> Traffic {
        self.sum(|peer| !peer.serves && peer.pid == pid && peer.address == whom)
    }

    fn sum(&self, of: impl Fn(&Peer) -> bool) -> Traffic {
        let mut sum = Traffic::default();
        for (peer, traffic) in &self.traffic {
            if of(peer) {
                sum.add(traffic);
            }
        }
        sum
    }
}
