//! N3: proxies that are not ours, in front of a Go service, give up on it after a time of their own. The
//! time is told, from the waits alone, and no Go setting is invented for a C program.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    http::Asked,
    native::{self, Native},
    report::Finding,
    services::{self, Service, go_time},
    turn::Turn,
};

/// Give-ups of each scenario; equal waits are believed from three on.
const LARGE: u64 = 4;

type Proxy = fn(&str, &str) -> anyhow::Result<Native>;

/// Each waits for an upstream this long, in milliseconds.
fn nginx(upstream: &str, patience: &str) -> anyhow::Result<Native> {
    native::nginx(
        "",
        "location / { proxy_pass http://{upstream}; proxy_read_timeout {patience}ms; }",
        &[("{upstream}", upstream), ("{patience}", patience)],
    )
}

fn haproxy(upstream: &str, patience: &str) -> anyhow::Result<Native> {
    let configuration = "defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server {patience}ms
frontend front
    bind {listen}
    default_backend back
backend back
    server upload {upstream}
";
    Native::start(
        &["haproxy", "-db", "-f", "{file}"],
        ("haproxy.cfg", configuration),
        &[("{upstream}", upstream), ("{patience}", patience)],
    )
}

fn caddy(upstream: &str, patience: &str) -> anyhow::Result<Native> {
    let site = "    reverse_proxy {upstream} {
        transport http {
            response_header_timeout {patience}ms
        }
    }";
    native::caddy(site, &[("{upstream}", upstream), ("{patience}", patience)])
}

/// Watches large uploads through a proxy that waits less than they take, small ones among them.
fn gives_up(
    name: &str,
    program: &str,
    proxy: Proxy,
    judge: impl Fn(&Finding<'_>, Duration),
) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(name, &[program]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1200);
    let delay = patience + draw.millis(300..600);
    let upload = Service::start("upload", &["-large-delay", &go_time(delay)])?;
    let milliseconds = patience.as_millis().to_string();
    let proxy = proxy(&upload.address.to_string(), &milliseconds)?;
    let watch = Watch::diagnose(&["--port", &proxy.port()])?;
    let url = format!("http://{}/upload", proxy.address);
    // The last one is small: when it is answered, the proxy has closed all that it gave up on.
    let outcomes = services::upload(&url, &["-n", "9", "-large-every", "2"])?;
    let Verdict { status, report, .. } = watch.finish()?;

    let failed = outcomes.iter().filter(|outcome| outcome.status != 200);
    assert_eq!(failed.count() as u64, LARGE, "{outcomes:?}");
    let found = report.only("proxy-timeout")?;
    assert_eq!(found.comm(), program);
    assert_eq!(found.count(), Some(LARGE), "{found:?}");
    let waited = found.measured("waited_s").unwrap_or_default();
    let drawn = patience.as_secs_f64();
    assert!((drawn - 0.01..drawn + 0.06).contains(&waited), "{found:?}");
    assert_eq!(report.rules(), ["proxy-timeout"], "{}", report.titles());
    assert_eq!(status, 1);
    judge(&found, patience);
    Ok(())
}

fn no_setting_is_invented(found: &Finding<'_>, _: Duration) {
    assert_eq!(found.setting(), None, "{found:?}");
    for setting in ["ResponseHeaderTimeout", "http.Client", "context"] {
        assert!(!found.mentions(setting), "{setting}: {found:?}");
    }
    let confidence = found.confidence();
    assert!((0.6..0.85).contains(&confidence), "{found:?}");
}

#[test]
fn nginx_gives_up_after_its_proxy_read_timeout() -> anyhow::Result<()> {
    gives_up("nginx gives up", "nginx", nginx, no_setting_is_invented)
}

#[test]
fn haproxy_gives_up_after_its_timeout_server() -> anyhow::Result<()> {
    let name = "haproxy gives up";
    gives_up(name, "haproxy", haproxy, no_setting_is_invented)
}

#[test]
fn caddy_gives_up_after_its_response_header_timeout() -> anyhow::Result<()> {
    gives_up("caddy gives up", "caddy", caddy, |found, patience| {
        // A Go program older than the layouts that are known: its setting is named where its decision
        // was seen, and then it is the right one.
        if found.setting().is_some() {
            let right = "net/http.Transport.ResponseHeaderTimeout";
            found.blames(right, patience).unwrap();
        }
    })
}

/// An nginx that waits so long for a service, tells its workers apart at `/worker`, and has those that Debian
/// gives it on two CPUs.
fn front(upstream: &Service, patience: Duration) -> anyhow::Result<Native> {
    let locations = "location /worker { return 200 $pid; }
        location / { proxy_pass http://{upstream}; proxy_read_timeout {patience}ms; }";
    let patience = patience.as_millis().to_string();
    let upstream = upstream.address.to_string();
    native::nginx(
        "",
        locations,
        &[("{upstream}", &upstream), ("{patience}", &patience)],
    )
}

/// Kept connections to a proxy, two to each of two workers, in turn.
fn two_to_each_worker(proxy: &Native) -> anyhow::Result<Vec<Asked>> {
    let mut by_worker: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
    // Which worker takes a connection is nginx's choice; it changes its mind after some.
    for _ in 0..300 {
        let mut connection = Asked::get(proxy.address, "/worker")?;
        let answer = connection.answer()?;
        let worker = answer.lines().last().context("an empty answer")?;
        let of_worker = by_worker.entry(worker.to_owned()).or_default();
        if of_worker.len() < 2 {
            of_worker.push(connection);
        }
        if by_worker.values().filter(|of| of.len() == 2).count() == 2 {
            return Ok(by_worker.into_values().flatten().collect());
        }
    }
    anyhow::bail!("one worker took all connections")
}

#[test]
fn workers_that_give_up_twice_each_are_one_nginx_with_a_limit() -> anyhow::Result<()> {
    let name = "workers that give up twice each";
    let Some(_turn) = Turn::take(name, &["nginx"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1200);
    let delay = patience + draw.millis(1000..2000);
    let shop = Service::start("shop", &["-delay", &go_time(delay)])?;
    let nginx = front(&shop, patience)?;
    let watch = Watch::diagnose(&["--port", &nginx.port()])?;
    for mut connection in two_to_each_worker(&nginx)? {
        connection.again("/slow")?;
        let answer = connection.answer()?;
        assert!(answer.contains(" 504 "), "{answer}");
    }
    let Verdict { status, report, .. } = watch.finish()?;

    let found = report.only("proxy-timeout")?;
    assert_eq!((found.comm(), found.count()), ("nginx", Some(4)));
    assert!(found.title().contains("nginx (2 workers)"), "{found:?}");
    let waited = found.measured("waited_s").unwrap_or_default();
    let drawn = patience.as_secs_f64();
    assert!((drawn - 0.01..drawn + 0.06).contains(&waited), "{found:?}");
    no_setting_is_invented(&found, patience);
    assert_eq!(report.rules(), ["proxy-timeout"], "{}", report.titles());
    assert_eq!(status, 1);
    Ok(())
}

#[test]
fn workers_whose_clients_leave_have_no_limit() -> anyhow::Result<()> {
    let name = "workers whose clients leave";
    let Some(_turn) = Turn::take(name, &["nginx"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(300..800);
    let shop = Service::start("shop", &["-delay", "5s"])?;
    let nginx = front(&shop, Duration::from_secs(20))?;
    let watch = Watch::diagnose(&["--port", &nginx.port()])?;
    for mut connection in two_to_each_worker(&nginx)? {
        connection.again("/slow")?;
        sleep(patience);
        drop(connection);
    }
    watch.finish()?.assert_healthy();
    Ok(())
}
