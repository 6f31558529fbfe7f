//! A capture kept on disk, and read back as a source of events.
//!
//! In: the events and packets of a capture, through [`Writer`]. Out: the same events in the same order,
//! through [`Reader`]. A recording is a directory (mode 0700) of files (mode 0600):
//!
//! | name | holds |
//! | --- | --- |
//! | `meta.json` | [`Meta`]: schema, version, source, targets, losses, the window's end |
//! | `events.gpl` | every event, in blocks with checksums |
//! | `capture.pcapng` | the packets, at the end with what else was seen; opens in Wireshark as it is |
//! | `goroutines/NNN-PID-SOURCE.txt` | each goroutine snapshot, in the text form of Go's own dumps |
//! | `report.json`, … | what the caller attaches |
//!
//! What always holds:
//! - a recording can be read at any moment, also after a crash or on a full disk: `meta.json` is there
//!   from the start and replaced atomically, and the other files end at a whole block; the capture is
//!   replaced by the annotated one in the same way, so a crash before leaves the packets;
//! - nothing that was there before is overwritten, and no symbolic link is followed;
//! - what could not be kept or read again is told: as an error when writing, as [`Unseen`] when reading.
//!
//! [`Unseen`]: crate::event::Unseen

mod directory;
mod error;
mod events;
pub mod goroutine_text;
mod meta;
mod reader;
mod whole_blocks;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use error::RecordingError;
pub use meta::{Losses, Meta};
pub use reader::Reader;
pub use writer::{End, Writer};

/// The names in a recording.
mod name {
    pub(super) const META: &str = "meta.json";
    /// What becomes `meta.json` at the end; its room is set aside at the start.
    pub(super) const NEXT_META: &str = "meta.json.next";
    pub(super) const EVENTS: &str = "events.gpl";
    pub(super) const PACKETS: &str = "capture.pcapng";
    /// What becomes `capture.pcapng` at the end.
    pub(super) const NEXT_PACKETS: &str = "capture.pcapng.next";
    pub(super) const GOROUTINES: &str = "goroutines";
}
