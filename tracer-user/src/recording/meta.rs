//! `meta.json`: what a recording is of, for gopulse and for people.
//!
//! Unknown keys are ignored when reading, and a key keeps its meaning for ever.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use super::RecordingError;
use crate::event::{BootInstant, Process, Source};

/// The schema this gopulse writes and reads.
const SCHEMA: &str = "gopulse.recording/1";

/// Most that is read of a `meta.json`, in bytes; a host with thousands of targets needs a few hundred KiB.
pub(super) const SIZE_LIMIT: u64 = 16 << 20;

/// What a recording is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// `gopulse.recording/1`.
    pub schema: String,
    /// The version of the gopulse that wrote it.
    pub tool_version: String,
    /// The host, its kernel, its clocks and its hooks.
    pub source: Source,
    /// Who was traced; empty until the recording is finished.
    #[serde(default)]
    pub targets: Vec<Process>,
    /// What the capture could not keep up with.
    #[serde(default)]
    pub losses: Losses,
    /// When the window ended; `None` until the recording is finished.
    #[serde(default)]
    pub ended: Option<BootInstant>,
    /// Events written; 0 where the recording is not complete.
    #[serde(default)]
    pub events: u64,
    /// Packets written; 0 where the recording is not complete.
    #[serde(default)]
    pub packets: u64,
    /// The whole window is in the recording.
    pub complete: bool,
    /// Why it is not, where the writer knew.
    #[serde(default)]
    pub cut_short: Option<String>,
}

/// What was lost between the kernel's probes and the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Events that found no room in a ring or map.
    pub events_lost: u64,
    /// Packets that found none.
    pub packets_lost: u64,
    /// Both, by the name of the probe or buffer.
    pub by_probe: BTreeMap<String, u64>,
}

impl Meta {
    /// What is known when a recording begins.
    pub(super) fn at_start(source: &Source) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.clone(),
            targets: Vec::new(),
            losses: Losses::default(),
            ended: None,
            events: 0,
            packets: 0,
            complete: false,
            cut_short: None,
        }
    }

    pub(super) fn to_json(&self) -> io::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads it, once its schema is known to be one we understand.
    pub(super) fn from_json(json: &[u8], path: &Path) -> Result<Self, RecordingError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let not_ours = |error: serde_json::Error| RecordingError::NotARecording {
            path: path.to_owned(),
            found: error.to_string(),
        };
        let Schema { schema } = serde_json::from_slice(json).map_err(not_ours)?;
        if schema == SCHEMA {
            return serde_json::from_slice(json).map_err(not_ours);
        }
        Err(if schema.starts_with("gopulse.recording/") {
            RecordingError::Newer {
                path: path.to_owned(),
                found: schema,
                known: SCHEMA.to_owned(),
            }
        } else {
            RecordingError::NotARecording {
                path: path.to_owned(),
                found: format!("its schema is {schema:?}"),
            }
        })
    }
}
