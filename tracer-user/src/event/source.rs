//! Where events come from, and what was not to be seen there.

use serde::{Deserialize, Serialize};

use super::BootInstant;

/// Where and when events were seen; told before the first one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What they come from.
    pub kind: SourceKind,
    /// The host's name.
    pub host: String,
    /// Its kernel (`uname -r`).
    pub kernel: String,
    /// When the window began, on both clocks; the pair converts one to the other.
    pub started: BootInstant,
    /// The same moment on the wall clock.
    pub started_wall: jiff::Timestamp,
    /// Which hook tells what, in the words of `doctor`.
    pub hooks: Vec<Hook>,
}

impl Source {
    /// The wall-clock time of `at`.
    #[must_use]
    pub fn wall(&self, at: BootInstant) -> jiff::Timestamp {
        let shift = i128::from(at.0) - i128::from(self.started.0);
        jiff::Timestamp::from_nanosecond(self.started_wall.as_nanosecond() + shift)
            .unwrap_or(self.started_wall)
    }
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// This kernel, now.
    Live,
    /// A directory written by `record`.
    Recording,
    /// A packet capture.
    Pcap,
}

/// What one thing is learnt by on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What is wanted (`bytes sent`).
    pub wants: String,
    /// What gives it (`tp_btf/sock_send_length`).
    pub by: String,
}

/// Something that could not be seen, told so that silence is not taken for health.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// What would give it.
    pub remedy: String,
}
