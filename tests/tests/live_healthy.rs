//! A service under full load is healthy, and no event of it is lost.

use std::process::Command;

use gopulse_tests::{
    gopulse::{Verdict, Watch},
    process::succeed,
    services::Service,
    turn::Turn,
};

fn under_load(scenario: &str, headers: &[&str]) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(scenario, &["wrk"]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let url = format!("http://{}/", hello.address);
    let port = hello.port();
    let arguments = ["diagnose", "--format", "json", "--port", &port, "-d", "4s"];
    let watch = Watch::start(&arguments)?;
    succeed(
        Command::new("wrk")
            .args(["-t1", "-c32", "-d3s"])
            .args(headers)
            .arg(url),
    )?;
    let Verdict { status, report, .. } = watch.verdict()?;

    assert!(report.alarms().is_empty(), "{}", report.titles());
    assert_eq!(report.events_lost(), Some(0));
    assert_eq!(status, 0);
    Ok(())
}

#[test]
fn kept_connections_under_full_load_are_healthy() -> anyhow::Result<()> {
    under_load("kept connections under full load", &[])
}

#[test]
fn a_connection_for_every_request_under_full_load_is_healthy() -> anyhow::Result<()> {
    under_load(
        "a connection for every request under full load",
        &["-H", "Connection: close"],
    )
}
