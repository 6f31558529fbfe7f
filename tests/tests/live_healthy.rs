//! What is ordinary: full load, of which no event is lost; websockets on which nothing is said; a rolling
//! restart.

use std::{process::Command, thread::sleep, time::Duration};

use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    native,
    process::{Process, succeed},
    services::{self, Service},
    speaker::{Heard, Speaker},
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
    let verdict = watch.verdict()?;

    verdict.assert_healthy();
    assert_eq!(verdict.report.events_lost(), Some(0));
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

/// Opens a websocket (the key is RFC 6455's own).
fn websocket(service: &Service) -> anyhow::Result<Speaker> {
    let mut client = Speaker::to(service.address)?;
    client.say(
        b"GET /socket HTTP/1.1\r\nHost: scenario\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    assert_eq!(client.hear()?, Heard::Status(101));
    Ok(client)
}

#[test]
fn quiet_websockets_are_healthy() -> anyhow::Result<()> {
    let name = "quiet websockets";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let service = Service::start("stuck", &[])?;
    let open = |number: u64| {
        (0..number)
            .map(|_| websocket(&service))
            .collect::<Result<Vec<_>, _>>()
    };
    let mut before = open(draw.number(20..60))?;
    let watch = Watch::diagnose(&["--pid", &service.pid()])?;
    let mut since = open(draw.number(20..60))?;
    sleep(draw.millis(3000..4000));
    // A ping of a few of them, masked with zeroes.
    for socket in before.iter_mut().chain(&mut since).take(10) {
        socket.say(&[0x89, 0x80, 0, 0, 0, 0])?;
    }
    sleep(draw.millis(3000..4000));
    // Some leave, and take nothing with them.
    before.truncate(5);
    let verdict = watch.finish()?;
    drop((before, since));

    verdict.assert_healthy();
    Ok(())
}

#[test]
fn a_rolling_restart_behind_nginx_is_healthy() -> anyhow::Result<()> {
    let name = "a rolling restart behind nginx";
    let Some(_turn) = Turn::take(name, &["nginx"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let start = |address: &str| Service::start("shop", &["-listen", address]);
    let mut shops = [start("127.0.0.1:0")?, start("127.0.0.1:0")?];
    let addresses = [shops[0].address.to_string(), shops[1].address.to_string()];
    // By its defaults nginx stays away from a server that failed once for ten seconds: with both restarted in
    // that time, it has none.
    let nginx = native::nginx(
        "upstream shops { server {0} max_fails=0; server {1} max_fails=0; keepalive 8; }",
        "location / { proxy_pass http://shops; proxy_http_version 1.1; proxy_set_header Connection ''; }",
        &[("{0}", &addresses[0]), ("{1}", &addresses[1])],
    )?;
    let pids = [shops[0].pid(), shops[1].pid()];
    let targets = [
        "--port",
        &nginx.port(),
        "--pid",
        &pids[0],
        "--pid",
        &pids[1],
    ];
    let watch = Watch::diagnose(&targets)?;
    let url = format!("http://{}/", nginx.address);
    let mut pace = Command::new(services::program("pace")?);
    pace.args([
        "-url",
        &url,
        "-rate",
        "50",
        "-duration",
        "6s",
        "-connections",
        "4",
    ]);
    let pace = Process::start(&mut pace)?;
    for (shop, address) in shops.iter_mut().zip(&addresses) {
        sleep(draw.millis(1000..1800));
        succeed(Command::new("kill").args(["-TERM", &shop.pid()]))?;
        gopulse_tests::wait::until("the end of a shop", Duration::from_secs(10), || {
            Ok((!shop.process.runs()?).then_some(()))
        })?;
        *shop = start(address)?;
    }
    let ended = pace.wait(Duration::from_secs(20))?;
    let verdict = watch.finish()?;

    assert!(ended.stdout.contains("\"failed\":0,"), "{}", ended.stdout);
    verdict.assert_healthy();
    Ok(())
}
