//! N1: a gateway gives up on its upstream. Large uploads take the upstream longer than the gateway
//! waits; the upstream's own log says it answered; small uploads work.

use std::{fs, path::Path, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Verdict, Watch},
    native,
    process::Process,
    report::Report,
    services::{self, Outcome, Service, go_time},
    turn::Turn,
    wait,
};

const SETTING: &str = "net/http.Transport.ResponseHeaderTimeout";

/// Large uploads among those that [`Scene::uploads`] makes.
const LARGE: u64 = 2;

struct Scene {
    upload: Service,
    gateway: Service,
    patience: Duration,
}

impl Scene {
    fn set(draw: &mut Draw, on_error: &str) -> anyhow::Result<Self> {
        let patience = draw.millis(500..1000);
        let upload = slow_upload(draw, patience)?;
        let gateway = Service::start(
            "gateway",
            &[
                "-upstream",
                &upload.address.to_string(),
                "-response-header-timeout",
                &go_time(patience),
                "-on-error",
                on_error,
            ],
        )?;
        Ok(Self {
            upload,
            gateway,
            patience,
        })
    }

    fn url(&self) -> String {
        format!("http://{}/upload", self.gateway.address)
    }

    /// Six uploads, [`LARGE`] of them large.
    fn uploads(&self) -> anyhow::Result<Vec<Outcome>> {
        services::upload(&self.url(), &["-n", "6", "-large-every", "3"])
    }
}

/// An upload service that takes longer over large uploads than a gateway of this patience waits.
fn slow_upload(draw: &mut Draw, patience: Duration) -> anyhow::Result<Service> {
    let delay = patience + draw.millis(300..600);
    Service::start("upload", &["-large-delay", &go_time(delay)])
}

fn failed(outcomes: &[Outcome]) -> usize {
    let failed = |outcome: &&Outcome| outcome.status != 200;
    outcomes.iter().filter(failed).count()
}

/// One story is told, the gateway's, with its setting and the time it was set to.
fn assert_the_gateway_is_blamed(report: &Report, patience: Duration) -> anyhow::Result<()> {
    let found = report.only("proxy-timeout")?;
    found.blames(SETTING, patience)?;
    assert_eq!(found.comm(), "gateway");
    assert_eq!(found.count(), Some(LARGE), "small uploads are left alone");
    assert_eq!(found.caused_by(), None);
    assert_eq!(report.rules(), ["proxy-timeout"], "{}", report.titles());
    Ok(())
}

fn assert_the_empty_reply_is_its_consequence(report: &Report) -> anyhow::Result<()> {
    let cause = report.only("proxy-timeout")?;
    let replies = report.of("empty-response");
    assert!(!replies.is_empty(), "{}", report.titles());
    for reply in replies {
        assert_eq!(reply.caused_by(), Some(cause.id()), "{}", report.titles());
    }
    Ok(())
}

#[test]
fn a_gateway_found_by_its_port_is_named_with_its_setting() -> anyhow::Result<()> {
    let name = "a gateway found by its port";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let scene = Scene::set(&mut Draw::new(name), "abort")?;
    let watch = Watch::diagnose(&["--port", &scene.gateway.port()])?;
    let outcomes = scene.uploads()?;
    let Verdict { status, report, .. } = watch.finish()?;

    assert_eq!(failed(&outcomes) as u64, LARGE, "{outcomes:?}");
    assert_eq!(status, 1);
    assert_eq!(report.events_lost(), Some(0));
    assert_the_gateway_is_blamed(&report, scene.patience)?;
    assert_the_empty_reply_is_its_consequence(&report)
}

#[test]
fn the_upstream_still_at_work_is_shown_with_its_line() -> anyhow::Result<()> {
    let name = "the upstream still at work";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let scene = Scene::set(&mut Draw::new(name), "502")?;
    let watch = Watch::diagnose(&["--pid", &scene.gateway.pid(), "--pid", &scene.upload.pid()])?;
    let outcomes = scene.uploads()?;
    let Verdict { status, report, .. } = watch.finish()?;

    let bad_gateway = outcomes.iter().filter(|outcome| outcome.status == 502);
    assert_eq!(bad_gateway.count() as u64, LARGE, "{outcomes:?}");
    assert_eq!(status, 1);
    assert_the_gateway_is_blamed(&report, scene.patience)?;
    let found = report.only("proxy-timeout")?;
    assert!(found.mentions("main.(*Archive).store"), "{found:?}");
    assert!(found.mentions("archive.go"), "{found:?}");
    Ok(())
}

#[test]
fn a_gateway_started_by_gopulse_is_watched_from_its_first_connection() -> anyhow::Result<()> {
    let name = "a gateway started by gopulse";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1000);
    let upload = slow_upload(&mut draw, patience)?;
    let address = native::free_port()?.to_string();
    let gateway = services::program("gateway")?;
    let watch = Watch::diagnose(&[
        "--",
        gateway.to_str().context("a path that is no text")?,
        "-listen",
        &address,
        "-upstream",
        &upload.address.to_string(),
        "-response-header-timeout",
        &go_time(patience),
    ])?;
    let url = format!("http://{address}/upload");
    let answers = || Ok(std::net::TcpStream::connect(&address).ok());
    drop(wait::until(
        "the gateway",
        Duration::from_secs(10),
        answers,
    )?);
    let outcomes = services::upload(&url, &["-n", "6", "-large-every", "3"])?;
    let Verdict { status, report, .. } = watch.finish()?;

    assert_eq!(failed(&outcomes) as u64, LARGE, "{outcomes:?}");
    assert_eq!(status, 1);
    assert_the_gateway_is_blamed(&report, patience)
}

#[test]
fn a_deadline_that_the_gateways_own_handler_sets_is_named() -> anyhow::Result<()> {
    let name = "a deadline in the gateway's handler";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1000);
    let upload = slow_upload(&mut draw, patience)?;
    let upstream = upload.address.to_string();
    let deadline = go_time(patience);
    let flags = ["-upstream", &upstream, "-response-header-timeout", "0"];
    let flags = [&flags[..], &["-deadline", &deadline, "-on-error", "502"]].concat();
    let gateway = Service::start("gateway", &flags)?;
    let watch = Watch::diagnose(&["--pid", &gateway.pid()])?;
    let url = format!("http://{}/upload", gateway.address);
    let outcomes = services::upload(&url, &["-n", "6", "-large-every", "3"])?;
    let Verdict { report, .. } = watch.finish()?;

    assert_eq!(failed(&outcomes) as u64, LARGE, "{outcomes:?}");
    let found = report.only("proxy-timeout")?;
    found.blames("context deadline", patience)?;
    assert_eq!(found.count(), Some(LARGE), "{found:?}");
    assert_eq!(report.rules(), ["proxy-timeout"], "{}", report.titles());
    Ok(())
}

#[test]
fn a_recording_gives_the_same_findings_as_the_run_that_made_it() -> anyhow::Result<()> {
    let name = "a recording gives the same findings";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let scene = Scene::set(&mut Draw::new(name), "abort")?;
    let directory = tempfile::tempdir()?;
    let recording = directory.path().join("recording");
    let path = recording.to_str().context("a path that is no text")?;
    let port = scene.gateway.port();
    let watch = Watch::start(&["record", "--port", &port, "-d", "60s", "-o", path])?;
    scene.uploads()?;
    watch.stop()?;

    let live = live_report(&recording)?;
    let replayed = gopulse::diagnose(&[path])?;
    assert_the_gateway_is_blamed(&live, scene.patience)?;
    assert_the_gateway_is_blamed(&replayed.report, scene.patience)?;
    assert_the_empty_reply_is_its_consequence(&replayed.report)?;
    assert_eq!(replayed.status, 1);
    assert_eq!(live.gist(), replayed.report.gist());
    Ok(())
}

#[test]
fn small_uploads_alone_are_healthy() -> anyhow::Result<()> {
    let name = "small uploads alone";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let scene = Scene::set(&mut Draw::new(name), "abort")?;
    let watch = Watch::diagnose(&["--port", &scene.gateway.port()])?;
    let outcomes = services::upload(&scene.url(), &["-n", "40", "-interval", "20ms"])?;
    let verdict = watch.finish()?;

    assert_eq!(failed(&outcomes), 0, "{outcomes:?}");
    verdict.assert_healthy();
    Ok(())
}

#[test]
fn a_client_that_leaves_first_is_not_the_gateways_timeout() -> anyhow::Result<()> {
    let name = "a client that leaves first";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(300..600);
    let upload = slow_upload(&mut draw, patience)?;
    let gateway = Service::start(
        "gateway",
        &[
            "-upstream",
            &upload.address.to_string(),
            "-response-header-timeout",
            "5s",
        ],
    )?;
    let watch = Watch::diagnose(&["--port", &gateway.port()])?;
    let outcomes = services::upload(
        &format!("http://{}/upload", gateway.address),
        &[
            "-n",
            "2",
            "-large-every",
            "1",
            "-timeout",
            &go_time(patience),
        ],
    )?;
    let Verdict { report, .. } = watch.finish()?;

    assert_eq!(failed(&outcomes), 2, "{outcomes:?}");
    assert!(report.of("proxy-timeout").is_empty(), "{}", report.titles());
    Ok(())
}

#[test]
fn a_client_that_outlives_the_window_is_judged_when_the_window_ends() -> anyhow::Result<()> {
    let name = "a client that outlives the window";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let scene = Scene::set(&mut Draw::new(name), "abort")?;
    let mut client = std::process::Command::new(services::program("client")?);
    client.args(["-url", &scene.url(), "-n", "0", "-large-every", "2"]);
    let _client = Process::start(&mut client)?;
    let pid = scene.gateway.pid();
    let Verdict { status, report, .. } = gopulse::diagnose(&["--pid", &pid, "-d", "4s"])?;

    let found = report.only("proxy-timeout")?;
    found.blames(SETTING, scene.patience)?;
    assert!(found.count() >= Some(2), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

/// The verdict that `record` itself came to.
fn live_report(recording: &Path) -> anyhow::Result<Report> {
    let report = recording.join("report.json");
    let text = fs::read_to_string(&report).with_context(|| format!("no {}", report.display()))?;
    Report::parse(&text)
}
