//! Containers: processes with namespaces and a cgroup of their own, and those whose program was replaced
//! or that end while they are looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    container::Container,
    draw::Draw,
    gopulse::{Verdict, Watch},
    netns::{Netns, Pair},
    process::{Process, succeed},
    services::{self, Service, go_time},
    turn::Turn,
    wait,
};
use serde_json::Value;

/// Programs that a container is made with.
const TOOLS: &[&str] = &["ip", "unshare"];

#[test]
fn a_gateway_and_its_upstream_in_two_containers_are_one_story() -> anyhow::Result<()> {
    let name = "a gateway and its upstream in two containers";
    let Some(_turn) = Turn::take(name, TOOLS) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let network = Pair::new()?;
    let (front, back) = (Container::new()?, Container::new()?);
    let patience = draw.millis(500..1000);
    let delay = patience + draw.millis(300..600);
    let upload = Service::run(
        back.command(&network.far, services::program("upload")?)
            .args(["-listen", &format!("{}:0", Pair::FAR)])
            .args(["-large-delay", &go_time(delay)]),
    )?;
    let gateway = Service::run(
        front
            .command(&network.near, services::program("gateway")?)
            .args(["-upstream", &upload.address.to_string()])
            .args(["-response-header-timeout", &go_time(patience)]),
    )?;
    let watch = Watch::diagnose(&["--container", &front.id()[..12]])?;
    let outcomes = services::upload_by(
        network
            .near
            .command(services::program("client")?)
            .args(["-url", &format!("http://{}/upload", gateway.address)])
            .args(["-n", "6", "-large-every", "3"]),
    )?;
    let Verdict { status, report, .. } = watch.finish()?;

    let failed = outcomes.iter().filter(|outcome| outcome.status != 200);
    assert_eq!(failed.count(), 2, "{outcomes:?}");
    assert_eq!(status, 1);
    let found = report.only("proxy-timeout")?;
    found.blames("net/http.Transport.ResponseHeaderTimeout", patience)?;
    assert_eq!((found.comm(), found.count()), ("gateway", Some(2)));
    assert!(found.mentions("main.(*Archive).store"), "{found:?}");
    let stories: Vec<_> = report.stories().iter().map(|found| found.rule()).collect();
    assert_eq!(stories, ["proxy-timeout"], "{}", report.titles());
    for (comm, container) in [("gateway", &front), ("upload", &back)] {
        let told = report.processes(comm);
        let [told] = told.as_slice() else {
            panic!("{comm}: {told:?}");
        };
        assert_eq!(told["container"], container.id(), "{told}");
        assert_eq!(told["pid"], container.process(comm)?, "{told}");
    }
    Ok(())
}

#[test]
fn who_comes_into_a_watched_cgroup_later_is_watched_too() -> anyhow::Result<()> {
    let name = "who comes into a cgroup later";
    let Some(_turn) = Turn::take(name, TOOLS) else {
        return Ok(());
    };
    let hello = services::program("hello")?;
    let container = Container::new()?;
    let _first = Service::run(&mut container.enter(&hello))?;
    for cgroup in [
        container.cgroup(),
        container.directory().display().to_string(),
    ] {
        let watch = Watch::start(&[
            "diagnose", "--format", "json", "-d", "5s", "--cgroup", &cgroup,
        ])?;
        // As `docker exec` does: a child of somebody else, moved there.
        let second = Service::run(&mut container.enter(&hello))?;
        let Verdict { report, .. } = watch.verdict()?;
        let told = report.processes("hello");
        let pids: Vec<u64> = told
            .iter()
            .filter_map(|told| told["pid"].as_u64())
            .collect();
        assert!(pids.contains(&second.process.pid().into()), "{told:?}");
        assert_eq!(pids.len(), 2, "{told:?}");
        assert!(
            told.iter().all(|told| told["container"] == container.id()),
            "{told:?}"
        );
    }
    Ok(())
}

#[test]
fn a_program_that_was_replaced_while_it_runs_is_still_read() -> anyhow::Result<()> {
    let name = "a program that was replaced";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("crowd");
    for replaced in [false, true] {
        fs::copy(services::program("crowd")?, &program)?;
        let crowd = Service::run(Command::new(&program).args(["-goroutines", "50"]))?;
        fs::remove_file(&program)?;
        if replaced {
            fs::copy(services::program("hello")?, &program)?;
        }
        // By its path, as whoever started it knows it.
        let watch = watch_for(Duration::from_secs(2), &["--exe", path(&program)?])?;
        let Verdict { report, .. } = watch.verdict()?;
        let told = report.processes("crowd");
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["pid"], crowd.process.pid());
        assert!(told[0]["go_version"].is_string(), "{told:?}");
        assert_waits_in_the_crowd(report.goroutines(), "memory");
    }
    Ok(())
}

#[test]
fn a_process_in_another_user_namespace_is_read() -> anyhow::Result<()> {
    let name = "another user namespace";
    let Some(_turn) = Turn::take(name, TOOLS) else {
        return Ok(());
    };
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "--mount"])
        .args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(services::program("crowd")?)
        .args(["-goroutines", "50"]);
    let crowd = Service::run(&mut command)?;
    let watch = watch_for(Duration::from_secs(2), &["--port", &crowd.port()])?;
    let Verdict { report, .. } = watch.verdict()?;
    let told = report.processes("crowd");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["pid"], crowd.process.pid());
    assert_waits_in_the_crowd(report.goroutines(), "memory");
    Ok(())
}

#[test]
fn pprof_behind_a_unix_socket_in_another_mount_namespace_is_found() -> anyhow::Result<()> {
    let name = "pprof behind a Unix socket";
    let Some(_turn) = Turn::take(name, TOOLS) else {
        return Ok(());
    };
    let netns = Netns::new("pprof")?;
    let container = Container::new()?;
    let directory = tempfile::tempdir()?;
    let program = of_an_unknown_go(directory.path())?;
    // A file system that only the container sees, and a link that leads elsewhere for us.
    let hidden = directory.path().join("hidden");
    fs::create_dir(&hidden)?;
    let socket = hidden.join("link/crowd.sock");
    let script = "mount -t tmpfs none \"$0\" && mkdir \"$0/run\" && ln -s \"$0/run\" \"$0/link\" && exec \"$@\"";
    let mut crowd = Process::start(
        container
            .command(&netns, "sh")
            .args(["-c", script, path(&hidden)?, path(&program)?])
            .args([
                "-goroutines",
                "50",
                "-listen",
                &format!("unix:{}", socket.display()),
            ]),
    )?;
    crowd.line("listening ")?;
    let watch = watch_for(Duration::from_secs(2), &["--container", container.id()])?;
    let Verdict { report, .. } = watch.verdict()?;
    let told = report.processes("crowd");
    assert_eq!(told.len(), 1, "{told:?}");
    let version = told[0]["go_version"].as_str().unwrap_or_default();
    assert!(version.starts_with("go1.99"), "{told:?}");
    let url = format!("http://unix:{}:/debug/pprof/", socket.display());
    assert_eq!(told[0]["pprof_url"], url, "{told:?}");
    assert_waits_in_the_crowd(report.goroutines(), "pprof");
    Ok(())
}

/// A gateway and its upstream in a network of their own, where one port is left to connect from.
struct Place {
    gateway: Service,
    _upload: Service,
    container: Container,
    netns: Netns,
}

impl Place {
    fn new(label: &str, patience: Duration) -> anyhow::Result<Self> {
        let netns = Netns::new(label)?;
        let range = "echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range";
        succeed(netns.command("sh").args(["-c", range]))?;
        let container = Container::new()?;
        let upload = Service::run(
            container
                .command(&netns, services::program("upload")?)
                .args(["-listen", "127.0.0.1:9001"])
                .args(["-large-delay", &go_time(patience * 2)]),
        )?;
        let gateway = Service::run(
            container
                .command(&netns, services::program("gateway")?)
                .args(["-listen", "127.0.0.1:9000", "-upstream", "127.0.0.1:9001"])
                .args(["-response-header-timeout", &go_time(patience)]),
        )?;
        Ok(Self {
            gateway,
            _upload: upload,
            container,
            netns,
        })
    }

    fn client(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let url = format!("http://{}/upload", self.gateway.address);
        let mut command = self.netns.command(services::program("client")?);
        command.args(["-url", &url]).args(arguments);
        Ok(command)
    }

    /// The gateway is connected to its upstream.
    fn asks(&self) -> anyhow::Result<()> {
        let pid = self.container.process("gateway")?;
        let table = format!("/proc/{pid}/net/tcp");
        wait::until("the gateway's connection", Duration::from_secs(20), || {
            // 127.0.0.1:40000 to 127.0.0.1:9001, established.
            let row = "0100007F:9C40 0100007F:2329 01";
            Ok(fs::read_to_string(&table)?.contains(row).then_some(()))
        })
    }
}

#[test]
fn two_networks_with_the_same_loopback_addresses_are_told_apart() -> anyhow::Result<()> {
    let name = "two networks with the same loopback addresses";
    let Some(_turn) = Turn::take(name, TOOLS) else {
        return Ok(());
    };
    let patience = Draw::new(name).millis(3000..4000);
    let (stuck, quick) = (
        Place::new("stuck", patience)?,
        Place::new("quick", patience)?,
    );
    let watch = Watch::diagnose(&[
        "--container",
        stuck.container.id(),
        "--container",
        quick.container.id(),
    ])?;
    let client = Process::start(&mut stuck.client(&["-large-every", "1"])?)?;
    stuck.asks()?;
    // The same four numbers come into use once more.
    let outcomes = services::upload_by(&mut quick.client(&["-n", "3"])?)?;
    assert!(
        outcomes.iter().all(|outcome| outcome.status == 200),
        "{outcomes:?}"
    );
    client.wait(Duration::from_secs(60))?;
    let Verdict { report, .. } = watch.finish()?;

    let found = report.only("proxy-timeout")?;
    found.blames("net/http.Transport.ResponseHeaderTimeout", patience)?;
    let gateway = stuck.container.process("gateway")?;
    assert_eq!(found.pid(), Some(gateway.into()));
    // Its own upstream is at work on it; that of the other waits for a request.
    assert!(found.mentions("main.(*Archive).store"), "{found:?}");
    let stories: Vec<_> = report.stories().iter().map(|found| found.rule()).collect();
    assert_eq!(stories, ["proxy-timeout"], "{}", report.titles());
    Ok(())
}

#[test]
fn a_process_that_ends_while_it_is_read_is_told_as_far_as_it_was_seen() -> anyhow::Result<()> {
    let name = "a process that ends while it is read";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    for _ in 0..3 {
        // Enough of them that reading takes some time; the first look begins with the watch.
        let many = draw.number(20_000..60_000).to_string();
        let crowd = Service::start("crowd", &["-goroutines", &many])?;
        let watch = watch_for(Duration::from_secs(6), &["--pid", &crowd.pid()])?;
        sleep(draw.millis(0..400));
        drop(crowd);
        let Verdict { status, report, .. } = watch.verdict()?;
        assert_eq!(status, 0, "{}", report.titles());
        assert!(report.alarms().is_empty(), "{}", report.titles());
    }
    Ok(())
}

/// `diagnose` for so long.
fn watch_for(long: Duration, targets: &[&str]) -> anyhow::Result<Watch> {
    let long = format!("{}ms", long.as_millis());
    Watch::start(&[&["diagnose", "--format", "json", "-d", &long], targets].concat())
}

/// The fifty goroutines of a crowd were found, this way.
fn assert_waits_in_the_crowd(goroutines: &Value, source: &str) {
    let first = &goroutines["snapshots"][0];
    assert_eq!(first["source"], source, "{goroutines}");
    assert!(first["total"].as_u64() >= Some(50), "{first}");
    let groups = goroutines["groups"].to_string();
    assert!(groups.contains("main.(*Crowd).Join"), "{groups}");
}

/// The program `crowd` as a Go would build it that gopulse does not know, stripped: nothing tells where
/// its runtime keeps goroutines.
fn of_an_unknown_go(directory: &Path) -> anyhow::Result<PathBuf> {
    let program = directory.join("crowd");
    succeed(
        services::go("go")?
            .args(["build", "-ldflags", "-s -w", "-o"])
            .arg(&program)
            .arg("./crowd"),
    )?;
    let mut bytes = fs::read(&program)?;
    let version = succeed(services::go("go")?.args(["env", "GOVERSION"]))?;
    let version = version.trim_end();
    // `go1.27.3`: of the same length, so that nothing moves.
    let minor = version.split('.').nth(1).unwrap_or_default();
    let unknown = version.replacen(minor, "99", 1);
    let places: Vec<usize> = bytes
        .windows(version.len())
        .enumerate()
        .filter_map(|(at, window)| (window == version.as_bytes()).then_some(at))
        .collect();
    anyhow::ensure!(!places.is_empty(), "{version} is nowhere in it");
    for place in places {
        bytes[place..place + version.len()].copy_from_slice(unknown.as_bytes());
    }
    fs::write(&program, bytes)?;
    Ok(program)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}
