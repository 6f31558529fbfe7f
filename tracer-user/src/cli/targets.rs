//! The arguments that say who is traced and for how long.

use std::{ffi::OsString, path::PathBuf, process::Command, time::Duration};

use clap::Args;

use crate::{event::Pid, target::Selector};

/// Who is traced; several options name them all.
///
/// A heading holds on for what follows where this is flattened in, so that has to have one of its own.
#[derive(Args, Debug)]
#[command(next_help_heading = "Who is traced")]
pub(super) struct Targets {
    /// This process; each of these options may be repeated, and all may be combined
    #[arg(long, value_name = "PID")]
    pid: Vec<Pid>,
    /// Processes of this name
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,
    /// Processes that run this program
    #[arg(long, value_name = "PATH")]
    exe: Vec<PathBuf>,
    /// Who listens on this TCP port
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Processes in this cgroup or below it: its directory, or its path as /proc/PID/cgroup writes it
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<PathBuf>,
    /// Processes of this container: its id, the beginning of it, or its name (docker, containerd,
    /// Kubernetes, CRI-O, podman)
    #[arg(long, value_name = "ID|NAME")]
    container: Vec<String>,
    /// Every process that owns a TCP socket, as it is where nobody is named
    #[arg(long)]
    all: bool,
    /// A command to start and to trace from its first instruction on
    #[arg(last = true, value_name = "COMMAND", help_heading = None)]
    command: Vec<OsString>,
}

impl Targets {
    /// The processes that were named; all where none was, and no command either.
    pub(super) fn selectors(&self) -> Vec<Selector> {
        let mut selectors: Vec<Selector> = self.pid.iter().copied().map(Selector::Pid).collect();
        selectors.extend(self.comm.iter().cloned().map(Selector::Comm));
        selectors.extend(self.exe.iter().cloned().map(Selector::Exe));
        selectors.extend(self.port.iter().copied().map(Selector::Port));
        selectors.extend(self.cgroup.iter().cloned().map(Selector::Cgroup));
        selectors.extend(self.container.iter().cloned().map(Selector::Container));
        if self.all || (selectors.is_empty() && self.command.is_empty()) {
            selectors.push(Selector::All);
        }
        selectors
    }

    /// Whether anybody was named.
    pub(super) fn named(&self) -> bool {
        self.all
            || !(self.pid.is_empty()
                && self.comm.is_empty()
                && self.exe.is_empty()
                && self.port.is_empty()
                && self.cgroup.is_empty()
                && self.container.is_empty()
                && self.command.is_empty())
    }

    /// The command to start.
    pub(super) fn command(&self) -> Option<Command> {
        let (program, arguments) = self.command.split_first()?;
        let mut command = Command::new(program);
        // Standard output carries our result.
        command.args(arguments).stdout(std::io::stderr());
        Some(command)
    }
}

/// `500ms`, `30s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "it must be a time with its unit, such as 500ms, 30s or 5m".to_owned())?;
    Duration::try_from(span)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "it must be longer than nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_not_nothing() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        for bad in ["", "5", "0s", "-3s", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
