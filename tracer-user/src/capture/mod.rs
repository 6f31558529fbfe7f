//! The live source: load, attach, drain, account for losses.
//!
//! In: a plan and the processes to trace. Out: events and packets, handed to a [`Sink`] in the order
//! of the kernel's rings. What always holds: every record that found no room is counted and told, and
//! when a [`Live`] is dropped nothing of it stays in the kernel.

mod attach;
mod budget;
mod deciders;
mod decode;
mod descriptors;
mod drain;
mod early;
mod follow;
mod gaps;
mod linger;
mod live;
mod looks;
mod native;
mod newcomers;
mod overdue;
mod peers;
mod processes;
mod queues;
mod rounds;
mod samples;
mod seed;
mod sizes;
mod stacks;
mod standing;
mod surroundings;
mod threads;
mod transfers;

pub use attach::{Attached, Probes};
pub use live::{Live, Options};
pub use looks::{Pprof, now, steps as steps_of_looking};

use crate::{
    event::{Event, Packet},
    host::HostError,
};

/// Where a capture goes.
pub trait Sink {
    /// An event.
    fn event(&mut self, event: Event);
    /// A packet.
    fn packet(&mut self, packet: Packet);
    /// Called about once a second.
    fn tick(&mut self) {}
}

/// Why a capture cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The host does not allow it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The kernel does not take the programs or maps at all.
    #[error(
        "the kernel did not take gopulse's programs: {why}\n  without them nothing is seen\n  gopulse doctor says what this host allows"
    )]
    Load {
        /// What the kernel said.
        why: String,
    },
    /// One want without which nothing works cannot be had.
    #[error(
        "cannot learn of {want} on this kernel: {why}\n  nothing works without it\n  gopulse doctor says what this host allows"
    )]
    Want {
        /// Which.
        want: &'static str,
        /// What was said against each way.
        why: String,
    },
    /// A map or ring cannot be used.
    #[error("the kernel refused an operation on gopulse's own map {map}: {why}")]
    Map {
        /// Which.
        map: &'static str,
        /// What it said.
        why: String,
    },
    /// A command to be traced does not start.
    #[error("cannot start {command}: {why}")]
    Command {
        /// What was to be started.
        command: String,
        /// Why not.
        why: String,
    },
}
