//! What passes through a service and is nobody's business reaches no file: not the recording, and nothing
//! that is made of it.

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
    process::succeed,
    services::{Service, go_time},
    turn::Turn,
};

/// Each stands in another part of a request.
const SECRETS: [&str; 11] = [
    "s3cr3t-in-the-query",
    "s3cr3t-behind-a-semicolon",
    "s3cr3t-host.example",
    "s3cr3t-authorization",
    "s3cr3t-cookie",
    "s3cr3t-api-key",
    "s3cr3t-traceparent",
    "s3cr3t-header-name",
    "s3cr3t-body",
    "s3cr3t-in-the-environment",
    "s3cr3t-argument",
];

/// What is kept by design, to know that the requests were seen.
const KEPT: [&str; 2] = [
    "/upload",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
];

fn ask(server: SocketAddr, body: usize, traceparent: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let body = "s3cr3t-body ".repeat(body / 12);
    write!(
        stream,
        "POST /upload;session=s3cr3t-behind-a-semicolon?token=s3cr3t-in-the-query HTTP/1.1\r\n\
         Host: s3cr3t-host.example\r\n\
         Authorization: Bearer s3cr3t-authorization\r\n\
         Cookie: session=s3cr3t-cookie\r\n\
         X-Api-Key: s3cr3t-api-key\r\n\
         s3cr3t-header-name: yes\r\n\
         traceparent: {traceparent}\r\n\
         Connection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // The gateway may leave without an answer.
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}

#[test]
fn headers_queries_and_bodies_reach_no_file() -> anyhow::Result<()> {
    let name = "secrets";
    let Some(_turn) = Turn::take(name, &["gzip"]) else {
        return Ok(());
    };
    let patience = Draw::new(name).millis(300..500);
    let upload = Service::start("upload", &["-large-delay", &go_time(patience * 2)])?;
    let (upstream, limit) = (upload.address.to_string(), go_time(patience));
    let mut gateway = Command::new(gopulse_tests::services::program("gateway")?);
    gateway
        .args(["-upstream", &upstream, "-response-header-timeout", &limit])
        .args(["-on-error", "abort", "s3cr3t-argument"])
        .env("TOKEN", "s3cr3t-in-the-environment");
    let gateway = Service::run(&mut gateway)?;

    let place = tempfile::tempdir()?;
    let recording = place.path().join("recording");
    let path = recording.to_str().context("a path that is no text")?;
    let port = gateway.port();
    let arguments = [
        "record",
        "--timeline",
        "--port",
        &port,
        "-d",
        "60s",
        "-o",
        path,
    ];
    let watch = Watch::start(&arguments)?;
    for (body, traceparent) in [
        (100, KEPT[1]),
        (400_000, "s3cr3t-traceparent"),
        (300, KEPT[1]),
    ] {
        ask(gateway.address, body, traceparent)?;
    }
    let mut told = vec![watch.stop()?];

    for to in ["pcapng", "perfetto", "folded", "pprof"] {
        let file = place.path().join(to);
        let file = file.to_str().context("a path that is no text")?;
        told.push(gopulse::ended(&["export", path, "--to", to, "-o", file])?);
    }
    for form in ["text", "json"] {
        told.push(gopulse::ended(&["diagnose", path, "--format", form])?);
    }
    let pid = gateway.pid();
    told.push(gopulse::ended(&[
        "goroutines",
        "--pid",
        &pid,
        "--format",
        "json",
    ])?);

    let mut found: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    files(place.path(), &mut found)?;
    for ended in &told {
        assert!(ended.status <= 1, "{ended:?}");
        found.push(("standard output".into(), ended.stdout.clone().into()));
        found.push(("standard error".into(), ended.stderr.clone().into()));
    }
    assert!(found.len() > 2 * told.len() + 8, "{} texts", found.len());
    for (file, bytes) in &found {
        for secret in SECRETS {
            assert!(!holds(bytes, secret), "{} holds {secret}", file.display());
        }
    }
    for kept in KEPT {
        let told = found.iter().any(|(_, bytes)| holds(bytes, kept));
        assert!(told, "the requests were not seen: nothing holds {kept}");
    }
    Ok(())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Everything below a directory; what is compressed as it was before, too.
fn files(directory: &Path, to: &mut Vec<(PathBuf, Vec<u8>)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, to)?;
            continue;
        }
        let bytes = fs::read(&path)?;
        if bytes.starts_with(b"\x1f\x8b") {
            let plain = succeed(Command::new("gzip").arg("-dc").arg("--").arg(&path))?;
            to.push((path.with_extension("plain"), plain.into()));
        }
        to.push((path, bytes));
    }
    Ok(())
}
