//! What gopulse does without when it would cost more than it may.

use serde::{Deserialize, Serialize};

/// Something that is not looked at any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shed {
    /// Packets: no capture, and of requests no head and no status.
    Packets,
    /// The profiler's clock.
    Samples,
    /// Threads on CPUs and off them.
    Scheduler,
    /// Of the connections that are opened only one in so many is followed.
    Connections {
        /// In how many.
        one_in: u32,
    },
}
