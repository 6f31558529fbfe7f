//! `demo`: a gateway gives up on large uploads, and gopulse says why.

use std::{
    path::Path,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::Context as _;
use gopulse_tests::{
    process::Process,
    services::{self, Outcome, Service},
    turn::is_root,
    workspace,
};

use crate::{build_ebpf, run::release_gopulse, setup};

const GATEWAY: &str = "127.0.0.1:9000";
const UPLOAD: &str = "127.0.0.1:9001";
const RECORDING: &str = "tests/fixtures/stuck-upload";

/// What gopulse exits with where host or privileges forbid to trace.
const NOT_ALLOWED: i32 = 3;

#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn main(_: &Arguments) -> anyhow::Result<ExitCode> {
    // The object kept with the source does, unless someone has changed the kernel half.
    if build_ebpf::kept().is_err() {
        setup::kernel_half();
    }
    println!("building gopulse");
    let gopulse = release_gopulse()?;
    if !is_root() {
        println!("Not root, and without root nothing can be traced.");
        return replay(&gopulse);
    }
    setup::go::install()?;
    let status = live(&gopulse)?;
    if status.code() == Some(NOT_ALLOWED) {
        println!("This host does not allow it (gopulse's own words are above).");
        return replay(&gopulse);
    }
    Ok(explain(status))
}

fn live(gopulse: &Path) -> anyhow::Result<ExitStatus> {
    let _upload = Service::start("upload", &["-listen", UPLOAD])?;
    let _gateway = Service::start("gateway", &["-listen", GATEWAY, "-upstream", UPLOAD])?;
    let mut clients = Command::new(services::program("client")?);
    clients
        .args(["-url", &format!("http://{GATEWAY}/upload"), "-n", "0"])
        .args(["-concurrency", "3", "-interval", "100ms"])
        .args(["-large-every", "5", "-random"]);
    let clients = Process::start(&mut clients)?;
    println!(
        "\nA gateway listens on {GATEWAY} and forwards to an upload service on {UPLOAD}.\n\
         Three clients upload through it. Small files arrive; large ones come back with nothing,\n\
         though the upload service's own log says 200. Neither service knows of gopulse.\n"
    );
    let status = diagnose(gopulse, &["--port", "9000", "-d", "10s"])?;
    tell_what_clients_saw(&clients)?;
    Ok(status)
}

fn replay(gopulse: &Path) -> anyhow::Result<ExitCode> {
    let recording = workspace::root().join(RECORDING);
    anyhow::ensure!(
        recording.is_dir(),
        "there is no recording at {RECORDING} to show instead"
    );
    println!(
        "Instead, here is the same diagnosis from a recording of it: a gateway on port 9000, an\n\
         upload service behind it, and clients whose large uploads come back with nothing.\n"
    );
    let status = diagnose(gopulse, &[RECORDING])?;
    Ok(explain(status))
}

/// Runs `gopulse diagnose` with this terminal as its own.
fn diagnose(gopulse: &Path, arguments: &[&str]) -> anyhow::Result<ExitStatus> {
    println!("$ gopulse diagnose {}\n", arguments.join(" "));
    Command::new(gopulse)
        .current_dir(workspace::root())
        .arg("diagnose")
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {}", gopulse.display()))
}

fn tell_what_clients_saw(clients: &Process) -> anyhow::Result<()> {
    let told = clients.stdout();
    let outcomes = told.lines().map(serde_json::from_str);
    let outcomes: Vec<Outcome> = outcomes.collect::<Result<_, _>>()?;
    let failed = outcomes.iter().filter(|outcome| outcome.status != 200);
    println!(
        "\nWhat the clients saw meanwhile, warm-up included: {} uploads, {} of them failed.",
        outcomes.len(),
        failed.count()
    );
    Ok(())
}

/// Says what the exit status means; the demo itself fails only where there was no verdict.
fn explain(status: ExitStatus) -> ExitCode {
    match status.code() {
        Some(0) => println!("\ngopulse exited with 0: nothing is wrong."),
        Some(1) => println!(
            "\ngopulse exited with 1: it found something at warning or above. A script can ask for that;\n\
             --fail-on critical asks for less."
        ),
        _ => {
            println!("\ngopulse ended with {status}, which is no verdict.");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
