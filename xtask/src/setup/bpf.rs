//! The toolchain for the kernel half. Wanted, not needed: the object kept with the source works
//! without it as long as nobody changes the kernel half.

use anyhow::Context as _;
use tracer_ebpf_build::{Missing, Toolchain};

use super::apt;
use crate::run::{cargo, run_quietly};

/// Debian's compiler for the web packages: the only one in a distribution that carries `core` for BPF.
const PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// The linker's version and the LLVM it shares with rustc (no LLVM has to be installed).
const LINKER: [&str; 8] = [
    "install",
    "bpf-linker",
    "--version",
    "0.10.4",
    "--no-default-features",
    "--features",
    "rust-llvm-22",
    "--locked",
];

/// Installs compiler and linker where they are missing and can be had.
pub(crate) fn install() -> anyhow::Result<()> {
    if matches!(Toolchain::find(), Err(Missing::Linker)) {
        println!("setup: installing bpf-linker 0.10.4 (cargo install, about a minute)");
        run_quietly(cargo().args(LINKER)).context("bpf-linker cannot be installed")?;
    }
    if matches!(Toolchain::find(), Err(Missing::Compiler)) {
        if !apt::offers(PACKAGES[0]) {
            apt::update().context("no BPF toolchain")?;
        }
        anyhow::ensure!(
            apt::offers(PACKAGES[0]),
            "this distribution has no {} (elsewhere: rustup toolchain install nightly --component rust-src)",
            PACKAGES[0]
        );
        apt::install(&PACKAGES)?;
    }
    Toolchain::find().map(drop).context("no BPF toolchain")
}
