//! gopulse costs no more than it may, says what it does without for that, and still finds what is wrong.
//!
//! What it costs is read from outside: the CPU time of its process, and the run time that the kernel counts
//! of the programs it holds (`/proc/PID/fdinfo`), which `kernel.bpf_stats_enabled` switches on.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::{
    gopulse::{self, Verdict, Watch},
    process::Process,
    services::{self, Service},
    turn::Turn,
    wait,
};
use tracer_user::{event::Fact, recording::Reader};

const COUNTS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel counts what programs take, until dropped.
struct Counting(String);

impl Counting {
    fn begin() -> anyhow::Result<Self> {
        let before = fs::read_to_string(COUNTS)?;
        fs::write(COUNTS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        drop(fs::write(COUNTS, &self.0));
    }
}

/// What a gopulse and its programs took so far.
fn spent(pid: u32) -> anyhow::Result<Duration> {
    let mut spent = process(pid)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let ran = info
            .lines()
            .find_map(|line| line.strip_prefix("run_time_ns:"));
        if let Some(ran) = ran {
            spent += Duration::from_nanos(ran.trim().parse()?);
        }
    }
    Ok(spent)
}

/// The CPU time of a process: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
fn process(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}

/// What it costs over some time, in CPUs.
fn rate(watch: &Watch, time: Duration) -> anyhow::Result<f64> {
    let (before, began) = (spent(watch.pid())?, Instant::now());
    thread::sleep(time);
    let took = spent(watch.pid())?.saturating_sub(before);
    Ok(took.as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Waits until a recording has such a fact.
fn wait_for(recording: &Path, wanted: fn(&Fact) -> bool) -> anyhow::Result<()> {
    wait::until("a fact in the recording", Duration::from_secs(30), || {
        let mut told = Reader::open(recording).into_iter().flatten();
        Ok(told.any(|event| wanted(&event.fact)).then_some(()))
    })
}

fn load(service: &Service, time: Duration) -> anyhow::Result<Process> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c16", "-H", "Connection: close"]);
    wrk.arg(format!("-d{}s", time.as_secs()));
    Process::start(wrk.arg(format!("http://{}/", service.address)))
}

#[test]
fn a_small_budget_is_kept_and_a_gateways_timeout_is_found_all_the_same() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a small CPU budget", &["wrk"]) else {
        return Ok(());
    };
    let _counting = Counting::begin()?;
    let hello = Service::start("hello", &[])?;
    let upload = Service::start("upload", &["-large-delay", "3s"])?;
    let upstream = upload.address.to_string();
    let patience = ["-upstream", &upstream, "-response-header-timeout", "500ms"];
    let gateway = Service::start("gateway", &patience)?;
    let (ours, theirs) = (hello.port(), gateway.port());
    let targets = ["--port", &ours, "--port", &theirs];

    let busy = load(&hello, Duration::from_secs(120))?;
    let directory = tempfile::tempdir()?;
    let record = |name: &str, percent: &str| {
        let into = directory.path().join(name);
        let path = into.to_str().context("a path that is no text")?;
        let begin = ["record", "--packets", "off", "-d", "100s", "-o", path];
        let watch = Watch::start(&[&begin, &targets[..], &["--cpu-budget", percent]].concat())?;
        anyhow::Ok((watch, into))
    };
    let (free, into) = record("free", "off")?;
    wait_for(&into, |fact| matches!(fact, Fact::Thread(_)))?;
    let unbound = rate(&free, Duration::from_secs(3))?;
    drop(free);

    // Without the packets, which take the most of it, it gets along.
    let most = unbound * 0.6;
    let percent = format!("{:.1}", most * 100.0);
    let (watch, into) = record("bound", &percent)?;
    wait_for(&into, |fact| matches!(fact, Fact::Shed { .. }))?;
    let url = format!("http://{}/upload", gateway.address);
    let uploads = thread::spawn(move || services::upload(&url, &["-n", "9", "-large-every", "3"]));
    // What was spent too much to begin with is saved again within some seconds.
    thread::sleep(Duration::from_secs(3));
    let bound = rate(&watch, Duration::from_secs(6))?;
    let outcomes = uploads.join().expect("the uploads")?;
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| outcome.status != 200)
            .count(),
        3
    );
    watch.stop()?;
    drop(busy);
    let path = into.to_str().context("a path that is no text")?;
    let Verdict { report, .. } = gopulse::diagnose(&[path])?;

    assert!(
        bound <= most * 1.2,
        "it costs {bound:.3} CPUs, may cost {most:.3}, and would cost {unbound:.3}"
    );
    let unseen = report.unseen().as_array().into_iter().flatten();
    let shed: Vec<&str> = unseen.filter_map(|told| told["what"].as_str()).collect();
    assert!(
        shed.iter().any(|what| what.starts_with("packets: ")),
        "{shed:?}"
    );
    if shed.iter().any(|what| what.contains("of the connections")) {
        // Others at work made it dearer than it was without a bound. Whatever is found may be of one that was
        // not followed; that much is said.
        return Ok(());
    }
    let proxy = report.only("proxy-timeout")?;
    let (setting, _) = proxy.setting().context("no setting")?;
    assert_eq!(setting, "net/http.Transport.ResponseHeaderTimeout");
    assert!(proxy.mentions("Packets were not seen to the end"));
    Ok(())
}
