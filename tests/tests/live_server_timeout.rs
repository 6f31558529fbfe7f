//! N2: a server's own limits of time cut requests off. Which of them did is told apart.

use std::{thread::sleep, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    native,
    report::Report,
    services::{Service, go_time},
    speaker::{Heard, Speaker},
    turn::Turn,
};

/// How many requests each scenario lets a server cut off.
const TIMES: u64 = 3;

/// One story is told: the shop's limit of this name.
fn assert_the_limit_is_blamed(
    report: &Report,
    setting: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let found = report.only("server-timeout")?;
    found.blames(setting, limit)?;
    assert_eq!(found.comm(), "shop");
    assert_eq!(found.count(), Some(TIMES), "{}", report.titles());
    assert_eq!(report.rules(), ["server-timeout"], "{}", report.titles());
    Ok(())
}

fn slow_uploads(name: &str, abort: bool) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(600..1500);
    let shop = Service::start(
        "shop",
        &["-read-timeout", &go_time(limit), &format!("-abort={abort}")],
    )?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(shop.address)?;
        let body = vec![b'x'; 200_000];
        client.ask("POST", "/upload", body.len())?;
        client.dribble(&body, 2_000, draw.millis(20..80));
        let heard = client.hear()?;
        assert_ne!(heard, Heard::Status(200), "the upload is too quick");
    }
    // A quick one passes.
    let mut client = Speaker::to(shop.address)?;
    client.ask("POST", "/upload", 5)?;
    client.say(b"hello")?;
    assert_eq!(client.hear()?, Heard::Status(200));
    let Verdict { status, report, .. } = watch.finish()?;

    assert_eq!(status, 1);
    assert_the_limit_is_blamed(&report, "net/http.Server.ReadTimeout", limit)?;
    assert!(report.only("server-timeout")?.mentions("still sending"));
    if abort {
        let cause = report.only("server-timeout")?;
        let empty = report.only("empty-response")?;
        assert_eq!(empty.caused_by(), Some(cause.id()));
    }
    Ok(())
}

#[test]
fn slow_uploads_that_are_answered_with_an_error_name_read_timeout() -> anyhow::Result<()> {
    slow_uploads("slow uploads answered with an error", false)
}

#[test]
fn slow_uploads_that_are_closed_with_nothing_name_read_timeout() -> anyhow::Result<()> {
    slow_uploads("slow uploads closed with nothing", true)
}

#[test]
fn heads_that_trickle_name_read_header_timeout() -> anyhow::Result<()> {
    let name = "heads that trickle";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(600..1200);
    let shop = Service::start("shop", &["-read-header-timeout", &go_time(limit)])?;
    let watch = Watch::diagnose(&["--pid", &shop.pid()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(shop.address)?;
        let mut head = b"GET / HTTP/1.1\r\nHost: shop\r\n".to_vec();
        head.extend_from_slice(&[b'X'; 500]);
        client.dribble(&head, 10, draw.millis(40..90));
        // A header that is cut in its name reads as malformed, and is answered.
        assert_ne!(client.hear()?, Heard::Status(200));
    }
    let Verdict { report, .. } = watch.finish()?;

    assert_the_limit_is_blamed(&report, "net/http.Server.ReadHeaderTimeout", limit)
}

#[test]
fn answers_after_write_timeout_are_thrown_away() -> anyhow::Result<()> {
    let name = "answers after WriteTimeout";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(300..800);
    let delay = limit + draw.millis(200..500);
    let shop = Service::start(
        "shop",
        &["-write-timeout", &go_time(limit), "-delay", &go_time(delay)],
    )?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", "/slow", 0)?;
        assert_eq!(client.hear()?, Heard::Nothing);
    }
    let Verdict { status, report, .. } = watch.finish()?;

    assert_eq!(status, 1);
    assert_the_limit_is_blamed(&report, "net/http.Server.WriteTimeout", limit)?;
    let found = report.only("server-timeout")?;
    let empty = report.only("empty-response")?;
    assert_eq!(empty.caused_by(), Some(found.id()));
    assert!(found.mentions("main.Shop.cook"), "{found:?}");
    Ok(())
}

#[test]
fn downloads_that_are_cut_off_in_the_middle_name_write_timeout() -> anyhow::Result<()> {
    let name = "downloads cut off in the middle";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(400..900);
    let limits = Service::start("limits", &["-write-timeout", &go_time(limit)])?;
    let watch = Watch::diagnose(&["--port", &limits.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(limits.address)?;
        client.ask("GET", "/", 0)?;
        let came = client.sip(20_000, draw.millis(8..12));
        assert!(came < 16 << 20, "{came} bytes are all of it");
    }
    let Verdict { report, .. } = watch.finish()?;

    let found = report.only("server-timeout")?;
    found.blames("net/http.Server.WriteTimeout", limit)?;
    assert_eq!(found.count(), Some(TIMES), "{}", report.titles());
    assert_eq!(report.rules(), ["server-timeout"], "{}", report.titles());
    Ok(())
}

#[test]
fn a_timeout_handler_is_named_while_the_handler_works_on() -> anyhow::Result<()> {
    let name = "a TimeoutHandler";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(300..700);
    let delay = limit + draw.millis(2500..3500);
    let shop = Service::start(
        "shop",
        &[
            "-handler-timeout",
            &go_time(limit),
            "-delay",
            &go_time(delay),
        ],
    )?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", "/slow", 0)?;
        assert_eq!(client.hear()?, Heard::Status(503));
    }
    let Verdict { report, .. } = watch.finish()?;

    assert_the_limit_is_blamed(&report, "net/http.TimeoutHandler", limit)?;
    let found = report.only("server-timeout")?;
    assert!(found.mentions("main.Shop.cook"), "{found:?}");
    Ok(())
}

#[test]
fn limits_that_nobody_runs_into_are_healthy() -> anyhow::Result<()> {
    let name = "limits that nobody runs into";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let idle = draw.millis(200..400);
    let shop = Service::start(
        "shop",
        &[
            "-read-timeout",
            "5s",
            "-write-timeout",
            "5s",
            "-idle-timeout",
            &go_time(idle),
            "-delay",
            &go_time(draw.millis(700..1200)),
        ],
    )?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for path in ["/", "/slow", "/"] {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", path, 0)?;
        assert_eq!(client.hear()?, Heard::Status(200));
        // The server closes it, and the client does not mind.
        assert_eq!(client.hear()?, Heard::Nothing);
    }
    // Connected and silent.
    let mut client = Speaker::to(shop.address)?;
    sleep(idle);
    client.ask("GET", "/", 0)?;
    assert_eq!(client.hear()?, Heard::Status(200));
    watch.finish()?.assert_healthy();
    Ok(())
}

#[test]
fn a_client_that_leaves_a_slow_handler_is_not_cut_off() -> anyhow::Result<()> {
    let name = "a client that leaves a slow handler";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let limit = draw.millis(500..800);
    let shop = Service::start(
        "shop",
        &["-write-timeout", &go_time(limit), "-delay", "900ms"],
    )?;
    let watch = Watch::diagnose(&["--port", &shop.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(shop.address)?;
        client.ask("GET", "/slow", 0)?;
        sleep(draw.millis(100..300));
    }
    sleep(Duration::from_secs(1));
    watch.finish()?.assert_healthy();
    Ok(())
}

#[test]
fn an_nginx_that_stops_waiting_for_a_body_has_a_limit_and_no_go_setting() -> anyhow::Result<()> {
    let name = "an nginx that stops waiting for a body";
    let Some(_turn) = Turn::take(name, &["nginx"]) else {
        return Ok(());
    };
    let location = "client_body_timeout 1s; location / { proxy_pass http://127.0.0.1:9; }";
    let nginx = native::nginx("", location, &[])?;
    let watch = Watch::diagnose(&["--port", &nginx.port()])?;
    for _ in 0..TIMES {
        let mut client = Speaker::to(nginx.address)?;
        client.ask("POST", "/upload", 100_000)?;
        client.dribble(&[b'x'; 3_000], 1_000, Duration::from_millis(50));
        assert_ne!(client.hear()?, Heard::Status(200));
    }
    let Verdict { report, .. } = watch.finish()?;

    let found = report.only("server-timeout")?;
    assert_eq!(found.setting(), None, "{}", report.titles());
    assert_eq!(found.comm(), "nginx");
    assert_eq!(found.count(), Some(TIMES));
    Ok(())
}
