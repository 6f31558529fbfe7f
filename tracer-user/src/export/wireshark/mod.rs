//! A recording's capture, with what gopulse saw beside the packets.
//!
//! In: the capture as it was written packet by packet (or as it left here before), the model, its findings
//! and the [`Rows`] of the events. Out: the same packets with comments, and a row of its own for what has no
//! packet; and for each event of a finding's evidence the number of its frame.
//!
//! What always holds:
//! - no packet is lost, changed or put in another place among the others;
//! - the capture is read twice and never held: memory depends on the model's bounds;
//! - what is written follows from the recording alone, and writing it anew changes no byte;
//! - texts from outside have no control characters.

mod marks;
mod proofs;
mod rows;
mod search;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufReader, Read, Seek, Write},
};

use crate::{
    detect::Finding,
    event::{BootInstant, Source},
    model::Model,
    pcapng::{Blocks, CapturedPacket, Content, Rewriter, Segment},
    plain::cut,
};

use marks::{Marks, Note};
use proofs::{Moments, Place};
use rows::Row;
use search::Search;

pub(super) use proofs::word;
pub use rows::Rows;

/// Gives every event of `findings`' evidence the number of its frame in `capture`, as the capture stands.
///
/// # Errors
///
/// What the capture says; `InvalidData` where it is no capture of gopulse's.
pub fn find_frames(capture: impl Read, model: &Model, findings: &mut [Finding]) -> io::Result<()> {
    let marks = Marks::of_findings(model, findings);
    let moments = Moments::of(findings);
    let mut search = Search::new(&marks.wants);
    let mut rows: HashMap<Place, u64> = HashMap::new();
    let mut frame = 0;
    let mut blocks = Blocks::new(BufReader::with_capacity(BUFFER, capture));
    while let Some(block) = blocks.next()? {
        match block.content() {
            Content::Packet(packet) => {
                frame += 1;
                show(&mut search, frame, &packet);
            }
            Content::Journal(entry) => {
                frame += 1;
                for place in moments.proved_by_entry(&entry) {
                    rows.entry(*place).or_insert(frame);
                }
            }
            Content::Statistics | Content::Other => {}
        }
    }
    let packets = marks.with(search.found()).filter_map(|(frame, note)| {
        let Note::Proof(place) = note else {
            return None;
        };
        Some((*place, frame))
    });
    for (place, frame) in packets.chain(rows) {
        proofs::number(findings, place, frame);
    }
    Ok(())
}

/// Writes `capture` to `output` with comments and rows, and gives every event of `findings`' evidence the
/// number of its frame there. A capture without packets gets the rows alone.
///
/// # Errors
///
/// What either of both says; `InvalidData` where it is no capture of gopulse's.
pub fn annotate(
    capture: &mut (impl Read + Seek),
    output: impl Write,
    model: &Model,
    findings: &mut [Finding],
    rows: &Rows,
) -> io::Result<()> {
    let marks = Marks::of_everything(model, findings);
    let mut search = Search::new(&marks.wants);
    look_through(capture, &mut search)?;
    let rows = rows.in_order(model.source());
    let shown = Shown::of(&marks, &search, &rows, findings);
    capture.rewind()?;
    let writing = Writing {
        out: Rewriter::new(output),
        host: &model.source().host,
        findings,
        shown,
        frames: Vec::new(),
        frame: 0,
    };
    for (place, frame) in writing.write(capture, &rows)? {
        proofs::number(findings, place, frame);
    }
    Ok(())
}

/// Shows every packet to `search`, by its number among packets, from 1.
fn look_through(capture: &mut impl Read, search: &mut Search<'_>) -> io::Result<()> {
    let mut number = 0;
    let mut blocks = Blocks::new(BufReader::with_capacity(BUFFER, capture));
    while let Some(block) = blocks.next()? {
        if let Content::Packet(packet) = block.content() {
            number += 1;
            show(search, number, &packet);
        }
    }
    Ok(())
}

fn show(search: &mut Search<'_>, number: u64, packet: &CapturedPacket<'_>) {
    if let Some(segment) = Segment::of(packet.bytes, packet.wire_length) {
        search.see(number, packet.at, segment);
    }
}

/// What is to be shown where.
struct Shown<'m> {
    /// By the packet's number among packets, from 1.
    comments: BTreeMap<u64, Vec<&'m Note>>,
    /// By the row's place.
    proving_rows: BTreeMap<usize, Vec<Place>>,
    deciding: Vec<Place>,
}

impl<'m> Shown<'m> {
    fn of(marks: &'m Marks, search: &Search<'_>, rows: &[Row], findings: &[Finding]) -> Self {
        let moments = Moments::of(findings);
        let mut by_row: HashMap<Place, usize> = HashMap::new();
        for (number, row) in rows.iter().enumerate() {
            for place in moments.proved_by(row.at, row.event) {
                by_row.entry(*place).or_insert(number);
            }
        }
        let mut proving_rows: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for (place, number) in &by_row {
            proving_rows.entry(*number).or_default().push(*place);
        }
        // The map that they come from has no order.
        proving_rows
            .values_mut()
            .for_each(|places| places.sort_unstable());

        let mut comments: BTreeMap<u64, Vec<&Note>> = BTreeMap::new();
        let mut on_packets = Vec::new();
        for (number, note) in marks.with(search.found()) {
            match note {
                // The row is the better proof: it is the event itself.
                Note::Proof(place) if by_row.contains_key(place) => continue,
                Note::Proof(place) => on_packets.push(*place),
                Note::Comment(_) => {}
            }
            comments.entry(number).or_default().push(note);
        }
        Self {
            comments,
            proving_rows,
            deciding: proofs::deciding(findings, on_packets.into_iter()),
        }
    }
}

/// A capture being written.
struct Writing<'m, W: Write> {
    out: Rewriter<W>,
    host: &'m str,
    findings: &'m [Finding],
    shown: Shown<'m>,
    /// The frame of each event of the evidence.
    frames: Vec<(Place, u64)>,
    frame: u64,
}

impl<W: Write> Writing<'_, W> {
    fn write(mut self, capture: impl Read, rows: &[Row]) -> io::Result<Vec<(Place, u64)>> {
        let mut blocks = Blocks::new(BufReader::with_capacity(BUFFER, capture));
        let mut rows = rows.iter().enumerate().peekable();
        let mut packets = 0;
        while let Some(block) = blocks.next()? {
            let content = block.content();
            let now = match &content {
                Content::Packet(packet) => packet.at,
                // What came after the last packet stands before them.
                Content::Statistics => u64::MAX,
                Content::Journal(_) => continue,
                Content::Other => 0,
            };
            while let Some((place, row)) = rows.next_if(|(_, row)| row.at * 1_000 <= now) {
                self.row(place, row)?;
            }
            match content {
                Content::Packet(packet) => {
                    packets += 1;
                    self.packet(packets, &packet)?;
                }
                _ => self.out.copy(&block)?,
            }
        }
        // A capture that was cut has no statistics.
        for (place, row) in rows {
            self.row(place, row)?;
        }
        self.out.into_output().flush()?;
        Ok(self.frames)
    }

    fn row(&mut self, place: usize, row: &Row) -> io::Result<()> {
        self.frame += 1;
        let proves = self.shown.proving_rows.remove(&place).unwrap_or_default();
        let findings = proves
            .iter()
            .filter_map(|(finding, _)| self.findings.get(*finding));
        let fields = row.fields(self.host, findings);
        let texts = fields.iter().map(|(name, value)| (*name, value.as_str()));
        self.out.entry(row.at, texts)?;
        let frame = self.frame;
        self.frames
            .extend(proves.into_iter().map(|place| (place, frame)));
        Ok(())
    }

    fn packet(&mut self, number: u64, packet: &CapturedPacket<'_>) -> io::Result<()> {
        self.frame += 1;
        let mut comments: Vec<String> = Vec::new();
        for note in self.shown.comments.remove(&number).unwrap_or_default() {
            let comment = match note {
                Note::Comment(comment) => comment.clone(),
                Note::Proof(place) => {
                    self.frames.push((*place, self.frame));
                    proofs::comment(self.findings, *place, self.shown.deciding.contains(place))
                }
            };
            // Both ends of a connection may have the same to say.
            if !comments.contains(&comment) {
                comments.push(comment);
            }
        }
        self.out.packet(packet, comments.iter().map(String::as_str))
    }
}

/// Bytes read of a capture at once.
const BUFFER: usize = 256 << 10;

/// Bytes of a comment, or of a field of a row.
const LONGEST: usize = 2_000;

fn cut_short(text: &str) -> &str {
    cut(text, LONGEST)
}

/// Nanoseconds since 1970.
fn wall(source: &Source, at: BootInstant) -> u64 {
    u64::try_from(source.wall(at).as_nanosecond()).unwrap_or_default()
}
