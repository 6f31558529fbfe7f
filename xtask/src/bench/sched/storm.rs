//! Storms of switches: processes and threads that do nothing but hand each other a CPU.

use std::{
    fs,
    io::{Write as _, pipe},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::Context as _;
use gopulse_tests::{process::Process, services, services::Service};

/// What switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storm {
    /// Two processes on one CPU that wake each other by two pipes.
    Pipe,
    /// The same on every CPU.
    PipePerCpu,
    /// Goroutines on one CPU that hand each other a piece by channels, one of them bound to a thread, so
    /// that each piece switches threads.
    Channel,
}

/// A storm that goes on until it is dropped.
pub(super) struct Raging {
    pids: Vec<u32>,
    _rings: Vec<Ring>,
    /// The load first, to end before the service.
    _line: Option<(Process, Service)>,
}

/// Two `cat`, the output of each the input of the other, and one byte that goes round.
struct Ring([Cat; 2]);

struct Cat(Child);

impl Storm {
    pub(super) const ALL: [Self; 3] = [Self::Pipe, Self::PipePerCpu, Self::Channel];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipes, one CPU",
            Self::PipePerCpu => "pipes, every CPU",
            Self::Channel => "Go channel, one CPU",
        }
    }

    /// How many CPUs switch, the first ones.
    pub(super) fn cpus(self) -> usize {
        match self {
            Self::Pipe | Self::Channel => 1,
            Self::PipePerCpu => thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn start(self) -> anyhow::Result<Raging> {
        if self == Self::Channel {
            return channel();
        }
        let rings = (0..self.cpus())
            .map(Ring::on)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let cats = rings.iter().flat_map(|ring| &ring.0);
        Ok(Raging {
            pids: cats.map(|cat| cat.0.id()).collect(),
            _rings: rings,
            _line: None,
        })
    }
}

fn channel() -> anyhow::Result<Raging> {
    let relay = services::program("relay")?;
    let service = Service::run(
        on_cpu(0)
            .arg(relay)
            .args(["-bound", "-stages=2", "-words=20000"]),
    )?;
    let load = Process::start(
        Command::new("wrk")
            .args(["-t1", "-c1", "-d600s", "--timeout=60s"])
            .arg(format!("http://{}/count", service.address)),
    )?;
    Ok(Raging {
        pids: vec![service.process.pid()],
        _rings: Vec::new(),
        _line: Some((load, service)),
    })
}

impl Raging {
    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// How often its threads left a CPU until now, by proc_pid_status(5).
    pub(super) fn switches(&self) -> anyhow::Result<u64> {
        self.pids.iter().copied().map(switches).sum()
    }
}

impl Ring {
    fn on(cpu: usize) -> anyhow::Result<Self> {
        let (there, mut into_there) = pipe()?;
        let (back, into_back) = pipe()?;
        into_there.write_all(b"!")?;
        let first = Cat::start(cpu, there.into(), into_back.into())?;
        let second = Cat::start(cpu, back.into(), into_there.into())?;
        Ok(Self([first, second]))
    }
}

impl Cat {
    fn start(cpu: usize, input: Stdio, output: Stdio) -> anyhow::Result<Self> {
        // The ring keeps itself alive; the limit ends it even if this process is killed.
        let child = on_cpu(cpu)
            .args(["prlimit", "--cpu=120", "cat"])
            .stdin(input)
            .stdout(output)
            .spawn()
            .context("cannot run taskset")?;
        Ok(Self(child))
    }
}

impl Drop for Cat {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A command that keeps to a CPU; the program and its arguments follow.
fn on_cpu(cpu: usize) -> Command {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", &cpu.to_string()]);
    taskset
}

fn switches(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        sum += switches_of(&status);
    }
    Ok(sum)
}

/// By its own will and against it.
fn switches_of(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| line.split_once("voluntary_ctxt_switches:"))
        .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_switches_with_and_against_its_will() {
        let status = "Name:\tcat\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(switches_of(status), 42);
    }
}
