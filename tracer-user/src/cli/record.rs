//! `gopulse record`: traces processes and writes a recording.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    Outcome,
    output::say,
    session::Plan,
    targets::{Targets, duration},
};
use crate::capture::Options;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    targets: Targets,
    /// How long to trace
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// The directory to write; it must not exist, or be empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What to keep of packets
    #[arg(long, value_enum, default_value = "headers")]
    packets: Packets,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Packets {
    /// IP and TCP headers, no payload
    Headers,
    /// No packets
    Off,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let options = Options {
        packets: arguments.packets == Packets::Headers,
        goroutines: true,
        pprof: true,
    };
    let plan = Plan::new(&arguments.targets, arguments.duration, options)?;
    let session = plan.start()?;
    say(&format!("recording to {}", arguments.output.display()));
    struct Count(u64, u64);
    impl crate::capture::Sink for Count {
        fn event(&mut self, event: crate::event::Event) {
            self.0 += 1;
            say(&format!("{event:?}"));
        }
        fn packet(&mut self, _: crate::event::Packet) {
            self.1 += 1;
        }
    }
    let mut count = Count(0, 0);
    session.run(&mut count)?;
    say(&format!("{} {}", count.0, count.1));
    Ok(Outcome::Healthy)
}
