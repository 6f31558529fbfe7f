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
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
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
    let guests: Vec<_> = each(&kernels, |(version, kernel)| {
        let cases: Vec<_> = cases
            .iter()
            .copied()
            .filter(|case| case.is_for(version))
            .collect();
        let began = Instant::now();
        let told = run(version, kernel, &luggage, &cases);
        Guest {
            version,
            cases,
            told,
            took: began.elapsed(),
        }
    });
    let table: Vec<_> = guests.iter().flat_map(Guest::rows).collect();
    println!("\n{}", table.join("\n"));
    Ok(if guests.iter().all(Guest::is_fine) {
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
fn run(version: &str, kernel: &Kernel, luggage: &[u8], cases: &[&Case]) -> anyhow::Result<Told> {
    let home = workspace::target().join("vm");
    let initramfs = home.join(format!("initramfs-{version}"));
    boot::file_system(luggage, &kernel.modules, cases, &initramfs)?;
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

/// Does the work for each, as many at a time as there are CPUs: a guest has one.
fn each<'a, T: Sync, R: Send>(all: &'a [T], work: impl Fn(&'a T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(all.iter().enumerate());
    let done = Mutex::new(BTreeMap::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((nth, one)) = next() {
                    let result = work(one);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(nth, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_values().collect()
}

/// A kernel that was tried.
struct Guest<'a> {
    version: &'a str,
    cases: Vec<&'a Case>,
    told: anyhow::Result<Told>,
    took: Duration,
}

impl Guest<'_> {
    fn is_fine(&self) -> bool {
        self.told.as_ref().is_ok_and(|told| {
            doctor::complaints(self.version, &told.doctor).is_empty()
                && told.judged(&self.cases).all(|judged| judged.is_ok())
        })
    }

    /// Its lines of the table.
    fn rows(&self) -> Vec<String> {
        let version = self.version;
        let told = match &self.told {
            Ok(told) => told,
            Err(why) => return vec![format!("{version:<5} FAILED: {why:#}")],
        };
        let mut rows = vec![format!(
            "{version:<5} {}: sees {}, {:.0} s",
            told.release,
            doctor::seen(&told.doctor),
            self.took.as_secs_f64()
        )];
        for complaint in doctor::complaints(version, &told.doctor) {
            rows.push(format!("      FAILED      {complaint}"));
        }
        for (case, judged) in self.cases.iter().zip(told.judged(&self.cases)) {
            let (name, seconds) = (case.name, told.seconds(case.name));
            rows.push(match judged {
                Ok(finding) => format!("      {name:<11} {seconds:>5.1} s  {finding}"),
                Err(why) => format!("      {name:<11} {seconds:>5.1} s  FAILED: {why}"),
            });
        }
        rows
    }
}
