//! `bench`: what watching costs the watched, and how fast captures and goroutine dumps are read.
//!
//! `overhead`: in each round the same service is measured with nothing attached, with gopulse recording it, and
//! with `tcpdump -s 96 -w` on its port, under kept connections and under a connection for every
//! request. `pcap`, `dumps`: in each round whole processes read the same file. `goroutines`: those of a process
//! that has many are read from its memory. `sched`: in each round storms of
//! switches are measured with nothing attached, with gopulse, and with other tools for the scheduler.
//! `start`: in each round each tool is started, and tells when it saw something first. Only
//! ratios within a round are compared: the machine drifts between rounds.

mod captures;
mod dumps;
mod goroutines;
mod load;
mod readers;
mod sched;
mod soak;
mod start;
mod table;
mod tool;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use gopulse_tests::{services::Service, turn::is_root};
use load::{Load, Measured};
pub(crate) use table::median;
use tool::Tool;

use crate::{run::release_gopulse, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure.
    #[arg(default_value = "overhead")]
    what: What,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each load runs.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long a soak runs, such as 5m.
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = soak::time)]
    time: Duration,
    /// Requests per second of a soak, on kept connections and as many on fresh ones.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Requests per second, 99th percentile, CPU time and losses beside tcpdump.
    Overhead,
    /// Time and memory of reading a capture, beside other readers.
    Pcap,
    /// The same of a goroutine dump, beside `wc -l` and `grep -c`.
    Dumps,
    /// Memory of a long watch, CPU time for each request, and by how much they change in an hour.
    Soak,
    /// The 99th percentile with gopulse at work and with gopulse stopped, in pairs.
    Still,
    /// Time and CPU time of reading 100,000 goroutines from memory, once and in the rounds of a window.
    Goroutines,
    /// Switches per second, CPU time and losses beside perf, runqlat and bpftrace; the cost of each program.
    Sched,
    /// Time from the start to the first event, beside tcpdump and bpftrace.
    Start,
}

/// One tool under one load in one round.
struct Run {
    tool: Tool,
    load: Load,
    measured: Measured,
    cost: tool::Cost,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        is_root(),
        "a benchmark traces, and only root may (sudo cargo xtask bench)"
    );
    setup::everything()?;
    let gopulse = match env::var_os("GOPULSE_BIN") {
        Some(named) => PathBuf::from(named),
        None => release_gopulse()?,
    };
    match arguments.what {
        What::Overhead => overhead(arguments, &gopulse),
        What::Pcap => captures::main(&gopulse, arguments.rounds),
        What::Dumps => dumps::main(&gopulse, arguments.rounds),
        What::Goroutines => {
            let window = Duration::from_secs(arguments.seconds.max(20));
            goroutines::main(&gopulse, arguments.rounds, window)
        }
        What::Sched => {
            let time = Duration::from_secs(arguments.seconds);
            sched::compare(&gopulse, arguments.rounds, time)
        }
        What::Start => start::compare(&gopulse, arguments.rounds),
        What::Soak => soak::soak(&gopulse, arguments.time, arguments.rate),
        What::Still => {
            let time = Duration::from_secs(arguments.seconds);
            soak::still(&gopulse, arguments.rounds, time)
        }
    }
}

fn overhead(arguments: &Arguments, gopulse: &Path) -> anyhow::Result<ExitCode> {
    let hello = Service::start("hello", &[])?;
    let time = Duration::from_secs(arguments.seconds);
    println!(
        "{} rounds, {} s for each load, a Go HTTP service on {}",
        arguments.rounds, arguments.seconds, hello.address
    );
    let mut rounds = Vec::new();
    for number in 0..arguments.rounds {
        let mut round = Vec::new();
        for load in Load::ALL {
            // Whoever comes first in one round comes later in the next.
            let mut tools = Tool::ALL;
            tools.rotate_left(number as usize % Tool::ALL.len());
            for tool in tools {
                let watching = tool.start(gopulse, &hello.port())?;
                let measured = load.run(hello.address, time)?;
                let cost = watching.stop()?;
                round.push(Run {
                    tool,
                    load,
                    measured,
                    cost,
                });
            }
        }
        println!("round {}: {}", number + 1, table::line(&round));
        rounds.push(round);
    }
    table::print(&rounds);
    Ok(ExitCode::SUCCESS)
}
