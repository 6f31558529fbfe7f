//! N3: proxies that are not ours, in front of a Go service, give up on it after a time of their own. The
//! time is told, from the waits alone, and no Go setting is invented for a C program.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{Verdict, Watch},
    process::Process,
    report::Finding,
    services::{self, Service, go_time},
    turn::Turn,
    wait,
};

/// Give-ups of each scenario; equal waits are believed from three on.
const LARGE: u64 = 4;

/// A proxy in the foreground, with its configuration.
struct Proxy {
    process: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Proxy {
    /// Starts `command` on a configuration file; `{listen}`, `{upstream}`, `{patience}` (in milliseconds)
    /// and `{directory}` stand for what differs.
    fn start(
        mut command: Command,
        (file, configuration): (&str, &str),
        upstream: SocketAddr,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory_name = path.to_str().context("a path that is no text")?;
        let configuration = configuration
            .replace("{listen}", &address.to_string())
            .replace("{upstream}", &upstream.to_string())
            .replace("{patience}", &patience.as_millis().to_string())
            .replace("{directory}", directory_name);
        fs::write(path.join(file), configuration)?;
        command.arg(path.join(file)).env("HOME", path);
        let process = Process::start(&mut command)?;
        let answers = || Ok(TcpStream::connect(address).ok());
        wait::until("the proxy", Duration::from_secs(10), answers)
            .with_context(|| process.stderr())?;
        Ok(Self {
            process,
            address,
            _directory: directory,
        })
    }
}

fn nginx(upstream: SocketAddr, patience: Duration) -> anyhow::Result<Proxy> {
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-g", "daemon off;", "-c"]);
    let configuration = "user root; master_process off; pid {directory}/pid; error_log stderr;
        events {}
        http {
            access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};
            fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
            client_max_body_size 10m;
            server {
                listen {listen};
                location / { proxy_pass http://{upstream}; proxy_read_timeout {patience}ms; }
            }
        }";
    Proxy::start(command, ("nginx.conf", configuration), upstream, patience)
}

fn haproxy(upstream: SocketAddr, patience: Duration) -> anyhow::Result<Proxy> {
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]);
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
    Proxy::start(command, ("haproxy.cfg", configuration), upstream, patience)
}

fn caddy(upstream: SocketAddr, patience: Duration) -> anyhow::Result<Proxy> {
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    let configuration = "{
    admin off
    auto_https off
}
http://{listen} {
    reverse_proxy {upstream} {
        transport http {
            response_header_timeout {patience}ms
        }
    }
}
";
    Proxy::start(command, ("Caddyfile", configuration), upstream, patience)
}

/// Watches large uploads through a proxy that waits less than they take, small ones among them.
fn gives_up(
    name: &str,
    program: &str,
    proxy: fn(SocketAddr, Duration) -> anyhow::Result<Proxy>,
    judge: impl Fn(&Finding<'_>, Duration),
) -> anyhow::Result<()> {
    let Some(_turn) = Turn::take(name, &[program]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let patience = draw.millis(500..1200);
    let delay = patience + draw.millis(300..600);
    let upload = Service::start("upload", &["-large-delay", &go_time(delay)])?;
    let proxy = proxy(upload.address, patience)?;
    let watch = Watch::diagnose(&["--pid", &proxy.process.pid().to_string()])?;
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
    assert_eq!(report.stories().len(), 1, "{}", report.titles());
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
