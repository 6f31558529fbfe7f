//! `gopulse goroutines` of files: what a program built by each of several Go versions left, and what is
//! made of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
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

/// What the program left (`tracer-user/src/golang/testdata/crowd`); it had 74 goroutines.
fn left(minor: &str, name: &str) -> String {
    let crowd: PathBuf = workspace::root().join("tracer-user/src/golang/testdata/crowd");
    format!("{}/go{minor}/{name}.gz", crowd.display())
}

fn told(arguments: &[&str]) -> anyhow::Result<(Value, Ended)> {
    let ended = ended(&[&["goroutines", "--format", "json"], arguments].concat())?;
    assert_eq!(ended.status, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout)?;
    assert_eq!(report["schema"], "gopulse.goroutines/1");
    Ok((report, ended))
}

fn groups(report: &Value) -> &[Value] {
    report["groups"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn every_form_of_every_minor_is_told_with_all_its_goroutines() -> anyhow::Result<()> {
    for minor in ["1.21", "1.24", "1.26", "1.27"] {
        for (name, has_ids) in [
            ("panic.txt", true),
            ("debug1.txt", false),
            ("debug0.pb", false),
        ] {
            let (report, ended) = told(&[&left(minor, name)])?;
            let snapshot = &report["snapshots"][0];
            assert_eq!(snapshot["total"], 74, "{minor} {name}");
            assert_eq!(snapshot["has_ids"], has_ids, "{minor} {name}");
            assert_eq!(snapshot["unread_lines"], 0, "{minor} {name}");
            // What a profile does not tell is said.
            assert_eq!(ended.stderr.contains("no ids"), !has_ids, "{ended:?}");
            let largest = &groups(&report)[0];
            assert_eq!(largest["count"], 40, "{minor} {name}");
            assert!(largest["frames"].to_string().contains("main.(*store).save"));
        }
    }
    Ok(())
}

#[test]
fn the_table_fits_and_names_the_programs_own_lines() -> anyhow::Result<()> {
    let table = ended(&["goroutines", "--top", "3", &left("1.27", "panic.txt")])?;
    assert_eq!((table.status, table.stderr.as_str()), (0, ""));
    // The first line names the file.
    let (_, table) = table.stdout.split_once('\n').context("one line")?;
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    insta::assert_snapshot!(table);
    Ok(())
}

#[test]
fn two_dumps_tell_what_grew_and_who_came_and_went() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let dump = |name: &str, goroutines: &[(u64, &str)]| -> anyhow::Result<String> {
        let path = directory.path().join(name);
        let text: String = goroutines
            .iter()
            .map(|(id, function)| {
                format!("goroutine {id} [chan send]:\nmain.{function}(0x{id})\n\t/srv/main.go:7 +0x1\n\n")
            })
            .collect();
        fs::write(&path, text)?;
        Ok(path.to_str().context("a path that is no text")?.to_owned())
    };
    let first = dump("1.txt", &[(1, "serve"), (2, "poll"), (3, "leak")])?;
    let last = dump(
        "2.txt",
        &[(1, "serve"), (4, "poll"), (3, "leak"), (5, "leak")],
    )?;
    let (report, _) = told(&[&first, &last])?;
    let changes: Vec<_> = groups(&report)
        .iter()
        .map(|group| {
            let number = |key: &str| group[key].as_i64();
            let function = group["frames"][0]["function"].as_str();
            (function, number("growth"), number("born"), number("ended"))
        })
        .collect();
    assert_eq!(
        changes,
        [
            (Some("main.leak"), Some(1), Some(1), Some(0)),
            (Some("main.poll"), Some(0), Some(1), Some(1)),
            (Some("main.serve"), Some(0), Some(0), Some(0)),
        ]
    );
    // Files tell no times.
    assert_eq!(report["duration_s"], Value::Null);
    let table = ended(&["goroutines", &first, &last])?;
    assert!(table.stdout.contains("GROWTH"), "{table:?}");
    Ok(())
}

#[test]
fn a_profile_and_a_dump_are_compared_by_what_both_tell() -> anyhow::Result<()> {
    let (report, ended) = told(&[&left("1.27", "debug0.pb"), &left("1.27", "panic.txt")])?;
    assert!(ended.stderr.contains("compared by stack"), "{ended:?}");
    let largest = groups(&report)
        .iter()
        .find(|group| group["count"] == 40)
        .context("the largest group is gone")?;
    assert_eq!(largest["growth"], 0);
    assert_eq!(largest["born"], Value::Null);
    Ok(())
}

#[test]
fn what_was_not_understood_or_is_missing_is_said() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("shop.log");
    fs::write(
        &log,
        "2026/11/21 11:00:00 a line\ngoroutine 7 [select]:\nmain.f()\n2026/11/21 11:00:00 between\n\
         \t/srv/main.go:7 +0x1\n\ngoroutine 8 [sel",
    )?;
    let path = log.to_str().context("a path that is no text")?;
    let (report, ended) = told(&[path])?;
    assert_eq!(report["snapshots"][0]["unread_lines"], 2);
    assert!(
        ended
            .stderr
            .contains("2 lines were not understood (line 4)"),
        "{ended:?}"
    );
    fs::write(&log, "goroutine 7 [select]:\nmain.f()\n\t/srv/ma")?;
    let (report, ended) = told(&[path])?;
    assert_eq!(report["snapshots"][0]["cut"], true);
    assert!(ended.stderr.contains("64 MiB"), "{ended:?}");
    fs::write(&log, "goroutine 7 [select]:\n\ngoroutine 7 [sleep]:\n")?;
    let (_, ended) = told(&[path])?;
    assert!(ended.stderr.contains("more than once"), "{ended:?}");
    Ok(())
}

#[test]
fn groups_are_chosen_and_made_as_asked() -> anyhow::Result<()> {
    let dump = left("1.27", "panic.txt");
    let (report, _) = told(&["--filter", "REQ=a [b]", "--filter", "k=v1", &dump])?;
    let [labelled] = groups(&report) else {
        anyhow::bail!("{report}");
    };
    assert_eq!(labelled["count"], 2);
    assert_eq!(labelled["labels"]["k"], "v1");
    let (report, _) = told(&["--by", "state", "--top", "1", &dump])?;
    let largest = &groups(&report)[0];
    assert_eq!(
        (&largest["state"], &largest["count"]),
        (&"sync.Mutex.Lock".into(), &40.into())
    );
    let told_groups = |report: &Value| report["groups_left_out"].as_u64();
    assert!(told_groups(&report) > Some(3));
    Ok(())
}

#[test]
fn files_and_arguments_that_do_not_do_are_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let none = directory.path().join("none.txt");
    fs::write(&none, "404 page not found\n")?;
    let none = none.to_str().context("a path that is no text")?;
    for (arguments, says) in [
        (vec!["goroutines"], "--pid"),
        (
            vec!["goroutines", "--pid", "1", none],
            "cannot be used with",
        ),
        (vec!["goroutines", none], "no goroutine in it"),
        (vec!["goroutines", "/no/such/file"], "/no/such/file"),
        (
            vec!["goroutines", "--every", "1s", none],
            "cannot be used with",
        ),
        (vec!["goroutines", "--pid", "4194305"], "4194305"),
        (
            vec!["goroutines", "--url", "http://me:secret@127.0.0.1:1"],
            "127.0.0.1:1/debug/pprof/",
        ),
    ] {
        let ended = ended(&arguments)?;
        assert_eq!(ended.status, 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.contains("secret"), "{ended:?}");
    }
    Ok(())
}

#[test]
fn without_the_privilege_to_read_a_process_the_command_that_gives_it_is_named() -> anyhow::Result<()>
{
    if !turn::is_root() {
        turn::skip(
            "goroutines without privileges",
            "not root: cannot become nobody",
        );
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
            .args(["goroutines", "--pid", &std::process::id().to_string()]),
        Duration::from_secs(20),
    )?;
    assert_eq!(ended.status, 3, "{ended:?}");
    assert!(ended.stderr.contains("cap_sys_ptrace"), "{ended:?}");
    assert_eq!(
        ended.stderr.matches("Permission denied").count(),
        1,
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn a_dump_comes_through_a_pipe_and_goes_to_a_file() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("groups.json");
    let dump = fs::File::open(left("1.24", "quit.txt"))?;
    let ended = gopulse(&["goroutines", "-", "--format", "json", "-o"])?
        .arg(&output)
        .stdin(Stdio::from(dump))
        .output()?;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.is_empty());
    let report: Value = serde_json::from_slice(&fs::read(&output)?)?;
    // With the runtime's own.
    assert!(report["snapshots"][0]["total"].as_u64() > Some(74));
    Ok(())
}
