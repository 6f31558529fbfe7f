//! A recording and a dump from a stranger, made to be obeyed by the terminal that shows them.

use std::{fs, path::Path};

use anyhow::Context as _;
use gopulse_tests::{gopulse::ended, process::Ended};
use tracer_user::{
    event::{BootInstant, Event, Fact, Process, Relation, Source, SourceKind, Unseen},
    recording::{End, Writer},
};

/// ESC, a C1 control, a line of its own, DEL, and what turns the direction of text.
const HOSTILE: &str =
    "evil\x1b]0;owned\x07\u{9b}2J\r\nHealthy: nothing found.\u{7f}\u{202e}\u{2066}";

fn assert_harmless(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let obeyed = |c: char| {
            (c.is_control() && c != '\n')
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || c == '\u{2066}'
        };
        assert!(!text.chars().any(obeyed), "{text:?}");
        assert!(!text.contains("\nHealthy: nothing found.\n"), "{text:?}");
    }
    assert!(ended.stdout.contains("evil"), "{ended:?}");
}

fn record(directory: &Path) -> anyhow::Result<()> {
    let source = Source {
        kind: SourceKind::Live,
        host: HOSTILE.to_owned(),
        kernel: HOSTILE.to_owned(),
        started: BootInstant(1_000_000_000),
        started_wall: "2026-01-02T03:04:05Z".parse()?,
        hooks: Vec::new(),
    };
    let facts = [
        Fact::Process(Process {
            pid: 7,
            comm: HOSTILE.to_owned(),
            exe: Some(HOSTILE.to_owned()),
            go_version: Some(HOSTILE.to_owned()),
            pprof_url: None,
            container: Some(HOSTILE.to_owned()),
            relation: Relation::Target,
        }),
        Fact::Unseen(Unseen {
            what: HOSTILE.to_owned(),
            why: HOSTILE.to_owned(),
            remedy: HOSTILE.to_owned(),
        }),
    ];
    let mut writer = Writer::create(directory, &source)?;
    for fact in facts {
        let at = BootInstant(1_500_000_000);
        writer.event(&Event { at, fact })?;
    }
    writer.finish(End {
        ended: BootInstant(2_000_000_000),
        ..End::default()
    })?;
    Ok(())
}

#[test]
fn a_recording_tells_its_names_and_nothing_to_the_terminal() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let recording = place.path().join("recording");
    record(&recording)?;
    let path = recording.to_str().context("a path that is no text")?;
    for form in ["text", "json"] {
        assert_harmless(&ended(&["diagnose", path, "--format", form])?);
    }
    Ok(())
}

#[test]
fn a_dump_tells_its_labels_and_nothing_to_the_terminal() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("dump.txt");
    let hostile = HOSTILE.replace(['\r', '\n'], "");
    fs::write(
        &file,
        format!(
            "goroutine 1 [chan receive labels:{{\"{hostile}\": \"{hostile}\"}}]:\n\
             main.{hostile}(...)\n\t/srv/{hostile}.go:7 +0x1d\n\n"
        ),
    )?;
    let path = file.to_str().context("a path that is no text")?;
    for form in ["text", "json"] {
        assert_harmless(&ended(&["goroutines", path, "--format", form])?);
    }
    Ok(())
}

#[test]
fn a_name_in_an_error_is_told_and_not_obeyed() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("evil\x1b[2J\u{9b}1m");
    fs::write(&file, "nothing")?;
    let path = file.to_str().context("a path that is no text")?;
    for verb in ["diagnose", "goroutines"] {
        let ended = ended(&[verb, path])?;
        assert_eq!(ended.status, 2, "{ended:?}");
        assert!(
            ended.stderr.contains("evil\\u{1b}[2J\\u{9b}1m"),
            "{ended:?}"
        );
        assert!(!ended.stderr.contains(['\x1b', '\u{9b}']), "{ended:?}");
    }
    Ok(())
}
