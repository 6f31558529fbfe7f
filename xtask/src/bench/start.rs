//! How soon after its start a tool sees something.
//!
//! A thread here opens a connection to itself every millisecond, and another one to a Go service; the tool is told
//! to watch this process or its port, or the service. What is measured is the time from just before the tool is started to the first thing that it
//! saw, by the tool's own stamp on it: to a packet in gopulse's and tcpdump's captures, to a change of a
//! socket's state in bpftrace. What gopulse finds open already is no packet, and so does not count.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{self, Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use gopulse_tests::{
    process::{Process, run, succeed},
    services::Service,
};

use super::{
    sched::with_tracefs,
    table::{median, spread},
};

/// How often a connection is opened.
const EVERY: Duration = Duration::from_millis(1);
/// How long a tool may take to see one.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Gopulse,
    /// The same, of a Go program, which is read before.
    GopulseOfGo,
    Tcpdump,
    Bpftrace,
}

/// Whom the tools watch.
struct Watched {
    /// This process.
    native: Opening,
    service: Service,
    /// Connections to the service.
    _to_service: Opening,
}

impl Tool {
    const ALL: [Self; 4] = [
        Self::Gopulse,
        Self::GopulseOfGo,
        Self::Tcpdump,
        Self::Bpftrace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Gopulse => "gopulse record",
            Self::GopulseOfGo => "the same of a Go service",
            Self::Tcpdump => "tcpdump -s 96",
            Self::Bpftrace => "bpftrace, socket states",
        }
    }

    /// The time from its start to what it saw first, in milliseconds.
    fn measure(self, gopulse: &Path, watched: &Watched) -> anyhow::Result<f64> {
        let directory = tempfile::tempdir()?;
        let begun = SystemTime::now();
        let first = match self {
            Self::Gopulse | Self::GopulseOfGo => {
                let recording = directory.path().join("recording");
                let mut record = Command::new(gopulse);
                let pid = match self {
                    Self::GopulseOfGo => watched.service.pid(),
                    _ => process::id().to_string(),
                };
                record
                    .args(["record", "-d", "300ms", "--pid", &pid])
                    .arg("-o")
                    .arg(&recording);
                let ended = run(&mut record, PATIENCE)?;
                anyhow::ensure!(ended.status == 0, "gopulse failed: {}", ended.stderr);
                first_packet(&recording.join("capture.pcapng"))?
            }
            Self::Tcpdump => {
                let capture = directory.path().join("capture.pcap");
                let mut tcpdump = Command::new("tcpdump");
                tcpdump
                    .args(["-i", "lo", "-s", "96", "-c", "1", "-w"])
                    .arg(&capture)
                    .args(["tcp", "port", &watched.native.port()]);
                let ended = run(&mut tcpdump, PATIENCE)?;
                anyhow::ensure!(ended.status == 0, "tcpdump failed: {}", ended.stderr);
                first_packet(&capture)?
            }
            Self::Bpftrace => first_told(&mut with_tracefs(
                "bpftrace",
                &["-B", "none", "-e", &first_state(process::id())],
            )?)?,
        };
        let took = first.duration_since(begun);
        let took = took.context("it saw something before it was started")?;
        Ok(took.as_secs_f64() * 1e3)
    }
}

pub(super) fn compare(gopulse: &Path, rounds: u32) -> anyhow::Result<ExitCode> {
    let service = Service::start("hello", &[])?;
    let watched = Watched {
        native: Opening::to_itself()?,
        _to_service: Opening::to(service.address),
        service,
    };
    println!(
        "{rounds} rounds, a connection every {} ms; milliseconds from the start to the first event",
        EVERY.as_millis()
    );
    let mut all: Vec<[Option<f64>; Tool::ALL.len()]> = Vec::new();
    for number in 0..rounds {
        let mut round = [None; Tool::ALL.len()];
        for turn in 0..Tool::ALL.len() {
            // Whoever comes first in one round comes later in the next.
            let at = (turn + number as usize) % Tool::ALL.len();
            let tool = Tool::ALL[at];
            match tool.measure(gopulse, &watched) {
                Ok(took) => round[at] = Some(took),
                Err(why) if matches!(tool, Tool::Gopulse | Tool::GopulseOfGo) => return Err(why),
                Err(why) => println!("{}: {why:#}", tool.name()),
            }
        }
        all.push(round);
    }
    println!("\n{:<26}{:<26}gopulse / it", "", "ms");
    for (at, tool) in Tool::ALL.iter().enumerate() {
        let own = all.iter().filter_map(|round| round[at]);
        let pairs = all.iter().filter_map(|round| Some(round[0]? / round[at]?));
        println!("{:<26}{:<26}{:.2}", tool.name(), spread(own), median(pairs));
    }
    Ok(ExitCode::SUCCESS)
}

/// When the first packet of a capture was caught.
fn first_packet(capture: &Path) -> anyhow::Result<SystemTime> {
    let told = succeed(
        Command::new("tcpdump")
            .args(["-n", "-tt", "-c", "1", "-r"])
            .arg(capture),
    )?;
    let stamp = told.split(' ').next().context("nothing was caught")?;
    time_of(stamp).with_context(|| format!("no packet in time: {told:?}"))
}

/// A program of bpftrace that tells the wall clock at the first change of a socket's state in a process.
fn first_state(pid: u32) -> String {
    format!(
        "tracepoint:sock:inet_sock_set_state /pid == {pid}/ \
         {{ printf(\"first %s\\n\", strftime(\"%s.%f\", nsecs)); exit(); }}"
    )
}

fn first_told(bpftrace: &mut Process) -> anyhow::Result<SystemTime> {
    let stamp = bpftrace.line("first ")?;
    time_of(&stamp).with_context(|| format!("no time: {stamp:?}"))
}

/// Of seconds since 1970 with six digits behind the point.
fn time_of(stamp: &str) -> Option<SystemTime> {
    let (seconds, microseconds) = stamp.trim().split_once('.')?;
    let whole = Duration::from_secs(seconds.parse().ok()?);
    let part = Duration::from_micros(microseconds.parse().ok()?);
    Some(UNIX_EPOCH + whole + part)
}

/// Connections that are opened and closed, until it is dropped.
struct Opening {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Opening {
    /// To a listener of its own.
    fn to_itself() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut opening = Self::to(listener.local_addr()?);
        let over = Arc::clone(&opening.stop);
        opening.threads.push(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                drop(listener.accept());
            }
        }));
        Ok(opening)
    }

    fn to(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let opens = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                drop(TcpStream::connect(address));
                thread::sleep(EVERY);
            }
            // Whoever accepts looks up once more.
            drop(TcpStream::connect(address));
        });
        Self {
            address,
            stop,
            threads: vec![opens],
        }
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_to_the_microsecond() {
        let time = time_of("1795271585.000250").map(|time| time.duration_since(UNIX_EPOCH));
        let expected = Duration::from_secs(1_795_271_585) + Duration::from_micros(250);
        assert!(matches!(time, Some(Ok(read)) if read == expected));
        assert_eq!(time_of("soon"), None);
    }
}
