//! N4 and N5: connections that never come to be. A SYN that nobody answers, with who dropped it where
//! the kernel says so; a SYN answered by RST.

use std::{process::Command, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    netns::Pair,
    process::Process,
    report::Finding,
    services::{self, go_time},
    turn::Turn,
};

const SETTING: &str = "net.Dialer.Timeout";
const TOOLS: [&str; 2] = ["ip", "nft"];
const PORT: u16 = 7702;

/// Watches a client in the near namespace that connects to `host` over and over and gives up each time
/// after `patience`; holds the one finding to what every unanswered SYN has in common.
fn dial_in_vain(
    pair: &Pair,
    host: &str,
    patience: Duration,
    judge: impl Fn(&Finding<'_>),
) -> anyhow::Result<()> {
    let url = format!("http://{host}:{PORT}/upload");
    let mut client = pair.near.command(services::program("client")?);
    client.args(["-url", &url, "-n", "0", "-dial-timeout", &go_time(patience)]);
    let client = Process::start(&mut client)?;
    let watch = Watch::diagnose(&["--pid", &client.pid().to_string()])?;
    // Two whole attempts at least, wherever in an attempt the watch began.
    services::wait_for_outcomes(&client, 3)?;
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("connect-timeout")?;
    assert_eq!(found.comm(), "client");
    assert!(found.count() >= Some(2), "{found:?}");
    // What the client does about it is the consequence, and hangs below.
    let [gave_up] = report.of("client-timeout")[..] else {
        anyhow::bail!("no client-timeout, or several: {report:?}");
    };
    assert_eq!(gave_up.caused_by(), Some(found.id()));
    gave_up.blames(SETTING, patience)?;
    assert_eq!(status, 1);
    judge(&found);
    Ok(())
}

/// Long enough for a second SYN (after 1 s), drawn anew for each run.
fn patience(draw: &mut Draw) -> Duration {
    draw.millis(1050..1400)
}

#[test]
fn a_syn_dropped_by_the_peers_firewall_names_netfilter() -> anyhow::Result<()> {
    let name = "a SYN dropped by the peer's firewall";
    let Some(_turn) = Turn::take(name, &TOOLS) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.far.drop_tcp_to(PORT, "input")?;
    dial_in_vain(&pair, Pair::FAR, patience(&mut Draw::new(name)), |found| {
        assert!(found.mentions("netfilter"), "{found:?}");
    })
}

#[test]
fn a_syn_dropped_by_the_own_firewall_names_netfilter() -> anyhow::Result<()> {
    let name = "a SYN dropped by the own firewall";
    let Some(_turn) = Turn::take(name, &TOOLS) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.near.drop_tcp_to(PORT, "output")?;
    dial_in_vain(&pair, Pair::FAR, patience(&mut Draw::new(name)), |found| {
        assert!(found.mentions("netfilter"), "{found:?}");
    })
}

#[test]
fn a_syn_to_nobody_accuses_nobody() -> anyhow::Result<()> {
    let name = "a SYN to nobody";
    let Some(_turn) = Turn::take(name, &TOOLS) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.pretend_nobody_is_there()?;
    dial_in_vain(
        &pair,
        Pair::NOBODY,
        patience(&mut Draw::new(name)),
        |found| assert!(!found.mentions("netfilter_drop"), "{found:?}"),
    )
}

#[test]
fn a_syn_answered_by_rst_is_a_refusal() -> anyhow::Result<()> {
    let name = "a SYN answered by RST";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    drop(listener);
    let url = format!("http://{address}/upload");
    let mut client = Command::new(services::program("client")?);
    client.args(["-url", &url, "-n", "0", "-interval", "50ms"]);
    let client = Process::start(&mut client)?;
    let pid = client.pid().to_string();
    let Verdict { status, report, .. } =
        gopulse_tests::gopulse::diagnose(&["--pid", &pid, "-d", "3s"])?;

    let found = report.only("connect-refused")?;
    assert!(found.count() >= Some(10), "{found:?}");
    assert!(found.mentions(&address.to_string()), "{found:?}");
    assert!(report.of("connect-timeout").is_empty());
    assert_eq!(status, 1);
    Ok(())
}
