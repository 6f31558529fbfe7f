//! `fuzz`: whatever breaks the parsers of bytes from outside.
//!
//! The targets are the programs of `fuzz/`. They are built with coverage by the stable compiler, and
//! run one after the other for as long as asked. What they learn stays in `target/fuzz/corpus`, so a
//! later run goes on where this one ended; an input that breaks a target is left in
//! `target/fuzz/broken`, and named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use gopulse_tests::{services, workspace};

use crate::{
    run::{cargo, run},
    setup,
};

/// Coverage as libFuzzer wants it: counters for every edge, and the operands of comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing";

/// Compilers that instrument need to know for whom they build, or they instrument build scripts, too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names a small Go program, for the targets that look at one.
const PROGRAM: &str = "GOPULSE_FUZZ_PROGRAM";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these targets; all, where none is named.
    targets: Vec<String>,
    /// How long each runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Most memory that a target may take, in MB.
    #[arg(long, default_value_t = 1024)]
    memory: u64,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let root = workspace::root();
    let all = targets(&root.join("fuzz/targets"))?;
    let chosen = match arguments.targets.as_slice() {
        [] => &all,
        named => {
            if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
                bail!("no target {unknown}; there are {}", all.join(", "));
            }
            &arguments.targets
        }
    };
    let built = workspace::target().join("fuzz");
    let program = program(&built)?;
    run(cargo()
        .current_dir(root.join("fuzz"))
        .args(["build", "--release", "--quiet", "--target", TARGET])
        .arg("--target-dir")
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE))?;
    let mut broken = Vec::new();
    for target in chosen {
        println!("{target}: {} s", arguments.seconds);
        if run(fuzzer(&built, target, arguments)?.env(PROGRAM, &program)).is_err() {
            broken.push(target.as_str());
        }
    }
    if broken.is_empty() {
        println!("nothing broke {}", chosen.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "broken: {}; the inputs are in {}",
        broken.join(", "),
        built.join("broken").display()
    );
    Ok(ExitCode::FAILURE)
}

/// Builds that program: `fuzz/program`, without debug information, which would be most of it.
fn program(built: &Path) -> anyhow::Result<PathBuf> {
    setup::go::install()?;
    fs::create_dir_all(built)?;
    let program = built.join("program");
    run(services::go("go")?
        .current_dir(workspace::root().join("fuzz/program"))
        .args(["build", "-ldflags=-w", "-o"])
        .arg(&program)
        .arg("."))?;
    Ok(program)
}

/// Every target, by name.
fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn fuzzer(built: &Path, target: &str, arguments: &Arguments) -> anyhow::Result<Command> {
    let corpus = built.join("corpus").join(target);
    let broken = built.join("broken");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&broken)?;
    let mut command = Command::new(built.join(TARGET).join("release").join(target));
    command
        .arg(corpus)
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-rss_limit_mb={}", arguments.memory))
        .arg(format!("-artifact_prefix={}/{target}-", broken.display()))
        .args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
    // What a person knows of the format: the words it is made of, and whole examples.
    let known = workspace::root().join("fuzz/seeds").join(target);
    if known.is_dir() {
        command.arg(known);
    }
    Ok(command)
}
