//! A recording's capture in Wireshark: what its tools say of it, and the fields of gopulse's dissector.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use gopulse_tests::{gopulse, packets, process::succeed, turn, workspace};

fn shipped() -> PathBuf {
    workspace::fixture("stuck-upload").join("capture.pcapng")
}

/// The same packets as a capture of somebody else's: no comments, no rows.
fn plain(into: &Path) -> anyhow::Result<PathBuf> {
    let path = into.join("plain.pcap");
    succeed(
        Command::new("tcpdump")
            .arg("-r")
            .arg(shipped())
            .arg("-w")
            .arg(&path),
    )?;
    Ok(path)
}

#[test]
fn wireshark_shows_the_frames_that_the_report_names() -> anyhow::Result<()> {
    if !turn::have("the frames that the report names", &["tshark"]) {
        return Ok(());
    }
    let recording = workspace::fixture("stuck-upload");
    let verdict = gopulse::diagnose(&[&recording.to_string_lossy()])?;
    for finding in verdict.report.findings() {
        let named = finding.frames();
        assert!(named.len() > 1, "{named:?}");
        for filter in [
            format!("gopulse.rule == \"{}\"", finding.rule()),
            format!("gopulse.finding == \"{}\"", finding.id()),
        ] {
            assert_eq!(packets::frames(&shipped(), &filter)?, named, "{filter}");
        }
    }
    Ok(())
}

#[test]
fn processes_and_goroutines_are_fields() -> anyhow::Result<()> {
    if !turn::have("processes and goroutines as fields", &["tshark"]) {
        return Ok(());
    }
    let capture = shipped();
    let named = packets::dissected(
        &capture,
        "gopulse.process == \"upload\" && tcp",
        &["gopulse.process", "gopulse.pid"],
    )?;
    assert!(!named.is_empty());
    for fields in &named {
        assert_eq!(
            fields[0].matches(',').count(),
            fields[1].matches(',').count(),
            "each process has its id: {fields:?}"
        );
    }
    let decisions = packets::dissected(
        &capture,
        "gopulse.event == \"decision\" && gopulse.told contains \"awaiting response headers\"",
        &["gopulse.goid", "gopulse.pid", "systemd_journal.pid"],
    )?;
    assert!(!decisions.is_empty());
    for fields in &decisions {
        assert!(fields[0].parse::<u64>()? > 0);
        assert_eq!(fields[1], fields[2]);
    }
    let at_work = packets::frames(&capture, "gopulse.goid && frame.comment contains \"store\"")?;
    assert!(!at_work.is_empty());
    Ok(())
}

#[test]
fn times_count_from_the_first_frame_and_never_go_back() -> anyhow::Result<()> {
    if !turn::have("relative times", &["tshark"]) {
        return Ok(());
    }
    let rows = packets::dissected(&shipped(), "frame", &["frame.time_relative"])?;
    let times: Vec<f64> = rows
        .iter()
        .flatten()
        .map(|time| time.parse())
        .collect::<Result<_, _>>()?;
    assert_eq!(times.first(), Some(&0.0));
    assert!(times.is_sorted());
    assert!(times.last().is_some_and(|last| *last < 60.0));
    assert_eq!(packets::complaints(&shipped())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_capture_of_somebody_else_has_no_fields_and_raises_no_error() -> anyhow::Result<()> {
    let programs = ["tshark", "tcpdump", "editcap"];
    if !turn::have("a capture of somebody else", &programs) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let plain = plain(directory.path())?;
    assert_eq!(packets::frames(&plain, "gopulse")?, BTreeSet::new());
    let theirs = directory.path().join("commented.pcapng");
    succeed(
        Command::new("editcap")
            .args([
                "-a",
                "1:look at this (pid 7), please",
                "-a",
                "2:goroutine x",
            ])
            .arg(&plain)
            .arg(&theirs),
    )?;
    assert_eq!(packets::frames(&theirs, "frame.comment")?.len(), 2);
    assert_eq!(packets::frames(&theirs, "gopulse")?, BTreeSet::new());
    Ok(())
}

#[test]
fn editcap_keeps_comments_and_rows_and_capinfos_counts_the_packets() -> anyhow::Result<()> {
    let programs = ["tshark", "tcpdump", "editcap", "capinfos"];
    if !turn::have("editcap and capinfos", &programs) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let edited = directory.path().join("edited.pcapng");
    succeed(Command::new("editcap").arg(shipped()).arg(&edited))?;
    for filter in ["gopulse.rule", "gopulse.event", "gopulse.goid"] {
        assert_eq!(
            packets::frames(&edited, filter)?,
            packets::frames(&shipped(), filter)?,
            "{filter}"
        );
    }
    let count = |capture: &Path| {
        let mut capinfos = Command::new("capinfos");
        capinfos.args(["-rTcM"]).arg(capture);
        let told = succeed(&mut capinfos)?;
        anyhow::Ok(told.split('\t').next_back().map(|n| n.trim().to_owned()))
    };
    assert_eq!(count(&shipped())?, count(&plain(directory.path())?)?);
    Ok(())
}

#[test]
fn every_filter_of_the_page_is_one_that_wireshark_takes() -> anyhow::Result<()> {
    if !turn::have("the page's filters", &["tshark"]) {
        return Ok(());
    }
    let page = std::fs::read_to_string(workspace::root().join("docs/wireshark.md"))?;
    let table = page
        .split("## Filters worth knowing")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .context("no filters")?;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut tried = 0;
    for filter in rows.filter_map(|row| row.split('`').nth(1)) {
        packets::frames(&shipped(), &filter.replace("\\|", "|"))?;
        tried += 1;
    }
    assert!(tried > 5, "{tried} filters");
    Ok(())
}
