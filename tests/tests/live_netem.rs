//! N7 on a bad line: netem(8) loses packets, or delays them. It is a module that not every kernel has, so
//! these run in the guests of `cargo xtask vm`.

use std::time::Duration;

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    netns::Pair,
    process::succeed,
    services::{self, Service},
    turn::Turn,
};

const TOOLS: [&str; 3] = ["ip", "tc", "bash"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Watches both ends while so many bytes are read over a line that does this to each packet of the server.
fn read_over(line: &[&str], bytes: u64) -> anyhow::Result<Verdict> {
    let pair = Pair::new()?;
    let mut netem = pair.far.command("tc");
    netem.args(["qdisc", "add", "dev", "cable", "root", "netem"]);
    succeed(netem.args(line))?;
    let listen = format!("{}:0", Pair::FAR);
    let mut files = pair.far.command(services::program("files")?);
    let files = Service::run(files.args(["-listen", &listen]))?;
    let url = format!("http://{}/whole?bytes={bytes}", files.address);
    let mut reader = pair.near.command(services::program("reader")?);
    let mut reader = Service::run(reader.args(["-url", &url]))?;
    let watch = Watch::diagnose(&["--pid", &files.pid(), "--pid", &reader.pid()])?;
    let begin = format!("exec 3<>/dev/tcp/127.0.0.1/{}", reader.address.port());
    succeed(pair.near.command("bash").args(["-c", &begin]))?;
    reader.process.line("reading")?;
    let ended = reader.process.wait(PATIENCE)?;
    anyhow::ensure!(ended.status == 0, "the reader failed: {}", ended.stderr);
    watch.finish()
}

#[test]
#[ignore = "not every kernel has netem: cargo xtask vm runs it"]
fn a_line_that_loses_packets_is_the_cause_of_the_gap() -> anyhow::Result<()> {
    let name = "a line that loses packets";
    let Some(_turn) = Turn::take(name, &TOOLS) else {
        return Ok(());
    };
    let loss = format!("{}%", Draw::new(name).number(15..25));
    let Verdict { status, report, .. } = read_over(&["loss", &loss], 3_000_000)?;

    let lost = report.only("packet-loss")?;
    assert!(lost.measured("retransmits") >= Some(1.0), "{lost:?}");
    assert_eq!(lost.caused_by(), None);
    assert_eq!(report.stories().len(), 1, "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
#[ignore = "not every kernel has netem: cargo xtask vm runs it"]
fn a_slow_line_is_no_slow_service() -> anyhow::Result<()> {
    let name = "a slow line";
    let Some(_turn) = Turn::take(name, &TOOLS) else {
        return Ok(());
    };
    let delay = Draw::new(name).millis(300..600);
    let millis = format!("{}ms", delay.as_millis());
    let Verdict { report, .. } = read_over(&["delay", &millis], 300_000)?;

    let stalled = report.only("stalled-transfer")?;
    assert_eq!(stalled.severity(), "info", "{}", report.titles());
    let longest = stalled.measured("waited_max_s").unwrap_or_default();
    assert!(longest >= 0.9 * delay.as_secs_f64(), "{stalled:?}");
    assert!(report.alarms().is_empty(), "{}", report.titles());
    Ok(())
}
