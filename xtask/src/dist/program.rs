//! The program for one architecture: one file that needs nothing of the host but its kernel.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use gopulse_tests::workspace;
use tracer_ebpf_build::{Toolchain, compile};

use crate::run::{cargo, find, run};

pub(super) const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Builds it.
///
/// # Errors
/// Says everything that stands against it here.
pub(super) fn build(arch: &str) -> anyhow::Result<PathBuf> {
    if arch != env::consts::ARCH {
        let against = against(arch)?;
        anyhow::ensure!(against.is_empty(), "{}", against.join("; "));
    }
    link(arch)
}

/// What stands against building for another architecture than this machine's.
fn against(arch: &str) -> anyhow::Result<Vec<String>> {
    let mut against = Vec::new();
    if let Err(why) = kernel_half(arch) {
        against.push(format!("{why:#}"));
    }
    let target = target(arch);
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", &target])
        .output()
        .context("rustc cannot be run")?;
    let library = String::from_utf8(output.stdout)?;
    if !Path::new(library.trim()).is_dir() {
        against.push(format!(
            "Rust's standard library for it is not installed (rustup target add {target})"
        ));
    }
    if find(&linker(arch)).is_none() {
        against.push(format!(
            "no linker {} (Debian: gcc-{arch}-linux-gnu)",
            linker(arch)
        ));
    }
    Ok(against)
}

/// Compiles the kernel half, which reads the registers of the machine that it is for.
fn kernel_half(arch: &str) -> anyhow::Result<()> {
    let toolchain = Toolchain::find().context("its kernel half cannot be compiled")?;
    let directory = workspace::target().join(format!("bpf-{arch}"));
    let Err(why) = compile(workspace::root(), &directory, &toolchain, arch) else {
        return Ok(());
    };
    let why = format!("{why:#}");
    let errors: Vec<_> = why
        .lines()
        .filter(|line| line.starts_with("error["))
        .collect();
    match errors.first() {
        Some(first) => bail!(
            "the kernel half is not written for it: {first} (and {} more)",
            errors.len() - 1
        ),
        None => bail!("{why}"),
    }
}

/// Builds it with the C library inside, in a directory of its own: with other flags than everyday builds
/// have, each would throw away the other's work.
fn link(arch: &str) -> anyhow::Result<PathBuf> {
    let directory = workspace::target().join("static");
    let target = target(arch);
    let mut build = cargo();
    build
        .current_dir(workspace::root())
        .args(["build", "--quiet", "--release", "--locked"])
        .args([
            "--package",
            "tracer-user",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?)
        // A twentieth smaller, for a build that takes longer.
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    if arch != env::consts::ARCH {
        let setting = target.to_uppercase().replace('-', "_");
        build.env(format!("CARGO_TARGET_{setting}_LINKER"), linker(arch));
    }
    run(&mut build)?;
    Ok(directory.join(target).join("release/gopulse"))
}

/// The C library goes in, and the builder's own paths stay out, so that two checkouts give the same bytes.
fn flags() -> anyhow::Result<String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!(
            "--remap-path-prefix={}=gopulse",
            workspace::root().display()
        ),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    Ok(flags.join("\x1f"))
}

fn target(arch: &str) -> String {
    format!("{arch}-unknown-linux-gnu")
}

fn linker(arch: &str) -> String {
    format!("{arch}-linux-gnu-gcc")
}
