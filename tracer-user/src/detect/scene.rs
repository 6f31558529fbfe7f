//! What every rule looks at: the model, and what is concluded from it once for all.

use std::{collections::HashMap, time::Duration};

use crate::{
    event::{BootInstant, Pid, Role},
    model::{Connection, Model, Served},
};

use super::give_up::{self, GiveUp};

/// How long before a process is told to have ended its sockets may be closed by its exit, and after.
const EXITING: Duration = Duration::from_millis(100);

/// How long before one of several addresses wins the others may have been tried (Happy Eyeballs
/// starts the next one after 250 to 300 ms, RFC 8305 section 5).
const RACING: Duration = Duration::from_secs(1);

/// How long after one address won the sockets of the losers are closed.
const LOSING: Duration = Duration::from_millis(20);

/// The whole scene.
pub(super) struct Scene<'m> {
    pub(super) model: &'m Model,
    pub(super) served: Served,
    pub(super) give_ups: Vec<GiveUp<'m>>,
    clients: HashMap<Pid, Vec<&'m Connection>>,
}

impl<'m> Scene<'m> {
    pub(super) fn of(model: &'m Model) -> Self {
        let mut clients: HashMap<Pid, Vec<&Connection>> = HashMap::new();
        for connection in model.connections().filter(|c| c.role == Role::Client) {
            clients.entry(connection.pid).or_default().push(connection);
        }
        let mut scene = Self {
            model,
            served: Served::of(model),
            give_ups: Vec::new(),
            clients,
        };
        scene.give_ups = give_up::all(&scene);
        scene
    }

    /// Every connection on which `pid` asks.
    pub(super) fn clients_of(&self, pid: Pid) -> &[&'m Connection] {
        self.clients.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// Every connection on which a traced process asks.
    pub(super) fn clients(&self) -> impl Iterator<Item = &'m Connection> {
        self.model.connections().filter(|c| c.role == Role::Client)
    }

    /// What happened to `pid` at `at` was its exit, or after it.
    pub(super) fn exiting(&self, pid: Pid, at: BootInstant) -> bool {
        self.model
            .process(pid)
            .and_then(|process| process.ended)
            .is_some_and(|ended| at.plus(EXITING) >= ended)
    }

    /// Connecting failed, but another address of the same name was tried at the same time and won.
    pub(super) fn lost_a_race(&self, connection: &Connection) -> bool {
        let Some(failed) = connection.connect_failed else {
            return false;
        };
        self.clients_of(connection.pid).iter().any(|other| {
            other.remote.port() == connection.remote.port()
                && other.remote.ip() != connection.remote.ip()
                && other.opened.plus(RACING) >= connection.opened
                && connection.opened.plus(RACING) >= other.opened
                && other
                    .established
                    .is_some_and(|won| won >= connection.opened && won <= failed.at.plus(LOSING))
        })
    }
}
