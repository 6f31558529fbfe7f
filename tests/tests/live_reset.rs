//! N8 and N13: empty replies and resets, each with the right reason; N9: requests that cross a close.

use std::{process::Command, thread::sleep, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    process::Process,
    services::{self, Service, go_time},
    speaker::{Heard, Speaker},
    turn::Turn,
};

/// Watches the shop while it is asked `times` times for this path, and tells what was heard.
fn asked(
    name: &str,
    path: &str,
    body: usize,
    times: usize,
) -> anyhow::Result<Option<(Verdict, Vec<Heard>)>> {
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(None);
    };
    let delay = Draw::new(name).millis(50..150);
    let shop = Service::start("shop", &["-delay", &go_time(delay)])?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    let mut heard = Vec::new();
    for _ in 0..times {
        let mut client = Speaker::to(shop.address)?;
        client.ask("POST", path, body)?;
        client.say(&vec![b'x'; body])?;
        heard.push(client.hear()?);
    }
    Ok(Some((watch.finish()?, heard)))
}

#[test]
fn a_panic_is_told_with_its_line() -> anyhow::Result<()> {
    for (path, line) in [
        ("/panic", "main.Shop.panic"),
        ("/nil", "main.Shop.dereference"),
    ] {
        let Some((Verdict { status, report, .. }, heard)) = asked("a panic", path, 5, 2)? else {
            return Ok(());
        };
        assert!(!heard.contains(&Heard::Status(200)), "{heard:?}");
        assert_eq!(status, 1);
        assert_eq!(report.rules(), ["empty-response"], "{}", report.titles());
        let empty = report.only("empty-response")?;
        assert_eq!(empty.count(), Some(2));
        assert!(
            empty.mentions("panicked") && empty.mentions(line),
            "{empty:?}"
        );
        let on_purpose = empty.mentions("ErrAbortHandler");
        assert_eq!(on_purpose, path == "/panic", "a nil pointer is no purpose");
    }
    Ok(())
}

#[test]
fn an_abort_on_purpose_is_told_as_possible() -> anyhow::Result<()> {
    let Some((Verdict { report, .. }, _)) = asked("an abort on purpose", "/abort", 0, 2)? else {
        return Ok(());
    };
    let empty = report.only("empty-response")?;
    assert!(empty.mentions("ErrAbortHandler"), "{empty:?}");
    assert!(empty.mentions("main.Shop.abort"), "{empty:?}");
    Ok(())
}

#[test]
fn a_close_with_linger_0_names_the_line() -> anyhow::Result<()> {
    let Some((Verdict { report, .. }, heard)) = asked("linger 0", "/linger", 0, 3)? else {
        return Ok(());
    };
    assert_eq!(heard, vec![Heard::Reset; 3]);
    assert_eq!(report.rules(), ["connection-reset"], "{}", report.titles());
    let reset = report.only("connection-reset")?;
    assert_eq!(reset.comm(), "shop");
    assert_eq!(reset.count(), Some(3));
    assert!(reset.mentions("main.Shop.linger"), "{reset:?}");
    assert!(reset.mentions("SetLinger(0)"), "{reset:?}");
    Ok(())
}

#[test]
fn a_close_with_data_unread_names_the_line() -> anyhow::Result<()> {
    let Some((Verdict { report, .. }, heard)) = asked("data unread", "/unread", 60_000, 3)? else {
        return Ok(());
    };
    assert_eq!(heard, vec![Heard::Reset; 3]);
    assert_eq!(report.rules(), ["connection-reset"], "{}", report.titles());
    let reset = report.only("connection-reset")?;
    assert_eq!(reset.count(), Some(3));
    assert!(reset.mentions("main.Shop.unread"), "{reset:?}");
    assert!(reset.mentions("lay in it unread"), "{reset:?}");
    Ok(())
}

#[test]
fn an_upstream_that_resets_is_the_cause_of_the_gateways_empty_reply() -> anyhow::Result<()> {
    let name = "an upstream that resets";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let shop = Service::start("shop", &[])?;
    let upstream = shop.address.to_string();
    let gateway = Service::start("gateway", &["-upstream", &upstream])?;
    let watch = Watch::diagnose(&["--port", &gateway.port()])?;
    for _ in 0..3 {
        let mut client = Speaker::to(gateway.address)?;
        client.ask("POST", "/linger", 0)?;
        assert_eq!(client.hear()?, Heard::Nothing);
    }
    let Verdict { report, .. } = watch.finish()?;

    assert_eq!(report.rules(), ["connection-reset"], "{}", report.titles());
    let mut empties = report.of("empty-response").into_iter();
    assert!(
        empties.any(|empty| empty.comm() == "gateway" && empty.caused_by().is_some()),
        "{}",
        report.titles()
    );
    Ok(())
}

#[test]
fn posts_that_cross_the_close_of_an_idle_connection_name_both_idle_times() -> anyhow::Result<()> {
    let name = "posts that cross a close";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let idle = draw.millis(300..900);
    let shop = Service::start("shop", &["-idle-timeout", &go_time(idle)])?;
    let client = std::process::id().to_string();
    let watch = Watch::diagnose(&["--port", &shop.port(), "--pid", &client])?;
    let mut lost = 0;
    for late in [1, 3, 40] {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", "/", 0)?;
        assert_eq!(client.hear()?, Heard::Status(200));
        sleep(idle + Duration::from_millis(late));
        // The client did not look whether the server had closed.
        client.ask("POST", "/", 0)?;
        lost += u64::from(client.hear()? != Heard::Status(200));
    }
    let Verdict { report, .. } = watch.finish()?;

    assert!(lost > 0);
    assert_eq!(report.rules(), ["keepalive-race"], "{}", report.titles());
    let race = report.only("keepalive-race")?;
    race.blames("net/http.Server.IdleTimeout", idle)?;
    assert_eq!(race.count(), Some(lost));
    assert!(race.mentions("IdleConnTimeout"));
    Ok(())
}

#[test]
fn a_pooled_client_whose_connections_the_server_closes_is_healthy() -> anyhow::Result<()> {
    let name = "a pooled client";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let idle = draw.millis(100..200);
    let pause = idle + draw.millis(100..200);
    let shop = Service::start("shop", &["-idle-timeout", &go_time(idle)])?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    let url = format!("http://{}/upload", shop.address);
    let outcomes = services::upload(&url, &["-n", "10", "-interval", &go_time(pause)])?;
    let verdict = watch.finish()?;

    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    verdict.assert_healthy();
    Ok(())
}

#[test]
fn a_service_that_shuts_down_is_healthy() -> anyhow::Result<()> {
    let name = "a service that shuts down";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let shop = Service::start("shop", &["-delay", "300ms"])?;
    let pid = shop.pid();
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    let mut clients: Vec<Speaker> = (0..5)
        .map(|_| Speaker::to(shop.address))
        .collect::<anyhow::Result<_>>()?;
    for client in &mut clients {
        client.ask("GET", "/", 0)?;
        assert_eq!(client.hear()?, Heard::Status(200));
    }
    let mut busy = Speaker::to(shop.address)?;
    busy.ask("GET", "/slow", 0)?;
    sleep(Duration::from_millis(100));
    Process::start(Command::new("kill").args(["-TERM", &pid]))?.wait(Duration::from_secs(5))?;
    assert_eq!(busy.hear()?, Heard::Status(200));
    for client in &mut clients {
        assert_eq!(client.hear()?, Heard::Nothing);
    }
    watch.finish()?.assert_healthy();
    Ok(())
}

#[test]
fn clients_that_leave_are_healthy() -> anyhow::Result<()> {
    let name = "clients that leave";
    let Some(_turn) = Turn::take(name, &["curl"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let shop = Service::start("shop", &["-delay", "400ms"])?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for _ in 0..3 {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", "/slow", 0)?;
        sleep(draw.millis(50..200));
        drop(client);
        // A health check: connects, and that is all.
        drop(Speaker::to(shop.address)?);
    }
    sleep(Duration::from_millis(600));
    watch.finish()?.assert_healthy();
    Ok(())
}
