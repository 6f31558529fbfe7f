//! For the Perfetto UI and its trace processor: the recording as a trace, all of it on the boot clock.
//!
//! | in the trace | is |
//! | --- | --- |
//! | processes, threads | those that were seen; under each process its connections and goroutines |
//! | slices of a connection | its life, in it the exchanges, in these the gaps |
//! | slices of a goroutine | the requests it served; its decisions and the looks at it are instants |
//! | slices of a thread | its waits for a CPU that stood out |
//! | the CPUs' scheduling | every switch, where it was recorded |
//! | stack samples | the profiler's |
//! | instants of `findings` | what is wrong, each with its sentence |
//! | flows | from a request to whom it was passed on, to its waits for a CPU, to its finding |
//!
//! What always holds: slices of one track lie one after the other or one within the other, whatever the
//! events said; and what comes a million times (switches, samples) is written as it is read, never held.

mod connections;
mod findings;
mod flows;
mod goroutines;
pub(super) mod message;
mod packets;
mod schedule;
mod stacks;
mod tracks;
mod waits;

use std::io::{self, Write};

use crate::{
    detect::Finding,
    event::{Event, Fact},
    model::Model,
};

use flows::Flows;
use message::{BuiltinClock, Clock, ClockSnapshot, SystemInfo, TracePacket, Utsname};
use packets::Packets;
use schedule::Schedule;
use stacks::Stacks;
use tracks::Tracks;

/// Writes the trace to `output`. `again` are the events that made `model`, once more.
///
/// # Errors
///
/// What `output` says.
pub fn write(
    model: &Model,
    findings: &[Finding],
    again: impl Iterator<Item = Event>,
    output: &mut impl Write,
) -> io::Result<()> {
    let mut packets = Packets::new(output);
    packets.put(clocks(model))?;
    packets.put(system(model))?;
    let mut tracks = Tracks::of(model);
    let flows = Flows::of(model, findings);
    for process in model.processes() {
        tracks.process(process.about.pid, &mut packets)?;
    }
    for thread in model.threads() {
        tracks.thread(thread.pid, thread.tid, &mut packets)?;
    }
    connections::write(model, &flows, &mut tracks, &mut packets)?;
    goroutines::write(model, &mut tracks, &mut packets)?;
    waits::write(model, &flows, &mut tracks, &mut packets)?;
    findings::write(model, findings, &flows, &mut packets)?;
    let mut schedule = Schedule::default();
    let mut stacks = Stacks::default();
    for event in again {
        match &event.fact {
            Fact::Switched(switch) => {
                schedule.tell(event.at, *switch, &mut tracks, &mut packets)?
            }
            Fact::Sampled(sample) => {
                tracks.thread(sample.pid, sample.tid, &mut packets)?;
                stacks.tell(event.at, *sample, model, &mut packets)?;
            }
            _ => {}
        }
    }
    schedule.end(&mut packets)
}

/// Which moment of the boot clock is which of the wall clock.
fn clocks(model: &Model) -> TracePacket {
    let source = model.source();
    let wall = u64::try_from(source.started_wall.as_nanosecond()).unwrap_or_default();
    let clock = |clock: BuiltinClock, timestamp| Clock {
        clock_id: clock.into(),
        timestamp,
    };
    TracePacket {
        timestamp: Some(source.started.0),
        clock_snapshot: Some(ClockSnapshot {
            clocks: vec![
                clock(BuiltinClock::Boottime, source.started.0),
                clock(BuiltinClock::Realtime, wall),
            ],
        }),
        ..TracePacket::default()
    }
}

/// The host. What the states of threads mean depends on its kernel.
fn system(model: &Model) -> TracePacket {
    let source = model.source();
    TracePacket {
        system_info: Some(SystemInfo {
            utsname: Some(Utsname {
                sysname: "Linux".to_owned(),
                release: source.kernel.clone(),
            }),
            machine_name: source.host.clone(),
        }),
        ..TracePacket::default()
    }
}
