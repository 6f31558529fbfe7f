//! What gopulse may do while it watches, and that it watches all the same: as root, and as anybody by file
//! capabilities.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    process::{Process, succeed},
    services::{self, Service, go_time},
    turn::Turn,
    wait, workspace,
};

/// What is kept at most, by the numbers of capabilities(7): CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE,
/// CAP_SYSLOG, CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE.
const KEPT: u64 = 1 << 1 | 1 << 2 | 1 << 19 | 1 << 34 | 1 << 38 | 1 << 39 | 1 << 40;
/// CAP_SYS_ADMIN: at hand where there are network namespaces to look into, kept for uprobes.
const ADMIN: u64 = 1 << 21;
/// As `gopulse doctor` names them.
const FILE_CAPABILITIES: &str = "cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin,cap_checkpoint_restore,cap_syslog=ep";
const NOBODY: &str = "65534";

/// A line of `/proc/PID/task/TID/status` for each thread.
fn of_threads(pid: u32, name: &str) -> anyhow::Result<Vec<String>> {
    let mut values = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        values.push(line.context("no such line")?.trim().to_owned());
    }
    Ok(values)
}

fn namespaces() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_link(process.path().join("ns/net")).ok())
        .collect()
}

/// No thread has more than is needed while it watches, nor can it get more.
fn assert_lowered(pid: u32) -> anyhow::Result<()> {
    wait::until("every thread to give up", Duration::from_secs(20), || {
        let told = of_threads(pid, "NoNewPrivs:")?;
        Ok(told.iter().all(|value| value == "1").then_some(()))
    })?;
    let at_hand = match namespaces().len() {
        0 | 1 => KEPT,
        _ => KEPT | ADMIN,
    };
    for (set, may) in [
        ("CapPrm:", KEPT | ADMIN),
        ("CapEff:", at_hand),
        ("CapInh:", 0),
        ("CapAmb:", 0),
    ] {
        let held = of_threads(pid, set)?;
        assert!(held.len() >= 3, "{held:?}");
        for held in held {
            let held = u64::from_str_radix(&held, 16)?;
            assert_eq!(held & !may, 0, "{set} {held:#x}");
        }
    }
    Ok(())
}

/// A gateway that gives up on its upstream, and begins only when gopulse has given up what it had: what it
/// needs of the gateway's file, memory and functions it has to get with what it kept.
fn diagnosed(name: &str, gopulse: impl FnOnce() -> anyhow::Result<Command>) -> anyhow::Result<()> {
    let mut draw = Draw::new(name);
    let patience = draw.millis(400..700);
    let upload = Service::start("upload", &["-large-delay", &go_time(patience * 2)])?;
    let place = tempfile::tempdir()?;
    let signal = place.path().join("go");
    let waits = "while [ ! -e \"$0\" ]; do sleep 0.05; done; exec \"$@\"";
    let mut gateway = Process::start(
        Command::new("sh")
            .args(["-c", waits])
            .arg(&signal)
            .arg(services::program("gateway")?)
            .args(["-upstream", &upload.address.to_string()])
            .args(["-response-header-timeout", &go_time(patience)])
            .args(["-on-error", "abort"]),
    )?;
    let pid = gateway.pid().to_string();
    let mut command = gopulse()?;
    command.args(["diagnose", "--format", "json", "-d", "60s", "--pid", &pid]);
    let watch = Watch::run(&mut command)?;
    assert_lowered(watch.pid())?;
    fs::write(&signal, "")?;
    let address = gateway.line("listening ")?;
    services::upload(
        &format!("http://{address}/upload"),
        &["-n", "6", "-large-every", "3"],
    )?;
    assert_lowered(watch.pid())?;
    let report = watch.finish()?.report;
    let found = report.only("proxy-timeout")?;
    // Its decision was seen by a uprobe, and named from the program's own table.
    assert!(found.mentions("ResponseHeaderTimeout"));
    assert!(found.mentions("net/http.(*persistConn).roundTrip"));
    Ok(())
}

#[test]
fn what_is_not_needed_any_more_is_given_up_and_what_comes_later_is_seen() -> anyhow::Result<()> {
    let name = "privileges given up";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    diagnosed(name, || Ok(Command::new(workspace::gopulse()?)))
}

#[test]
fn anybody_may_trace_by_file_capabilities() -> anyhow::Result<()> {
    let name = "file capabilities";
    let Some(_turn) = Turn::take(name, &["setcap", "setpriv"]) else {
        return Ok(());
    };
    // The checkout may lie where nobody cannot look.
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let program = place.path().join("gopulse");
    fs::copy(workspace::gopulse()?, &program)?;
    succeed(Command::new("setcap").arg(FILE_CAPABILITIES).arg(&program))?;
    diagnosed(name, || Ok(by_nobody(&program)))?;
    let others = Service::start("hello", &[])?;
    let goroutines = ["goroutines", "--format", "json", "--pid", &others.pid()];
    let told = succeed(by_nobody(&program).args(goroutines))?;
    assert!(told.contains("\"source\": \"memory\""), "{told}");
    let doctor = succeed(by_nobody(&program).arg("doctor"))?;
    assert!(!doctor.contains("setcap"), "{doctor}");
    Ok(())
}

fn by_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={NOBODY}"))
        .arg(format!("--regid={NOBODY}"))
        .arg("--clear-groups")
        .arg(program);
    command
}
