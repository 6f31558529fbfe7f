//! `build-ebpf`: compiles the kernel half and keeps the object, or proves that the kept one belongs
//! to the source.

use std::{env::consts::ARCH, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use gopulse_tests::workspace;
use tracer_ebpf_build::{Prebuilt, Toolchain, compile, source_hash};

use crate::{
    run::{cargo, run_quietly},
    setup,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; prove that the kept object belongs to the source.
    #[arg(long)]
    check: bool,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        check()?;
    } else {
        build()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn build() -> anyhow::Result<()> {
    setup::bpf::install()?;
    let toolchain = Toolchain::find().context("no BPF-capable Rust toolchain")?;
    let bytes = fresh(&toolchain)?;
    let hash = source_hash(workspace::root(), ARCH)?;
    let kept = Prebuilt::write(workspace::root(), &bytes, &hash, toolchain.versions())?;
    println!(
        "{}: {} bytes, built with {}",
        kept.object.display(),
        bytes.len(),
        kept.toolchain
    );
    Ok(())
}

/// The kept object belongs to the source: its recorded hash is the source's, and, where the same
/// toolchain is installed, a build gives the same bytes. Another toolchain gives other bytes for the
/// same source, so there only the hash and that it compiles can be told.
pub(crate) fn check() -> anyhow::Result<()> {
    let (kept, bytes) = kept().context(
        "the object in tracer-ebpf/prebuilt/ does not belong to the source (cargo xtask build-ebpf makes it anew)",
    )?;
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(why) => {
            println!("kernel half: hash matches; bytes not compared ({why})");
            return Ok(());
        }
    };
    forget_last_build()?;
    let rebuilt = fresh(&toolchain)?;
    if kept.toolchain != toolchain.versions() {
        println!(
            "kernel half: hash matches, source compiles; bytes not compared (kept: {}; here: {})",
            kept.toolchain,
            toolchain.versions()
        );
    } else if rebuilt == bytes {
        println!("kernel half: hash matches, a new build gives the same bytes");
    } else {
        bail!(
            "{} was built from this source with this toolchain ({}), but a new build gives other bytes \
             (cargo xtask build-ebpf makes it anew)",
            kept.object.display(),
            kept.toolchain
        );
    }
    Ok(())
}

/// The kept object and its bytes, if it was built from this source.
pub(crate) fn kept() -> anyhow::Result<(Prebuilt, Vec<u8>)> {
    let hash = source_hash(workspace::root(), ARCH)?;
    let kept = Prebuilt::read(workspace::root())?;
    let bytes = kept.object_for(&hash)?;
    Ok((kept, bytes))
}

/// Makes cargo compile the kernel half again, though not the crates below it: a comparison with what
/// an earlier build left in the target directory would prove nothing.
fn forget_last_build() -> anyhow::Result<()> {
    run_quietly(
        cargo()
            .current_dir(workspace::root())
            .args(["clean", "--release", "--package", "tracer-ebpf"])
            .args(["--target", "bpfel-unknown-none", "--target-dir"])
            .arg(target_dir()),
    )
}

/// The build's own directory, so that it never waits for a cargo that builds the user half.
fn target_dir() -> PathBuf {
    workspace::target().join("bpf")
}

/// The object's bytes, built now.
fn fresh(toolchain: &Toolchain) -> anyhow::Result<Vec<u8>> {
    let object = compile(workspace::root(), &target_dir(), toolchain, ARCH)?;
    fs::read(&object).with_context(|| format!("cannot read {}", object.display()))
}
