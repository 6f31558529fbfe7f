//! N7: gaps in the middle of a response. The application pauses; the receiver does not read; packets are
//! lost. And what looks alike and is meant: streams of events, polls, steady slow readers.

use std::{net::TcpStream, process::Command, thread, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    netns::Pair,
    process::succeed,
    report::Finding,
    services::{self, Service, go_time},
    turn::Turn,
};

/// A buffer that a response soon fills, and stopping early.
const SMALL: [&str; 4] = ["-buffer", "65536", "-stop-after", "100000"];

const PATIENCE: Duration = Duration::from_secs(30);

/// A reader that begins when it is told to.
struct Reader(Service);

impl Reader {
    fn ready(url: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(services::program("reader")?);
        let service = Service::run(command.args(["-url", url]).args(arguments))?;
        Ok(Self(service))
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        TcpStream::connect(self.0.address)?;
        self.0.process.line("reading")?;
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        let ended = self.0.process.wait(PATIENCE)?;
        anyhow::ensure!(ended.status == 0, "the reader failed: {}", ended.stderr);
        Ok(())
    }
}

/// Lets one read to its end.
fn read(url: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut reader = Reader::ready(url, arguments)?;
    reader.begin()?;
    reader.end()
}

/// It lasted as long as was drawn.
fn lasted(found: &Finding<'_>, drawn: Duration) {
    let longest = found.measured("waited_max_s").unwrap_or_default();
    let drawn = drawn.as_secs_f64();
    assert!(
        (drawn - 0.02..drawn + 0.25).contains(&longest),
        "{longest} s instead of {drawn} s: {found:?}"
    );
}

#[test]
fn a_handler_that_pauses_in_mid_response_is_the_silent_sender() -> anyhow::Result<()> {
    let name = "a handler that pauses";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let pause = Draw::new(name).millis(300..1500);
    let files = Service::start("files", &["-pause", &go_time(pause)])?;
    let watch = Watch::diagnose(&["--port", &files.port()])?;
    read(&format!("http://{}/paused", files.address), &["-n", "3"])?;
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("stalled-transfer")?;
    assert_eq!(found.comm(), "files");
    assert!(found.mentions("the sender was silent"), "{found:?}");
    assert_eq!(found.count(), Some(3));
    lasted(&found, pause);
    assert_eq!(report.rules(), ["stalled-transfer"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_receiver_that_stops_reading_is_named() -> anyhow::Result<()> {
    let name = "a receiver that stops reading";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let stop = Draw::new(name).millis(400..1500);
    let files = Service::start("files", &[])?;
    let stop_for = go_time(stop);
    let arguments = [&SMALL[..], &["-stop", &stop_for]].concat();
    let url = format!("http://{}/whole?bytes=9000000", files.address);
    let mut reader = Reader::ready(&url, &arguments)?;
    let watch = Watch::diagnose(&["--pid", &files.pid(), "--pid", &reader.0.pid()])?;
    reader.begin()?;
    reader.end()?;
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("stalled-transfer")?;
    assert_eq!(found.comm(), "reader", "{}", report.titles());
    assert!(found.mentions("the receiver was silent"), "{found:?}");
    lasted(&found, stop);
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_receiver_that_never_reads_again_is_named() -> anyhow::Result<()> {
    let name = "a receiver that never reads again";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let files = Service::start("files", &[])?;
    let url = format!("http://{}/whole?bytes=9000000", files.address);
    let arguments = [&SMALL[..], &["-stop", "1h"]].concat();
    let mut reader = Reader::ready(&url, &arguments)?;
    let watch = Watch::diagnose(&["--pid", &files.pid(), "--pid", &reader.0.pid()])?;
    reader.begin()?;
    // What is measured here is how long nothing happens.
    thread::sleep(Duration::from_millis(1500));
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("stalled-transfer")?;
    assert_eq!(found.comm(), "reader", "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn lost_packets_are_the_cause_of_the_gap() -> anyhow::Result<()> {
    let name = "lost packets";
    let Some(_turn) = Turn::take(name, &["ip", "nft"]) else {
        return Ok(());
    };
    let losing = Draw::new(name).millis(300..900);
    let pair = Pair::new()?;
    let listen = format!("{}:0", Pair::FAR);
    let mut files = pair.far.command(services::program("files")?);
    let files = Service::run(files.args(["-listen", &listen]))?;
    let url = format!("http://{}/whole?bytes=6000000", files.address);
    let mut reader = pair.near.command(services::program("reader")?);
    let mut reader = Service::run(reader.args(["-url", &url, "-slow", "3ms"]))?;
    let watch = Watch::diagnose(&["--pid", &files.pid(), "--pid", &reader.pid()])?;
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{}", reader.address.port());
    succeed(pair.near.command("bash").args(["-c", &connect]))?;
    reader.process.line("reading")?;
    pair.near.lose_tcp_from(files.address.port())?;
    thread::sleep(losing);
    pair.near.let_pass()?;
    let ended = reader.process.wait(PATIENCE)?;
    anyhow::ensure!(ended.status == 0, "the reader failed: {}", ended.stderr);
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("packet-loss")?;
    assert!(found.mentions("netfilter_drop"), "{found:?}");
    assert!(found.measured("retransmits") >= Some(1.0), "{found:?}");
    assert!(found.measured("waited_max_s") >= Some(0.19), "{found:?}");
    assert_eq!(found.caused_by(), None);
    let stalled = report.only("stalled-transfer")?;
    assert_eq!(stalled.caused_by(), Some(found.id()));
    assert_eq!(report.rules(), ["packet-loss"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn streams_polls_and_steady_readers_are_healthy() -> anyhow::Result<()> {
    let name = "streams, polls and steady readers";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let tick = go_time(draw.millis(250..900));
    let news = go_time(draw.millis(1200..2500));
    let files = Service::start("files", &["-tick", &tick, "-news", &news])?;
    let base = format!("http://{}", files.address);
    let mut listener = Reader::ready(&format!("{base}/events"), &[])?;
    let url = format!("{base}/whole?bytes=3000000");
    let mut steady = Reader::ready(&url, &["-slow", "15ms", "-buffer", "65536"])?;
    let watch = Watch::diagnose(&[
        "--port",
        &files.port(),
        "--pid",
        &listener.0.pid(),
        "--pid",
        &steady.0.pid(),
    ])?;
    listener.begin()?;
    steady.begin()?;
    read(&format!("{base}/inbox"), &["-n", "3"])?;
    read(&format!("{base}/whole?bytes=100"), &["-n", "50"])?;
    steady.end()?;
    drop(listener);
    watch.finish()?.assert_healthy();
    Ok(())
}
