//! Requests that wait for one another because a pool of connections is used up, though nobody is slow.

use std::{process::Command, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    process::Process,
    services::{self, Service, go_time},
    turn::Turn,
};

/// A gateway with a pool of this size asks a shop that takes so long, for `load` times as many requests as
/// the pool can carry.
fn gateway(scenario: &str, load: f64) -> anyhow::Result<Option<Verdict>> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(None);
    };
    let mut draw = Draw::new(scenario);
    let takes = draw.millis(150..300);
    let pool = draw.number(1..3);
    let shop = Service::start("shop", &["-delay", &go_time(takes)])?;
    let flags = [
        "-upstream",
        &shop.address.to_string(),
        "-max-conns",
        &pool.to_string(),
    ];
    let flags = [&flags[..], &["-response-header-timeout", "0"]].concat();
    let gateway = Service::start("gateway", &flags)?;
    let watch = Watch::diagnose(&["--pid", &gateway.pid()])?;
    let rate = (load * pool as f64 / takes.as_secs_f64()).max(1.0) as u64;
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", &format!("http://{}/slow", gateway.address)]);
    pace.args([
        "-rate",
        &rate.to_string(),
        "-duration",
        "5s",
        "-connections",
        "40",
    ]);
    Process::start(&mut pace)?.wait(Duration::from_secs(60))?;
    Ok(Some(watch.finish()?))
}

#[test]
fn a_pool_that_is_used_up_is_told_with_its_limit() -> anyhow::Result<()> {
    let Some(Verdict { report, .. }) = gateway("a pool that is used up", 2.0)? else {
        return Ok(());
    };
    let found = report.only("slow-response")?;
    assert_eq!(found.comm(), "gateway");
    let limit = "net/http.Transport.MaxConnsPerHost";
    assert!(found.mentions(limit), "{found:?}");
    assert!(found.count() >= Some(5), "{found:?}");
    assert_eq!(report.rules(), ["slow-response"], "{}", report.titles());
    Ok(())
}

#[test]
fn a_pool_that_suffices_is_healthy() -> anyhow::Result<()> {
    if let Some(verdict) = gateway("a pool that suffices", 0.5)? {
        verdict.assert_healthy();
    }
    Ok(())
}
