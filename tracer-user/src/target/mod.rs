//! Who is traced.
//!
//! In: what the user named. Out: process ids, checked to exist, the cgroups that later ones may be
//! started in, and what the kernel tells of those processes: what they listen on, hold, and may use.
//! Children are followed by the kernel half, peers on this host are found by the capture.

mod cgroups;
pub mod containers;
pub mod descriptors;
mod groups;
pub mod limits;
pub mod listeners;
pub mod overflows;
pub mod queues;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

pub use groups::Groups;

use crate::{
    event::{Pid, Unseen},
    plain,
};
use cgroups::Hierarchy;

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
    /// By their cgroup or one above it: its directory, or its path as `/proc/PID/cgroup` writes it.
    Cgroup(PathBuf),
    /// By their container: its id, the beginning of it, or its name.
    Container(String),
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
    /// No such cgroup.
    #[error(
        "no cgroup {} is mounted here; mounted are {mounted} (systemd-cgls lists the cgroups there are, /proc/PID/cgroup names a process's)",
        path.display()
    )]
    NoCgroup {
        /// What was asked for.
        path: PathBuf,
        /// Where trees of cgroups are.
        mounted: String,
    },
    /// Nobody is in the cgroup.
    #[error("no process is in the cgroup {} or below it (systemd-cgls lists who is in which)", .0.display())]
    EmptyCgroup(PathBuf),
    /// No such container, or none that runs.
    #[error(
        "no running container has the id or name {asked}; running are {running} (docker ps, podman ps or crictl ps lists them)"
    )]
    NoContainer {
        /// What was asked for.
        asked: String,
        /// Those that there are.
        running: String,
    },
    /// Several containers could be meant.
    #[error("{asked} may be any of several containers: {candidates} (more of the id names one)")]
    AmbiguousContainer {
        /// What was asked for.
        asked: String,
        /// Which.
        candidates: String,
    },
    /// Nobody has a TCP socket.
    #[error("no process owns a TCP socket that gopulse may see (as root it sees all)")]
    Nobody,
}

/// Whom selectors name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Processes, without ourselves.
    pub pids: BTreeSet<Pid>,
    /// Cgroups: who comes into them later is meant, too.
    pub groups: Groups,
    /// What cannot be told of them.
    pub unseen: Vec<Unseen>,
}

/// Whom the selectors name.
///
/// # Errors
/// Where a selector names nobody.
pub fn resolve(selectors: &[Selector]) -> Result<Named, TargetError> {
    let mut named = Named::default();
    for selector in selectors {
        let pids = &mut named.pids;
        match selector {
            Selector::Pid(pid) => {
                let group = thread_group(*pid).ok_or(TargetError::NoPid(*pid))?;
                pids.insert(group);
            }
            Selector::Comm(name) => {
                let found = matching(|pid| comm(pid).is_some_and(|comm| same_comm(&comm, name)));
                extend(pids, found, || TargetError::NoComm(name.clone()))?;
            }
            Selector::Exe(path) => {
                let wanted = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let found = matching(|pid| exe(pid).is_some_and(|exe| same_exe(&exe, &wanted)));
                extend(pids, found, || TargetError::NoExe(path.clone()))?;
            }
            Selector::Port(port) => {
                let found = listeners::of_port(*port);
                extend(pids, found, || TargetError::NoListener(*port))?;
            }
            Selector::Cgroup(path) => {
                let mut groups = cgroup(path)?;
                let found = groups.members().into_iter();
                let found = found.filter(|pid| has_program(*pid) && !is_beginning(*pid));
                extend(pids, found.collect(), || {
                    TargetError::EmptyCgroup(path.clone())
                })?;
                named.groups.extend(groups);
            }
            Selector::Container(asked) => {
                let (found, cgroups) = containers::find(asked, &Hierarchy::mounted())?;
                pids.extend(found.into_iter().filter(|pid| !is_beginning(*pid)));
                let groups = Groups::of_container(asked, cgroups);
                if groups.is_empty() {
                    named.unseen.push(later_ones(asked));
                }
                named.groups.extend(groups);
            }
            Selector::All => {
                let found = matching(listeners::owns_tcp);
                extend(pids, found, || TargetError::Nobody)?;
            }
        }
    }
    named.pids.remove(&std::process::id());
    Ok(named)
}

/// The cgroup of that path, in each tree that has it.
fn cgroup(path: &Path) -> Result<Groups, TargetError> {
    let hierarchies = Hierarchy::mounted();
    let groups = Groups::named(path, &hierarchies);
    if groups.is_empty() {
        let mounts = hierarchies.iter().map(|tree| tree.at.display().to_string());
        let mounted: Vec<String> = mounts.collect();
        return Err(TargetError::NoCgroup {
            path: path.to_owned(),
            mounted: if mounted.is_empty() {
                "none".to_owned()
            } else {
                mounted.join(", ")
            },
        });
    }
    Ok(groups)
}

fn later_ones(container: &str) -> Unseen {
    Unseen {
        what: format!("processes that enter container {container} later, as docker exec's do"),
        why: "its cgroup is not among those mounted here; children of its processes are seen"
            .to_owned(),
        remedy: "run gopulse in the host's cgroup and mount namespaces".to_owned(),
    }
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
    of_status(id, "Tgid:")
}

/// The process that started the process, or took it over from who did.
fn parent(pid: Pid) -> Option<Pid> {
    of_status(pid, "PPid:")
}

/// The process that this line of `/proc/ID/status` names.
fn of_status(id: u32, line: &str) -> Option<Pid> {
    let status = plain::read(&format!("/proc/{id}/status"))?;
    status
        .lines()
        .find_map(|told| told.strip_prefix(line)?.trim().parse().ok())
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

/// The id of the container that the process is in, where its cgroup's path tells.
#[must_use]
pub fn container(pid: Pid) -> Option<String> {
    containers::of_cgroups(&cgroups::of_process(pid)?).map(str::to_owned)
}

/// Whether the process has a program: the kernel's own have none, nor have those that ended and were
/// not waited for.
#[must_use]
pub fn has_program(pid: Pid) -> bool {
    exe(pid).is_some()
}

/// Whether the process is still to become what a container runs. It is called so by runc (`runc:[2:INIT]`,
/// libcontainer/nsenter/nsexec.c), for some ten milliseconds or until `docker start`. Whoever looks at it then
/// may miss what it executes.
#[must_use]
pub fn is_beginning(pid: Pid) -> bool {
    comm(pid).is_some_and(|comm| comm.starts_with("runc:["))
}

/// A program that was deleted or replaced since is called so by the kernel (`d_path`).
const DELETED: &str = " (deleted)";

/// A running program is the one at that path, or was before the file was replaced.
fn same_exe(exe: &Path, wanted: &Path) -> bool {
    let was = exe.to_str().and_then(|exe| exe.strip_suffix(DELETED));
    exe == wanted || was.is_some_and(|was| Path::new(was) == wanted)
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
    fn a_program_that_was_replaced_is_still_found_by_its_path() {
        let wanted = Path::new("/srv/app");
        assert!(same_exe(Path::new("/srv/app"), wanted));
        assert!(same_exe(Path::new("/srv/app (deleted)"), wanted));
        assert!(!same_exe(Path::new("/srv/apps"), wanted));
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_an_error_that_tells_where_cgroups_are() {
        let error = resolve(&[Selector::Cgroup("no/such/cgroup".into())]).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with("no cgroup no/such/cgroup is mounted here"),
            "{said}"
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
        // The kernel gives the name a moment after it lets us go on.
        let name = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            comm(pid).filter(|name| name.starts_with('\u{9b}'))
        });
        child.kill().expect("a kill");
        child.wait().expect("an end");
        assert_eq!(found.map(|named| named.pids), Ok(BTreeSet::from([pid])));
        assert_eq!(name.as_deref(), Some("\u{9b}évil\u{202e}\u{202e}\u{fffd}"));
    }

    #[test]
    fn we_do_not_trace_ourselves() {
        let us = std::process::id();
        assert_eq!(resolve(&[Selector::Pid(us)]), Ok(Named::default()));
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
