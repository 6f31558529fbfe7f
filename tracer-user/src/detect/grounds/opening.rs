//! Which line of the program opens connections.

use std::net::SocketAddr;

use crate::{
    detect::own_code::own_frame,
    event::{Frame, Pid},
    model::{Connection, Model},
};

/// The own line that opened `connection`, or that asked the library for it.
pub(crate) fn opened_in<'m>(model: &'m Model, connection: &Connection) -> Option<&'m Frame> {
    own_frame(model.frames(connection.asked_at))
        .or_else(|| own_frame(model.frames(connection.opened_at)))
}

/// The own function that opened most of these connections.
pub(crate) struct Opener<'m> {
    /// Its line.
    pub(crate) frame: &'m Frame,
    /// How many it opened.
    pub(crate) number: u64,
    /// Of so many whose opening was seen.
    pub(crate) seen: u64,
}

impl<'m> Opener<'m> {
    /// `None` where none was seen.
    pub(crate) fn of<'c>(
        model: &'m Model,
        connections: impl Iterator<Item = &'c Connection>,
    ) -> Option<Self> {
        let lines = connections.filter_map(|connection| opened_in(model, connection));
        Self::most(lines.map(|frame| (frame, 1)))
    }

    /// The one that asked most often for connections of `pid` to `remote`, kept or not.
    pub(crate) fn by_calls(model: &'m Model, pid: Pid, remote: SocketAddr) -> Option<Self> {
        let calls = model.callers(pid, remote);
        Self::most(calls.filter_map(|(frames, number)| Some((own_frame(frames)?, number))))
    }

    fn most(lines: impl Iterator<Item = (&'m Frame, u64)>) -> Option<Self> {
        let mut functions: Vec<(&Frame, u64)> = Vec::new();
        for (line, number) in lines {
            match functions
                .iter_mut()
                .find(|(known, _)| known.function == line.function)
            {
                Some((_, sum)) => *sum += number,
                None => functions.push((line, number)),
            }
        }
        let seen = functions.iter().map(|(_, number)| number).sum();
        let (frame, number) = functions.into_iter().max_by_key(|(_, number)| *number)?;
        Some(Self {
            frame,
            number,
            seen,
        })
    }
}
