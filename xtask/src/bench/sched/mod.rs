//! What watching the scheduler costs where nothing but switches happens, beside the tools for it.
//!
//! In each round every storm is measured with nothing attached and with each tool, in turn. Only ratios
//! within a round are compared. A tool that does not run here is told with its reason,
//! and is left alone from then on.

mod perf_data;
mod programs;
mod storm;
mod watcher;

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use storm::{Raging, Storm};
use watcher::Watcher;

pub(super) use watcher::with_tracefs;

use super::{
    table::{median, spread},
    tool::cpu_time,
};

/// One watcher over one storm in one round.
struct Run {
    round: u32,
    storm: Storm,
    watcher: Watcher,
    switches_per_s: f64,
    /// Of the tool itself, as a share of one core.
    cpu: f64,
    lost: Option<u64>,
}

pub(super) fn compare(gopulse: &Path, rounds: u32, time: Duration) -> anyhow::Result<ExitCode> {
    println!("{rounds} rounds, {} s each", time.as_secs());
    let mut runs: Vec<Run> = Vec::new();
    let mut failed: Vec<(Watcher, String)> = Vec::new();
    for round in 0..rounds {
        for storm in Storm::ALL {
            let raging = storm.start()?;
            // Whoever comes first in one round comes later in the next.
            let mut watchers = Watcher::ALL;
            watchers.rotate_left(round as usize % Watcher::ALL.len());
            for watcher in watchers {
                if failed.iter().any(|(who, _)| *who == watcher) {
                    continue;
                }
                match measure(gopulse, &raging, watcher, time) {
                    Ok((switches_per_s, cpu, lost)) => runs.push(Run {
                        round,
                        storm,
                        watcher,
                        switches_per_s,
                        cpu,
                        lost,
                    }),
                    Err(why) if watcher.is_peer() => {
                        let why = format!("in round {}: {why:#}", round + 1);
                        failed.push((watcher, why));
                    }
                    Err(why) => return Err(why),
                }
            }
        }
        println!("round {} is over", round + 1);
    }
    print(&runs);
    for (watcher, why) in failed {
        println!("\n{} failed {why}", watcher.name());
    }
    programs::print(gopulse, rounds, time)?;
    Ok(ExitCode::SUCCESS)
}

/// Switches per second, CPU time of the tool as a share of one core, and what it lost.
fn measure(
    gopulse: &Path,
    storm: &Raging,
    watcher: Watcher,
    time: Duration,
) -> anyhow::Result<(f64, f64, Option<u64>)> {
    let watching = watcher.start(gopulse, storm.pids())?;
    let cpu = || watching.pid().map_or(Ok(Duration::ZERO), cpu_time);
    let (cpu_before, switches) = (cpu()?, storm.switches()?);
    let begun = Instant::now();
    thread::sleep(time);
    let switches = storm.switches()? - switches;
    let took = begun.elapsed().as_secs_f64();
    let cpu = cpu()?.saturating_sub(cpu_before).as_secs_f64() / took;
    let lost = watching.stop()?;
    Ok((switches as f64 / took, cpu, lost))
}

fn print(runs: &[Run]) {
    println!("\nRatios to nothing attached in the same round: median (lowest–highest).");
    println!(
        "ns is what a switch takes longer, with its wake-up: median. CPU is the tool's own, as a"
    );
    println!("share of one core; lost is the sum over all rounds.");
    for storm in Storm::ALL {
        println!(
            "\n{}",
            row(storm.name(), "switches/s", "ratio", "ns", "CPU", "lost")
        );
        let of = |watcher| {
            let wanted = move |run: &&Run| run.storm == storm && run.watcher == watcher;
            runs.iter().filter(wanted)
        };
        for watcher in Watcher::ALL {
            if of(watcher).next().is_none() {
                continue;
            }
            let rate = median(of(watcher).map(|run| run.switches_per_s));
            // Pairs of rates, the watcher's and that of nothing attached.
            let pairs = || {
                of(watcher).filter_map(|run| {
                    let base = of(Watcher::Nothing).find(|base| base.round == run.round)?;
                    Some((run.switches_per_s, base.switches_per_s))
                })
            };
            let ratios = spread(pairs().map(|(rate, base)| rate / base));
            let longer = median(pairs().map(|(rate, base)| 1e9 * (1.0 / rate - 1.0 / base)));
            let cpu = median(of(watcher).map(|run| run.cpu));
            let lost: Option<u64> = of(watcher).map(|run| run.lost).sum();
            let lost = lost.map_or_else(|| "–".to_owned(), |lost| lost.to_string());
            println!(
                "{}",
                row(
                    watcher.name(),
                    &format!("{rate:.0}"),
                    &ratios,
                    &format!("{:.0}", longer * storm.cpus() as f64),
                    &format!("{:.1}%", 100.0 * cpu),
                    &lost
                )
            );
        }
    }
}

fn row(name: &str, rate: &str, ratio: &str, ns: &str, cpu: &str, lost: &str) -> String {
    format!("{name:<30}{rate:>12}  {ratio:<20}{ns:>6}{cpu:>7}{lost:>10}")
}
