//! The goroutines on an exchange's way: who sent the request, and who read it.

use crate::{
    detect::finding::Witness,
    model::{Connection, Exchange, Model},
};

use super::{breakdown::as_seen_there, standing::at_last};

/// Those of both ends, as far as they are known; of who is at it still, with where it stands.
pub(crate) fn on(model: &Model, connection: &Connection, exchange: &Exchange) -> Vec<Witness> {
    let there = as_seen_there(model, connection, exchange);
    let there = there.and_then(|(other, seen)| hand(model, other, &seen));
    hand(model, connection, exchange)
        .into_iter()
        .chain(there)
        .collect()
}

fn hand(model: &Model, connection: &Connection, exchange: &Exchange) -> Option<Witness> {
    let actor = exchange.actor?;
    let over = exchange.answered() || connection.ended().is_some();
    let stands = at_last(model, actor.pid, actor.goroutine?).filter(|_| !over);
    stands
        .map(|stands| Witness {
            attribution: actor.attribution,
            ..stands
        })
        .or_else(|| Witness::acting(model, actor, &[]))
}
