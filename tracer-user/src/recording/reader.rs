//! Reads a recording back.
//!
//! In: the directory. Out: the events as they were written, and afterwards what is missing of them. A
//! recording may come from another host and from a stranger: nothing in it is believed beyond its bounds.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use super::{
    Meta, RecordingError,
    directory::Directory,
    events::{Ending, EventReader},
    meta, name,
};
use crate::event::{BootInstant, Event, Source, SourceKind, Unseen};

/// A recording as a source of events.
///
/// It is an iterator over [`Event`]s; when that has ended, [`Reader::unseen`] tells what is missing.
pub struct Reader {
    path: PathBuf,
    directory: Directory,
    meta: Meta,
    events: EventReader<BufReader<File>>,
    read: u64,
}

impl Reader {
    /// Opens the recording in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Read`] where a file cannot be read, [`RecordingError::NotARecording`] where it is
    /// something else, [`RecordingError::Newer`] where a later gopulse wrote it.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let directory = Directory::open(path)?;
        let meta = read_meta(&directory)?;
        let events_path = directory.path(name::EVENTS);
        let file = directory.open_file(name::EVENTS)?;
        let length = file.metadata().map_err(|source| RecordingError::Read {
            path: events_path.clone(),
            source,
        })?;
        let file = BufReader::with_capacity(256 << 10, file);
        Ok(Self {
            events: EventReader::new(file, length.len(), &events_path)?,
            path: path.to_owned(),
            directory,
            meta,
            read: 0,
        })
    }

    /// Where and when it was recorded; its kind is [`SourceKind::Recording`].
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.meta.source
    }

    /// What the recording says of itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The packets, to read them.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Read`] where there are none, [`RecordingError::NotARecording`] where it is not a
    /// plain file.
    pub fn capture(&self) -> Result<File, RecordingError> {
        self.directory.open_file(name::PACKETS)
    }

    /// When the window ended. In a recording that was never finished it is the latest time among the
    /// events read so far, so ask after the last one.
    #[must_use]
    pub fn ended(&self) -> BootInstant {
        self.meta
            .ended
            .unwrap_or(self.events.latest().max(self.meta.source.started))
    }

    /// What the recording lacks; whole only after the last event was read.
    #[must_use]
    pub fn unseen(&self) -> Vec<Unseen> {
        let mut unseen = Vec::new();
        if let Some(why) = &self.meta.cut_short {
            unseen.push(Unseen {
                what: "the window's end".to_owned(),
                why: why.clone(),
                remedy: "record again where there is more room".to_owned(),
            });
        } else if !self.meta.complete {
            unseen.push(Unseen {
                what: "the window's end".to_owned(),
                why: "the recording was never finished: gopulse was killed, or the host went down"
                    .to_owned(),
                remedy: "record again, and end it with Ctrl-C".to_owned(),
            });
        }
        unseen.extend(self.missing_events().map(|why| Unseen {
            what: "events at the end of the recording".to_owned(),
            why,
            remedy: format!(
                "copy {} once more from where it was recorded",
                self.path.display()
            ),
        }));
        unseen
    }

    fn missing_events(&self) -> Option<String> {
        let file = name::EVENTS;
        match self.events.ending()? {
            Ending::Truncated { at, bytes } => Some(format!(
                "{file} is cut in the middle of a block: the last {bytes} bytes, from offset {at} on, cannot be read"
            )),
            Ending::Damaged { at, bytes, why } => Some(format!(
                "the block at offset {at} of {file} is damaged ({why}): the last {bytes} bytes cannot be read"
            )),
            Ending::Whole if self.meta.complete && self.read < self.meta.events => Some(format!(
                "{file} is cut after a whole block: {} of {} events are in it",
                self.read, self.meta.events
            )),
            Ending::Whole => None,
        }
    }
}

impl Iterator for Reader {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let event = self.events.next()?;
        self.read += 1;
        Some(event)
    }
}

fn read_meta(directory: &Directory) -> Result<Meta, RecordingError> {
    let path = directory.path(name::META);
    let mut json = Vec::new();
    directory
        .open_file(name::META)?
        .take(meta::SIZE_LIMIT)
        .read_to_end(&mut json)
        .map_err(|source| RecordingError::Read {
            path: path.clone(),
            source,
        })?;
    let mut meta = Meta::from_json(&json, &path)?;
    meta.source.kind = SourceKind::Recording;
    Ok(meta)
}
