//! `setup`: installs what the other commands need, says what, and does so once.
//!
//! A part that is there already costs a look at a few files. A part that cannot be had here (no
//! root, no such package) is told in one line with what will be missing; only what the asking
//! command cannot do without is an error.

mod apt;
pub(crate) mod bpf;
pub(crate) mod go;

use std::process::ExitCode;

pub(crate) use go::Go;

#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn main(_: &Arguments) -> anyhow::Result<ExitCode> {
    let go = everything()?;
    println!("ready: {}", go.version());
    Ok(ExitCode::SUCCESS)
}

/// What tests and benchmarks need.
pub(crate) fn everything() -> anyhow::Result<Go> {
    apt::install_tools()?;
    if let Err(why) = bpf::install() {
        println!("setup: {why:#}; the object kept in tracer-ebpf/prebuilt/ is used");
    }
    go::install()
}
