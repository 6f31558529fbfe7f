//! G6: everything waits for one slow database that speaks no HTTP.

use std::{process::Command, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    process::run,
    services::{self, Service, go_time},
    turn::Turn,
};

/// A service with its database, whose queries take as long as this.
fn scene(least: Duration, most: Duration) -> anyhow::Result<(Service, Service)> {
    let database = Service::start(
        "database",
        &["-least", &go_time(least), "-most", &go_time(most)],
    )?;
    let address = database.address.to_string();
    let orders = Service::start("orders", &["-database", &address])?;
    Ok((database, orders))
}

/// Asks for items, at this rate for so long, on a few connections.
fn ask(orders: &Service, rate: &str, seconds: &str) -> anyhow::Result<()> {
    let url = format!("http://{}/items/17", orders.address);
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", &url, "-rate", rate, "-duration", seconds]);
    pace.args(["-connections", "4"]);
    let ended = run(&mut pace, Duration::from_secs(40))?;
    anyhow::ensure!(ended.status == 0, "pace failed: {}", ended.stderr);
    Ok(())
}

#[test]
fn a_slow_database_is_the_cause_and_no_leak_is_claimed() -> anyhow::Result<()> {
    let name = "a slow database";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let least = draw.millis(600..1100);
    let (database, orders) = scene(least, least + draw.millis(100..500))?;
    let watch = Watch::diagnose(&["--pid", &orders.pid()])?;
    ask(&orders, "4", "4s")?;
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("slow-response")?;
    assert!(found.mentions(&database.address.to_string()), "{found:?}");
    assert_eq!(found.comm(), "orders");
    assert!(found.count() >= Some(6), "{found:?}");
    let waited = found.measured("waited_s").unwrap_or_default();
    assert!(waited >= least.as_secs_f64(), "{found:?}");
    let parts = found.parts();
    let whole: f64 = parts.values().sum();
    assert!(parts["upstream"] >= whole / 2.0, "{parts:?}");
    assert_eq!(report.rules(), ["slow-response"], "{}", report.titles());
    assert!(report.of("goroutine-leak").is_empty());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_quick_database_is_healthy() -> anyhow::Result<()> {
    let name = "a quick database";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let (_database, orders) = scene(Duration::from_millis(1), Duration::from_millis(80))?;
    let watch = Watch::diagnose(&["--pid", &orders.pid()])?;
    ask(&orders, "40", "3s")?;
    watch.finish()?.assert_healthy();
    Ok(())
}
