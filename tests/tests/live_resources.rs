//! N10, N11, N12 and N14: connections opened for every message, connections kept after their peers
//! closed, a queue that overflows, descriptors that run out; and what looks like each of them and is
//! healthy.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    http::Asked,
    services::{self, Service, go_time},
    turn::Turn,
};

/// Posts a message after the other for so long, with a pause between; how many.
fn messages(notifier: &Service, pause: Duration, long: Duration) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut asked = Asked::get(notifier.address, "/")?;
    let mut number = 0;
    while began.elapsed() < long {
        let answer = asked.answer()?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        number += 1;
        sleep(pause);
        asked.again("/")?;
    }
    Ok(number)
}

/// A notifier that tells a broker in its own way of each message.
fn notify(
    scenario: &str,
    how: &str,
    broker: &str,
    flags: &[&str],
) -> anyhow::Result<Option<(Verdict, u64)>> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(None);
    };
    let mut draw = Draw::new(scenario);
    let broker = Service::start(broker, flags)?;
    let whom = if how == "http" {
        format!("http://{}/", broker.address)
    } else {
        broker.address.to_string()
    };
    let notifier = Service::start("notifier", &["-how", how, "-broker", &whom])?;
    let watch = Watch::diagnose(&["--pid", &notifier.pid()])?;
    let number = messages(&notifier, draw.millis(5..40), draw.millis(3500..4500))?;
    if how == "leaked" {
        // From then on nobody can mean to close them soon.
        sleep(Duration::from_millis(3200));
    }
    Ok(Some((watch.finish()?, number)))
}

#[test]
fn a_connection_for_every_message_is_named_with_its_function() -> anyhow::Result<()> {
    let name = "a connection for every message";
    let Some((Verdict { status, report, .. }, number)) = notify(name, "fresh", "broker", &[])?
    else {
        return Ok(());
    };
    let found = report.only("connection-churn")?;
    assert_eq!(found.severity(), "warning", "{found:?}");
    assert_eq!(found.comm(), "notifier");
    assert!(found.mentions("main.publish"), "{found:?}");
    assert!(
        found.count() >= Some(number) && found.count() <= Some(number + 1),
        "{found:?}"
    );
    assert_eq!(report.rules(), ["connection-churn"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_client_for_every_message_is_churn_as_well() -> anyhow::Result<()> {
    let name = "a client for every message";
    let Some((Verdict { report, .. }, _)) = notify(name, "http", "hello", &[])? else {
        return Ok(());
    };
    let found = report.only("connection-churn")?;
    assert_eq!(found.comm(), "notifier");
    assert!(found.mentions("CloseIdleConnections"), "{found:?}");
    assert!(found.mentions("main.post"), "{found:?}");
    Ok(())
}

#[test]
fn one_connection_for_all_messages_is_healthy() -> anyhow::Result<()> {
    let name = "one connection for all messages";
    if let Some((verdict, _)) = notify(name, "kept", "broker", &[])? {
        verdict.assert_healthy();
    }
    Ok(())
}

#[test]
fn connections_that_are_never_closed_are_named_with_who_opened_them() -> anyhow::Result<()> {
    let name = "connections that are never closed";
    let Some((Verdict { status, report, .. }, number)) =
        notify(name, "leaked", "broker", &["-once"])?
    else {
        return Ok(());
    };
    let found = report.only("close-wait-leak")?;
    assert_eq!(found.severity(), "warning", "{found:?}");
    assert_eq!(found.comm(), "notifier");
    assert!(found.mentions("main.forget"), "{found:?}");
    assert!(
        found.count() <= Some(number + 1) && found.count() > Some(number / 2),
        "{found:?}"
    );
    assert!(
        report.of("connection-churn").is_empty(),
        "{}",
        report.titles()
    );
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_server_that_keeps_what_its_clients_closed_is_found() -> anyhow::Result<()> {
    let name = "a server that keeps what its clients closed";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let number = draw.number(8..30);
    let broker = Service::start("broker", &["-keep"])?;
    let watch = Watch::diagnose(&["--pid", &broker.pid()])?;
    for _ in 0..number {
        drop(TcpStream::connect(broker.address)?);
        sleep(draw.millis(5..50));
    }
    sleep(Duration::from_millis(3300));
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("close-wait-leak")?;
    assert_eq!(found.count(), Some(number), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn leaks_from_before_the_window_are_found() -> anyhow::Result<()> {
    let name = "leaks from before the window";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let number = Draw::new(name).number(8..30);
    let broker = Service::start("broker", &["-keep"])?;
    for _ in 0..number {
        drop(TcpStream::connect(broker.address)?);
    }
    let watch = Watch::diagnose(&["--pid", &broker.pid()])?;
    sleep(Duration::from_millis(3300));
    let Verdict { report, .. } = watch.finish()?;

    assert_eq!(report.only("close-wait-leak")?.count(), Some(number));
    Ok(())
}

/// Knocks at a door so many times at once; each waits to be let in.
fn knock(door: SocketAddr, number: u64) -> Vec<std::thread::JoinHandle<()>> {
    (0..number)
        .map(|_| {
            std::thread::spawn(move || {
                if let Ok(mut stream) = TcpStream::connect_timeout(&door, Duration::from_secs(8)) {
                    drop(stream.set_read_timeout(Some(Duration::from_secs(8))));
                    let mut greeting = String::new();
                    drop(stream.read_to_string(&mut greeting));
                }
            })
        })
        .collect()
}

#[test]
fn a_queue_that_overflows_is_told_with_its_length() -> anyhow::Result<()> {
    let name = "a queue that overflows";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let backlog = draw.number(2..6).to_string();
    let pause = go_time(draw.millis(150..300));
    let doorman = Service::start("doorman", &["-backlog", &backlog, "-pause", &pause])?;
    let watch = Watch::diagnose(&["--pid", &doorman.pid()])?;
    let knocks = knock(doorman.address, 24);
    sleep(draw.millis(2500..3000));
    let Verdict { status, report, .. } = watch.finish()?;
    for knock in knocks {
        drop(knock.join());
    }

    let found = report.only("accept-backlog")?;
    assert!(
        found.mentions(&format!("its backlog is {backlog}")),
        "{found:?}"
    );
    assert_eq!(report.rules(), ["accept-backlog"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_burst_that_the_queue_holds_is_healthy() -> anyhow::Result<()> {
    let name = "a burst that the queue holds";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let doorman = Service::start("doorman", &["-pause", "5ms"])?;
    let watch = Watch::diagnose(&["--pid", &doorman.pid()])?;
    for knock in knock(doorman.address, 100) {
        drop(knock.join());
    }
    watch.finish()?.assert_healthy();
    Ok(())
}

/// A notifier that leaks a connection for each message and may have `limit` descriptors.
fn limited(limit: u64, broker: &Service) -> anyhow::Result<Service> {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={limit}:{limit}"));
    command.arg(services::program("notifier")?);
    command.args(["-how", "leaked", "-broker", &broker.address.to_string()]);
    Service::run(&mut command)
}

#[test]
fn calls_that_fail_for_want_of_a_descriptor_are_told_with_the_limit() -> anyhow::Result<()> {
    let name = "calls that fail for want of a descriptor";
    let Some(_turn) = Turn::take(name, &["prlimit"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.number(40..80);
    let broker = Service::start("broker", &[])?;
    let notifier = limited(limit, &broker)?;
    let watch = Watch::diagnose(&["--pid", &notifier.pid()])?;
    let mut asked = Asked::get(notifier.address, "/")?;
    for _ in 0..limit + 20 {
        asked.answer()?;
        sleep(draw.millis(5..25));
        asked.again("/")?;
    }
    sleep(Duration::from_millis(1200));
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("fd-exhaustion")?;
    assert_eq!(found.severity(), "critical", "{found:?}");
    assert!(found.mentions("RLIMIT_NOFILE"), "{found:?}");
    assert!(
        found.mentions(&format!("may have {limit} file")),
        "{found:?}"
    );
    assert!(found.mentions(&broker.address.to_string()), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn descriptors_that_will_run_out_are_told_before() -> anyhow::Result<()> {
    let name = "descriptors that will run out";
    let Some(_turn) = Turn::take(name, &["prlimit"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.number(150..250);
    let broker = Service::start("broker", &[])?;
    let notifier = limited(limit, &broker)?;
    let mut asked = Asked::get(notifier.address, "/")?;
    let mut leak = |until: u64, pause: Duration| -> anyhow::Result<()> {
        while open(&notifier)? < until {
            asked.answer()?;
            sleep(pause);
            asked.again("/")?;
        }
        Ok(())
    };
    leak(limit * 9 / 10, Duration::ZERO)?;
    let watch = Watch::diagnose(&["--pid", &notifier.pid()])?;
    leak(limit - 2, Duration::from_millis(450))?;
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("fd-exhaustion")?;
    assert_eq!(found.severity(), "warning", "{found:?}");
    assert!(found.mentions("will run out"), "{found:?}");
    assert_eq!(status, 1);
    Ok(())
}

fn open(service: &Service) -> anyhow::Result<u64> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", service.pid()))?.count() as u64)
}

#[test]
fn thousands_of_idle_connections_below_the_limit_are_healthy() -> anyhow::Result<()> {
    let name = "thousands of idle connections";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let hello = Service::start("hello", &[])?;
    let ours = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let number = 2_000.min(ours.0.saturating_sub(200));
    let mut idle = Vec::new();
    for _ in 0..number {
        let mut asked = Asked::get(hello.address, "/")?;
        asked.answer()?;
        idle.push(asked);
    }
    let watch = Watch::diagnose(&["--pid", &hello.pid()])?;
    sleep(Draw::new(name).millis(3200..4000));
    let verdict = watch.finish()?;
    drop(idle);
    verdict.assert_healthy();
    Ok(())
}
