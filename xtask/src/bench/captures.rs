//! How fast a capture is read, by whole processes: gopulse beside readers that do less, and others that
//! do as much.
//!
//! The capture is of real traffic on the loopback device, whole packets: requests on kept connections, a
//! connection for every request, and bulk. It is made once and kept in `target/`.

use std::{
    fs,
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::{
    process::{Process, succeed},
    services::Service,
    wait, workspace,
};

use super::table::{median, spread};
use crate::run::find;

/// Bytes of the capture, at least.
const LARGE: u64 = 1 << 30;

/// Bytes sent in bulk, of these.
const BULK: u64 = 300 << 20;

/// A header that makes requests as long as those of browsers.
const COOKIE_BYTES: usize = 700;

/// A program that reads a capture; the file comes last.
struct Reader {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
}

struct Measured {
    seconds: f64,
    peak_mib: f64,
}

pub(super) fn compare(gopulse: &Path, rounds: u32) -> anyhow::Result<ExitCode> {
    let capture = workspace::target().join("pcap-bench/traffic.pcap");
    if !capture.is_file() {
        make(&capture)?;
    }
    let size = fs::metadata(&capture)?.len();
    let packets = succeed(
        Command::new("capinfos")
            .args(["-c", "-M", "-T", "-r"])
            .arg(&capture),
    );
    println!(
        "{} of {size} bytes; packets as capinfos counts them: {}",
        capture.display(),
        packets.as_deref().unwrap_or("not installed").trim()
    );
    let readers = readers(gopulse);
    let mut runs: Vec<Vec<Measured>> = readers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for place in 0..readers.len() {
            // Whoever comes first in one round comes later in the next.
            let place = (place + round) % readers.len();
            let measured = run(&readers[place], &capture)?;
            println!(
                "round {}: {} {:.2} s",
                round + 1,
                readers[place].name,
                measured.seconds
            );
            runs[place].push(measured);
        }
    }
    print(&readers, &runs, size);
    Ok(ExitCode::SUCCESS)
}

fn readers(gopulse: &Path) -> Vec<Reader> {
    let others: [(&str, &str, &[&str]); 5] = [
        ("cat", "cat", &[]),
        ("capinfos", "capinfos", &[]),
        (
            "tshark -z conv,tcp",
            "tshark",
            &["-q", "-z", "conv,tcp", "-r"],
        ),
        ("tshark -z expert", "tshark", &["-q", "-z", "expert", "-r"]),
        ("tcptrace -l", "tcptrace", &["-l"]),
    ];
    let mut readers = vec![Reader {
        name: "gopulse diagnose",
        program: gopulse.to_owned(),
        arguments: &["diagnose"],
    }];
    for (name, program, arguments) in others {
        match find(program) {
            Some(program) => readers.push(Reader {
                name,
                program,
                arguments,
            }),
            None => println!("{name} is left out: there is no {program}"),
        }
    }
    readers
}

/// Runs a reader to its end; its verdict does not matter.
fn run(reader: &Reader, capture: &Path) -> anyhow::Result<Measured> {
    let begun = Instant::now();
    let mut child = Command::new(&reader.program)
        .args(reader.arguments)
        .arg(capture)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", reader.name))?;
    let mut peak = 0.0_f64;
    let status = loop {
        peak = peak.max(peak_mib(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let seconds = begun.elapsed().as_secs_f64();
    anyhow::ensure!(
        matches!(status.code(), Some(0 | 1)),
        "{} ended with {status}",
        reader.name
    );
    Ok(Measured {
        seconds,
        peak_mib: peak,
    })
}

/// The largest resident memory of a process until now: `VmHWM` of proc_pid_status(5).
fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

fn print(readers: &[Reader], runs: &[Vec<Measured>], size: u64) {
    let cat = readers.iter().position(|reader| reader.name == "cat");
    println!(
        "\n{:<22}{:>9}{:>9}{:>10}  time as a multiple of cat's",
        "", "s", "MB/s", "peak MiB"
    );
    for (reader, of_reader) in readers.iter().zip(runs) {
        let seconds = median(of_reader.iter().map(|run| run.seconds));
        let peak = median(of_reader.iter().map(|run| run.peak_mib));
        let ratio = cat.map_or_else(String::new, |cat| {
            let pairs = of_reader.iter().zip(&runs[cat]);
            spread(pairs.map(|(run, cat)| run.seconds / cat.seconds))
        });
        println!(
            "{:<22}{seconds:>9.2}{:>9.0}{peak:>10.0}  {ratio}",
            reader.name,
            size as f64 / seconds / 1e6
        );
    }
}

fn make(capture: &Path) -> anyhow::Result<()> {
    println!("making {} (a minute or two)", capture.display());
    fs::create_dir_all(capture.parent().context("a file lies in a directory")?)?;
    let hello = Service::start("hello", &[])?;
    let sink = TcpListener::bind("127.0.0.1:0")?;
    let bulk = sink.local_addr()?;
    let unfinished = capture.with_extension("making");
    let mut tcpdump = Process::start(
        Command::new("tcpdump")
            .args(["-i", "lo", "-s", "0", "-B", "65536", "-Z", "root", "-w"])
            .arg(&unfinished)
            .arg(format!(
                "tcp port {} or tcp port {}",
                hello.port(),
                bulk.port()
            )),
    )?;
    tcpdump.line("tcpdump: listening on ")?;
    let url = format!("http://{}/", hello.address);
    load(&url, 10, &["-H", "Connection: close"])?;
    send(&sink, BULK)?;
    let cookie = format!("Cookie: {}", "c".repeat(COOKIE_BYTES));
    wait::until("a large capture", Duration::from_secs(600), || {
        load(&url, 10, &["-H", &cookie])?;
        Ok((fs::metadata(&unfinished)?.len() >= LARGE).then_some(()))
    })?;
    tcpdump.interrupt()?;
    let ended = tcpdump.wait(Duration::from_secs(60))?;
    anyhow::ensure!(ended.status == 0, "tcpdump failed: {}", ended.stderr);
    fs::rename(&unfinished, capture)?;
    Ok(())
}

fn load(url: &str, seconds: u32, more: &[&str]) -> anyhow::Result<()> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c32", &format!("-d{seconds}s")])
        .args(more);
    succeed(wrk.arg(url))?;
    Ok(())
}

/// Sends so many bytes to `sink`, which forgets them.
fn send(sink: &TcpListener, bytes: u64) -> anyhow::Result<()> {
    let address = sink.local_addr()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let chunk = vec![0; 64 << 10];
        for _ in 0..bytes / chunk.len() as u64 {
            stream.write_all(&chunk)?;
        }
        Ok(())
    });
    let (mut stream, _) = sink.accept()?;
    io::copy(&mut stream, &mut io::sink())?;
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender failed"))??;
    Ok(())
}
