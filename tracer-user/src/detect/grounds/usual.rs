//! How long requests of one kind usually take.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::model::{Kind, Pace, Paces, Peer, Service, Services, Traffic};

/// Requests of the same kind that make a usual time.
const USUAL: u64 = 20;

/// So many times the usual is not usual any more.
pub(crate) const TIMES_USUAL: u32 = 10;

/// Half of `times` are no longer; `None` of none.
pub(crate) fn median(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut all: Vec<Duration> = times.into_iter().collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// Usual times by the service and its port, on whichever of its addresses.
#[derive(Debug, Default)]
pub(crate) struct Usual(HashMap<(Service, u16), Paces>);

impl Usual {
    pub(crate) fn of(traffic: &BTreeMap<Peer, Traffic>, services: &Services) -> Self {
        let mut all: HashMap<_, Paces> = HashMap::new();
        for (peer, traffic) in traffic.iter().filter(|(peer, _)| peer.serves) {
            let place = (services.of_process(peer.pid), peer.address.port());
            all.entry(place).or_default().add(&traffic.exchanges.paces);
        }
        Self(all)
    }

    /// Half of the requests of `kind` that this service serves at this port took no longer; `None` where too
    /// few were counted.
    pub(crate) fn at(&self, place: (Service, u16), kind: &Kind) -> Option<Duration> {
        self.0
            .get(&place)?
            .of(kind)
            .filter(|pace| pace.number() >= USUAL)
            .and_then(Pace::median_at_most)
    }
}
