//! `diagnose` of a packet capture.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
    time::SystemTime,
};

use anyhow::Context as _;

use super::dumps::saved_goroutines;
use crate::{
    detect::Finding,
    event::{BootInstant, Event, Fact, HOSTS, Pid, Process, Snapshot, Unseen, is_host},
    golang::saved::Saved,
    model::Model,
    pcap::{Capture, Frames},
};

/// How far the number of a service that a dump shows lies above those of hosts.
const SERVICES: Pid = 1 << 20;

/// Lots of events that wait for the model.
const WAITING: usize = 8;

/// A source that is no directory is a capture: a file, a pipe, or standard input.
pub(super) fn is_capture(source: &Path) -> bool {
    source == Path::new("-") || (source.exists() && !source.is_dir())
}

/// What a capture tells, and which packet told what. One thread reads it while another puts the story
/// together.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn read(path: &Path, dumps: &[PathBuf]) -> anyhow::Result<(Model, Frames)> {
    let dumps: Vec<Dump> = dumps
        .iter()
        .map(|dump| Dump::read(dump))
        .collect::<Result<_, _>>()?;
    let capture = Capture::open(path)?;
    let mut model = Model::new(capture.source().clone());
    let (give, take) = sync_channel::<Vec<Event>>(WAITING);
    let (give_back, emptied) = sync_channel::<Vec<Event>>(WAITING);
    let reader = thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || {
            // Nobody takes them any more only where the model is gone, and with it the verdict.
            capture.read(&mut |events| {
                let room = emptied.try_recv().unwrap_or_default();
                drop(give.send(std::mem::replace(events, room)));
            })
        })
        .context("cannot start a thread to read the capture")?;
    for mut events in take {
        for event in &events {
            model.apply(event);
        }
        events.clear();
        // The reader fills it again; where it has room enough, it is let go.
        let _ = give_back.try_send(events);
    }
    let read = reader
        .join()
        .map_err(|_| anyhow::anyhow!("reading {} failed", path.display()))??;
    model.end(read.ended);
    for (number, dump) in dumps.into_iter().enumerate() {
        dump.apply(&mut model, number);
    }
    Ok((model, read.frames))
}

/// A goroutine dump that somebody saved.
struct Dump {
    path: PathBuf,
    saved: Saved,
    /// When the file was last written; a copy may have another time.
    written: Option<SystemTime>,
}

impl Dump {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let written = fs::metadata(path).and_then(|about| about.modified()).ok();
        let saved = saved_goroutines(path)?;
        Ok(Self {
            path: path.to_owned(),
            saved,
            written,
        })
    }

    /// When it was taken, where its file's time lies within the capture.
    fn taken(&self, model: &Model) -> Option<BootInstant> {
        let since_epoch = self.written?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let source = model.source();
        let written = i128::try_from(since_epoch.as_nanos()).ok()?;
        let at = i128::from(source.started.0) + written - source.started_wall.as_nanosecond();
        let at = BootInstant(u64::try_from(at).ok()?);
        (source.started <= at && at <= model.now()).then_some(at)
    }

    /// Tells the model of it: as the dump of the one service that it fits, or of nobody.
    fn apply(self, model: &mut Model, number: usize) {
        let snapshot = self.saved.snapshot(HOSTS);
        let goroutines = &snapshot.goroutines;
        let taken = self.taken(model);
        let fit = model.fit(goroutines, taken);
        let at = taken.unwrap_or(model.now());
        let pid = match fit.service {
            Some(service) => self.service(model, at, service),
            // Two dumps that fit nobody are not taken for two of the same process.
            None => Pid::MAX - u32::try_from(number).unwrap_or(u32::MAX / 4),
        };
        let mut tell = |fact| model.apply(&Event { at, fact });
        for (socket, goroutine) in fit.looks {
            tell(Fact::Goroutine {
                pid,
                socket: Some(socket),
                goroutine,
            });
        }
        if fit.service.is_none() {
            tell(Fact::Unseen(Unseen {
                what: format!("whose goroutines are in {}", self.path.display()),
                why: match fit.candidates {
                    0 => "no service of the capture was seen to do what they show".to_owned(),
                    many => format!("{many} services of the capture may have had such goroutines"),
                },
                remedy: "take the dump while requests wait, and leave its file as it was written"
                    .to_owned(),
            }));
        }
        if self.saved.unread_lines > 0 {
            tell(Fact::Unseen(Unseen {
                what: format!(
                    "{} lines of {}",
                    self.saved.unread_lines,
                    self.path.display()
                ),
                why: "they are cut off, or mixed with other output".to_owned(),
                remedy: "save the dump once more".to_owned(),
            }));
        }
        tell(Fact::Goroutines(Snapshot { pid, ..snapshot }));
    }

    /// The process that serves `service`, as a dump shows it; a host may have several.
    fn service(&self, model: &mut Model, at: BootInstant, service: SocketAddr) -> Pid {
        let name = service.to_string();
        let known = model.processes().find(|process| process.about.comm == name);
        if let Some(known) = known {
            return known.about.pid;
        }
        let hosts = model
            .processes()
            .filter(|process| is_host(process.about.pid));
        let next = hosts.map(|host| host.about.pid).max().unwrap_or(HOSTS);
        let pid = next.saturating_add(SERVICES);
        model.apply(&Event {
            at,
            fact: Fact::Process(Process::of_host(pid, name)),
        });
        pid
    }
}

/// Gives the evidence of findings the numbers of the packets that tell it.
pub(super) fn number(model: &Model, mut frames: Frames, findings: &mut [Finding]) {
    if findings.is_empty() {
        return;
    }
    frames.settle();
    let source = model.source();
    for evidence in findings
        .iter_mut()
        .flat_map(|finding| &mut finding.evidence)
    {
        let since = evidence.time.as_nanosecond() - source.started_wall.as_nanosecond();
        let at = u64::try_from(i128::from(source.started.0) + since).ok();
        evidence.frame = at
            .zip(evidence.socket)
            .and_then(|(at, socket)| frames.at(BootInstant(at), socket.stream()));
    }
}
