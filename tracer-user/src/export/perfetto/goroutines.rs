//! Goroutines: the requests they served, what they decided, what they were seen doing.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use crate::{
    event::{Goroutine, Pid, Role, SocketId},
    model::{Connection, Decided, Model},
};

use super::{
    connections::{asked, ends, over},
    packets::{Packets, Told, Track},
    tracks::Tracks,
    waits,
};

pub(super) fn write(
    model: &Model,
    tracks: &mut Tracks<'_>,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    let mut lanes = Lanes::default();
    for connection in model.connections() {
        let mut now = HashMap::new();
        for exchange in connection.exchanges() {
            let goroutine = exchange.actor.and_then(|actor| actor.goroutine);
            let Some(id) = goroutine.filter(|_| connection.role == Role::Server) else {
                continue;
            };
            let lane = (connection.pid, id, Lane::Connection(connection.socket));
            let track = lanes.track(lane, tracks, packets)?;
            let now = now.entry(id).or_insert(connection.opened);
            let from = exchange.started.max(*now);
            let until = over(model, connection, &exchange).max(from);
            let told = Told::new("go", asked(&exchange)).text("connection", ends(connection));
            packets.slice((from, until), track, told)?;
            *now = until;
        }
        for decided in &connection.decisions {
            let actor = decided.decision.actor;
            if let Some(id) = actor.goroutine {
                let track = lanes.track((actor.pid, id, Lane::Moments), tracks, packets)?;
                packets.instant(decided.at, track, decision(model, connection, decided))?;
            }
        }
        for (at, goroutine) in &connection.looks {
            let lane = (connection.pid, goroutine.id, Lane::Moments);
            let track = lanes.track(lane, tracks, packets)?;
            packets.instant(*at, track, look(goroutine))?;
        }
    }
    for process in model.processes() {
        for (wait, span) in waits::one_after_the_other(model, process.about.pid) {
            if let Some(id) = wait.told.goroutine {
                let lane = (process.about.pid, id, Lane::Thread(wait.told.tid));
                let track = lanes.track(lane, tracks, packets)?;
                packets.slice(span, track, waits::told(wait))?;
            }
        }
    }
    Ok(())
}

/// What sets tracks of one goroutine apart: slices of one may not overlap, and what was told of a goroutine
/// from different sides may seem to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    /// What it served there.
    Connection(SocketId),
    /// Its waits for a CPU, on that thread.
    Thread(u32),
    /// Its decisions, and looks at it.
    Moments,
}

/// The tracks of goroutines, by process and id.
#[derive(Default)]
struct Lanes(HashMap<(Pid, u64, Lane), Track>);

impl Lanes {
    fn track(
        &mut self,
        lane: (Pid, u64, Lane),
        tracks: &mut Tracks<'_>,
        packets: &mut Packets<impl Write>,
    ) -> io::Result<Track> {
        if let Some(track) = self.0.get(&lane) {
            return Ok(*track);
        }
        let process = tracks.process(lane.0, packets)?;
        let track = packets.named_track(Some(process), format!("goroutine {}", lane.1))?;
        self.0.insert(lane, track);
        Ok(track)
    }
}

fn decision(model: &Model, connection: &Connection, decided: &Decided) -> Told {
    let decision = &decided.decision;
    let frames = model.frames(decision.stack);
    Told::new("go", format!("{:?}", decision.decider))
        .text("connection", ends(connection))
        .maybe(decision.error.as_ref(), |told, error| {
            told.text("error", error)
        })
        .maybe(frames.first(), |told, frame| {
            told.text("at", frame.to_string())
        })
}

fn look(goroutine: &Goroutine) -> Told {
    let stack: Vec<String> = goroutine.frames.iter().map(ToString::to_string).collect();
    Told::new("go", format!("looked at: {}", goroutine.state))
        .text("stack", stack.join("\n"))
        .maybe(goroutine.wait, |told, wait| told.time("waits_s", wait))
}
