//! Finds a Rust compiler that can build for the kernel's virtual machine.
//!
//! Two kinds can: one whose sysroot carries a built `core` for the BPF target (Debian's
//! `rustc-web` with `libstd-rust-web-dev-bpf`), and one that carries the source of `core` (rustup's
//! `rust-src` component), which then builds it on the way. Both need `bpf-linker`, because LLVM's
//! own linker knows nothing of BPF.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The target the kernel half is compiled for: BPF in the byte order of every host gopulse runs on.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Why the kernel half cannot be compiled on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Nothing can link for BPF.
    #[error("bpf-linker is not installed")]
    Linker,
    /// Nothing can compile for BPF.
    #[error(
        "no compiler here has `core` for {TARGET}, neither built (Debian: libstd-rust-web-dev-bpf) \
         nor as source (rustup: rust-src)"
    )]
    Compiler,
}

/// A compiler, a linker, and where `core` comes from.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The cargo that drives the build.
    pub(crate) cargo: PathBuf,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// `bpf-linker`.
    pub(crate) linker: PathBuf,
    /// `core` must be compiled from the sysroot's source first.
    pub(crate) builds_core: bool,
    versions: String,
}

impl Toolchain {
    /// The first compiler on this machine that can do it.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub fn find() -> Result<Self, Missing> {
        let linker = in_path("bpf-linker").ok_or(Missing::Linker)?;
        let linker_version = answer(&linker, &["--version"]).ok_or(Missing::Linker)?;
        compilers()
            .into_iter()
            .find_map(|(cargo, rustc)| {
                let sysroot = PathBuf::from(answer(&rustc, &["--print", "sysroot"])?);
                let builds_core = core_comes_from_source(&sysroot)?;
                let compiler_version = answer(&rustc, &["--version"])?;
                Some(Self {
                    versions: format!("{compiler_version}, {linker_version}"),
                    linker: linker.clone(),
                    cargo,
                    rustc,
                    builds_core,
                })
            })
            .ok_or(Missing::Compiler)
    }

    /// The compiler's and the linker's own words for their versions, in one line. The same source
    /// gives the same bytes only under the same versions.
    #[must_use]
    pub fn versions(&self) -> &str {
        &self.versions
    }
}

/// Where a sysroot's `core` for [`TARGET`] comes from: `false` built, `true` from source, `None` nowhere.
fn core_comes_from_source(sysroot: &Path) -> Option<bool> {
    let rustlib = sysroot.join("lib/rustlib");
    if rustlib.join(TARGET).join("lib").is_dir() {
        Some(false)
    } else if rustlib.join("src/rust/library/core").is_dir() {
        Some(true)
    } else {
        None
    }
}

/// Pairs of cargo and rustc worth asking, the likeliest first.
fn compilers() -> Vec<(PathBuf, PathBuf)> {
    let cargo = env::var_os("CARGO")
        .map(PathBuf::from)
        .or_else(|| in_path("cargo"))
        .unwrap_or_else(|| PathBuf::from("cargo"));
    let debian = (cargo.clone(), PathBuf::from("/usr/bin/rustc"));
    let nightly = ["cargo", "rustc"].map(|tool| {
        let found = answer(
            Path::new("rustup"),
            &["which", "--toolchain", "nightly", tool],
        );
        found.map(PathBuf::from)
    });
    let mut pairs = vec![debian];
    if let [Some(cargo), Some(rustc)] = nightly {
        pairs.push((cargo, rustc));
    }
    if let Some(rustc) = in_path("rustc") {
        pairs.push((cargo, rustc));
    }
    pairs
}

/// A program by name, as a shell would find it, or where `cargo install` puts it.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")),
        |home| Some(PathBuf::from(home)),
    );
    env::split_paths(&path)
        .chain(installed.map(|home| home.join("bin")))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The first line a program prints, if it runs and succeeds.
fn answer(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        // Inside a build script these name the outer build's compiler.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
