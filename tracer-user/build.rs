//! Chooses the kernel half that the binary embeds, and tells the crate where it lies.
//!
//! In: `tracer-ebpf/`, and `GOPULSE_BPF`, which is `auto` (the default), `build` or `prebuilt`.
//! Out: `GOPULSE_PROBES`, the path of an object, for `include_bytes!`. What always holds: the object
//! was built from the source that lies beside it, or the build stops.
//!
//! `auto` takes the object kept in `tracer-ebpf/prebuilt/` where it belongs to the source, which
//! costs a hash; otherwise it compiles the source, where a BPF-capable toolchain is installed.

#![expect(clippy::print_stderr, reason = "a build script tells its errors there")]

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};
use tracer_ebpf_build::{Prebuilt, Toolchain, compile, source_hash, watched_paths};

fn main() -> ExitCode {
    match choose() {
        Ok(object) => {
            println!("cargo::rustc-env=GOPULSE_PROBES={}", object.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn choose() -> anyhow::Result<PathBuf> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest
        .parent()
        .context("the crate does not lie in a workspace")?;
    for path in watched_paths() {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=GOPULSE_BPF");

    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let wanted = env::var("GOPULSE_BPF").unwrap_or_else(|_| "auto".to_owned());
    match wanted.as_str() {
        "prebuilt" => {
            kept(root, &arch).map_err(|why| unusable(&why, "GOPULSE_BPF=prebuilt forbids it"))
        }
        "build" => built(root, &arch),
        "auto" => kept(root, &arch).or_else(|why| {
            built(root, &arch).map_err(|error| unusable(&why, format!("{error:#}")))
        }),
        other => bail!("GOPULSE_BPF is `{other}`; it must be `auto`, `build` or `prebuilt`"),
    }
}

/// The object kept with the source, if it belongs to it.
fn kept(root: &Path, arch: &str) -> anyhow::Result<PathBuf> {
    let prebuilt = Prebuilt::read(root)?;
    prebuilt.object_for(&source_hash(root, arch)?)?;
    Ok(prebuilt.object)
}

/// An object compiled now, in this build's own directory.
fn built(root: &Path, arch: &str) -> anyhow::Result<PathBuf> {
    let toolchain = Toolchain::find().context("no BPF-capable Rust toolchain")?;
    let target_dir = PathBuf::from(variable("OUT_DIR")?).join("probes");
    compile(root, &target_dir, &toolchain, arch)
}

/// Neither way leads to an object.
fn unusable(kept: &anyhow::Error, built: impl fmt::Display) -> anyhow::Error {
    anyhow!(
        "there is no kernel half to embed.\n\
         The object in tracer-ebpf/prebuilt/ cannot be used: {kept:#}.\n\
         It cannot be built either: {built}.\n\
         gopulse embeds the programs it loads into the kernel, and only those built from the source beside it.\n\
         To mend it: cargo xtask build-ebpf"
    )
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
