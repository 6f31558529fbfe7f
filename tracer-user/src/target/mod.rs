//! Who is traced.
//!
//! In: what the user named. Out: process ids, checked to exist, and what the kernel tells of those
//! processes: what they listen on, hold, and may use. Children are followed by the kernel
//! half, peers on this host are found by the capture.

pub mod descriptors;
pub mod listeners;
pub mod queues;
pub mod quotas;

use std::{collections::BTreeSet, fs, path::PathBuf};

use crate::{event::Pid, plain};

/// How the user names processes; several name them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By id.
    Pid(Pid),
    /// By name, as the kernel has it (its first 15 bytes).
    Comm(String),
    /// By executable.
    Exe(PathBuf),
    /// By the TCP port they listen on.
    Port(u16),
    /// Every process that owns a TCP socket.
    All,
}

/// Why nobody can be traced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// No such process.
    #[error("no process has the id {0} (ps -e lists those there are)")]
    NoPid(Pid),
    /// No such name.
    #[error("no process is called {0} (ps -e lists those there are)")]
    NoComm(String),
    /// No such executable.
    #[error("no process runs {} (ls -l /proc/*/exe lists those there are)", .0.display())]
    NoExe(PathBuf),
    /// Nobody listens.
    #[error("nobody listens on TCP port {0} (ss -ltnp lists who listens where)")]
    NoListener(u16),
    /// Nobody has a TCP socket.
    #[error("no process owns a TCP socket that gopulse may see (as root it sees all)")]
    Nobody,
}

/// The processes that the selectors name, without ourselves.
///
/// # Errors
/// Where a selector names nobody.
pub fn resolve(selectors: &[Selector]) -> Result<BTreeSet<Pid>, TargetError> {
    let mut pids = BTreeSet::new();
    for selector in selectors {
        match selector {
            Selector::Pid(pid) => {
                let group = thread_group(*pid).ok_or(TargetError::NoPid(*pid))?;
                pids.insert(group);
            }
            Selector::Comm(name) => {
                let found = matching(|pid| comm(pid).is_some_and(|comm| same_comm(&comm, name)));
                extend(&mut pids, found, || TargetError::NoComm(name.clone()))?;
            }
            Selector::Exe(path) => {
                let wanted = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let found = matching(|pid| exe(pid).is_some_and(|exe| exe == wanted));
                extend(&mut pids, found, || TargetError::NoExe(path.clone()))?;
            }
            Selector::Port(port) => {
                let found = listeners::of_port(*port);
                extend(&mut pids, found, || TargetError::NoListener(*port))?;
            }
            Selector::All => {
                let found = matching(listeners::owns_tcp);
                extend(&mut pids, found, || TargetError::Nobody)?;
            }
        }
    }
    pids.remove(&std::process::id());
    Ok(pids)
}

fn extend(
    pids: &mut BTreeSet<Pid>,
    found: Vec<Pid>,
    none: impl FnOnce() -> TargetError,
) -> Result<(), TargetError> {
    if found.is_empty() {
        return Err(none());
    }
    pids.extend(found);
    Ok(())
}

/// Every process that there is now.
#[must_use]
pub fn every_pid() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn matching(is: impl Fn(Pid) -> bool) -> Vec<Pid> {
    every_pid().into_iter().filter(|pid| is(*pid)).collect()
}

/// The process that thread `id` belongs to; `None` where there is no such thread.
fn thread_group(id: u32) -> Option<Pid> {
    let status = plain::read(&format!("/proc/{id}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The process's name, as the kernel has it.
#[must_use]
pub fn comm(pid: Pid) -> Option<String> {
    Some(
        plain::read(&format!("/proc/{pid}/comm"))?
            .trim_end_matches('\n')
            .to_owned(),
    )
}

/// The process's executable, as it is seen in its own mount namespace.
#[must_use]
pub fn exe(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The container's id, where the cgroup's path carries one (64 hexadecimal digits).
#[must_use]
pub fn container(pid: Pid) -> Option<String> {
    let cgroups = plain::read(&format!("/proc/{pid}/cgroup"))?;
    cgroups
        .split(|symbol: char| !symbol.is_ascii_hexdigit())
        .find(|part| part.len() == 64)
        .map(str::to_owned)
}

/// The kernel keeps 15 bytes of a name.
fn same_comm(comm: &str, wanted: &str) -> bool {
    comm == wanted || (comm.len() == 15 && wanted.starts_with(comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_longer_than_the_kernel_keeps_still_matches() {
        assert!(same_comm("averylongservic", "averylongservice-name"));
        assert!(same_comm("short", "short"));
        assert!(!same_comm("short", "shorter"));
    }

    #[test]
    fn whoever_is_named_but_is_not_there_is_an_error() {
        assert_eq!(
            resolve(&[Selector::Pid(u32::MAX)]),
            Err(TargetError::NoPid(u32::MAX))
        );
        let name = "no-such-name-at-all".to_owned();
        assert_eq!(
            resolve(&[Selector::Comm(name.clone())]),
            Err(TargetError::NoComm(name))
        );
    }

    #[test]
    fn a_name_may_be_any_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("\u{9b}évil\u{202e}\u{202e}\u{202e}");
        fs::copy("/bin/sleep", &program).expect("a copy");
        let mut child = std::process::Command::new(&program)
            .arg("60")
            .spawn()
            .expect("a process");
        let pid = child.id();
        let found = resolve(&[Selector::Pid(pid)]);
        let name = comm(pid);
        child.kill().expect("a kill");
        child.wait().expect("an end");
        assert_eq!(found, Ok(BTreeSet::from([pid])));
        assert_eq!(name.as_deref(), Some("\u{9b}évil\u{202e}\u{202e}\u{fffd}"));
    }

    #[test]
    fn we_do_not_trace_ourselves() {
        let us = std::process::id();
        assert_eq!(resolve(&[Selector::Pid(us)]), Ok(BTreeSet::new()));
    }

    #[test]
    fn who_listens_on_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        assert_eq!(listeners::of_port(address.port()), vec![std::process::id()]);
        let us = std::process::id();
        assert_eq!(listeners::of_address(address, us), Some(us));
    }
}
