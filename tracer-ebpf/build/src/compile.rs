//! The recipe: source in, object out, the same bytes wherever it is followed with the same toolchain.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::toolchain::{TARGET, Toolchain};

/// What cargo is asked to build.
const ARGUMENTS: [&str; 10] = [
    "build",
    "--release",
    "--locked",
    "--package",
    "tracer-ebpf",
    "--bin",
    "gopulse-probes",
    "--features",
    "programs",
    "--target",
];

/// Fixes the release profile, which otherwise follows whatever suits the user half. Symbols stay:
/// the loader finds maps and globals by them. Debug information goes: it holds paths. `bpf-linker`
/// optimises the whole program by itself, so rustc must not try to.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "none"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

/// What an outer cargo or rustup tells its children about a build that is not this one.
const NOT_OURS: [&str; 8] = [
    "RUSTUP_TOOLCHAIN",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
];

/// Everything in the recipe that decides the object's bytes, as text for the hash.
pub(crate) fn recipe(arch: &str) -> String {
    let profile = PROFILE.map(|(name, value)| format!("{name}={value}"));
    format!(
        "{} {TARGET}\n{}\nbpf_target_arch={arch}\n",
        ARGUMENTS.join(" "),
        profile.join("\n")
    )
}

/// Compiles the kernel half of the workspace at `root` for hosts of the architecture `arch` (as in
/// [`std::env::consts::ARCH`]; the registers a probe reads differ between them). Gives the path of
/// the object within `target_dir`, which must not be one that a running cargo has locked.
///
/// # Errors
///
/// Cargo cannot be run or fails; its own words are part of the error.
pub fn compile(
    root: &Path,
    target_dir: &Path,
    toolchain: &Toolchain,
    arch: &str,
) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(root)
        .args(ARGUMENTS)
        .arg(TARGET)
        .arg("--target-dir")
        .arg(target_dir)
        .envs(PROFILE)
        .env("RUSTC", &toolchain.rustc)
        // aya-ebpf uses unstable features of the BPF target.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustc_flags(root, arch)?);
    if toolchain.builds_core {
        cargo.args(["-Z", "build-std=core"]);
    }
    for name in NOT_OURS {
        cargo.env_remove(name);
    }

    let output = cargo.output().context("cargo cannot be run")?;
    if !output.status.success() {
        bail!(
            "the kernel half does not compile ({}):\n{}",
            toolchain.versions(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let object = target_dir.join(TARGET).join("release/gopulse-probes");
    fs::metadata(&object).with_context(|| format!("cargo left no {}", object.display()))?;
    Ok(object)
}

/// The flags, separated as `CARGO_ENCODED_RUSTFLAGS` wants them. Paths are mapped away so that two
/// checkouts give the same bytes.
fn rustc_flags(root: &Path, arch: &str) -> anyhow::Result<String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("--remap-path-prefix={}=gopulse", root.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    Ok(flags.join("\x1f"))
}
