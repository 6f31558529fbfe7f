//! The project's own commands: `cargo xtask COMMAND`.
//!
//! One file a command. Each does its whole work from a fresh checkout on a fresh machine: what it
//! needs and does not find, it installs through [`setup`], says so, and does so once.

mod build_ebpf;
mod run;
mod setup;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands need: Go, the BPF toolchain, and packages.
    Setup(setup::Arguments),
    /// Compile the kernel half and keep the object in tracer-ebpf/prebuilt/.
    BuildEbpf(build_ebpf::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup(arguments) => setup::main(&arguments),
        Command::BuildEbpf(arguments) => build_ebpf::main(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
