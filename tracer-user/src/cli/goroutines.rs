//! `gopulse goroutines`: groups, ranks and compares goroutine snapshots, of a process, of a pprof
//! endpoint, or from files.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use clap::{ArgGroup, Args, ValueEnum};
use jiff::Timestamp;

use super::{
    Outcome,
    destination::Destination,
    dumps::saved_goroutines,
    interrupt,
    output::{self, say},
    targets::duration,
};
use crate::{
    capabilities, capture,
    event::{Pid, SnapshotSource},
    golang::{
        GoError, Program,
        census::Census,
        growth::By,
        memory,
        pprof::{self, Endpoint},
        saved::{Form, Saved},
    },
    plain::clean,
    report::goroutines::{Goroutines, Selection, SnapshotTold, table},
    target,
};

/// Goroutines read of one process.
const MOST: usize = 5_000_000;
/// Columns where no terminal tells its own.
const WIDE: usize = 100;
/// How soon an interrupt is seen.
const NAP: Duration = Duration::from_millis(50);

#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["files", "pid", "url"]))]
pub(super) struct Arguments {
    /// Dumps or profiles of one process, oldest first: what /debug/pprof/goroutine gave (debug=2, 1 or
    /// 0), what a SIGQUIT or a panic printed, also inside of a log, also gzip; - for standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// This process, from its memory, which does not stop it; by pprof where that cannot be read
    #[arg(long, value_name = "PID")]
    pid: Option<Pid>,
    /// This pprof endpoint: http://HOST:PORT, with its path where that is not /debug/pprof/, and with
    /// NAME:PASSWORD@ where it asks for them
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How many snapshots to take of a process or endpoint [default: 1, with --every 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "files")]
    times: Option<u32>,
    /// How long from one to the next [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "files")]
    every: Option<Duration>,
    /// What makes goroutines a group
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        default_value = "stack,state,creator,label"
    )]
    by: Vec<Tell>,
    /// Only groups with this text in a function, a state or a label (KEY=VALUE); may be repeated, then
    /// all must be there
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// So many groups: the largest, or of several snapshots those that grew most
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// The form of the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where to write the result, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tell {
    /// Where they stand
    Stack,
    /// What they wait for
    State,
    /// The go statement that started them
    Creator,
    /// Their pprof labels
    Label,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table
    Text,
    /// For a program: schema gopulse.goroutines/1
    Json,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let to = match arguments.pid {
        None => Destination::of_files(arguments.output.as_deref())?,
        Some(_) => Destination::open(arguments.output.as_deref())?,
    };
    let snapshots = match (arguments.pid, &arguments.url) {
        (Some(pid), _) => {
            // Where a sandbox keeps us from it, we are no worse off than before.
            let _ = capabilities::keep(&capture::steps_of_looking(true));
            let mut process = Process::new(pid)?;
            let (times, every) = arguments.pace();
            repeat(times, every, || process.snapshot())?
        }
        (_, Some(url)) => {
            let endpoint = Endpoint::named(url);
            let (times, every) = arguments.pace();
            let mut said = String::new();
            repeat(times, every, || asked(&endpoint, &mut said))?
        }
        (None, None) => arguments
            .files
            .iter()
            .map(|path| Ok(of_file(path.display().to_string(), saved_goroutines(path)?)))
            .collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut by: Vec<By> = arguments.by.iter().map(|tell| tell.by()).collect();
    let told = |(_, census): &Taken| census.names();
    if snapshots.iter().any(told) && !snapshots.iter().all(told) {
        say(
            "some of the snapshots are profiles, which tell stacks and labels alone: they are compared by stack",
        );
        by.retain(|by| *by == By::Stack);
    }
    for (told, census) in &snapshots {
        warn(told, census);
    }
    let selection = Selection {
        by,
        filters: arguments.filter,
        top: arguments.top,
    };
    let goroutines = Goroutines::new(&snapshots, &selection);
    output::write_to(to, |mut out, terminal| match arguments.format {
        Format::Json => goroutines.write_json(&mut out),
        Format::Text => table::write(&goroutines, &mut out, width(terminal)),
    })?;
    Ok(Outcome::Healthy)
}

impl Arguments {
    /// How many snapshots, and how far apart.
    fn pace(&self) -> (u32, Duration) {
        let usual = if self.every.is_some() { 2 } else { 1 };
        let every = self.every.unwrap_or(Duration::from_secs(2));
        (self.times.unwrap_or(usual), every)
    }
}

impl Tell {
    fn by(self) -> By {
        match self {
            Self::Stack => By::Stack,
            Self::State => By::State,
            Self::Creator => By::Creator,
            Self::Label => By::Label,
        }
    }
}

type Taken = (SnapshotTold, Census);

/// Takes snapshots until there are so many, or the user has seen enough.
fn repeat(
    times: u32,
    every: Duration,
    mut take: impl FnMut() -> anyhow::Result<Taken>,
) -> anyhow::Result<Vec<Taken>> {
    let stop = interrupt::flag()?;
    let mut taken = Vec::new();
    for number in 1..=times {
        let next = Instant::now() + every;
        let time = Timestamp::now();
        match take() {
            Ok((told, census)) => taken.push((
                SnapshotTold {
                    time: Some(time),
                    ..told
                },
                census,
            )),
            // What was seen until then was seen.
            Err(error) if !taken.is_empty() => {
                say(&format!("gopulse: no more snapshots: {error:#}"));
                break;
            }
            Err(error) => return Err(error),
        }
        while number < times && Instant::now() < next && !stop.load(Ordering::Relaxed) {
            thread::sleep(NAP.min(next.saturating_duration_since(Instant::now())));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(taken)
}

/// A process that is looked at from outside.
struct Process {
    pid: Pid,
    name: String,
    way: Way,
    said: String,
}

enum Way {
    Memory(Box<Program>),
    Pprof(Endpoint),
}

impl Process {
    fn new(pid: Pid) -> anyhow::Result<Self> {
        let comm = target::comm(pid).map_or_else(String::new, |comm| format!(" ({comm})"));
        let name = format!("pid {pid}{comm}");
        let program = match Program::of_process(pid) {
            Ok(Some(program)) => Ok(program),
            Ok(None) => anyhow::bail!(
                "{} does not run a Go program\n  goroutines are Go's; only linux/amd64 and Go 1.21 to 1.27 are known\n  pgrep -a NAME tells who runs what",
                clean(&name)
            ),
            Err(error) => Err(error),
        };
        let way = match program {
            Ok(program) => Way::Memory(Box::new(program)),
            Err(error) => instead(pid, error)?,
        };
        let said = String::new();
        Ok(Self {
            pid,
            name,
            way,
            said,
        })
    }

    fn snapshot(&mut self) -> anyhow::Result<Taken> {
        if let Way::Memory(program) = &self.way {
            match memory::read(program, MOST) {
                Ok(reading) => {
                    let census = Census::of(&reading.snapshot, &reading.labels);
                    let told = SnapshotTold {
                        unsettled: reading.unsettled,
                        unread_labels: reading.labels.unread,
                        ..SnapshotTold::of(&census, self.name.clone(), SnapshotSource::Memory)
                    };
                    return Ok((told, census));
                }
                Err(error) => self.way = instead(self.pid, error)?,
            }
        }
        match &self.way {
            Way::Pprof(endpoint) => asked(endpoint, &mut self.said),
            Way::Memory(_) => anyhow::bail!("{} cannot be read", self.name),
        }
    }
}

/// The process's pprof endpoint where its memory cannot be read; what could not be read, where it has
/// none.
fn instead(pid: Pid, error: GoError) -> anyhow::Result<Way> {
    let endpoint = match error {
        GoError::Gone { .. } => None,
        _ => pprof::discover(pid),
    };
    let Some(endpoint) = endpoint else {
        return Err(error.into());
    };
    say(&format!("{error}; asking {} instead", endpoint.url));
    Ok(Way::Pprof(endpoint))
}

/// What an endpoint answers; what was asked is said when it changes.
fn asked(endpoint: &Endpoint, said: &mut String) -> anyhow::Result<Taken> {
    let (saved, choice) = pprof::census(endpoint)?;
    let choice = format!("{}: {choice}", endpoint.url);
    if *said != choice {
        say(&choice);
        *said = choice;
    }
    let (mut told, census) = of_file(endpoint.url.clone(), saved);
    told.source = SnapshotSource::Pprof;
    Ok((told, census))
}

fn of_file(from: String, saved: Saved) -> Taken {
    let told = SnapshotTold {
        unread_lines: saved.unread_lines,
        cut: saved.cut,
        ..SnapshotTold::of(&saved.census, from.clone(), SnapshotSource::File)
    };
    if saved.unread_lines > 0 {
        let lines = match saved.unread_lines {
            1 => "1 line was".to_owned(),
            lines => format!("{lines} lines were"),
        };
        let first = saved.first_unread.map(|line| format!(" (line {line})"));
        say(&format!(
            "{from}: {lines} not understood{}: cut off, or mixed with other output",
            first.unwrap_or_default()
        ));
    }
    if saved.cut {
        say(&format!(
            "{from} ends in the middle of a goroutine, so there were more; the runtime cuts its dumps at 64 MiB: save a profile in its place (goroutine?debug=0)"
        ));
    }
    if saved.form != Form::Dump {
        say(&format!(
            "{from} is a {}, which tells no ids, states and creators",
            saved.form
        ));
    }
    (told, saved.census)
}

/// Says what a snapshot does not hold, or holds twice.
fn warn(told: &SnapshotTold, census: &Census) {
    if told.told < told.total {
        say(&format!(
            "{}: {} of {} goroutines were told",
            told.from, told.told, told.total
        ));
    }
    if told.unsettled > 0 {
        say(&format!(
            "{}: {} of them never held still, and are told without their stack or with the upper part of it",
            told.from, told.unsettled
        ));
    }
    if told.unread_labels > 0 {
        say(&format!(
            "{}: {} of them carry labels that could not be read",
            told.from, told.unread_labels
        ));
    }
    let repeated = if told.source == SnapshotSource::File {
        census.repeated()
    } else {
        0
    };
    if repeated > 0 {
        say(&format!(
            "{}: {repeated} goroutines stand in it more than once, as where a file holds several dumps: save each in a file of its own to compare them",
            told.from
        ));
    }
}

/// The terminal's, where the table goes to one.
fn width(terminal: bool) -> usize {
    let asked = std::env::var("COLUMNS").ok();
    let asked = asked.and_then(|columns| columns.parse().ok());
    let own = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = asked.or_else(|| terminal.then(own).flatten());
    width.unwrap_or(WIDE).max(60)
}
