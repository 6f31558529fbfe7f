//! Makes what gopulse is handed out as, from its command line, its static programs and its documents.
//!
//! In: the static programs (`cargo xtask dist` builds them and runs this). Out, in one directory: each
//! program by itself, manual and completions, a Debian package and a container image for each
//! architecture, and the checksums of all. What always holds: the same programs, documents and time give
//! the same bytes.

#![forbid(unsafe_code)]

mod checksums;
mod completions;
mod debian;
mod image;
mod machine;
mod manual;
mod notices;
mod tree;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Parser as _;

use machine::Machine;
use notices::Notices;

/// The version of everything that is handed out.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes what gopulse is handed out as.
#[derive(clap::Parser)]
struct Arguments {
    /// Where it goes.
    directory: PathBuf,
    /// A static program and the architecture it runs on, such as x86_64=PATH.
    #[arg(long = "program", value_name = "ARCH=PATH", value_parser = program)]
    programs: Vec<(Machine, PathBuf)>,
    /// The time that files bear, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    epoch: u64,
}

fn program(text: &str) -> Result<(Machine, PathBuf), String> {
    let (arch, path) = text.split_once('=').ok_or("ARCH=PATH is wanted")?;
    let machine = Machine::named(arch).ok_or_else(|| format!("{arch} is no known architecture"))?;
    Ok((machine, path.into()))
}

fn main() -> anyhow::Result<()> {
    let Arguments {
        directory,
        programs,
        epoch,
    } = Arguments::parse();
    let pages = manual::pages(epoch)?;
    for (name, page) in &pages {
        tree::write(&directory.join("man").join(name), page, 0o644)?;
    }
    let completions = completions::scripts();
    for script in &completions {
        let path = directory.join("completions").join(script.file);
        tree::write(&path, &script.text, 0o644)?;
    }
    for (machine, path) in &programs {
        let program = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let alone = directory.join(format!("gopulse-{VERSION}-linux-{machine}"));
        tree::write(&alone, &program, 0o755)?;
        let notices = Notices::of(machine)?;
        let files = debian::files(machine, &program, &pages, &completions, &notices, epoch)?;
        debian::package(machine, &files, epoch, &directory)?;
        image::write(machine, &program, &notices, epoch, &directory)?;
    }
    checksums::write(&directory)
}
