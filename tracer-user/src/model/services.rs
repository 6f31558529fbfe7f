//! Which processes are one service: the workers of nginx, of php-fpm, of gunicorn.
//!
//! In come the places at which processes served; out comes who belongs together. Two processes that run
//! the same executable and take requests at the same address of the same network took them from one
//! listening socket, or from two that share the address (`SO_REUSEPORT`): no third way is open to them
//! (ip(7), socket(7)). So what is set for one is set for the other, and what three of them did alike was
//! done three times. A worker that served nobody yet is a service of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::event::Pid;

use super::{
    Model,
    traffic::{Peer, Traffic},
};

/// A process, or several that serve together. Compares equal for all of them; its order means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service(Pid);

/// Every service of more than one process.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// From each process to one with a lower id of the same service.
    lower: HashMap<Pid, Pid>,
    /// All that take requests of each, in the order of their ids.
    workers: HashMap<Service, Vec<Pid>>,
}

impl Services {
    /// Of those that served this.
    #[must_use]
    pub fn of(model: &Model, traffic: &BTreeMap<Peer, Traffic>) -> Self {
        let mut services = Self::default();
        // Port 0 stands for peers that are counted together.
        let served = traffic
            .iter()
            .filter(|(peer, _)| peer.serves && peer.address.port() != 0);
        let (took, idle): (Vec<_>, Vec<_>) =
            served.partition(|(_, traffic)| traffic.exchanges.exchanges > 0);
        let place = |peer: &Peer| {
            let executable = model.process(peer.pid)?.about.exe.as_deref()?;
            Some((model.network(peer.pid), peer.address, executable))
        };
        let (mut first, mut workers) = (HashMap::new(), BTreeSet::new());
        for (peer, _) in took {
            if let Some(place) = place(peer) {
                services.join(*first.entry(place).or_insert(peer.pid), peer.pid);
                workers.insert(peer.pid);
            }
        }
        // A master takes no request. What nobody has read yet is told to be its own.
        for (peer, _) in idle {
            let worker = place(peer).and_then(|place| first.get(&place));
            if let (Some(worker), false) = (worker, workers.contains(&peer.pid)) {
                services.join(*worker, peer.pid);
            }
        }
        for pid in workers {
            let service = services.of_process(pid);
            services.workers.entry(service).or_default().push(pid);
        }
        services.workers.retain(|_, workers| workers.len() > 1);
        services
    }

    /// The one that `pid` is of.
    #[must_use]
    pub fn of_process(&self, pid: Pid) -> Service {
        let mut of = pid;
        // Each step leads to a lower id.
        while let Some(lower) = self.lower.get(&of) {
            of = *lower;
        }
        Service(of)
    }

    /// All workers of the service that `pid` is of, without a master that takes no requests; none where there
    /// is but one.
    #[must_use]
    pub fn workers(&self, pid: Pid) -> &[Pid] {
        let all = self.workers.get(&self.of_process(pid));
        all.map_or(&[], Vec::as_slice)
    }

    fn join(&mut self, one: Pid, other: Pid) {
        let (Service(one), Service(other)) = (self.of_process(one), self.of_process(other));
        if one != other {
            self.lower.insert(one.max(other), one.min(other));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        event::{Fact, Network},
        model::story::{Asked, Story},
    };

    const HTTP: &str = "10.0.0.1:80";
    const HTTPS: &str = "10.0.0.1:443";

    /// Each of these processes serves a request at its address.
    fn served(of: &[(Pid, &str, &str)]) -> Story {
        let mut story = Story::new();
        for (nth, (pid, program, address)) in of.iter().enumerate() {
            story.native(*pid, program);
            let client = SocketAddr::from(([10, 0, 0, 2], 40_000 + nth as u16)).to_string();
            let socket = story.accepted(1.0, *pid, &client, address);
            let asked = Asked::at(2.0, 90).by(*pid, 0).answered(3.0, 200);
            story.http(socket, 0, "GET /", asked);
        }
        story
    }

    fn services(story: &mut Story) -> Services {
        let model = story.model(10.0);
        Services::of(&model, &model.traffic())
    }

    fn together(services: &Services, one: Pid, other: Pid) -> bool {
        services.of_process(one) == services.of_process(other)
    }

    #[test]
    fn workers_that_serve_at_one_address_are_one_service() {
        let found = services(&mut served(&[
            (7, "nginx", HTTP),
            (5, "nginx", HTTPS),
            (6, "nginx", HTTPS),
            (6, "nginx", HTTP),
        ]));
        assert!(together(&found, 5, 6) && together(&found, 6, 7));
        assert!(!together(&found, 5, 8));
        assert_eq!(found.workers(6), [5, 6, 7]);
        assert!(found.workers(8).is_empty());
    }

    #[test]
    fn a_master_that_takes_no_request_is_of_the_service_and_no_worker() {
        let mut story = served(&[(5, "nginx", HTTP), (6, "nginx", HTTP)]);
        story.native(4, "nginx");
        story.accepted(5.0, 4, "10.0.0.2:50000", HTTP);
        let found = services(&mut story);
        assert!(together(&found, 4, 6));
        assert_eq!(found.workers(4), [5, 6]);
    }

    #[test]
    fn two_programs_or_two_addresses_are_two_services() {
        let found = services(&mut served(&[
            (5, "nginx", HTTP),
            (6, "haproxy", HTTP),
            (7, "nginx", "10.0.0.3:80"),
        ]));
        assert!(!together(&found, 5, 6) && !together(&found, 5, 7));
    }

    #[test]
    fn the_same_address_of_two_networks_is_two_places() {
        let mut story = served(&[(5, "nginx", HTTP), (6, "nginx", HTTP)]);
        for (pid, namespace) in [(5, 100), (6, 200)] {
            story.tell(0.0, Fact::Network(Network { pid, namespace }));
        }
        assert!(!together(&services(&mut story), 5, 6));
    }
}
