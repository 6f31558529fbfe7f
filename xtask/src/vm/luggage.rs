//! What every guest carries: a static gopulse, the live scenarios as static programs, the Go services,
//! and the few programs of the host that scenarios call, with their libraries.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use gopulse_tests::{process::succeed, services, workspace};
use serde_json::Value;

use super::{cases::Case, initramfs::Initramfs};
use crate::run::{cargo, find};

/// An explicit target keeps build scripts and macros, which cannot be static, out of it.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC: [(&str, &str); 2] = [
    ("RUSTFLAGS", "-Ctarget-feature=+crt-static"),
    // Scenarios wait more than they work, and every guest unpacks them.
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
];

/// What scenarios call. busybox has an `ip` without namespaces, and a `yes` that shows as busybox.
const CALLED: [&str; 5] = ["ip", "nft", "tc", "bash", "yes"];

/// The archive for these cases.
pub(super) fn pack(cases: &[&Case]) -> anyhow::Result<Vec<u8>> {
    let mut guest = Initramfs::default();
    for mount in ["/proc", "/sys", "/dev", "/tmp", "/run", "/var"] {
        guest.directory(mount);
    }
    guest.link("/var/run", "/run");
    guest.copy("/bin/busybox", &found("busybox")?)?;
    guest.link("/bin/sh", "busybox");
    guest.file("/init", include_bytes!("init.sh"));

    println!("vm: building gopulse and the scenarios, static");
    guest.copy("/bin/gopulse", &gopulse()?)?;
    let programs: BTreeSet<_> = cases.iter().map(|case| case.program).collect();
    for (name, path) in scenarios(&programs)? {
        guest.copy(&format!("/scenarios/{name}"), &path)?;
    }
    let services = services::build()?;
    let started: BTreeSet<_> = cases.iter().flat_map(|case| case.services).collect();
    for service in started.into_iter().chain([&"trampolines"]) {
        guest.copy(&format!("/services/{service}"), &services.join(service))?;
    }
    let mut libraries = BTreeSet::new();
    for program in CALLED {
        let path = found(program)?;
        libraries.extend(needed_by(&path)?);
        guest.copy(&format!("/usr/bin/{program}"), &path)?;
    }
    for library in libraries {
        guest.copy(&library, Path::new(&library))?;
    }
    Ok(guest.finish())
}

fn found(program: &str) -> anyhow::Result<PathBuf> {
    find(program).with_context(|| format!("no {program} (cargo xtask setup)"))
}

/// A cargo that links programs whole, beside the ordinary builds and not over them.
fn cargo_static(verb: &str) -> Command {
    let mut command = cargo();
    command
        .current_dir(workspace::root())
        .args([verb, "--quiet", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir())
        .envs(STATIC);
    command
}

fn target_dir() -> PathBuf {
    workspace::target().join("vm/static")
}

/// `GOPULSE_BIN`, which must be static, or this checkout's as it is shipped.
fn gopulse() -> anyhow::Result<PathBuf> {
    if let Some(binary) = env::var_os("GOPULSE_BIN") {
        return Ok(PathBuf::from(binary));
    }
    succeed(cargo_static("build").args(["--release", "--package", "tracer-user"]))?;
    Ok(target_dir().join(TARGET).join("release/gopulse"))
}

/// The test programs by name, which cargo tells as it builds them.
fn scenarios(programs: &BTreeSet<&str>) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut command = cargo_static("test");
    command.args(["--no-run", "--message-format", "json"]);
    command.args(["--package", "gopulse-tests"]);
    for program in programs {
        command.args(["--test", program]);
    }
    let told = succeed(&mut command)?;
    let built = told.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?;
        let path = message["executable"].as_str()?;
        programs
            .contains(name)
            .then(|| (name.to_owned(), PathBuf::from(path)))
    });
    Ok(built.collect())
}

/// The libraries of a program and what loads them, by the paths at which it looks for them.
fn needed_by(program: &Path) -> anyhow::Result<Vec<String>> {
    let told = succeed(Command::new("ldd").arg(program))?;
    let path = |line: &str| {
        let mut words = line.split_whitespace();
        let path = words.find(|word| word.starts_with('/'))?;
        Some(path.to_owned())
    };
    Ok(told.lines().filter_map(path).collect())
}
