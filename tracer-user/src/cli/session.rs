//! A live run, from the plan to its last event.

use std::{
    process::{Child, Command},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    interrupt,
    output::{progress, say},
    targets::{Targets, duration},
};
use crate::{
    capabilities::{self, Step},
    capture::{self, CaptureError, Live, Options, Pprof, Sink},
    event::{BootInstant, Event, Fact, Source},
    host::privileges,
    target::{self, Named},
};

/// How long and how closely the targets are watched, and what that may cost.
#[derive(Args, Debug)]
#[command(next_help_heading = "How they are traced")]
pub(super) struct Watch {
    /// How long to trace
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Tell every switch of a CPU to and from the targets' threads, and not only their sums and long
    /// waits: much data, for a timeline of them
    #[arg(long)]
    timeline: bool,
    /// Where to ask for goroutines if memory cannot be read: auto (among the ports and Unix sockets the
    /// target listens on), off, or a pprof endpoint (http://HOST:PORT or http://unix:/PATH)
    #[arg(long, value_name = "auto|off|URL", default_value = "auto")]
    pprof: String,
    /// How much CPU time gopulse may cost, its programs in the kernel included, in percent of one CPU;
    /// beyond that it sheds packets, samples, the scheduler and then connections, and says so. off: no
    /// bound
    #[arg(long = "cpu-budget", value_name = "PERCENT|off", default_value = "50", value_parser = cpu_budget)]
    cpu_budget: Bound,
}

impl Watch {
    fn options(&self, packets: bool) -> Options {
        Options {
            packets,
            timeline: self.timeline,
            goroutines: true,
            pprof: match self.pprof.as_str() {
                "auto" => Pprof::Auto,
                "off" => Pprof::Off,
                url => Pprof::Url(url.to_owned()),
            },
            cpu_budget: self.cpu_budget.0,
        }
    }
}

/// A budget, in CPUs; `None` for no bound.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound(Option<f64>);

fn cpu_budget(text: &str) -> Result<Bound, String> {
    /// Less is spent by reading the clock.
    const LEAST: f64 = 0.5;
    if text == "off" {
        return Ok(Bound(None));
    }
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    percent
        .filter(|percent| percent.is_finite() && *percent >= LEAST)
        .map(|percent| Bound(Some(percent / 100.0)))
        .ok_or_else(|| format!("it must be off, or a percentage of at least {LEAST}"))
}

/// How a live run ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// By the user, before the window was over.
    pub(super) interrupted: bool,
    /// When the watch was over.
    pub(super) at: BootInstant,
}

/// A live run that was checked and can begin.
pub(super) struct Plan {
    named: Named,
    command: Option<Command>,
    window: Duration,
    options: Options,
}

/// A live run that has begun.
pub(super) struct Session {
    live: Live,
    pub(super) source: Source,
    plan: Plan,
    begun: Vec<Event>,
}

impl Plan {
    /// Checks that there is somebody to trace; `packets` are taken or not.
    ///
    /// # Errors
    /// Where an option names nobody.
    pub(super) fn new(targets: &Targets, watch: &Watch, packets: bool) -> anyhow::Result<Self> {
        // Before anything else: without privileges other users' processes cannot be told apart either.
        privileges::check().map_err(CaptureError::Host)?;
        let named = match (targets.selectors(), targets.command()) {
            (selectors, Some(_)) if selectors.is_empty() => Named::default(),
            (selectors, _) => target::resolve(&selectors)?,
        };
        Ok(Self {
            named,
            command: targets.command(),
            window: watch.duration,
            options: watch.options(packets),
        })
    }

    /// Puts the probes into the kernel.
    ///
    /// # Errors
    /// Where the host does not allow it.
    pub(super) fn start(self) -> anyhow::Result<Session> {
        let (live, source, unseen) = Live::start(self.options.clone(), &self.named.pids)?;
        let begun = unseen
            .into_iter()
            .chain(self.named.unseen.iter().cloned())
            .map(|unseen| Event {
                at: source.started,
                fact: Fact::Unseen(unseen),
            })
            .collect();
        Ok(Session {
            live,
            source,
            plan: self,
            begun,
        })
    }
}

impl Session {
    /// Runs to the end of the window, or to the user's interrupt, which is no error: what was seen
    /// until then was seen. Says how it ended, and when the watch did.
    ///
    /// # Errors
    /// Where the command cannot be started.
    pub(super) fn run(mut self, sink: &mut dyn Sink) -> anyhow::Result<Ended> {
        let stop = interrupt::flag()?;
        for event in self.begun {
            sink.event(event);
        }
        self.live.watch(self.plan.named.groups);
        self.live.follow(self.plan.named.pids, sink);
        let child = match self.plan.command {
            Some(mut command) => Some(self.live.spawn(&mut command)?),
            None => None,
        };
        give_up(child.is_some(), self.plan.options.cpu_budget.is_some());
        let mut watched = Watched {
            sink,
            begun: Instant::now(),
            window: self.plan.window,
        };
        self.live.run(self.plan.window, &stop, &mut watched);
        progress("");
        let at = capture::now();
        let sink = watched.sink;
        self.live.finish(sink);
        if let Some(child) = child {
            end(child);
        }
        Ok(Ended {
            interrupted: stop.load(Ordering::Relaxed),
            at,
        })
    }
}

/// Gives up what is not needed any more: every probe is in place, and the command has what we had.
fn give_up(command: bool, bounded: bool) {
    let mut steps = capture::steps_of_looking(false);
    steps.extend([Step::Maps, Step::LateProbes, Step::Uprobes]);
    if bounded {
        steps.push(Step::Counts);
    }
    if command {
        // It may make a network namespace of its own.
        steps.extend([Step::Command, Step::Namespaces]);
    }
    // A crash leaves no core file, which would hold the first bytes of requests and others' memory.
    let _ = nix::sys::prctl::set_dumpable(false);
    if let Err(why) = capabilities::keep(&steps) {
        say(&format!(
            "gopulse: cannot give up privileges that are not needed any more: {why}"
        ));
    }
}

/// Ends the command that we started, if it has not ended by itself.
fn end(mut child: Child) {
    if let Ok(None) = child.try_wait() {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        for _ in 0..50 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// A sink with a progress line.
struct Watched<'a> {
    sink: &'a mut dyn Sink,
    begun: Instant,
    window: Duration,
}

impl Sink for Watched<'_> {
    fn event(&mut self, event: Event) {
        self.sink.event(event);
    }

    fn packet(&mut self, packet: crate::event::Packet) {
        self.sink.packet(packet);
    }

    fn tick(&mut self) {
        let passed = self.begun.elapsed().as_secs();
        progress(&format!(
            "tracing, {passed} of {} s (Ctrl-C ends it)",
            self.window.as_secs()
        ));
        self.sink.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_percentage_of_one_cpu_or_off() {
        assert_eq!(cpu_budget("5"), Ok(Bound(Some(0.05))));
        assert_eq!(cpu_budget("150%"), Ok(Bound(Some(1.5))));
        assert_eq!(cpu_budget("off"), Ok(Bound(None)));
        for bad in ["", "0", "-3", "some", "inf", "NaN"] {
            assert!(cpu_budget(bad).is_err(), "{bad}");
        }
    }
}
