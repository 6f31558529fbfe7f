//! The project's own commands: `cargo xtask COMMAND`.
//!
//! One file a command. Each does its whole work from a fresh checkout on a fresh machine: what it
//! needs and does not find, it installs through [`setup`], says so, and does so once.

mod bench;
mod build_ebpf;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod run;
mod scenarios;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The project's own commands")]
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
    /// Watch gopulse find out why large uploads fail.
    Demo(demo::Arguments),
    /// Run every test: units, command line, live scenarios.
    Test(test::Arguments),
    /// Reproduce every case, several times, and tell how often the verdict is right.
    Scenarios(scenarios::Arguments),
    /// Check formatting, clippy's lints, and the rules of the house.
    Lint(lint::Arguments),
    /// Give the parsers of bytes from outside whatever breaks them.
    Fuzz(fuzz::Arguments),
    /// Measure what gopulse costs the service it watches, beside tcpdump.
    Bench(bench::Arguments),
    /// Make what gopulse is handed out as: static program, manual, Debian package, container image.
    Dist(dist::Arguments),
    /// Run live scenarios in virtual machines with other kernels.
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup(arguments) => setup::main(&arguments),
        Command::BuildEbpf(arguments) => build_ebpf::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Scenarios(arguments) => scenarios::main(&arguments),
        Command::Lint(arguments) => lint::main(&arguments),
        Command::Fuzz(arguments) => fuzz::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Dist(arguments) => dist::main(&arguments),
        Command::Vm(arguments) => vm::main(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
