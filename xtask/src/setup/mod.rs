//! `setup`: installs what the other commands need, says what, and does so once.
//!
//! A part that is there already costs a look at a few files. A part that cannot be had here (no
//! root, no such package) is told in one line with what will be missing; only what the asking
//! command cannot do without is an error.

mod apt;
pub(crate) mod bpf;
pub(crate) mod go;
mod perfetto;
mod pip;

use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn main(_: &Arguments) -> anyhow::Result<ExitCode> {
    if everything()? {
        println!("setup: everything is there");
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings what tests and benchmarks need; `false` where they will have to skip some.
pub(crate) fn everything() -> anyhow::Result<bool> {
    let tools = apt::install_tools(&apt::TESTING);
    let compiler = kernel_half();
    go::install()?;
    let perfetto = perfetto::install();
    if let Err(why) = &perfetto {
        println!("setup: {why:#}; without it traces are not read in Perfetto");
    }
    Ok(tools && compiler && perfetto.is_ok())
}

/// Brings what packages and images are tried with.
pub(crate) fn for_packages() {
    apt::install_tools(&apt::PACKAGING);
}

/// Brings what `vm` needs, which nothing else does.
pub(crate) fn for_guests() -> anyhow::Result<()> {
    apt::install_tools(&apt::TESTING);
    apt::install_for_guests()?;
    kernel_half();
    go::install()
}

/// Brings what compiles the kernel half; `false` where it cannot be had.
pub(crate) fn kernel_half() -> bool {
    let installed = bpf::install();
    if let Err(why) = &installed {
        println!("setup: {why:#}; the object kept in tracer-ebpf/prebuilt/ is used");
    }
    installed.is_ok()
}
