//! Packet captures as a source of events.
//!
//! In: a file as tcpdump, dumpcap or Wireshark write it. Out: the events that a live run would tell of
//! the same connections, as far as packets tell them: no processes, no goroutines, no decisions. Each
//! connection gives two sockets, and each host one process ([`crate::event::HOSTS`]); times are those of
//! the packets where the capture was made. What always holds: no bytes make it panic, memory is
//! bounded by the connections open at one time, and what could not be read is told as unseen.
//!
//! | part | from | to |
//! | --- | --- | --- |
//! | [`file`] | bytes | packets |
//! | [`segment`] | a packet | a TCP segment |
//! | [`tracker`] | segments | events |

mod connection;
mod copies;
mod error;
pub mod file;
mod frames;
mod holes;
mod input;
pub mod segment;
pub mod sequence;
mod side;
mod silence;
mod telling;
pub mod tracker;
mod turns;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use error::PcapError;
pub use frames::Frames;

use crate::event::{BootInstant, Event, Fact, Hook, Source, SourceKind, Unseen};
use file::{Ending, ReadError, Reader};
use input::Input;
use segment::Skip;
use tracker::Tracker;

/// Events handed on together.
const TOGETHER: usize = 4_096;

/// A capture that can be read.
pub struct Capture {
    path: PathBuf,
    reader: Reader<Input>,
    source: Source,
}

/// What a capture came to.
#[derive(Clone, Debug)]
pub struct Read {
    /// The time of its last packet.
    pub ended: BootInstant,
    /// Which packet told what.
    pub frames: Frames,
}

/// Packets by what became of them.
#[derive(Default)]
struct Tally {
    segments: u64,
    skipped: BTreeMap<&'static str, u64>,
    links: BTreeMap<u16, u64>,
}

impl Capture {
    /// Opens the capture at `path`; `-` is standard input.
    ///
    /// # Errors
    ///
    /// It is none, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        let path = path.to_owned();
        let mut reader = Reader::new(input::open(&path)?).map_err(|error| told(&path, error))?;
        let first = reader.first_time().map_err(|error| told(&path, error))?;
        if let (None, Some(Ending::Damaged { offset, found })) = (first, reader.ending()) {
            return Err(PcapError::Damaged {
                path,
                offset: *offset,
                found: found.clone(),
            });
        }
        let started = first.unwrap_or_default();
        let source = Source {
            kind: SourceKind::Pcap,
            host: String::new(),
            kernel: String::new(),
            started: BootInstant(started),
            started_wall: jiff::Timestamp::from_nanosecond(i128::from(started)).unwrap_or_default(),
            hooks: vec![Hook {
                wants: "packets".to_owned(),
                by: format!("{} ({})", path.display(), reader.format()),
            }],
        };
        Ok(Self {
            path,
            reader,
            source,
        })
    }

    /// When it begins. The host and kernel it was made on are not in it.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads it to its end, and hands on what it tells, many events at once, which are to be taken away.
    ///
    /// # Errors
    ///
    /// The file cannot be read any further.
    pub fn read(mut self, hand_on: &mut dyn FnMut(&mut Vec<Event>)) -> Result<Read, PcapError> {
        let mut tracker = Tracker::new();
        let mut tally = Tally::default();
        let mut ended = self.source.started.0;
        let failed = loop {
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            ended = ended.max(packet.at);
            match segment::decode(&packet) {
                Ok(segment) => {
                    tally.segments += 1;
                    tracker.take(&segment);
                }
                Err(skip) => tally.skip(skip),
            }
            if tracker.events().len() >= TOGETHER {
                hand_on(tracker.events());
            }
        };
        tracker.end(ended);
        let at = BootInstant(ended);
        let mut unseen = self.unseen(&tally, &tracker);
        if let Some(ReadError::Read(offset, source)) = failed {
            if self.reader.frames() == 0 {
                return Err(told(&self.path, ReadError::Read(offset, source)));
            }
            unseen.push(Unseen {
                what: "the rest of the capture".to_owned(),
                why: format!("reading failed at offset {offset}: {source}"),
                remedy: "copy it once more from where it was made".to_owned(),
            });
        }
        let lacking = tracker.lacking();
        let events = tracker.events();
        events.extend(unseen.into_iter().map(|unseen| Event {
            at,
            fact: Fact::Unseen(unseen),
        }));
        let dropped = self.reader.dropped();
        // What was acknowledged and lacks is most likely among what was dropped.
        let more = lacking.saturating_sub(dropped);
        for (probe, count) in [
            ("packets (the capture's own count)", dropped),
            ("packets (acknowledged, but not in the capture)", more),
        ] {
            if count > 0 {
                let probe = probe.to_owned();
                events.push(Event {
                    at,
                    fact: Fact::Lost { probe, count },
                });
            }
        }
        hand_on(events);
        Ok(Read {
            ended: at,
            frames: tracker.frames(),
        })
    }

    /// What this capture could not tell.
    fn unseen(&self, tally: &Tally, tracker: &Tracker) -> Vec<Unseen> {
        let mut unseen = vec![Unseen {
            what: "processes, their settings and decisions, and the scheduler".to_owned(),
            why: "a capture holds packets and nothing else; each host stands for its processes"
                .to_owned(),
            remedy: "run `gopulse diagnose` on the host itself, while it happens".to_owned(),
        }];
        match self.reader.ending() {
            Some(Ending::Cut { offset, bytes }) => unseen.push(Unseen {
                what: "the capture's last packet".to_owned(),
                why: format!(
                    "it is cut: only {bytes} bytes of it are there, from offset {offset} on"
                ),
                remedy: "end tcpdump with Ctrl-C, or let it write each packet at once (-U)"
                    .to_owned(),
            }),
            Some(Ending::Damaged { offset, found }) => unseen.push(Unseen {
                what: "the rest of the capture".to_owned(),
                why: format!("it is damaged at offset {offset}: {found}"),
                remedy: "copy it once more from where it was made".to_owned(),
            }),
            Some(Ending::Whole) | None => {}
        }
        for (why, count) in &tally.skipped {
            unseen.push(Unseen {
                what: format!("{count} packets"),
                why: (*why).to_owned(),
                remedy: "capture with a larger snap length (tcpdump -s 128, or 0 for all)"
                    .to_owned(),
            });
        }
        for (link, count) in &tally.links {
            unseen.push(Unseen {
                what: format!("{count} packets of link type {link}"),
                why: "only Ethernet, Linux cooked, raw IP and BSD loopback are read".to_owned(),
                remedy: "capture on another interface (tcpdump -i any)".to_owned(),
            });
        }
        if tracker.cut_requests() > 0 {
            unseen.push(Unseen {
                what: format!(
                    "whether an answer was due to {} requests",
                    tracker.cut_requests()
                ),
                why: "the capture kept headers and no payload, so it does not show that they are HTTP; \
                      who gave up on them, or got nothing, is not told"
                    .to_owned(),
                remedy: "capture whole packets, or the beginning of the payload (tcpdump -s 512)"
                    .to_owned(),
            });
        }
        if tally.segments == 0 {
            unseen.push(Unseen {
                what: "any connection".to_owned(),
                why: format!("none of the {} packets is TCP", self.reader.frames()),
                remedy: "capture where the traffic passes (tcpdump -i any tcp)".to_owned(),
            });
        }
        if tracker.given_up() > 0 {
            unseen.push(Unseen {
                what: format!("how {} connections ended", tracker.given_up()),
                why: "too many were open at once, and these had been silent for longest".to_owned(),
                remedy: "diagnose a part of the capture (editcap -A, tcpdump -r with a filter)"
                    .to_owned(),
            });
        }
        unseen
    }
}

impl Tally {
    #[cold]
    fn skip(&mut self, skip: Skip) {
        let why = match skip {
            Skip::OtherProtocol | Skip::Fragment => return,
            Skip::Link(link) => {
                *self.links.entry(link).or_default() += 1;
                return;
            }
            Skip::Cut => "the capture kept too little of them to hold their TCP header",
            Skip::Malformed => "their headers contradict each other",
        };
        *self.skipped.entry(why).or_default() += 1;
    }
}

fn told(path: &Path, error: ReadError) -> PcapError {
    let path = path.to_owned();
    match error {
        ReadError::Read(offset, source) => PcapError::Read {
            path,
            offset,
            source,
        },
        ReadError::Empty => PcapError::Empty { path },
        ReadError::NotACapture(found) => PcapError::NotACapture { path, found },
    }
}

#[cfg(test)]
mod tests;
