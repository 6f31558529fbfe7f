//! The command line: what is refused and how, what `--help` says, and how the tool behaves in a shell.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    gopulse::{ended, gopulse},
    process::{Ended, run},
    turn, workspace,
};

/// The verbs that the contract promises and this version has.
const VERBS: [&str; 3] = ["doctor", "record", "diagnose"];

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
