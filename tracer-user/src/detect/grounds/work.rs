//! What the goroutine that served an exchange was doing at a time.

use crate::{
    detect::{
        finding::{Subject, Witness},
        own_code::own_frame,
    },
    event::{Attribution, BootInstant, Frame, Pid},
    model::{Connection, Exchange, Model},
};

/// The goroutine that served (or asked) `exchange`, as it was seen between two moments; `None` where
/// nobody looked then.
pub(crate) fn at_work(
    model: &Model,
    connection: &Connection,
    exchange: &Exchange,
    from: BootInstant,
    until: BootInstant,
) -> Option<Witness> {
    let subject = Subject::owner(model, connection);
    let during = |at: &BootInstant| (from..=until).contains(at);
    if let Some((_, goroutine)) = connection.looks.iter().find(|(at, _)| during(at)) {
        return Some(Witness::looked_at(
            subject,
            goroutine,
            Attribution::LastOwner,
        ));
    }
    let id = exchange.actor?.goroutine?;
    let (_, goroutine) = model.look(connection.pid, id, from, until)?;
    Some(Witness::looked_at(
        subject,
        goroutine,
        Attribution::Inferred,
    ))
}

/// Functions of net/http that wait for the network in a goroutine of their own, or for a request's body.
const NOT_A_HANDLERS: [&str; 3] = [
    "net/http.(*persistConn).",
    "net/http.(*connReader).",
    "net/http.(*body).",
];

/// Where most handlers of `pid` wait for the network by themselves, by its last snapshot, and how many
/// they are.
pub(crate) fn waiting_for_io(model: &Model, pid: Pid) -> Option<(Frame, u64)> {
    let is_handlers = |frames: &[Frame]| {
        let has = |name: &str| frames.iter().any(|frame| frame.function.starts_with(name));
        has("net/http.(*conn).serve") && !NOT_A_HANDLERS.iter().any(|name| has(name))
    };
    model
        .goroutine_groups()
        .iter()
        .filter(|group| group.pid == pid && group.state == "IO wait" && is_handlers(&group.frames))
        .filter_map(|group| Some((own_frame(&group.frames)?.clone(), group.count)))
        .max_by_key(|(_, count)| *count)
}
