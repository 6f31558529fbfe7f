//! Writes a recording while the capture runs.
//!
//! In: events, packets and attachments. Out: the files of the directory. An event or packet costs a copy
//! into a buffer; files are touched once in 256 KiB and at each [`Writer::flush`].

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::Path,
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::{
    Losses, Meta, RecordingError, directory::Directory, events::EventWriter, goroutine_text, name,
    whole_blocks::WholeBlocks,
};
use crate::{
    event::{BootInstant, Event, Fact, Labels, Packet, Process, Snapshot, SnapshotSource, Source},
    pcapng,
};

/// Room set aside for the final `meta.json`, so that a full disk cannot keep it from being written.
const META_ROOM: i64 = 64 << 10;

/// A recording in the making.
///
/// After [`RecordingError::Full`] stop recording and [`Writer::finish`]: what was written is kept, and
/// `meta.json` says why it ends.
pub struct Writer {
    directory: Directory,
    meta: Meta,
    next_meta: File,
    events: EventWriter<File>,
    packets: pcapng::Writer<WholeBlocks<File>>,
    packets_ended: bool,
    goroutines: Directory,
    snapshots: u32,
    /// Those of the snapshot that comes next.
    labels: Option<Labels>,
}

/// What is only known when the window is over.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// When the window ended.
    pub ended: BootInstant,
    /// Who was traced.
    pub targets: Vec<Process>,
    /// What was lost on the way here.
    pub losses: Losses,
}

impl Writer {
    /// Makes the directory `path` (which must be empty if it is there) and begins a recording in it.
    ///
    /// # Errors
    ///
    /// [`RecordingError::NotEmpty`] and [`RecordingError::NotADirectory`] for what is in the way,
    /// [`RecordingError::Create`] and those of writing for what the kernel refuses.
    pub fn create(path: &Path, source: &Source) -> Result<Self, RecordingError> {
        let directory = Directory::create(path)?;
        let meta = Meta::at_start(source);
        write_meta(&meta, &mut directory.create_file(name::META)?)
            .map_err(failed(&directory, name::META))?;
        let next_meta = directory.create_file(name::NEXT_META)?;
        set_aside(&next_meta, META_ROOM).map_err(failed(&directory, name::NEXT_META))?;
        let events = EventWriter::new(directory.create_file(name::EVENTS)?)
            .map_err(failed(&directory, name::EVENTS))?;
        let packets = WholeBlocks::new(directory.create_file(name::PACKETS)?);
        let mut packets =
            pcapng::Writer::new(packets, source).map_err(failed(&directory, name::PACKETS))?;
        packets
            .output_mut()
            .flush()
            .map_err(failed(&directory, name::PACKETS))?;
        Ok(Self {
            goroutines: directory.subdirectory(name::GOROUTINES)?,
            directory,
            meta,
            next_meta,
            events,
            packets,
            packets_ended: false,
            snapshots: 0,
            labels: None,
        })
    }

    /// Records one event; a snapshot of goroutines is also written as text.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Full`] when there is no room left, [`RecordingError::Write`] for other failures.
    pub fn event(&mut self, event: &Event) -> Result<(), RecordingError> {
        let outcome = self.events.event(event);
        self.noting(outcome.map_err(failed(&self.directory, name::EVENTS)))?;
        match &event.fact {
            Fact::Labels(labels) => self.labels = Some(labels.clone()),
            Fact::Goroutines(snapshot) => {
                let outcome = self.snapshot(snapshot);
                self.noting(outcome)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Records one packet, and returns its number in `capture.pcapng` (Wireshark's `frame.number`).
    ///
    /// # Errors
    ///
    /// As [`Writer::event`].
    pub fn packet(&mut self, packet: &Packet) -> Result<u64, RecordingError> {
        let outcome = self.name_interface(packet.interface);
        let outcome = outcome.and_then(|()| self.packets.packet(packet));
        self.noting(outcome.map_err(failed(&self.directory, name::PACKETS)))
    }

    /// Hands everything recorded so far to the kernel, so that it outlives this process.
    ///
    /// # Errors
    ///
    /// As [`Writer::event`].
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        let events = self
            .events
            .flush()
            .map_err(failed(&self.directory, name::EVENTS));
        let packets = self.packets.output_mut().flush();
        let packets = packets.map_err(failed(&self.directory, name::PACKETS));
        self.noting(events.and(packets))
    }

    /// Adds a file, such as `report.json`. A failure takes nothing from what was recorded.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Name`] for a name that is no plain file name, or is taken; else as [`Writer::event`].
    pub fn attach(&mut self, name: &str, bytes: &[u8]) -> Result<(), RecordingError> {
        check_name(name)?;
        write_new(&self.directory, name, |output| output.write_all(bytes)).map_err(|error| {
            match error {
                RecordingError::Write { source, .. }
                    if source.kind() == io::ErrorKind::AlreadyExists =>
                {
                    taken(name)
                }
                error => error,
            }
        })
    }

    /// Ends the capture, and replaces it by what `rewrite` makes of it; no packet can follow. Until the
    /// new one is whole and on disk the old one stays, and it stays for good where this fails.
    ///
    /// # Errors
    ///
    /// As [`Writer::event`]; a failure takes nothing from what was recorded.
    pub fn rewrite_packets(
        &mut self,
        ended: BootInstant,
        packets_lost: u64,
        rewrite: impl FnOnce(&mut File, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), RecordingError> {
        self.end_packets(ended, packets_lost)?;
        let mut capture = self.capture()?;
        write_new(&self.directory, name::NEXT_PACKETS, |output| {
            rewrite(&mut capture, output)?;
            output.flush()?;
            output.get_ref().sync_all()
        })?;
        self.directory.rename(name::NEXT_PACKETS, name::PACKETS)
    }

    /// The capture as it stands on disk, to read it.
    ///
    /// # Errors
    ///
    /// [`RecordingError::Read`].
    pub fn capture(&self) -> Result<File, RecordingError> {
        self.directory.open_file(name::PACKETS)
    }

    /// Ends the recording and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// What could not be written, unless an earlier call told of a failure already. `meta.json` is
    /// brought up to date all the same.
    pub fn finish(mut self, end: End) -> Result<(), RecordingError> {
        let told = self.meta.cut_short.is_some();
        let outcome = self
            .flush()
            .and_then(|()| self.end_packets(end.ended, end.losses.packets_lost));
        let outcome = if told { Ok(()) } else { outcome };

        self.meta.complete = self.meta.cut_short.is_none();
        if self.meta.complete {
            self.meta.events = self.events.events();
            self.meta.packets = self.packets.packets();
        }
        self.meta.targets = end.targets;
        self.meta.losses = end.losses;
        self.meta.ended = Some(end.ended);
        outcome.and(self.replace_meta()).and(self.sync())
    }

    /// Writes the statistics that stand at the end of the capture, once.
    fn end_packets(&mut self, ended: BootInstant, lost: u64) -> Result<(), RecordingError> {
        if std::mem::replace(&mut self.packets_ended, true) {
            return Ok(());
        }
        let outcome = self.packets.finish(ended, lost);
        let outcome = outcome.and_then(|()| self.packets.output_mut().flush());
        self.noting(outcome.map_err(failed(&self.directory, name::PACKETS)))
    }

    /// Remembers the first failure for `meta.json`.
    fn noting<T>(&mut self, outcome: Result<T, RecordingError>) -> Result<T, RecordingError> {
        if let (Err(error), None) = (&outcome, &self.meta.cut_short) {
            self.meta.cut_short = Some(error.to_string());
        }
        outcome
    }

    /// Tells the capture the interface's name, where there is one in our own network namespace.
    fn name_interface(&mut self, index: u32) -> io::Result<()> {
        if self.packets.knows(index) {
            return Ok(());
        }
        match nix::net::if_::if_indextoname(index) {
            Ok(name) => self.packets.declare(index, &name.to_string_lossy()),
            Err(_) => Ok(()),
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), RecordingError> {
        self.snapshots += 1;
        let labels = self.labels.take().filter(|of| of.pid == snapshot.pid);
        let labels = labels.unwrap_or_default();
        let source = match snapshot.source {
            SnapshotSource::Memory => "memory",
            SnapshotSource::Pprof => "pprof",
            SnapshotSource::File => "file",
        };
        let name = format!("{:03}-{}-{source}.txt", self.snapshots, snapshot.pid);
        write_new(&self.goroutines, &name, |output| {
            goroutine_text::write(snapshot, &labels, output)
        })
    }

    fn replace_meta(&mut self) -> Result<(), RecordingError> {
        write_meta(&self.meta, &mut self.next_meta)
            .and_then(|length| self.next_meta.set_len(length))
            .and_then(|()| self.next_meta.sync_all())
            .map_err(failed(&self.directory, name::NEXT_META))?;
        self.directory.rename(name::NEXT_META, name::META)
    }

    fn sync(&mut self) -> Result<(), RecordingError> {
        let events = self.events.medium().sync_all();
        events.map_err(failed(&self.directory, name::EVENTS))?;
        let packets = self.packets.output_mut().medium().sync_all();
        packets.map_err(failed(&self.directory, name::PACKETS))?;
        self.goroutines.sync()?;
        self.directory.sync()
    }
}

/// Names the file in an error.
fn failed(directory: &Directory, name: &str) -> impl FnOnce(io::Error) -> RecordingError {
    move |source| RecordingError::write(directory.path(name), source)
}

/// Writes a file from its beginning to its end; one that did not fit is removed, for its room.
fn write_new(
    directory: &Directory,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), RecordingError> {
    let mut output = BufWriter::with_capacity(256 << 10, directory.create_file(name)?);
    write(&mut output)
        .and_then(|()| output.flush())
        .map_err(|error| {
            // Else dropping it would try again.
            let _ = output.into_parts();
            // Where it cannot be removed either, the first error is the one to tell.
            let _ = directory.remove(name);
            RecordingError::write(directory.path(name), error)
        })
}

/// Returns how many bytes it took.
fn write_meta(meta: &Meta, file: &mut File) -> io::Result<u64> {
    let json = meta.to_json()?;
    file.write_all(&json)?;
    Ok(json.len() as u64)
}

/// Takes room for a file in advance; a filesystem that cannot (NFS) is no reason not to record.
fn set_aside(file: &impl AsFd, bytes: i64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(nix::errno::Errno::EOPNOTSUPP) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// An attachment stays in the directory, and takes no name of the recording's own.
fn check_name(name: &str) -> Result<(), RecordingError> {
    let own = [
        name::META,
        name::NEXT_META,
        name::EVENTS,
        name::PACKETS,
        name::NEXT_PACKETS,
        name::GOROUTINES,
    ];
    if own.contains(&name) {
        return Err(taken(name));
    }
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(RecordingError::Name {
            name: name.to_owned(),
            why: "it must be a plain file name",
        });
    }
    Ok(())
}

fn taken(name: &str) -> RecordingError {
    RecordingError::Name {
        name: name.to_owned(),
        why: "the recording has a file of that name",
    }
}
