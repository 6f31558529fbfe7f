//! How fast a goroutine dump is read, by whole processes: gopulse beside programs that only count its
//! lines or its goroutines.
//!
//! The dump is the runtime's own, of a program with many goroutines at stacks of all depths. It is made
//! once and kept in `target/`.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use gopulse_tests::{process::succeed, services, workspace};

use super::readers::{Reader, compare};

/// Goroutines of the dump, which takes some 250 MB.
const GOROUTINES: u32 = 150_000;

pub(super) fn main(gopulse: &Path, rounds: u32) -> anyhow::Result<ExitCode> {
    let dump = workspace::target().join("dumps-bench/goroutines.txt");
    if !dump.is_file() {
        make(&dump)?;
    }
    let counted = succeed(Command::new("grep").args(["-c", "^goroutine "]).arg(&dump))?;
    let told = succeed(
        Command::new(gopulse)
            .args(["goroutines", "--format", "json"])
            .arg(&dump),
    )?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let total = told["snapshots"][0]["total"].as_u64();
    let total = total.context("gopulse told no total")?;
    let counted: u64 = counted.trim().parse()?;
    println!(
        "{} of {} bytes; goroutines as grep counts them: {counted}, as gopulse does: {total}",
        dump.display(),
        fs::metadata(&dump)?.len(),
    );
    anyhow::ensure!(total == counted, "the counts differ");
    let mut readers = vec![Reader::new("gopulse goroutines", gopulse, &["goroutines"])];
    readers.extend(Reader::installed("wc -l", "wc", &["-l"]));
    readers.extend(Reader::installed("grep -c", "grep", &["-c", "^goroutine "]));
    compare(&readers, &dump, rounds, "wc -l")?;
    Ok(ExitCode::SUCCESS)
}

fn make(dump: &Path) -> anyhow::Result<()> {
    println!("making {}", dump.display());
    fs::create_dir_all(dump.parent().context("a file lies in a directory")?)?;
    let unfinished = dump.with_extension("making");
    succeed(
        Command::new(services::program("crowd")?)
            .args(["-goroutines", &GOROUTINES.to_string(), "-dump"])
            .arg(&unfinished),
    )?;
    fs::rename(&unfinished, dump)?;
    Ok(())
}
