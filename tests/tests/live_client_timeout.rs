//! N15: a plain client gives up. Which of its settings made it do so is told apart.

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Verdict, Watch},
    netns::Pair,
    process::Process,
    services::{self, Service, go_time},
    turn::Turn,
};

/// Lets gopulse start a client that uploads three large bodies and gives each up after `patience`, by
/// the setting that `flag` makes.
fn give_up(scenario: &str, flag: &str, setting: &str) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(scenario);
    let patience = draw.millis(300..800);
    let delay = patience + draw.millis(300..600);
    let upload = Service::start("upload", &["-large-delay", &go_time(delay)])?;
    let client = services::program("client")?;
    let Verdict { status, report, .. } = gopulse::diagnose(&[
        "-d",
        "4s",
        // The client's own words would mix with the report on standard output.
        "--",
        "sh",
        "-c",
        "exec \"$0\" \"$@\" >/dev/null",
        client.to_str().context("a path that is no text")?,
        "-url",
        &format!("http://{}/upload", upload.address),
        "-n",
        "3",
        "-large-every",
        "1",
        flag,
        &go_time(patience),
    ])?;

    let found = report.only("client-timeout")?;
    found.blames(setting, patience)?;
    assert_eq!(found.comm(), "client");
    assert_eq!(found.count(), Some(3));
    assert!(report.of("proxy-timeout").is_empty(), "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn the_clients_own_timeout_is_named() -> anyhow::Result<()> {
    give_up("Client.Timeout", "-timeout", "net/http.Client.Timeout")
}

#[test]
fn the_deadline_of_a_context_is_named() -> anyhow::Result<()> {
    give_up("a context's deadline", "-ctx-timeout", "context deadline")
}

#[test]
fn a_dialers_timeout_is_not_taken_for_the_clients() -> anyhow::Result<()> {
    let scenario = "a dialer's timeout";
    let Some(_turn) = Turn::take(scenario, &["ip"]) else {
        return Ok(());
    };
    let patience = Draw::new(scenario).millis(300..800);
    let pair = Pair::new()?;
    pair.pretend_nobody_is_there()?;
    let url = format!("http://{}:80/upload", Pair::NOBODY);
    let mut client = pair.near.command(services::program("client")?);
    client.args(["-url", &url, "-n", "0", "-timeout", "5s"]);
    client.args(["-dial-timeout", &go_time(patience)]);
    let client = Process::start(&mut client)?;
    let watch = Watch::diagnose(&["--pid", &client.pid().to_string()])?;
    services::wait_for_outcomes(&client, 3)?;
    let Verdict { report, .. } = watch.finish()?;

    let [story] = report.stories()[..] else {
        anyhow::bail!("more than one story:\n{}", report.titles());
    };
    story.blames("net.Dialer.Timeout", patience)
}
