//! What each of gopulse's programs takes a run, as the kernel counts with `kernel.bpf_stats_enabled`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::process::succeed;

use super::{storm::Storm, watcher::Watcher};
use crate::{bench::table::median, run::find};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs per switch from which a program is worth a line.
const WORTH: f64 = 0.05;

/// Which of the storm's two processes are targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Targets {
    None,
    One,
    Both,
}

/// A program's time and runs, from when it was counted on.
#[derive(Clone, Debug, Default)]
struct Program {
    name: String,
    ns: u64,
    runs: u64,
}

/// The kernel counts as long as this lives, and then does what it did before.
struct Counting {
    before: String,
}

impl Counting {
    fn start() -> anyhow::Result<Self> {
        let before = fs::read_to_string(SWITCH)?;
        fs::write(SWITCH, "1")?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(why) = fs::write(SWITCH, &self.before) {
            println!("{SWITCH} stays 1: {why}");
        }
    }
}

impl Targets {
    const ALL: [Self; 3] = [Self::None, Self::One, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::None => "neither (miss)",
            Self::One => "one",
            Self::Both => "both",
        }
    }
}

/// Prints them for two processes that switch to each other.
pub(super) fn print(gopulse: &Path, rounds: u32, time: Duration) -> anyhow::Result<()> {
    let Some(bpftool) = find("bpftool") else {
        println!("\nThe cost of each program is left out: there is no bpftool");
        return Ok(());
    };
    let _counting = Counting::start()?;
    let mut costs: BTreeMap<(String, Targets), Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..rounds {
        for targets in Targets::ALL {
            for (name, ns, runs) in measure(&bpftool, gopulse, targets, time)? {
                costs.entry((name, targets)).or_default().push((ns, runs));
            }
        }
    }
    println!(
        "\nPrograms of gopulse under {}: medians.",
        Storm::Pipe.name()
    );
    println!("An empty program reads about 46 ns, which are the counting itself.");
    println!(
        "{:<20}{:<18}{:>9}{:>18}",
        "program", "targets", "ns a run", "runs a switch"
    );
    for ((name, targets), costs) in &costs {
        println!(
            "{name:<20}{:<18}{:>9.0}{:>18.2}",
            targets.name(),
            median(costs.iter().map(|(ns, _)| *ns)),
            median(costs.iter().map(|(_, runs)| *runs))
        );
    }
    Ok(())
}

/// Name, time of a run, and runs a switch of each program that ran often.
fn measure(
    bpftool: &Path,
    gopulse: &Path,
    targets: Targets,
    time: Duration,
) -> anyhow::Result<Vec<(String, f64, f64)>> {
    let storm = Storm::Pipe.start()?;
    let pids = storm.pids();
    let watching = match targets {
        Targets::None => Watcher::GopulseElsewhere.start(gopulse, pids),
        Targets::One => Watcher::Gopulse.start(gopulse, &pids[..1]),
        Targets::Both => Watcher::Gopulse.start(gopulse, pids),
    }?;
    let pid = watching.pid().context("gopulse has no pid")?;
    let (before, switches) = (of(bpftool, pid)?, storm.switches()?);
    thread::sleep(time);
    let (after, switches) = (of(bpftool, pid)?, storm.switches()? - switches);
    watching.stop()?;
    let spent = after.into_iter().map(|(id, after)| {
        let before = before.get(&id).cloned().unwrap_or_default();
        let (ns, runs) = (after.ns - before.ns, after.runs - before.runs);
        (
            after.name,
            ns as f64 / runs as f64,
            runs as f64 / switches as f64,
        )
    });
    Ok(spent.filter(|(_, _, runs)| *runs >= WORTH).collect())
}

/// The programs that a process holds, by their id.
fn of(bpftool: &Path, pid: u32) -> anyhow::Result<BTreeMap<u64, Program>> {
    let held: BTreeSet<u64> = fdinfo(pid, "prog_id:")
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
    let all = succeed(Command::new(bpftool).args(["-j", "prog", "show"]))?;
    let all: serde_json::Value = serde_json::from_str(&all)?;
    let all = all.as_array().context("bpftool gave no list")?;
    let programs = all.iter().filter_map(|program| {
        let id = program["id"].as_u64()?;
        let counted = Program {
            name: program["name"].as_str()?.to_owned(),
            ns: program["run_time_ns"].as_u64().unwrap_or_default(),
            runs: program["run_cnt"].as_u64().unwrap_or_default(),
        };
        held.contains(&id).then_some((id, counted))
    });
    Ok(programs.collect())
}

/// What `/proc/PID/fdinfo` says of a field, for every file that has it.
pub(super) fn fdinfo(pid: u32, field: &str) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let texts = files
        .into_iter()
        .flatten()
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    texts
        .filter_map(|text| {
            let value = text.lines().find_map(|line| line.strip_prefix(field))?;
            Some(value.trim().to_owned())
        })
        .collect()
}
