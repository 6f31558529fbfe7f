//! What is read of processes before they are traced: their Go programs, and where they listen.
//!
//! In: process ids. Out: what each of them runs and listens on. To read a Go program takes some fifteen
//! milliseconds, so of those who are named it is done while ours are loaded. What always holds: what is handed
//! out is of the program that the process runs then, not of one before an `execve`.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::Arc,
};

use super::deciders::{File, executable, file};
use crate::{
    event::Pid,
    golang::{GoError, Program},
    target::listeners,
};

/// A Go program; `None` for another one.
pub(super) type Found = Result<Option<Arc<Program>>, GoError>;

/// The program that a process runs.
pub(super) fn program(pid: Pid) -> Found {
    Program::of_process(pid).map(|program| program.map(Arc::new))
}

/// What is known of a process.
pub(super) struct Read {
    image: Image,
    pub(super) program: Found,
    /// The TCP ports that it listens on.
    pub(super) ports: BTreeSet<u16>,
}

/// What an `execve` changes: the file, and where the kernel lays program and stack (its auxiliary vector).
#[derive(PartialEq, Eq)]
struct Image(Option<File>, Vec<u8>);

impl Image {
    fn of(pid: Pid) -> Self {
        let laid = fs::read(format!("/proc/{pid}/auxv")).unwrap_or_default();
        Self(file(&executable(pid)), laid)
    }
}

impl Read {
    fn of(pid: Pid) -> Self {
        Self {
            image: Image::of(pid),
            program: program(pid),
            ports: listeners::ports(pid),
        }
    }
}

/// What was read early.
#[derive(Default)]
pub(super) struct Early(HashMap<Pid, Read>);

impl Early {
    pub(super) fn read(pids: impl IntoIterator<Item = Pid>) -> Self {
        Self(pids.into_iter().map(|pid| (pid, Read::of(pid))).collect())
    }

    /// What is known of a process, read now where it was not, or is something else by now.
    pub(super) fn take(&mut self, pid: Pid) -> Read {
        let read = self.0.remove(&pid);
        read.filter(|read| read.image == Image::of(pid))
            .unwrap_or_else(|| Read::of(pid))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;

    #[test]
    fn what_was_read_before_an_execve_is_not_handed_out() {
        let mut shell = Command::new("sh")
            .args(["-c", "read line; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = shell.id();
        let before = Image::of(pid);
        assert!(before == Image::of(pid));
        drop(shell.stdin.take()); // the end of its input is a line
        while target_comm(pid) != "sleep" {
            std::thread::yield_now();
        }
        let changed = before != Image::of(pid);
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(changed);
    }

    fn target_comm(pid: Pid) -> String {
        crate::target::comm(pid).unwrap_or_default()
    }
}
