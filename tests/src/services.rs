//! The Go services of `tests/services/`: built once, started on free ports.

use std::{env, net::SocketAddr, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use anyhow::Context as _;
use serde::Deserialize;

use crate::{
    process::{Process, run, succeed},
    wait, workspace,
};

/// Builds them all into `target/services`, which takes a moment when nothing changed. Where `GOPULSE_SERVICES`
/// names a directory, they were built before, and lie there.
///
/// # Errors
///
/// Go is not installed (`cargo xtask setup`), or they do not build.
pub fn build() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match env::var_os("GOPULSE_SERVICES") {
        Some(directory) => Ok(PathBuf::from(directory)),
        None => compile().map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(anyhow::Error::msg)
}

fn compile() -> anyhow::Result<PathBuf> {
    let directory = workspace::target().join("services");
    succeed(
        go("go")?
            .args(["build", "-o"])
            .arg(format!("{}/", directory.display()))
            .arg("./..."),
    )
    .context("the test services do not build")?;
    Ok(directory)
}

/// A program of the installed Go, to be run on the services' sources.
///
/// # Errors
///
/// Go is not installed (`cargo xtask setup`).
pub fn go(program: &str) -> anyhow::Result<Command> {
    let goroot = workspace::goroot()?;
    let program = goroot.join("bin").join(program);
    anyhow::ensure!(
        program.is_file(),
        "there is no {}; the test services are built with it. To mend it: cargo xtask setup",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .current_dir(workspace::services())
        .env("GOROOT", goroot)
        .env("GOCACHE", workspace::target().join("go/cache"))
        // No other toolchain, no downloads, no C compiler, no settings of the person who runs this.
        .envs([
            ("GOTOOLCHAIN", "local"),
            ("GOPROXY", "off"),
            ("CGO_ENABLED", "0"),
            ("GOENV", "off"),
            ("GOFLAGS", ""),
            ("GOWORK", "off"),
        ]);
    Ok(command)
}

/// The program of a service.
///
/// # Errors
///
/// As [`build`].
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(build()?.join(name))
}

/// A service that listens.
pub struct Service {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Service {
    /// Starts a service of this name on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// It does not start to listen.
    pub fn start(name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::run(Command::new(program(name)?).args(arguments))
    }

    /// The same for a command that was prepared.
    ///
    /// # Errors
    ///
    /// It does not start to listen.
    pub fn run(command: &mut Command) -> anyhow::Result<Self> {
        let mut process = Process::start(command)?;
        let address = process.line("listening ")?.parse()?;
        Ok(Self { process, address })
    }

    /// Its process id, as gopulse takes it.
    pub fn pid(&self) -> String {
        self.process.pid().to_string()
    }

    /// Its port, as gopulse takes it.
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }
}

/// What became of one upload, as the client tells it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Outcome {
    /// The body's size.
    pub bytes: u64,
    /// The status of the response; 0 where none came.
    pub status: u16,
    /// The client's own word for what went wrong.
    #[serde(default)]
    pub error: String,
    /// What it took, in seconds.
    pub seconds: f64,
}

/// Runs the client to its end.
///
/// # Errors
///
/// It fails, or takes more than a minute.
pub fn upload(url: &str, arguments: &[&str]) -> anyhow::Result<Vec<Outcome>> {
    upload_by(
        Command::new(program("client")?)
            .args(["-url", url])
            .args(arguments),
    )
}

/// The same for a command that was prepared.
///
/// # Errors
///
/// It fails, or takes more than a minute.
pub fn upload_by(command: &mut Command) -> anyhow::Result<Vec<Outcome>> {
    let ended = run(command, Duration::from_secs(60))?;
    anyhow::ensure!(ended.status == 0, "the client failed: {}", ended.stderr);
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("the client said {line}")))
        .collect()
}

/// Waits until a client has told of so many more uploads than it had.
///
/// # Errors
///
/// It does not, in a minute.
pub fn wait_for_outcomes(client: &Process, more: usize) -> anyhow::Result<()> {
    let told = || client.stdout().lines().count();
    let enough = told() + more;
    wait::until("the client's uploads", Duration::from_secs(60), || {
        Ok((told() >= enough).then_some(()))
    })
}

/// A time as Go's flags take it.
pub fn go_time(time: Duration) -> String {
    format!("{}us", time.as_micros())
}
