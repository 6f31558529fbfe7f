//! Findings told to a person or a tool.
//!
//! In come a model and what was found in it; out comes a [`Report`], which is the JSON object that
//! scripts rely on, and can be told as text. Nothing is judged here, and nothing is left out without
//! saying so.

mod from_model;
pub mod goroutines;
mod host;
mod json;
pub mod text;
mod threads;

pub use from_model::losses;
pub use host::{HostTold, NeighbourTold, PressureTold};
pub use json::{
    ConnectionTold, Coverage, ExchangeTold, GoroutinesTold, GroupTold, HttpTold, Report,
    SnapshotTold, SourceTold, TargetTold, ThreadTold,
};
