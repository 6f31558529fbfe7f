//! How fast a capture is read, by whole processes: gopulse beside readers that do less, and others that
//! do as much.
//!
//! The capture is of real traffic on the loopback device, whole packets: requests on kept connections, a
//! connection for every request, and bulk. It is made once and kept in `target/`.

use std::{
    fs,
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    process::{Process, succeed},
    services::Service,
    wait, workspace,
};

use super::readers::{Reader, compare};

/// Bytes of the capture, at least.
const LARGE: u64 = 1 << 30;

/// Bytes sent in bulk, of these.
const BULK: u64 = 300 << 20;

/// A header that makes requests as long as those of browsers.
const COOKIE_BYTES: usize = 700;

pub(super) fn main(gopulse: &Path, rounds: u32) -> anyhow::Result<ExitCode> {
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
    compare(&readers(gopulse), &capture, rounds, "cat")?;
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
    let mut readers = vec![Reader::new("gopulse diagnose", gopulse, &["diagnose"])];
    readers.extend(
        others
            .into_iter()
            .filter_map(|(name, program, arguments)| Reader::installed(name, program, arguments)),
    );
    readers
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
