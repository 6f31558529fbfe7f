//! Goroutines from the service's own pprof endpoint, where its memory cannot be read.
//!
//! In: a process, or the URL of its endpoint. Out: a snapshot. This way costs the service something, so
//! it is only the second choice: a profile without ids (`debug=1`) stops it for under 20 ms whatever
//! the count, but a dump with ids (`debug=2`) stops it for as long as all stacks take to be printed,
//! which for a hundred thousand goroutines is seconds. So the profile is asked for first, and the dump
//! only where the profile says that there are few.

use std::{
    collections::HashSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use procfs::{
    net::TcpState,
    process::{FDTarget, Process},
};

use super::{GoError, dump, evenly, profile};
use crate::event::{Goroutine, Pid, Snapshot, SnapshotSource};

/// The path under which `net/http/pprof` registers itself.
const PATH: &str = "/debug/pprof/";
/// How long one listening port may take to prove that it is pprof.
const PROOF_PATIENCE: Duration = Duration::from_millis(300);
/// How many listening addresses of a process are tried.
const MOST_TRIED: usize = 16;
/// How long the profile or dump may take; the handler answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// Above this a dump with ids stops the service for too long.
const MOST_DUMPED: u64 = 1_000;
/// The runtime cuts its dumps at 64 MiB; nothing larger is read.
const LARGEST_ANSWER: u64 = 80 << 20;
/// A profile's goroutines beyond this are counted, but not told one by one.
const MOST_TOLD: usize = 1_000_000;
/// The state of goroutines in a profile, which does not tell it.
const UNTOLD: &str = "unknown";

/// A pprof endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://127.0.0.1:6060/debug/pprof/`, as it is reached from the process's own network.
    pub url: String,
    /// The process in whose network namespace the URL is meant; `None` for our own.
    namespace_of: Option<Pid>,
}

impl Endpoint {
    /// The endpoint that a user named; reached from our own network namespace.
    #[must_use]
    pub fn named(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        let url = url.split_once("/debug/pprof").map_or(url, |(host, _)| host);
        Self {
            url: format!("{url}{PATH}"),
            namespace_of: None,
        }
    }
}

/// Looks for `net/http/pprof` on the TCP ports that `pid` listens on; `None` where none proves to be
/// it, or where the process cannot be looked at.
///
/// Each port gets one small request, `GET /debug/pprof/cmdline`, whose answer must be the command line
/// that the kernel knows for `pid`. A service that speaks something else may log it.
#[must_use]
pub fn discover(pid: Pid) -> Option<Endpoint> {
    let process = Process::new(pid.cast_signed()).ok()?;
    let program = process.cmdline().ok()?.into_iter().next()?;
    let addresses = listening(&process).ok()?;
    in_network_of(Some(pid), || {
        addresses
            .iter()
            .take(MOST_TRIED)
            .map(|address| format!("http://{address}{PATH}"))
            .find(|url| {
                get(&format!("{url}cmdline"), PROOF_PATIENCE)
                    .is_ok_and(|answer| answer.split('\0').next() == Some(&program))
            })
    })
    .ok()?
    .map(|url| Endpoint {
        url,
        namespace_of: Some(pid),
    })
}

/// The goroutines that the endpoint tells of, at most `limit` of them; `pid` is the process it belongs
/// to. With many goroutines they come without ids (0), states and waiting times, but by their stacks in
/// the right proportion.
///
/// # Errors
///
/// [`GoError::Pprof`] where it does not answer, or answers something else.
pub fn snapshot(endpoint: &Endpoint, pid: Pid, limit: usize) -> Result<Snapshot, GoError> {
    let ask = |debug: u8| {
        let url = format!("{}goroutine?debug={debug}", endpoint.url);
        let answer = in_network_of(endpoint.namespace_of, || get(&url, PATIENCE));
        match answer {
            Ok(Ok(text)) => Ok((url, text)),
            Ok(Err(found)) => Err(GoError::Pprof { url, found }),
            Err(error) => Err(GoError::Pprof {
                url,
                found: format!("its network namespace cannot be entered ({error})"),
            }),
        }
    };
    let (url, text) = ask(1)?;
    let total = profile::total(&text).ok_or_else(|| GoError::Pprof {
        url,
        found: "what it answered is no goroutine profile".to_owned(),
    })?;
    let goroutines = if total <= MOST_DUMPED {
        let all = dump::parse(&ask(2)?.1).goroutines;
        evenly(all.into_iter(), limit).collect()
    } else {
        spread(&profile::parse(&text), limit.min(MOST_TOLD))
    };
    Ok(Snapshot {
        pid,
        source: SnapshotSource::Pprof,
        total: total.max(goroutines.len() as u64),
        goroutines,
    })
}

/// The goroutines of a profile one by one; where they are more than `limit`, each stack keeps its share
/// and at least one.
pub(super) fn spread(profile: &profile::Profile, limit: usize) -> Vec<Goroutine> {
    let total = profile
        .groups
        .iter()
        .map(|group| u128::from(group.count))
        .sum::<u128>()
        .max(1);
    profile
        .groups
        .iter()
        .flat_map(|group| {
            let share = u128::from(group.count) * (limit as u128) / total;
            let count = share.clamp(1, u128::from(group.count).max(1));
            let goroutine = Goroutine {
                id: 0,
                state: UNTOLD.to_owned(),
                wait: None,
                frames: group.frames.clone(),
                created_by: None,
            };
            std::iter::repeat_n(goroutine, usize::try_from(count).unwrap_or(limit))
        })
        .take(limit)
        .collect()
}

/// The addresses at which `process` listens, as they are to be connected to; loopback ones first, since
/// that is where pprof belongs.
fn listening(process: &Process) -> procfs::ProcResult<Vec<SocketAddr>> {
    let sockets: HashSet<u64> = process
        .fd()?
        .flatten()
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let entries = [process.tcp(), process.tcp6()];
    let mut addresses: Vec<SocketAddr> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode))
        .flat_map(|entry| reachable(entry.local_address))
        .collect();
    addresses.sort_by_key(|address| (!address.ip().is_loopback(), address.port()));
    addresses.dedup();
    Ok(addresses)
}

/// Where to connect to reach a listener: for "any address" the loopback ones. A Go program that listens
/// on `[::]` listens for IPv4 too, and does so even where IPv6 is switched off.
fn reachable(listener: SocketAddr) -> Vec<SocketAddr> {
    let port = listener.port();
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let hosts = match listener.ip() {
        IpAddr::V4(host) if host.is_unspecified() => vec![v4],
        IpAddr::V6(host) if host.is_unspecified() => vec![v4, v6],
        host => vec![host],
    };
    hosts
        .into_iter()
        .map(|host| SocketAddr::new(host, port))
        .collect()
}

/// Runs `work` in the network namespace of `pid`, on a thread of its own, so that ours stays where it
/// is.
fn in_network_of<T: Send>(pid: Option<Pid>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(pid) = pid else {
        return Ok(work());
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let theirs = File::open(format!("/proc/{pid}/ns/net"))?;
            let ours = std::fs::metadata("/proc/thread-self/ns/net")?;
            if theirs.metadata()?.st_ino() != ours.st_ino() {
                setns(theirs.as_fd(), CloneFlags::CLONE_NEWNET)?;
            }
            Ok(work())
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that entered it failed")))
    })
}

/// The answer's text, or what came instead.
fn get(url: &str, patience: Duration) -> Result<String, String> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .max_redirects(0)
        .proxy(None)
        .user_agent("gopulse")
        .build()
        .new_agent();
    let bytes = agent
        .get(url)
        .call()
        .and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(LARGEST_ANSWER);
            body.read_to_vec()
        })
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Instant};

    use super::*;
    use crate::event::Frame;

    #[test]
    fn a_named_endpoint_is_understood_in_each_form() {
        for url in [
            "http://localhost:6060",
            "http://localhost:6060/",
            "http://localhost:6060/debug/pprof",
            "http://localhost:6060/debug/pprof/goroutine?debug=2",
        ] {
            assert_eq!(
                Endpoint::named(url).url,
                "http://localhost:6060/debug/pprof/",
                "{url}"
            );
        }
    }

    #[test]
    fn a_port_that_never_answers_is_left_soon() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let started = Instant::now();
        assert_eq!(discover(std::process::id()), None);
        assert!(started.elapsed() < Duration::from_secs(5));
        let url = format!("http://{}", silent.local_addr().unwrap());
        drop(silent);
        let error = snapshot(&Endpoint::named(&url), 1, 10).unwrap_err();
        assert!(error.to_string().contains("/debug/pprof/goroutine?debug=1"));
    }

    #[test]
    fn a_large_profile_keeps_the_proportion_of_its_stacks() {
        let group = |count, function: &str| profile::Group {
            count,
            frames: vec![Frame {
                function: function.to_owned(),
                ..Frame::default()
            }],
        };
        let profile = profile::Profile {
            total: 100_001,
            groups: vec![group(75_000, "a"), group(25_000, "b"), group(1, "c")],
            unread_lines: 0,
        };
        let told = spread(&profile, 1_000);
        let count = |name: &str| {
            told.iter()
                .filter(|goroutine| goroutine.frames[0].function == name)
                .count()
        };
        assert_eq!((count("a"), count("b"), count("c")), (749, 249, 1));
        assert_eq!(spread(&profile, usize::MAX).len(), 100_001);
        assert!(spread(&profile, 0).is_empty());
    }
}
