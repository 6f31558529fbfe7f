//! The command line: what is refused and how, what `--help` says, and how the tool behaves in a shell.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    gopulse::{ended, gopulse},
    process::{Ended, run},
    turn, workspace,
};
use serde_json::Value;

/// The verbs that the contract promises and this version has.
const VERBS: [&str; 5] = ["doctor", "record", "diagnose", "export", "goroutines"];

fn refused(arguments: &[&str]) -> Ended {
    let ended = ended(arguments).unwrap();
    assert_eq!(ended.status, 2, "{arguments:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{arguments:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    ended
}

#[test]
fn help_says_what_each_verb_takes() {
    let help = ended(&["--help"]).unwrap();
    assert_eq!(help.status, 0, "{help:?}");
    insta::assert_snapshot!("help", help.stdout);
    for verb in VERBS {
        let help = ended(&[verb, "--help"]).unwrap();
        assert_eq!(help.status, 0, "{help:?}");
        insta::assert_snapshot!(format!("help-{verb}"), help.stdout);
    }
}

#[test]
fn arguments_that_make_no_sense_exit_with_2() {
    refused(&[]);
    refused(&["frobnicate"]);
    refused(&["diagnose", "--no-such-option"]);
    refused(&["diagnose", "--pid", "many"]);
    refused(&["diagnose", "--port", "70000"]);
    refused(&["diagnose", "--pid", "1", "-d", "soon"]);
    refused(&["diagnose", "--pid", "1", "--format", "poetry"]);
    refused(&["diagnose", "--pid", "1", "--fail-on", "whim"]);
    refused(&["record", "--pid", "1"]);
    refused(&["export", "--to", "pcapng"]);
    refused(&["export", "recording"]);
    refused(&["export", "recording", "--to", "poetry"]);
}

#[test]
fn a_process_that_does_not_exist_is_named() {
    // Above the largest pid that the kernel ever gives.
    let ended = refused(&["diagnose", "--pid", "4194305", "-d", "1s"]);
    assert!(ended.stderr.contains("4194305"), "{ended:?}");
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let name = "a port where nobody listens";
    if !turn::is_root() {
        return turn::skip(name, "not root: others' sockets cannot be seen");
    }
    let ended = refused(&["diagnose", "--port", "1", "-d", "1s"]);
    assert!(ended.stderr.contains("port 1"), "{ended:?}");
}

#[test]
fn a_recording_that_is_none_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory
        .path()
        .to_str()
        .context("a path that is no text")?;
    let empty = refused(&["diagnose", path]);
    assert!(empty.stderr.contains(path), "{empty:?}");
    let missing = format!("{path}/missing");
    let ended = refused(&["diagnose", &missing]);
    assert!(ended.stderr.contains(&missing), "{ended:?}");
    Ok(())
}

#[test]
fn without_privileges_the_missing_ones_are_named() -> anyhow::Result<()> {
    let name = "without privileges";
    if !turn::is_root() {
        turn::skip(name, "not root: cannot become nobody");
        return Ok(());
    }
    // The checkout may lie where nobody cannot look.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let binary = directory.path().join("gopulse");
    fs::copy(workspace::gopulse()?, &binary)?;
    let ended = run(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary)
            .args(["diagnose", "--all", "-d", "1s"]),
        Duration::from_secs(20),
    )?;
    assert_eq!(ended.status, 3, "{ended:?}");
    assert!(ended.stderr.contains("CAP_BPF"), "{ended:?}");
    assert!(ended.stderr.contains("sudo"), "{ended:?}");
    Ok(())
}

#[test]
fn doctor_says_what_this_host_can_trace() {
    let doctor = ended(&["doctor"]).unwrap();
    assert!([0, 1, 3].contains(&doctor.status), "{doctor:?}");
    for word in ["kernel", "BTF"] {
        assert!(doctor.stdout.contains(word), "no {word}: {doctor:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() -> anyhow::Result<()> {
    let recording = workspace::fixture("stuck-upload");
    let recording = recording.to_str().context("a path that is no text")?;
    for (arguments, status) in [
        (vec!["--help"], 0),
        (vec!["diagnose", recording], 1),
        (vec!["diagnose", "--format", "json", recording], 1),
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = gopulse(&arguments)?.stdout(writer).output()?;
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    Ok(())
}

#[test]
fn the_shipped_recording_is_diagnosed_without_privileges() {
    let recording = workspace::fixture("stuck-upload");
    let ended = run(
        gopulse(&["diagnose"]).unwrap().arg(&recording),
        Duration::from_secs(20),
    )
    .unwrap();
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(
        ended.stdout.contains("ResponseHeaderTimeout"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_shipped_capture_is_what_export_makes_of_it() -> anyhow::Result<()> {
    let recording = workspace::fixture("stuck-upload");
    let capture = recording.join("capture.pcapng");
    let directory = tempfile::tempdir()?;
    let exported = directory.path().join("exported.pcapng");
    let ended = run(
        gopulse(&["export", "--to", "pcapng", "-o"])?
            .arg(&exported)
            .arg(&recording),
        Duration::from_secs(20),
    )?;
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(
        fs::read(&exported)? == fs::read(&capture)?,
        "the fixture is out of date: gopulse export {} --to pcapng",
        recording.display()
    );
    Ok(())
}

#[test]
fn an_export_never_overwrites_the_capture_that_it_reads() -> anyhow::Result<()> {
    let recording = workspace::fixture("stuck-upload");
    let capture = recording.join("capture.pcapng");
    let before = fs::read(&capture)?;
    let ended = run(
        gopulse(&["export", "--to", "pcapng", "-o"])?
            .arg(&capture)
            .arg(&recording),
        Duration::from_secs(20),
    )?;
    assert_eq!(ended.status, 2, "{ended:?}");
    assert!(ended.stderr.contains("another file"), "{ended:?}");
    assert!(fs::read(&capture)? == before);
    Ok(())
}

#[test]
fn the_readme_shows_what_the_shipped_recording_says() -> anyhow::Result<()> {
    let recording = workspace::fixture("stuck-upload");
    let ended = run(
        gopulse(&["diagnose"])?.arg(&recording),
        Duration::from_secs(20),
    )?;
    let readme = std::fs::read_to_string(workspace::root().join("README.md"))?;
    assert!(readme.contains(ended.stdout.trim()), "{}", ended.stdout);
    Ok(())
}

#[test]
fn captures_that_are_none_are_named_with_what_they_are() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let named = |name: &str, bytes: &[u8]| -> anyhow::Result<String> {
        let path = directory.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path.to_str().context("a path that is no text")?.to_owned())
    };
    let empty = named("empty.pcap", b"")?;
    let text = named("notes.txt", b"these are not packets, but words\n")?;
    let mut cut = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    cut.extend([2, 0, 4, 0, 0, 0]);
    let cut = named("cut.pcap", &cut)?;
    let mut absurd = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    absurd.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    absurd.extend([0xff; 40]);
    let absurd = named("absurd.pcap", &absurd)?;
    for (path, says) in [
        (&empty, "is empty"),
        (&text, "is no packet capture"),
        (&cut, "cut in its header"),
        (&absurd, "damaged at offset 24"),
    ] {
        let ended = refused(&["diagnose", path]);
        assert!(ended.stderr.contains(path.as_str()), "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
    }
    Ok(())
}

#[test]
fn dumps_go_with_a_capture_and_are_named_where_they_are_none() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let dump = directory.path().join("dump.txt");
    fs::write(&dump, "404 page not found\n")?;
    let dump = dump.to_str().context("a path that is no text")?;
    let recording = workspace::fixture("stuck-upload");
    let recording = recording.to_str().context("a path that is no text")?;
    let ended = refused(&["diagnose", recording, "--goroutines", dump]);
    assert!(
        ended.stderr.contains("goes with a packet capture"),
        "{ended:?}"
    );
    let capture = format!("{recording}/capture.pcapng");
    let ended = refused(&["diagnose", &capture, "--goroutines", dump]);
    assert!(ended.stderr.contains(dump), "{ended:?}");
    assert!(ended.stderr.contains("debug=2"), "{ended:?}");
    Ok(())
}

#[test]
fn a_capture_comes_by_file_by_pipe_and_compressed() -> anyhow::Result<()> {
    let capture = workspace::fixture("stuck-upload").join("capture.pcapng");
    let bytes = fs::read(&capture)?;
    let told = |arguments: &[&str], stdin: Option<fs::File>| -> anyhow::Result<Value> {
        let mut command = gopulse(&[&["diagnose", "--format", "json"], arguments].concat())?;
        let stdin = stdin.map_or_else(Stdio::null, Stdio::from);
        let mut report: Value = serde_json::from_slice(&command.stdin(stdin).output()?.stdout)?;
        assert_eq!(report["source"]["kind"], "pcap");
        // Only its name differs.
        report["coverage"]["hooks"].take();
        Ok(report)
    };
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("a path that is no text")
    };
    let named = told(&[&path(&capture)?], None)?;
    assert!(
        named["connections"]
            .as_array()
            .is_some_and(|all| all.len() > 20)
    );
    // A recording's packets are headers alone, and it is said what that hides.
    assert!(
        named["coverage"]["unseen"]
            .to_string()
            .contains("no payload")
    );
    assert_eq!(told(&["-"], Some(fs::File::open(&capture)?))?, named);
    let directory = tempfile::tempdir()?;
    let zipped = directory.path().join("capture");
    fs::write(&zipped, gzip(&bytes)?)?;
    assert_eq!(told(&[&path(&zipped)?], None)?, named);
    Ok(())
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let plain = directory.path().join("plain");
    fs::write(&plain, bytes)?;
    Ok(Command::new("gzip").arg("-c").arg(&plain).output()?.stdout)
}
