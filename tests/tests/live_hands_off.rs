//! However gopulse ends, nothing stays behind but the recording, and while it runs the host's settings are
//! as they were.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    cgroup::Memory,
    draw::Draw,
    gopulse::{self, Watch},
    held::Held,
    host::Picture,
    http::Asked,
    process::Ended,
    services::{self, Service},
    turn::Turn,
    wait, workspace,
};
use nix::sys::signal::Signal;

/// What a recording may have at any moment, and what becomes of it at the end.
const FINISHED: [&str; 5] = [
    "capture.pcapng",
    "events.gpl",
    "goroutines",
    "meta.json",
    "report.json",
];
const UNFINISHED: [&str; 2] = ["capture.pcapng.next", "meta.json.next"];

/// A service that is recorded, and everything that its recorder could leave on disk.
struct Scene {
    hello: Service,
    place: tempfile::TempDir,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let scene = Self {
            hello: Service::start("hello", &[])?,
            place: tempfile::tempdir()?,
        };
        for directory in ["temporary", "current"] {
            fs::create_dir(scene.place.path().join(directory))?;
        }
        Ok(scene)
    }

    fn recording(&self) -> PathBuf {
        self.place.path().join("recording")
    }

    /// `gopulse record` of it, prefixed by a command that runs another.
    fn record(&self, by: &[&str], time: &str) -> anyhow::Result<Command> {
        let program = workspace::gopulse()?;
        let mut words = by.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().context("no program")?);
        command
            .args(words)
            .args(["record", "--pid", &self.hello.pid(), "-d", time, "-o"])
            .arg(self.recording())
            .env("TMPDIR", self.place.path().join("temporary"))
            .current_dir(self.place.path().join("current"));
        Ok(command)
    }

    /// Traffic, while it is watched.
    fn serve(&self, requests: &str) -> anyhow::Result<()> {
        services::upload(
            &format!("http://{}/", self.hello.address),
            &["-n", requests],
        )?;
        Ok(())
    }

    /// Nothing is left but the recording, which tells what it has, and the service goes on.
    fn check(mut self, held: &Held) -> anyhow::Result<BTreeSet<String>> {
        held.wait_until_gone()?;
        assert_eq!(
            names(&self.place.path().join("temporary"))?,
            BTreeSet::new()
        );
        assert_eq!(names(&self.place.path().join("current"))?, BTreeSet::new());
        assert!(self.hello.process.runs()?);
        Asked::get(self.hello.address, "/")?.answer()?;
        let recording = self.recording();
        let path = recording.to_str().context("a path that is no text")?;
        let verdict = gopulse::diagnose(&[path])?;
        assert_eq!(verdict.status, 0, "{}", verdict.report.titles());
        names(&recording)
    }
}

fn names(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What gopulse holds while it watches: enough for the check of its absence to mean something.
fn held(watch: &Watch) -> Held {
    let held = Held::by(watch.pid());
    assert!(held.programs.len() > 10, "{held:?}");
    assert!(held.maps.len() > 10, "{held:?}");
    assert!(held.links.len() > 10, "{held:?}");
    held
}

#[test]
fn whatever_is_told_to_end_finishes_its_recording_and_leaves_nothing() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("ends that are told", &[]) else {
        return Ok(());
    };
    for signal in [
        None,
        Some(Signal::SIGINT),
        Some(Signal::SIGTERM),
        Some(Signal::SIGHUP),
    ] {
        let scene = Scene::new()?;
        let time = if signal.is_some() { "60s" } else { "3s" };
        // Whoever runs us may do so under nohup.
        let listening = ["env", "--default-signal=HUP"];
        let watch = Watch::run(&mut scene.record(&listening, time)?)?;
        let held = held(&watch);
        scene.serve("20")?;
        let ended = match signal {
            Some(signal) => watch.signal(signal)?,
            None => watch.end()?,
        };
        assert_eq!(ended.status, 0, "{signal:?}: {ended:?}");
        assert_eq!(scene.check(&held)?, set(&FINISHED), "{signal:?}");
    }
    Ok(())
}

#[test]
fn under_nohup_a_terminal_that_goes_away_ends_nothing() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("nohup", &["nohup"]) else {
        return Ok(());
    };
    let scene = Scene::new()?;
    let mut watch = Watch::run(&mut scene.record(&["nohup"], "60s")?)?;
    let held = held(&watch);
    watch.send(Signal::SIGHUP)?;
    scene.serve("20")?;
    assert!(watch.runs()?);
    watch.stop()?;
    scene.check(&held)?;
    Ok(())
}

#[test]
fn whatever_is_killed_leaves_what_it_recorded_and_nothing_else() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("ends that nobody can handle", &[]) else {
        return Ok(());
    };
    // A panic aborts; a core file would hold what the service's memory held.
    let core = [
        "sh",
        "-c",
        "ulimit -c unlimited; exec env --default-signal=QUIT \"$@\"",
        "sh",
    ];
    for signal in [Signal::SIGKILL, Signal::SIGABRT, Signal::SIGQUIT] {
        let scene = Scene::new()?;
        let watch = Watch::run(&mut scene.record(&core, "60s")?)?;
        let held = held(&watch);
        scene.serve("20")?;
        let ended = watch.signal(signal)?;
        assert_eq!(ended.status, 128 + signal as i32, "{ended:?}");
        let left = scene.check(&held)?;
        let may = set(&[&FINISHED[..], &UNFINISHED[..]].concat());
        assert!(left.is_subset(&may), "{left:?}");
        assert!(!left.contains("report.json"), "{left:?}");
    }
    Ok(())
}

#[test]
fn whatever_is_killed_while_it_finishes_leaves_a_recording() -> anyhow::Result<()> {
    let name = "ends in the middle of the end";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    for _ in 0..4 {
        let scene = Scene::new()?;
        let watch = Watch::run(&mut scene.record(&[], "60s")?)?;
        let held = held(&watch);
        scene.serve("200")?;
        watch.send(Signal::SIGINT)?;
        thread::sleep(draw.millis(0..120));
        watch.signal(Signal::SIGKILL)?;
        let left = scene.check(&held)?;
        let may = set(&[&FINISHED[..], &UNFINISHED[..]].concat());
        assert!(left.is_subset(&may), "{left:?}");
    }
    Ok(())
}

#[test]
fn what_the_kernel_kills_for_want_of_memory_leaves_the_target_alone() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("out of memory", &["wrk"]) else {
        return Ok(());
    };
    let scene = Scene::new()?;
    let memory = Memory::new(1 << 30)?;
    let program = workspace::gopulse()?;
    let mut command = memory.command(&program);
    command
        .args([
            "record",
            "--timeline",
            "--pid",
            &scene.hello.pid(),
            "-d",
            "60s",
            "-o",
        ])
        .arg(scene.recording())
        .env("TMPDIR", scene.place.path().join("temporary"))
        .current_dir(scene.place.path().join("current"));
    let mut watch = Watch::run(&mut command)?;
    let held = held(&watch);
    // What it has now, and hardly more.
    memory.tighten(1 << 20)?;
    let url = format!("http://{}/", scene.hello.address);
    wait::until("the kernel to kill it", Duration::from_secs(60), || {
        gopulse_tests::process::succeed(Command::new("wrk").args([
            "-t1",
            "-c8",
            "-d1s",
            "-H",
            "Connection: close",
            &url,
        ]))?;
        Ok((!watch.runs()?).then_some(()))
    })?;
    let ended: Ended = watch.end()?;
    assert_eq!(ended.status, 128 + Signal::SIGKILL as i32, "{ended:?}");
    assert!(memory.kills()? > 0);
    scene.check(&held)?;
    Ok(())
}

#[test]
fn a_command_that_is_traced_holds_nothing_of_ours_and_keeps_its_privileges() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a command that is traced", &[]) else {
        return Ok(());
    };
    let before = fs::read_to_string("/proc/self/status")?;
    let line = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().to_owned()
    };
    let asks = "ls -l /proc/self/fd >&2; grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status >&2; umask >&2; sleep 1";
    let ended = gopulse::ended(&["diagnose", "-d", "10s", "--", "sh", "-c", asks])?;
    for kind in ["bpf", "perf_event"] {
        assert!(!ended.stderr.contains(kind), "{ended:?}");
    }
    for name in ["CapEff", "CapPrm", "NoNewPrivs"] {
        let line = line(&before, name);
        assert!(ended.stderr.contains(&line), "{line}: {ended:?}");
    }
    Ok(())
}

#[test]
fn settings_are_as_they_were_while_it_runs_and_afterwards() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("the host's settings", &["ip", "tc", "nft"]) else {
        return Ok(());
    };
    let scene = Scene::new()?;
    let pid = scene.hello.process.pid();
    // Its table of files grows with its first connections, and its runtime catches signals by then.
    scene.serve("20")?;
    let before = Picture::take(pid)?;
    assert!(before.len() > 500, "{}", before.len());
    let watch = Watch::run(&mut scene.record(&[], "60s")?)?;
    let held = held(&watch);
    scene.serve("20")?;
    let during = Picture::take(pid)?;
    watch.stop()?;
    let after = Picture::take(pid)?;
    assert_eq!(
        before.changed(&during),
        Vec::<String>::new(),
        "while it ran"
    );
    assert_eq!(before.changed(&after), Vec::<String>::new(), "afterwards");
    scene.check(&held)?;
    Ok(())
}
