//! A recording in other tools' forms, read by these tools.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use gopulse_tests::{gopulse, trace_processor, turn, workspace};

/// Exports the recording that ships with the repository.
fn exported(to: &str, into: &Path) -> anyhow::Result<PathBuf> {
    let recording = workspace::fixture("stuck-upload");
    let recording = recording.to_str().context("a path that is no text")?;
    let file = into.join(to);
    let output = file.to_str().context("a path that is no text")?;
    let ended = gopulse::ended(&["export", recording, "--to", to, "-o", output])?;
    assert_eq!(ended.status, 0, "{ended:?}");
    Ok(file)
}

#[test]
fn perfetto_reads_connections_goroutines_findings_and_what_leads_to_what() -> anyhow::Result<()> {
    if !turn::have("a trace in Perfetto", &["node"]) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let trace = exported("perfetto", directory.path())?;
    let [wrong, tracks, findings, passed_on, proved, arguments] = trace_processor::ask(
        &trace,
        [
            "select name from stats where severity in ('error', 'data_loss') and value > 0",
            "select distinct track.name from slice join track on track.id = track_id
             where track.name glob 'serves *' or track.name = 'goroutine 24'
             order by track.name",
            "select slice.name, extract_arg(arg_set_id, 'debug.rule') from slice
             join track on track.id = track_id where track.name = 'findings' order by ts",
            "select count(*) from flow
             join slice a on a.id = slice_out join track ta on ta.id = a.track_id
             join slice b on b.id = slice_in join track tb on tb.id = b.track_id
             where ta.name = 'serves 127.0.0.1:9000' and tb.name = 'asks 127.0.0.1:9001'
             and b.ts >= a.ts",
            "select a.name, extract_arg(b.arg_set_id, 'debug.rule') from flow
             join slice a on a.id = slice_out join slice b on b.id = slice_in
             where b.category = 'finding' order by 2",
            "select count(*) from slice where category = 'http' and dur >= 1e9
             and extract_arg(arg_set_id, 'debug.method') = 'POST'
             and extract_arg(arg_set_id, 'debug.path') = '/upload'
             and extract_arg(arg_set_id, 'debug.request_bytes') > 200000",
        ],
    )?;
    assert!(wrong.is_empty(), "{wrong:?}");
    let names: Vec<_> = tracks.iter().map(|row| row[0].text()).collect();
    assert_eq!(
        names,
        [
            "goroutine 24",
            "serves 127.0.0.1:9000",
            "serves 127.0.0.1:9001"
        ]
    );
    let verdict = gopulse::diagnose(&[&workspace::fixture("stuck-upload").to_string_lossy()])?;
    let mut rules: Vec<_> = findings.iter().map(|row| row[1].text()).collect();
    let mut reported: Vec<_> = verdict.report.findings().map(|of| of.rule()).collect();
    rules.sort_unstable();
    reported.sort_unstable();
    assert_eq!(rules, reported);
    assert!(findings.iter().any(|row| row[0].text().contains("gave up")));
    assert!(passed_on[0][0].number() > 50, "{passed_on:?}");
    let proved: Vec<_> = proved.iter().map(|row| row[0].text()).collect();
    assert_eq!(proved, ["POST /upload", "POST /upload"]);
    assert!(arguments[0][0].number() > 10, "{arguments:?}");
    Ok(())
}

#[test]
fn a_recording_without_samples_says_so() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let folded = exported("folded", directory.path())?;
    assert_eq!(fs::read_to_string(folded)?, "");
    let recording = workspace::fixture("stuck-upload");
    let recording = recording.to_str().context("a path that is no text")?;
    let ended = gopulse::ended(&["export", recording, "--to", "folded"])?;
    assert!(ended.stderr.contains("no CPU samples"), "{ended:?}");
    Ok(())
}

#[test]
fn the_query_of_the_page_is_one_that_perfetto_takes() -> anyhow::Result<()> {
    if !turn::have("the page's query", &["node"]) {
        return Ok(());
    }
    let page = fs::read_to_string(workspace::root().join("docs/exports.md"))?;
    let query = page
        .split("```sql")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("no query")?;
    let directory = tempfile::tempdir()?;
    let [slowest] = trace_processor::ask(&exported("perfetto", directory.path())?, [query])?;
    assert_eq!(slowest.len(), 10);
    assert!(
        slowest
            .iter()
            .all(|row| row[0].text().starts_with("POST /upload"))
    );
    Ok(())
}
