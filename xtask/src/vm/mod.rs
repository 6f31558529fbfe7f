//! `vm`: boots other kernels and runs live scenarios in them, with the assertions that they have natively.
//!
//! Hooks differ between kernels: a tracepoint comes, an argument is added, a helper is missing. What a
//! kernel has is asked of it and never of its version, so only running it there shows that the ways for
//! old kernels are more than written. For each kernel `doctor` must name the hooks that [`doctor`] lists,
//! no more and no fewer, and each case must come to its finding.

mod boot;
mod cases;
mod doctor;
mod initramfs;
mod kernels;
mod luggage;
mod modules;
mod told;

use std::{
    fs::{self, File},
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use gopulse_tests::workspace;

use crate::setup;
use cases::{CASES, Case};
use kernels::{Kernel, SERIES, Series};
use told::Told;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these kernels.
    #[arg(long, value_delimiter = ',', value_name = "VERSION")]
    kernels: Vec<String>,
    /// Only these cases.
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    scenarios: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::for_guests()?;
    let series = arguments.series()?;
    let cases = arguments.cases()?;
    let mut kernels = Vec::new();
    for series in series {
        kernels.push((series.version, series.kernel()?));
    }
    let luggage = luggage::pack(&cases)?;
    let mut fine = true;
    let mut table = Vec::new();
    for (version, kernel) in kernels {
        let began = Instant::now();
        let outcome = run(version, &kernel, &luggage);
        let took = began.elapsed();
        match outcome {
            Ok(told) => {
                let complaints = doctor::complaints(version, &told.doctor);
                fine &= complaints.is_empty() && told.judged(&cases).all(|judged| judged.is_ok());
                table.extend(rows(version, &told, &cases, &complaints, took));
            }
            Err(why) => {
                fine = false;
                table.push(format!("{version:<5} FAILED: {why:#}"));
            }
        }
    }
    println!("\n{}", table.join("\n"));
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Arguments {
    fn series(&self) -> anyhow::Result<Vec<&'static Series>> {
        if self.kernels.is_empty() {
            return Ok(SERIES.iter().collect());
        }
        let named = self.kernels.iter().map(|version| Series::named(version));
        named.collect()
    }

    fn cases(&self) -> anyhow::Result<Vec<&'static Case>> {
        if self.scenarios.is_empty() {
            return Ok(CASES.iter().collect());
        }
        let named = self.scenarios.iter().map(|name| Case::named(name));
        named.collect()
    }
}

/// One kernel from its image to what its guest told.
fn run(version: &str, kernel: &Kernel, luggage: &[u8]) -> anyhow::Result<Told> {
    let home = workspace::target().join("vm");
    let initramfs = home.join("initramfs");
    boot::file_system(luggage, &kernel.modules, &initramfs)?;
    let console = home.join(format!("console-{version}.log"));
    let log = home.join(format!("guest-{version}.log"));
    println!("vm: booting {}, its words go to {}", version, log.display());
    let mut told = Told::default();
    let mut log = File::create(log)?;
    let ended = boot::boot(&kernel.image, &initramfs, &console, |line| {
        writeln!(log, "{line}")?;
        if let Some(step) = told.hear(line)? {
            println!("{version:<5} {step}");
        }
        Ok(())
    });
    fs::remove_file(initramfs)?;
    // What was told before a guest hung is worth telling.
    match ended {
        Err(why) if told.outcomes.is_empty() => Err(why),
        Err(why) => {
            println!("{version:<5} {why:#}");
            Ok(told)
        }
        Ok(()) => Ok(told),
    }
}

/// A kernel's lines of the table.
fn rows(
    version: &str,
    told: &Told,
    cases: &[&Case],
    complaints: &[String],
    took: Duration,
) -> Vec<String> {
    let mut rows = vec![format!(
        "{version:<5} {}: {} hooks, {:.0} s",
        told.release,
        doctor::seen(&told.doctor),
        took.as_secs_f64()
    )];
    for complaint in complaints {
        rows.push(format!("      FAILED      {complaint}"));
    }
    for (case, judged) in cases.iter().zip(told.judged(cases)) {
        let (name, seconds) = (case.name, told.seconds(case.name));
        rows.push(match judged {
            Ok(finding) => format!("      {name:<11} {seconds:>5.1} s  {finding}"),
            Err(why) => format!("      {name:<11} {seconds:>5.1} s  FAILED: {why}"),
        });
    }
    rows
}
