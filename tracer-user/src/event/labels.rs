//! pprof labels of goroutines.

use serde::{Deserialize, Serialize};

use super::Pid;

/// The pprof labels that goroutines of a process carry (`runtime/pprof.Do`). Told before the snapshot of
/// the same moment, where that was read from memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The process.
    pub pid: Pid,
    /// Goroutines by what they carry; those that carry none are in no set.
    pub sets: Vec<Labelled>,
    /// How many carry labels that could not be read.
    pub unread: u64,
}

/// Goroutines that carry the same labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Keys and values, in the order of the keys. A long text ends in `…`.
    pub labels: Vec<(String, String)>,
    /// The ids of those that carry them.
    pub goroutines: Vec<u64>,
}
