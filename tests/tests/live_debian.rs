//! Servers of others, as Debian ships them, at their ordinary work. They are Go programs of other years and
//! a C program; none was written with gopulse in mind, and none of them is ill.

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    http::Asked,
    native::{self, Native, free_port},
    process::{Process, succeed},
    services::{self, Service},
    turn::Turn,
};

/// Asks at a fixed rate, beside whatever else happens.
fn pace(url: &str, rate: u64) -> anyhow::Result<Process> {
    let mut pace = Command::new(services::program("pace")?);
    pace.args(["-url", url, "-rate", &rate.to_string()]);
    pace.args(["-connections", "4", "-duration", "5s"]);
    Process::start(&mut pace)
}

/// Waits for what [`pace`] started; nothing of it has failed.
fn answered(pace: Process) -> anyhow::Result<()> {
    let ended = pace.wait(Duration::from_secs(30))?;
    anyhow::ensure!(ended.stdout.contains("\"failed\":0,"), "{}", ended.stdout);
    Ok(())
}

#[test]
fn prometheus_that_scrapes_and_answers_is_healthy() -> anyhow::Result<()> {
    let name = "prometheus";
    let Some(_turn) = Turn::take(name, &["prometheus"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let every = draw.millis(400..900).as_millis().to_string();
    let configuration = "global: { scrape_interval: {every}ms, scrape_timeout: {every}ms }
scrape_configs:
- { job_name: itself, static_configs: [ { targets: [ '{listen}' ] } ] }
- { job_name: again, static_configs: [ { targets: [ '{listen}' ] } ] }
rule_files: [ '{directory}/rules.yml' ]
";
    let rules = tempfile::NamedTempFile::new()?;
    fs::write(
        rules.path(),
        "groups: [ { name: g, interval: 1s, rules: [ { record: up:sum, expr: sum(up) } ] } ]",
    )?;
    let rules = rules.path().to_string_lossy();
    let prometheus = Native::start(
        &[
            "prometheus",
            "--config.file={file}",
            "--storage.tsdb.path={directory}/data",
            "--web.listen-address={listen}",
        ],
        ("prometheus.yml", configuration),
        &[("{every}", &every), ("{directory}/rules.yml", &rules)],
    )?;
    prometheus.wait("prometheus to be ready", || {
        let answer = Asked::get(prometheus.address, "/-/ready")?.answer()?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    })?;
    let watch = Watch::diagnose(&["--pid", &prometheus.pid()])?;
    let query = format!("http://{}/api/v1/query?query=", prometheus.address);
    let queries = [
        pace(&format!("{query}up"), draw.number(10..30))?,
        pace(
            &format!("{query}sum(rate(prometheus_http_requests_total[1m]))"),
            draw.number(5..15),
        )?,
        pace(
            &format!("http://{}/metrics", prometheus.address),
            draw.number(2..6),
        )?,
    ];
    queries.into_iter().try_for_each(answered)?;
    watch.finish()?.assert_healthy();
    Ok(())
}

/// `etcdctl`, with its arguments.
fn etcdctl(etcd: &Native, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg("--endpoints")
        .arg(etcd.address.to_string());
    command.args(arguments);
    command
}

#[test]
fn etcd_under_puts_reads_and_watches_is_healthy() -> anyhow::Result<()> {
    let name = "etcd";
    let Some(_turn) = Turn::take(name, &["etcd", "etcdctl"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let configuration = "name: it
data-dir: {directory}/data
listen-client-urls: http://{listen}
advertise-client-urls: http://{listen}
listen-peer-urls: http://{peer}
initial-advertise-peer-urls: http://{peer}
initial-cluster: it=http://{peer}
log-level: error
";
    let peer = free_port()?.to_string();
    let command = ["etcd", "--config-file", "{file}"];
    let etcd = Native::start(&command, ("etcd.yml", configuration), &[("{peer}", &peer)])?;
    succeed(&mut etcdctl(&etcd, &["put", "key", "first"]))?;
    let watchers = ["key", "lock", "nobody"]
        .map(|key| Process::start(&mut etcdctl(&etcd, &["watch", "--prefix", key])));
    let watchers = watchers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let watch = Watch::diagnose(&["--pid", &etcd.pid()])?;
    let mut interactive = etcdctl(&etcd, &["lock", "lock", "sleep", "4"]);
    let lock = Process::start(&mut interactive)?;
    let metrics = pace(&format!("http://{}/metrics", etcd.address), 2)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        succeed(&mut etcdctl(
            &etcd,
            &["put", &format!("key{}", draw.number(0..50)), "value"],
        ))?;
        succeed(&mut etcdctl(&etcd, &["get", "--prefix", "key"]))?;
        sleep(draw.millis(10..80));
    }
    answered(metrics)?;
    let verdict = watch.finish()?;
    assert!(watchers[0].stdout().contains("PUT"));
    drop((lock, watchers));

    verdict.assert_healthy();
    Ok(())
}

/// Files, of which one is large.
fn files() -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().permissions(readable()).tempdir()?;
    for (name, size) in [
        ("small.txt", 500),
        ("page.html", 40_000),
        ("large.bin", 20_000_000),
    ] {
        fs::write(directory.path().join(name), vec![b'x'; size])?;
    }
    Ok(directory)
}

/// By whatever user the server runs as.
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

/// What visitors do to a server that has [`files`], and a service behind `/app`.
fn visit(name: &str, server: &Native) -> anyhow::Result<()> {
    let mut draw = Draw::new(name);
    let watch = Watch::diagnose(&["--port", &server.port()])?;
    let url = |path: &str| format!("http://{}{path}", server.address);
    let visitors = [
        pace(&url("/small.txt"), draw.number(20..60))?,
        pace(&url("/page.html"), draw.number(20..60))?,
        pace(&url("/app"), draw.number(20..60))?,
        pace(&url("/missing"), draw.number(1..5))?,
    ];
    // A quick download, and one over a slow line.
    for rate in ["1G", "6M"] {
        succeed(Command::new("curl").args([
            "-sf",
            "-o",
            "/dev/null",
            "--limit-rate",
            rate,
            &url("/large.bin"),
        ]))?;
    }
    // A browser connects ahead of time, and never asks.
    let ahead = std::net::TcpStream::connect(server.address)?;
    visitors.into_iter().try_for_each(answered)?;
    let verdict = watch.finish()?;
    drop(ahead);

    verdict.assert_healthy();
    Ok(())
}

#[test]
fn caddy_that_serves_files_and_proxies_is_healthy() -> anyhow::Result<()> {
    let name = "caddy at its work";
    let Some(_turn) = Turn::take(name, &["caddy", "curl"]) else {
        return Ok(());
    };
    let (files, hello) = (files()?, Service::start("hello", &[])?);
    let differs = [
        ("{root}", &*files.path().to_string_lossy()),
        ("{app}", &hello.address.to_string()),
    ];
    let site = "    root * {root}\n    encode gzip\n    reverse_proxy /app* {app}\n    file_server";
    visit(name, &native::caddy(site, &differs)?)
}

#[test]
fn nginx_that_serves_files_and_proxies_is_healthy() -> anyhow::Result<()> {
    let name = "nginx at its work";
    let Some(_turn) = Turn::take(name, &["nginx", "curl"]) else {
        return Ok(());
    };
    let (files, hello) = (files()?, Service::start("hello", &[])?);
    let differs = [
        ("{root}", &*files.path().to_string_lossy()),
        ("{app}", &hello.address.to_string()),
    ];
    let server = "root {root}; gzip on; location /app { proxy_pass http://{app}; }";
    visit(name, &native::nginx("sendfile on;", server, &differs)?)
}
