//! Goroutines from text that somebody saved: a dump (`debug=2`, SIGQUIT, a panic in a log) or a profile
//! (`debug=1`), told apart by what is in it.

use super::{dump, pprof, profile};
use crate::event::{Pid, Snapshot, SnapshotSource};

/// Goroutines kept of one file.
const MOST: usize = 200_000;

/// What a saved dump holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Its goroutines, as those of `pid`.
    pub snapshot: Snapshot,
    /// Lines that look like a goroutine's and were not understood.
    pub unread_lines: u64,
}

/// Reads `text` as a dump or a profile of `pid`; `None` where there is no goroutine in it.
#[must_use]
pub fn read(text: &str, pid: Pid) -> Option<Saved> {
    let (goroutines, total, unread_lines) = match profile::total(text) {
        Some(total) => {
            let profile = profile::parse(text);
            let goroutines = pprof::spread(&profile, MOST);
            (goroutines, total, profile.unread_lines)
        }
        None => {
            let dump = dump::parse(text);
            let total = dump.goroutines.len() as u64;
            (dump.goroutines, total, dump.unread_lines)
        }
    };
    let snapshot = Snapshot {
        pid,
        source: SnapshotSource::File,
        total: total.max(goroutines.len() as u64),
        goroutines,
    };
    (!snapshot.goroutines.is_empty()).then_some(Saved {
        snapshot,
        unread_lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_and_profiles_are_told_apart_by_themselves() {
        let dump = "SIGQUIT: quit\n\ngoroutine 7 [sleep]:\nmain.wait()\n\t/src/main.go:1 +0x1\n";
        let profile =
            "goroutine profile: total 3\n3 @ 0x10\n#\t0x10\tmain.wait+0x1\t/src/main.go:1\n";
        for (text, goroutines) in [(dump, 1), (profile, 3)] {
            let saved = read(text, 7).unwrap();
            assert_eq!(saved.unread_lines, 0);
            assert_eq!(saved.snapshot.goroutines.len(), goroutines);
            assert_eq!(saved.snapshot.goroutines[0].frames[0].function, "main.wait");
        }
    }

    #[test]
    fn text_without_a_goroutine_is_none() {
        assert_eq!(read("404 page not found\n", 7), None);
        assert_eq!(read("", 7), None);
    }
}
