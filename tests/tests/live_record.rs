//! What a recording holds, and what becomes of it when the host gets in the way.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Watch},
    packets,
    process::{Process, succeed},
    report::Report,
    services::{self, Service, go_time},
    turn::Turn,
};

fn record(port: &str, into: &Path) -> anyhow::Result<Watch> {
    let path = into.to_str().context("a path that is no text")?;
    Watch::start(&["record", "--port", port, "-d", "60s", "-o", path])
}

/// `tcpdump` on the loopback, once it listens.
fn tcpdump(port: &str, into: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("tcpdump");
    command
        .args(["-i", "lo", "-s", "96", "--immediate-mode", "-U", "-w"])
        .arg(into)
        .args(["tcp", "port", port]);
    let mut process = Process::start(&mut command)?;
    process.line("tcpdump: listening on ")?;
    Ok(process)
}

#[test]
fn the_capture_holds_the_headers_that_tcpdump_sees() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("the same headers as tcpdump", &["tcpdump", "tshark"]) else {
        return Ok(());
    };
    let upload = Service::start("upload", &["-large-delay", "10ms"])?;
    let port = upload.port();
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let theirs = directory.path().join("tcpdump.pcap");
    let reference = tcpdump(&port, &theirs)?;
    let watch = record(&port, &recording)?;
    let url = format!("http://{}/upload", upload.address);
    services::upload(&url, &["-n", "12", "-large-every", "4", "-fresh"])?;
    services::upload(&url, &["-n", "12", "-large-every", "4"])?;
    watch.stop()?;
    reference.interrupt()?;
    reference.wait(Duration::from_secs(10))?;

    let ours = recording.join("capture.pcapng");
    let seen = packets::headers(&ours)?;
    let there = packets::headers(&theirs)?;
    assert_eq!(there.len(), 26, "13 connections, two directions each");
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        there.keys().collect::<Vec<_>>()
    );
    for (direction, headers) in &there {
        // Two CPUs may hand two bare ACKs of one direction to the two hooks in either order.
        assert_eq!(
            packets::bare_acks_last(&seen[direction]),
            packets::bare_acks_last(headers),
            "{direction:?}"
        );
    }
    assert_eq!(packets::complaints(&ours)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn wireshark_finds_by_its_rule_what_the_report_names() -> anyhow::Result<()> {
    let name = "findings in Wireshark";
    let Some(_turn) = Turn::take(name, &["tshark"]) else {
        return Ok(());
    };
    let patience = Draw::new(name).millis(400..700);
    let upload = Service::start("upload", &["-large-delay", &go_time(patience * 2)])?;
    let upstream = upload.address.to_string();
    let limit = go_time(patience);
    let arguments = [
        "-upstream",
        &upstream,
        "-response-header-timeout",
        &limit,
        "-on-error",
        "abort",
    ];
    let gateway = Service::start("gateway", &arguments)?;
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let watch = record(&gateway.port(), &recording)?;
    let url = format!("http://{}/upload", gateway.address);
    services::upload(&url, &["-n", "6", "-large-every", "3"])?;
    let ended = watch.stop()?;
    assert_eq!(ended.status, 0, "{ended:?}");

    let capture = recording.join("capture.pcapng");
    let report = Report::parse(&std::fs::read_to_string(recording.join("report.json"))?)?;
    let cause = report.only("proxy-timeout")?;
    for finding in report.findings() {
        let named = finding.frames();
        let filter = format!("gopulse.finding == \"{}\"", finding.id());
        assert_eq!(packets::frames(&capture, &filter)?, named, "{filter}");
    }
    let of_the_rule = packets::frames(&capture, "gopulse.rule == \"proxy-timeout\"")?;
    assert_eq!(of_the_rule, cause.frames());
    // The give-up is there as the decision itself, and as the FIN or RST that followed from it.
    let decided = "gopulse.rule == \"proxy-timeout\" && gopulse.event == \"decision\"";
    assert_eq!(packets::frames(&capture, decided)?.len(), 1);
    let left = format!(
        "gopulse.rule == \"proxy-timeout\" && tcp.dstport == {} && (tcp.flags.fin == 1 || tcp.flags.reset == 1)",
        upload.address.port()
    );
    assert_eq!(packets::frames(&capture, &left)?.len(), 1);
    assert_eq!(packets::complaints(&capture)?, Vec::<String>::new());

    let path = recording.to_str().context("a path that is no text")?;
    let later = gopulse::diagnose(&[path])?.report;
    assert_eq!(later.only("proxy-timeout")?.frames(), cause.frames());
    Ok(())
}

#[test]
fn without_packets_the_capture_stays_empty_and_is_read_all_the_same() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a recording without packets", &["tshark"]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let path = recording.to_str().context("a path that is no text")?;
    let port = hello.port();
    let arguments = [
        "record",
        "--port",
        &port,
        "-d",
        "60s",
        "--packets",
        "off",
        "-o",
        path,
    ];
    let watch = Watch::start(&arguments)?;
    services::upload(&format!("http://{}/", hello.address), &["-n", "3"])?;
    let ended = watch.stop()?;

    assert_eq!(ended.status, 0, "{ended:?}");
    let capture = recording.join("capture.pcapng");
    assert!(packets::frames(&capture, "frame")?.is_empty());
    let verdict = gopulse::diagnose(&[path])?;
    assert_eq!(verdict.status, 0, "{}", verdict.report.titles());
    Ok(())
}

#[test]
fn a_full_disk_ends_the_recording_and_is_named() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a full disk", &["mount", "umount", "wrk"]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let disk = SmallDisk::mount()?;
    let recording = disk.0.path().join("recording");
    let watch = record(&hello.port(), &recording)?;
    let url = format!("http://{}/", hello.address);
    succeed(Command::new("wrk").args(["-t1", "-c4", "-d2s", &url]))?;
    let ended = watch.stop()?;

    assert!((1..=3).contains(&ended.status), "{ended:?}");
    assert!(ended.stderr.contains("No space left"), "{ended:?}");
    Ok(())
}

#[test]
fn a_process_that_ends_in_the_middle_is_no_error() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a process that ends in the middle", &[]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let pid = hello.pid();
    let arguments = ["diagnose", "--format", "json", "--pid", &pid, "-d", "3s"];
    let watch = Watch::start(&arguments)?;
    drop(hello);
    let verdict = watch.verdict()?;

    assert_eq!(verdict.status, 0, "{}", verdict.report.titles());
    Ok(())
}

#[test]
fn a_recording_that_was_cut_off_is_read_up_to_the_cut() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a recording that was cut off", &[]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let watch = record(&hello.port(), &recording)?;
    let url = format!("http://{}/", hello.address);
    services::upload(&url, &["-n", "200"])?;
    watch.stop()?;
    let events = recording.join("events.gpl");
    let whole = std::fs::metadata(&events)?.len();
    // A file that a crash left behind ends anywhere.
    for part in [whole - 1, whole / 2] {
        std::fs::File::options()
            .write(true)
            .open(&events)?
            .set_len(part)?;
        let path = recording.to_str().context("a path that is no text")?;
        let verdict = gopulse::diagnose(&[path])?;
        assert_eq!(verdict.status, 0, "{}", verdict.report.titles());
    }
    Ok(())
}

/// A file system of 64 KiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> anyhow::Result<Self> {
        let disk = Self(tempfile::tempdir()?);
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=256k", "gopulse-tests"])
                .arg(disk.0.path()),
        )?;
        Ok(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = succeed(Command::new("umount").arg(self.0.path())) {
            eprintln!("{error:#}");
        }
    }
}
