//! How a service is called where several of its workers did the same.

use std::collections::HashSet;

use crate::{event::Pid, model::Connection};

/// `nginx (2 workers)` for the owners of these connections, which are all of one service; `nginx` where that
/// is one process.
pub(crate) fn named<'c>(name: String, of: impl IntoIterator<Item = &'c Connection>) -> String {
    let owners: HashSet<Pid> = of.into_iter().map(|connection| connection.pid).collect();
    counted(name, owners.len())
}

/// The same for so many of them.
pub(crate) fn counted(name: String, number: usize) -> String {
    if number > 1 {
        format!("{name} ({number} workers)")
    } else {
        name
    }
}
