//! Packets on their way out, and the events that most of them carry.

use std::{
    io::{self, Write},
    time::Duration,
};

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::event::BootInstant;

use super::message::{DebugAnnotation, Kind, TracePacket, TrackDescriptor, TrackEvent};

/// `Trace.packet`.
const PACKET: u32 = 1;

/// The sequence of packets that tell tracks and their events. Interned data belongs to one sequence, so
/// whoever interns has one of its own.
const EVENTS: u32 = 1;
pub(super) const SCHEDULE: u32 = 2;
pub(super) const SAMPLES: u32 = 3;

/// A track, by its `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Track(u64);

/// Where packets go.
pub(super) struct Packets<W> {
    output: W,
    packet: Vec<u8>,
    framed: Vec<u8>,
    tracks: u64,
}

impl<W: Write> Packets<W> {
    pub(super) fn new(output: W) -> Self {
        Self {
            output,
            packet: Vec::new(),
            framed: Vec::new(),
            tracks: 0,
        }
    }

    /// Writes a packet; one that names no sequence goes with the events.
    pub(super) fn put(&mut self, mut packet: TracePacket) -> io::Result<()> {
        if packet.trusted_packet_sequence_id == 0 {
            packet.trusted_packet_sequence_id = EVENTS;
        }
        self.packet.clear();
        self.framed.clear();
        // A vector always has room.
        packet.encode_raw(&mut self.packet);
        encode_key(PACKET, WireType::LengthDelimited, &mut self.framed);
        encode_varint(self.packet.len() as u64, &mut self.framed);
        self.output.write_all(&self.framed)?;
        self.output.write_all(&self.packet)
    }

    /// A new track. The UI draws tracks of the same name and parent as one.
    pub(super) fn track(
        &mut self,
        parent: Option<Track>,
        about: TrackDescriptor,
    ) -> io::Result<Track> {
        self.tracks += 1;
        self.put(TracePacket {
            track_descriptor: Some(TrackDescriptor {
                uuid: self.tracks,
                parent_uuid: parent.map(|Track(uuid)| uuid),
                ..about
            }),
            ..TracePacket::default()
        })?;
        Ok(Track(self.tracks))
    }

    pub(super) fn named_track(&mut self, parent: Option<Track>, name: String) -> io::Result<Track> {
        let about = TrackDescriptor {
            name: Some(name),
            ..TrackDescriptor::default()
        };
        self.track(parent, about)
    }

    pub(super) fn begin(&mut self, at: BootInstant, track: Track, told: Told) -> io::Result<()> {
        self.event(at, track, Kind::SliceBegin, told.0)
    }

    /// Ends the slice that began last.
    pub(super) fn end(&mut self, at: BootInstant, track: Track) -> io::Result<()> {
        self.event(at, track, Kind::SliceEnd, TrackEvent::default())
    }

    pub(super) fn slice(
        &mut self,
        (from, until): (BootInstant, BootInstant),
        track: Track,
        told: Told,
    ) -> io::Result<()> {
        self.begin(from, track, told)?;
        self.end(until.max(from), track)
    }

    pub(super) fn instant(&mut self, at: BootInstant, track: Track, told: Told) -> io::Result<()> {
        self.event(at, track, Kind::Instant, told.0)
    }

    fn event(
        &mut self,
        at: BootInstant,
        Track(track_uuid): Track,
        kind: Kind,
        event: TrackEvent,
    ) -> io::Result<()> {
        self.put(TracePacket {
            timestamp: Some(at.0),
            track_event: Some(TrackEvent {
                r#type: kind.into(),
                track_uuid,
                ..event
            }),
            ..TracePacket::default()
        })
    }
}

/// What an event says.
pub(super) struct Told(TrackEvent);

impl Told {
    pub(super) fn new(category: &str, name: impl Into<String>) -> Self {
        Self(TrackEvent {
            categories: vec![category.to_owned()],
            name: Some(name.into()),
            ..TrackEvent::default()
        })
    }

    pub(super) fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.with(DebugAnnotation {
            name: name.to_owned(),
            string_value: Some(value.into()),
            ..DebugAnnotation::default()
        })
    }

    pub(super) fn number(self, name: &str, value: impl Into<u64>) -> Self {
        self.with(DebugAnnotation {
            name: name.to_owned(),
            uint_value: Some(value.into()),
            ..DebugAnnotation::default()
        })
    }

    pub(super) fn fraction(self, name: &str, value: f64) -> Self {
        self.with(DebugAnnotation {
            name: name.to_owned(),
            double_value: Some(value),
            ..DebugAnnotation::default()
        })
    }

    /// In seconds.
    pub(super) fn time(self, name: &str, value: Duration) -> Self {
        self.fraction(name, value.as_secs_f64())
    }

    /// What is not known is left out.
    pub(super) fn maybe<T>(self, value: Option<T>, with: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => with(self, value),
            None => self,
        }
    }

    /// The ends of flows that lie here. The first event with a flow's number is where it begins.
    pub(super) fn flows(mut self, flows: &[u64]) -> Self {
        self.0.flow_ids.extend(flows);
        self
    }

    fn with(mut self, argument: DebugAnnotation) -> Self {
        self.0.debug_annotations.push(argument);
        self
    }
}
