//! Waits for a CPU that stood out, on their threads.

use std::io::{self, Write};

use crate::{
    event::{BootInstant, Pid, Waiting},
    model::{Model, Wait},
};

use super::{
    flows::Flows,
    packets::{Packets, Told},
    tracks::Tracks,
};

pub(super) fn write(
    model: &Model,
    flows: &Flows,
    tracks: &mut Tracks<'_>,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    for process in model.processes() {
        for (wait, span) in one_after_the_other(model, process.about.pid) {
            let track = tracks.thread(wait.told.pid, wait.told.tid, packets)?;
            packets.slice(span, track, told(wait).flows(flows.of_wait(wait)))?;
        }
    }
    Ok(())
}

/// The waits of a process by thread, each with when it began and ended; those of a thread do not overlap.
pub(super) fn one_after_the_other(
    model: &Model,
    pid: Pid,
) -> impl Iterator<Item = (&Wait, (BootInstant, BootInstant))> {
    let mut waits: Vec<&Wait> = model.waits(pid).collect();
    waits.sort_by_key(|wait| (wait.told.tid, wait.told.from, wait.until));
    let mut last = (0, BootInstant::default());
    waits.into_iter().map(move |wait| {
        let tid = wait.told.tid;
        let earliest = if last.0 == tid {
            last.1
        } else {
            BootInstant::default()
        };
        let from = wait.told.from.max(earliest);
        let until = wait.until.max(from);
        last = (tid, until);
        (wait, (from, until))
    })
}

/// What a slice of a wait says.
pub(super) fn told(wait: &Wait) -> Told {
    let why = match wait.told.why {
        Waiting::Woken => "waits for a CPU (woken)",
        Waiting::Preempted => "waits for a CPU (preempted)",
        Waiting::Throttled => "throttled by its cgroup's quota",
    };
    Told::new("sched", why)
        .maybe(wait.told.by.as_ref(), |told, by| {
            told.text(
                "before",
                format!("{} (pid {}, thread {})", by.comm, by.pid, by.tid),
            )
        })
        .maybe(wait.told.goroutine, |told, id| told.number("goroutine", id))
}
