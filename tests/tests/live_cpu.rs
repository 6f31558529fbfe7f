//! Who kept a service from running: the quota of its cgroup, or somebody else on the CPUs; and busy hosts on
//! which nobody is late.

use std::{fs, process::Command, thread::sleep, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    cgroup::Quota,
    draw::Draw,
    gopulse::{Verdict, Watch},
    http::Asked,
    process::{Process, succeed},
    report::{Finding, Report},
    services::{Service, go_time, program},
    turn::{Turn, skip},
    wait,
};

const PERIOD: Duration = Duration::from_millis(100);

/// Processes that do nothing but take CPU time, more of them than any CPU of this host can please.
struct Busy(Vec<Process>);

impl Busy {
    fn start(number: u64) -> anyhow::Result<Self> {
        let yes = || Process::start(Command::new("sh").args(["-c", "exec yes > /dev/null"]));
        let busy = Self((0..number).map(|_| yes()).collect::<Result<_, _>>()?);
        wait::until("busy processes", Duration::from_secs(10), || {
            let all = busy.0.iter().all(|process| {
                let comm = fs::read_to_string(format!("/proc/{}/comm", process.pid()));
                comm.is_ok_and(|comm| comm == "yes\n")
            });
            Ok(all.then_some(()))
        })?;
        Ok(busy)
    }
}

/// Asks `mill` at a fixed rate.
fn ask(mill: &Service, rate: u64, lasts: Duration) -> anyhow::Result<()> {
    succeed(
        Command::new(program("pace")?)
            .args(["-url", &format!("http://{}/grind", mill.address)])
            .args(["-rate", &rate.to_string(), "-connections", "2"])
            .args(["-duration", &go_time(lasts)]),
    )?;
    Ok(())
}

/// A `mill` in a cgroup of so much CPU time.
fn limited(quota: &Quota, work: Duration, max_procs: Option<u64>) -> anyhow::Result<Service> {
    let mut command = quota.command(&program("mill")?);
    command.args(["-work", &go_time(work)]);
    command.env_remove("GOMAXPROCS").env_remove("GODEBUG");
    command.envs(max_procs.map(|number| ("GOMAXPROCS", number.to_string())));
    Service::run(&mut command)
}

fn quota(scenario: &str, cpu_time: Duration) -> Option<Quota> {
    Quota::new(cpu_time, PERIOD)
        .map_err(|error| skip(scenario, &format!("{error:#}")))
        .ok()
}

#[test]
fn a_quota_far_below_gomaxprocs_is_named_with_both_and_with_the_requests_it_delayed()
-> anyhow::Result<()> {
    let scenario = "throttled by a quota";
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    // However a request lies to the periods, it needs more than two of them allow.
    let allowed = draw.millis(15..25);
    let work = 2 * allowed + draw.millis(5..15);
    let max_procs = draw.number(6..40);
    let Some(quota) = quota(scenario, allowed) else {
        return Ok(());
    };
    let mill = limited(&quota, work, Some(max_procs))?;
    let watch = Watch::diagnose(&["--pid", &mill.pid()])?;
    ask(&mill, 2, Duration::from_secs(6))?;
    let Verdict { status, report, .. } = watch.finish()?;

    let throttled = report.only("cpu-throttled")?;
    assert_eq!(throttled.severity(), "warning", "{}", report.titles());
    assert_eq!(report.rules(), ["cpu-throttled"], "{}", report.titles());
    assert_eq!(throttled.comm(), "mill");
    assert!(throttled.mentions(&quota.name()));
    assert!(throttled.mentions("its environment sets it"));
    assert_eq!(throttled.measured("max_procs"), Some(max_procs as f64));
    let cpus = throttled.measured("quota_cpus").unwrap_or_default();
    assert!((cpus - allowed.as_secs_f64() / 0.1).abs() < 1e-6, "{cpus}");
    let delayed = throttled.measured("requests_slow").unwrap_or_default();
    assert!(delayed >= 8.0, "{delayed} of 12");
    let periods = throttled.measured("throttled_periods").unwrap_or_default();
    assert!(periods >= delayed, "{periods} periods, {delayed} requests");
    let waited = throttled.measured("waited_s").unwrap_or_default();
    assert!((0.06..0.6).contains(&waited), "{waited}");
    let part = throttled.parts().get("throttled").copied();
    assert!(part.is_some_and(|part| part >= 0.05), "{part:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_quota_that_is_not_used_up_is_healthy_whatever_gomaxprocs_is() -> anyhow::Result<()> {
    let scenario = "a quota that is not used up";
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let Some(quota) = quota(scenario, draw.millis(40..60)) else {
        return Ok(());
    };
    let mill = limited(&quota, Duration::from_millis(1), Some(draw.number(6..40)))?;
    let watch = Watch::diagnose(&["--pid", &mill.pid()])?;
    ask(&mill, 20, Duration::from_secs(3))?;
    let verdict = watch.finish()?;

    let Verdict { report, .. } = &verdict;
    assert!(report.of("cpu-throttled").is_empty(), "{}", report.titles());
    verdict.assert_healthy();
    Ok(())
}

#[test]
fn a_neighbour_that_takes_the_cpus_is_named() -> anyhow::Result<()> {
    let scenario = "busy neighbours";
    let Some(_turn) = Turn::take(scenario, &["yes"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let work = draw.millis(40..70);
    let mill = Service::start("mill", &["-work", &go_time(work)])?;
    let watch = Watch::diagnose(&["--pid", &mill.pid()])?;
    let busy = Busy::start(draw.number(4..6) * cpus)?;
    ask(&mill, 3, Duration::from_secs(6))?;
    drop(busy);
    let Verdict { status, report, .. } = watch.finish()?;

    let delay = report.only("run-queue-delay")?;
    assert_eq!(delay.severity(), "warning", "{}", report.titles());
    assert_eq!(report.rules(), ["run-queue-delay"], "{}", report.titles());
    assert_eq!(delay.comm(), "mill");
    // Whoever else is busy on this host is named beside it.
    assert!(delay.mentions("yes ("), "{}", report.titles());
    assert!(delay.mentions("renice"));
    let share = delay.taken_by("yes").unwrap_or_default();
    assert!(share > 0.2, "{share}");
    let neighbours = report.neighbours();
    assert!(
        neighbours.iter().any(|(comm, _)| *comm == "yes"),
        "{neighbours:?}"
    );
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_job_that_uses_every_cpu_by_itself_is_healthy() -> anyhow::Result<()> {
    let scenario = "a job on every CPU";
    let Some(_turn) = Turn::take(scenario, &["yes"]) else {
        return Ok(());
    };
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let busy = Busy::start(2 * cpus)?;
    let pids: Vec<String> = busy.0.iter().map(|yes| yes.pid().to_string()).collect();
    let mut arguments = vec!["diagnose", "--format", "json", "-d", "3s"];
    for pid in &pids {
        arguments.extend(["--pid", pid]);
    }
    let Verdict { status, report, .. } = Watch::start(&arguments)?.verdict()?;

    assert!(report.findings().next().is_none(), "{}", report.titles());
    assert_eq!(status, 0);
    Ok(())
}

#[test]
fn a_service_at_full_load_that_answers_in_time_is_healthy() -> anyhow::Result<()> {
    let scenario = "full load, answered in time";
    let Some(_turn) = Turn::take(scenario, &["wrk"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let work = draw.millis(1..3);
    let mill = Service::start("mill", &["-work", &go_time(work)])?;
    let watch = Watch::diagnose(&["--pid", &mill.pid()])?;
    let url = format!("http://{}/grind", mill.address);
    succeed(Command::new("wrk").args(["-t1", "-c6", "-d3s", &url]))?;
    watch.finish()?.assert_healthy();
    Ok(())
}

/// What the scheduler's rules say is the cause: the quota, unless others of this host took more.
fn cause<'r>(report: &'r Report, found: &Finding<'r>) -> anyhow::Result<Finding<'r>> {
    let mut causes = ["cpu-throttled", "run-queue-delay"]
        .iter()
        .flat_map(|rule| report.of(rule));
    causes
        .find(|cause| found.caused_by() == Some(cause.id()))
        .with_context(|| format!("no cause among {}: {found:?}", report.titles()))
}

#[test]
fn a_gateway_that_gives_up_on_a_throttled_upstream_is_told_as_its_consequence() -> anyhow::Result<()>
{
    let scenario = "a gateway in front of a throttled upstream";
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    // A request needs ten periods and more, and the gateway waits for some five.
    let allowed = draw.millis(10..15);
    let patience = draw.millis(450..600);
    let Some(quota) = quota(scenario, allowed) else {
        return Ok(());
    };
    let mill = limited(&quota, 12 * allowed, None)?;
    let gateway = Service::start(
        "gateway",
        &[
            "-upstream",
            &mill.address.to_string(),
            "-response-header-timeout",
            &go_time(patience),
            "-on-error",
            "502",
        ],
    )?;
    let watch = Watch::diagnose(&["--pid", &gateway.pid(), "--pid", &mill.pid()])?;
    for _ in 0..draw.number(3..6) {
        let answer = Asked::get(gateway.address, "/grind")?.answer()?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    }
    let Verdict { status, report, .. } = watch.finish()?;

    report.only("cpu-throttled")?;
    let gave_up = report.only("proxy-timeout")?;
    gave_up.blames("net/http.Transport.ResponseHeaderTimeout", patience)?;
    let cause = cause(&report, &gave_up)?;
    assert_eq!(cause.comm(), "mill", "{cause:?}");
    assert_eq!(gave_up.severity(), cause.severity());
    assert!(gave_up.mentions("hardly ran"), "{gave_up:?}");
    let lost: f64 = ["throttled", "run_queue"]
        .iter()
        .filter_map(|part| gave_up.parts().get(part).copied())
        .sum();
    assert!(lost * 2.0 >= patience.as_secs_f64(), "{gave_up:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn an_accept_loop_that_gets_no_cpu_is_not_said_to_be_stuck() -> anyhow::Result<()> {
    let scenario = "an accept loop without CPU";
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    // Each that computes has the processor for 10 ms of CPU time: a third of a second, a dozen in turn.
    let Some(quota) = quota(scenario, draw.millis(2..4)) else {
        return Ok(());
    };
    let busy = draw.number(12..20).to_string();
    let mut command = Command::new(program("burner")?);
    command.args(["-batch", &busy]).env("GOMAXPROCS", "1");
    let burner = Service::run(&mut command)?;
    quota.take_in(burner.process.pid())?;
    let watch = Watch::diagnose(&["--pid", &burner.pid()])?;
    let asked = [
        Asked::get(burner.address, "/page")?,
        Asked::get(burner.address, "/page")?,
    ];
    sleep(draw.millis(2_700..3_200));
    let Verdict { status, report, .. } = watch.finish()?;
    drop(asked);

    let found = report.only("no-response")?;
    assert!(found.mentions("too little CPU"), "{found:?}");
    for wrong in ["in Accept", "does not run", "SIGSTOP", "nobody takes"] {
        assert!(!found.mentions(wrong), "{wrong} in {found:?}");
    }
    let cause = cause(&report, &found)?;
    assert_eq!(found.severity(), cause.severity());
    assert_eq!(status, 1);
    Ok(())
}
