//! `dist`: everything that gopulse is handed out as, in `target/dist/`.
//!
//! For each architecture that can be built here: the static program by itself, a Debian package and a
//! container image; and manual, completions and checksums. An architecture that cannot be built is told
//! with the reasons, and nothing is made for it. What is made is then tried, as far as this machine can.

mod program;
mod trial;

use std::{
    env,
    ffi::OsString,
    fs,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use gopulse_tests::workspace;

use crate::{
    run::{cargo, run},
    setup,
};

/// What a program may weigh, in bytes: it is copied by hand to hosts in trouble.
const LIMIT: u64 = 10_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this architecture (may be repeated).
    #[arg(long, value_parser = program::ARCHITECTURES)]
    arch: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::for_packages();
    let out = workspace::target().join("dist");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    let wanted = |arch: &str| {
        let named = &arguments.arch;
        named.is_empty() || named.iter().any(|name| name == arch)
    };
    let mut programs = Vec::new();
    for arch in program::ARCHITECTURES
        .into_iter()
        .filter(|arch| wanted(arch))
    {
        println!("dist: building the program for {arch}");
        match program::build(arch) {
            Ok(path) => programs.push((arch, path)),
            Err(why) => println!("dist: nothing for {arch}: {why:#}"),
        }
    }
    anyhow::ensure!(
        !programs.is_empty(),
        "there is no program to hand out (the reasons are above)"
    );
    println!("dist: packing");
    let mut pack = cargo();
    pack.current_dir(workspace::root())
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "gopulse-packaging",
            "--",
        ])
        .arg(&out)
        .args(["--epoch", &epoch()?]);
    for (arch, path) in &programs {
        let mut program = OsString::from(format!("{arch}="));
        program.push(path);
        pack.arg("--program").arg(program);
    }
    run(&mut pack)?;
    trial::everything(&out)?;
    for (arch, path) in &programs {
        let size = fs::metadata(path)?.len();
        anyhow::ensure!(
            size < LIMIT,
            "the program for {arch} has {size} bytes, and {LIMIT} is the most it may have"
        );
    }
    println!("dist: everything is in {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// The time that files bear: `SOURCE_DATE_EPOCH`, or that of the last commit.
fn epoch() -> anyhow::Result<String> {
    if let Ok(set) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(set);
    }
    let output = Command::new("git")
        .current_dir(workspace::root())
        .args(["log", "-1", "--format=%ct"])
        .output();
    let output = output.context("git cannot be run, and SOURCE_DATE_EPOCH is not set")?;
    anyhow::ensure!(
        output.status.success(),
        "git does not tell the last commit's time, and SOURCE_DATE_EPOCH is not set"
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
