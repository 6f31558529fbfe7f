//! G1 to G5: goroutines that leak in different ways, a lock that is held for too long, and two locks in
//! opposite order; and what looks like each of them and is healthy. (G6 is in `live_database.rs`.)

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use gopulse_tests::{
    cgroup::Memory,
    draw::Draw,
    gopulse::{Verdict, Watch},
    http::Asked,
    services::{Service, go_time, program},
    turn::{Turn, skip},
};

/// Asks one request after the other for so long; how many.
fn ask(server: SocketAddr, path: &str, pause: Duration, long: Duration) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut asked = Asked::get(server, path)?;
    let mut number = 0;
    while began.elapsed() < long {
        let answer = asked.answer()?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        number += 1;
        sleep(pause);
        asked.again(path)?;
    }
    asked.answer()?;
    Ok(number + 1)
}

/// What becomes of a service that is asked for `path` again and again.
fn leaky(scenario: &str, path: &str, flags: &[&str]) -> anyhow::Result<Option<(Verdict, u64)>> {
    let Some(_turn) = Turn::take(scenario, &[]) else {
        return Ok(None);
    };
    let mut draw = Draw::new(scenario);
    let store = Service::start("hello", &[])?;
    let url = format!("http://{}/", store.address);
    let leaky = Service::start("leaky", &[&["-store", &url], flags].concat())?;
    let watch = Watch::diagnose(&["--pid", &leaky.pid()])?;
    let number = ask(
        leaky.address,
        path,
        draw.millis(10..50),
        draw.millis(6000..8000),
    )?;
    Ok(Some((watch.finish()?, number)))
}

fn assert_leaks(path: &str, wants: &[&str]) -> anyhow::Result<()> {
    let scenario = format!("a leak of {path}");
    let Some((Verdict { status, report, .. }, number)) = leaky(&scenario, path, &[])? else {
        return Ok(());
    };
    let found = report.only("goroutine-leak")?;
    assert_eq!(found.severity(), "warning", "{found:?}");
    assert_eq!(found.comm(), "leaky");
    for want in wants {
        assert!(found.mentions(want), "{want} in {found:?}");
    }
    // Those that were there at the first look are not counted, and it comes a little late.
    assert!(found.count() <= Some(number), "{number}: {found:?}");
    assert!(found.count() >= Some(number / 2), "{number}: {found:?}");
    let growth = found.measured("growth_per_s").unwrap_or_default();
    assert!(growth > 1.0, "{found:?}");
    assert_eq!(report.rules(), ["goroutine-leak"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

fn assert_healthy(scenario: &str, path: &str, flags: &[&str]) -> anyhow::Result<()> {
    if let Some((verdict, _)) = leaky(scenario, path, flags)? {
        verdict.assert_healthy();
    }
    Ok(())
}

#[test]
fn a_result_that_nobody_receives_leaks_its_goroutine() -> anyhow::Result<()> {
    assert_leaks("/send", &["main.report.func1", "main.report ", "chan send"])
}

#[test]
fn a_group_that_is_never_done_leaks_who_waits_for_it() -> anyhow::Result<()> {
    assert_leaks("/group", &["main.gather.func1", "Done"])
}

#[test]
fn a_range_over_a_channel_that_is_never_closed_leaks() -> anyhow::Result<()> {
    assert_leaks(
        "/range",
        &["main.consume", "main.stream", "close the channel"],
    )
}

#[test]
fn a_loop_over_a_timer_that_nobody_ends_leaks() -> anyhow::Result<()> {
    assert_leaks("/poll", &["main.poll", "select"])
}

#[test]
fn a_body_that_nobody_closes_leaks_its_connection_and_names_who_asked() -> anyhow::Result<()> {
    assert_leaks("/forget", &["main.forget", "Body.Close"])
}

#[test]
fn fifty_thousand_idle_goroutines_are_healthy() -> anyhow::Result<()> {
    assert_healthy("fifty thousand idle goroutines", "/ok", &["-idle", "50000"])
}

#[test]
fn goroutines_that_end_after_a_while_are_healthy() -> anyhow::Result<()> {
    let pause = Draw::new("how long they take").millis(100..900);
    let pause = go_time(pause);
    assert_healthy(
        "goroutines that end after a while",
        "/brief",
        &["-pause", &pause],
    )
}

#[test]
fn a_load_that_has_begun_and_whose_deadlines_are_longer_than_the_window_is_healthy()
-> anyhow::Result<()> {
    let longest = Draw::new("how long they may take").millis(20_000..60_000);
    let longest = go_time(longest);
    assert_healthy(
        "goroutines whose deadlines are longer than the window",
        "/brief",
        &["-pause", &longest],
    )
}

#[test]
fn the_memory_limit_of_its_cgroup_is_what_a_leak_runs_into() -> anyhow::Result<()> {
    let name = "a leak in a cgroup with a memory limit";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.number(200..400) << 20;
    let cgroup = match Memory::new(limit) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            skip(name, &format!("{error:#}"));
            return Ok(());
        }
    };
    let leaky = Service::run(&mut cgroup.command(&program("leaky")?))?;
    let watch = Watch::diagnose(&["--pid", &leaky.pid()])?;
    ask(
        leaky.address,
        "/send",
        draw.millis(10..30),
        draw.millis(6000..8000),
    )?;
    let Verdict { report, .. } = watch.finish()?;

    let found = report.only("goroutine-leak")?;
    assert_eq!(found.measured("memory_limit_bytes"), Some(limit as f64));
    assert!(
        found.mentions("the memory limit of its cgroup"),
        "{found:?}"
    );
    assert!(found.mentions(&cgroup.name()), "{found:?}");
    assert!(
        found.measured("memory_each_bytes") >= Some(2048.0),
        "{found:?}"
    );
    assert!(found.measured("exhausted_in_s") > Some(0.0), "{found:?}");
    Ok(())
}

#[test]
fn a_pool_that_fills_up_is_healthy() -> anyhow::Result<()> {
    assert_healthy("a pool that fills up", "/pool", &[])
}

#[test]
fn bodies_that_are_read_and_closed_are_healthy() -> anyhow::Result<()> {
    assert_healthy("bodies that are read and closed", "/fetch", &[])
}

/// So many clients ask for `path`, each on a connection of its own.
fn clients(server: SocketAddr, path: &str, number: u64) -> anyhow::Result<Vec<Asked>> {
    (0..number).map(|_| Asked::get(server, path)).collect()
}

#[test]
fn a_lock_held_over_something_slow_is_told_with_holder_and_queue() -> anyhow::Result<()> {
    let name = "a lock held over something slow";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let slow = go_time(draw.millis(200..400));
    let ledger = Service::start("ledger", &["-slow", &slow])?;
    let watch = Watch::diagnose(&["--pid", &ledger.pid()])?;
    let queue = clients(ledger.address, "/enter", draw.number(16..24))?;
    for mut client in queue {
        client.answer()?;
    }
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("lock-contention")?;
    assert_eq!(found.severity(), "warning", "{found:?}");
    assert_eq!(found.comm(), "ledger");
    assert!(found.mentions("main.(*Ledger).Enter"), "{found:?}");
    assert!(found.mentions("main.(*Ledger).write"), "{found:?}");
    assert!(found.mentions("likely"), "{found:?}");
    assert!(found.count() >= Some(8), "{found:?}");
    assert_eq!(report.rules(), ["lock-contention"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn a_lock_that_is_taken_for_no_time_is_healthy() -> anyhow::Result<()> {
    let name = "a lock that is taken for no time";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let ledger = Service::start("ledger", &[])?;
    let watch = Watch::diagnose(&["--pid", &ledger.pid()])?;
    let began = Instant::now();
    let long = draw.millis(3500..4500);
    let mut many = clients(ledger.address, "/count", 16)?;
    while began.elapsed() < long {
        for client in &mut many {
            client.answer()?;
            client.again("/count")?;
        }
    }
    drop(many);
    watch.finish()?.assert_healthy();
    Ok(())
}

#[test]
fn two_locks_in_opposite_order_are_a_deadlock() -> anyhow::Result<()> {
    let name = "two locks in opposite order";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let slow = go_time(draw.millis(200..400));
    let ledger = Service::start("ledger", &["-slow", &slow])?;
    let watch = Watch::diagnose(&["--pid", &ledger.pid()])?;
    let there = clients(ledger.address, "/there", 1)?;
    let back = clients(ledger.address, "/back", 1)?;
    sleep(draw.millis(500..700));
    let behind = clients(ledger.address, "/there", draw.number(0..4))?;
    // Long enough for several looks at goroutines none of which goes on.
    sleep(draw.millis(6000..7000));
    let Verdict { status, report, .. } = watch.finish()?;
    let clients = (there.len() + back.len() + behind.len()) as u64;

    let found = report.only("deadlock")?;
    assert_eq!(found.severity(), "critical", "{found:?}");
    assert_eq!(found.comm(), "ledger");
    assert!(found.mentions("main.Transfer"), "{found:?}");
    assert_eq!(found.count(), Some(clients), "{found:?}");
    assert_eq!(report.rules(), ["deadlock"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn two_locks_in_the_same_order_are_no_deadlock() -> anyhow::Result<()> {
    let name = "two locks in the same order";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let slow = go_time(draw.millis(1200..1800));
    let ledger = Service::start("ledger", &["-slow", &slow])?;
    let watch = Watch::diagnose(&["--pid", &ledger.pid()])?;
    let waiting = clients(ledger.address, "/safe", 6)?;
    sleep(draw.millis(5500..6500));
    let Verdict { report, .. } = watch.finish()?;
    drop(waiting);

    assert!(report.of("deadlock").is_empty(), "{}", report.titles());
    assert!(
        report.of("goroutine-leak").is_empty(),
        "{}",
        report.titles()
    );
    Ok(())
}
