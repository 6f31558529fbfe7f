//! Processes whose names and requests are made to be obeyed by a terminal.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Watch},
    process::Process,
    services::{self, Service, go_time},
    turn::Turn,
};

/// Clears the screen, by ESC and by a C1 control; begins a line; turns the direction. The kernel keeps the
/// first 15 bytes of a name, and so cuts the last character in two.
const NAME: &str = "a\x1b[2J\u{9b}1m\n\r\u{202e}\u{202e}evil";

/// What none of our texts may hold, whatever else is in the file.
const OBEYED: [&str; 3] = ["\x1b[2J", "\u{9b}1m", "\u{202e}"];

/// A program under a hostile name.
fn disguised(program: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
    let kind = program.file_name().context("no name")?;
    let home = directory.join(kind);
    fs::create_dir(&home)?;
    let path = home.join(NAME);
    fs::copy(program, &path)?;
    Ok(path)
}

/// Asks for a path that is hostile too.
fn ask(server: SocketAddr, body: usize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "POST /upload/\u{9b}1m\u{202e} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {body}\r\n\r\n{}",
        "x".repeat(body)
    )?;
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}

/// What is for people holds nothing that a terminal would obey.
fn harmless(text: &str) {
    let obeyed: Vec<_> = text
        .chars()
        .filter(|c| {
            (c.is_control() && *c != '\n')
                || OBEYED.iter().any(|o| o.starts_with(*c) && !c.is_ascii())
        })
        .collect();
    assert!(obeyed.is_empty(), "{obeyed:?} in {text:?}");
}

#[test]
fn nothing_that_a_terminal_obeys_gets_from_a_process_to_the_terminal() -> anyhow::Result<()> {
    let name = "hostile names";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let patience = Draw::new(name).millis(300..500);
    let place = tempfile::tempdir()?;
    let program = |name| disguised(&services::program(name)?, place.path());
    let mut upload = Command::new(program("upload")?);
    let upload = Service::run(upload.args(["-large-delay", &go_time(patience * 2)]))?;
    let mut gateway = Command::new(program("gateway")?);
    gateway
        .args(["-upstream", &upload.address.to_string()])
        .args(["-response-header-timeout", &go_time(patience)])
        .args(["-on-error", "abort"]);
    let gateway = Service::run(&mut gateway)?;
    let recording = place.path().join("recording");
    let path = recording.to_str().context("a path that is no text")?;
    let pid = gateway.pid();
    let watch = Watch::start(&["record", "--pid", &pid, "-d", "60s", "-o", path])?;
    for body in [100, 400_000, 300] {
        ask(gateway.address, body)?;
    }
    let mut told = vec![watch.stop()?];

    told.push(gopulse::ended(&["diagnose", path])?);
    assert!(told[1].stdout.contains("a\\u{1b}[2J"), "{}", told[1].stdout);
    told.push(gopulse::ended(&["diagnose", path, "--format", "json"])?);
    told.push(gopulse::ended(&["goroutines", "--pid", &pid])?);
    told.push(gopulse::ended(&[
        "goroutines",
        "--pid",
        &pid,
        "--format",
        "json",
    ])?);
    told.push(gopulse::ended(&["export", path, "--to", "folded"])?);
    // A program that has no goroutines, so that its name stands in an error.
    let sleep = disguised(&which("sleep")?, place.path())?;
    let sleep = Process::start(Command::new(sleep).arg("60"))?;
    told.push(gopulse::ended(&[
        "goroutines",
        "--pid",
        &sleep.pid().to_string(),
    ])?);
    for ended in &told {
        harmless(&ended.stdout);
        harmless(&ended.stderr);
    }
    // Wireshark shows comments and rows as they are.
    let capture = fs::read(recording.join("capture.pcapng"))?;
    for obeyed in OBEYED {
        let there = capture
            .windows(obeyed.len())
            .any(|bytes| bytes == obeyed.as_bytes());
        assert!(!there, "{obeyed:?} in the capture");
    }
    let escaped = b"a\\u{1b}[2J";
    assert!(capture.windows(escaped.len()).any(|bytes| bytes == escaped));
    Ok(())
}

fn which(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("no {program}"))
}
