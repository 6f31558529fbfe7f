//! Goroutines from the service's own pprof endpoint, where its memory cannot be read.
//!
//! In: a process, or the URL of its endpoint. Out: a snapshot. The endpoint is asked from within the
//! process's own network, over TCP or a Unix socket. This way costs the service something, so
//! it is only the second choice: a profile without ids (`debug=0`) stops it for under 20 ms whatever
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

mod request;
mod socket;

use super::{
    GoError,
    saved::{self, Form, Saved},
};
use crate::event::{Pid, Snapshot, SnapshotSource};
use request::get;
use socket::Socket;

/// The path under which `net/http/pprof` registers itself.
const PATH: &str = "/debug/pprof/";
/// How long one listening port may take to prove that it is pprof.
const PROOF_PATIENCE: Duration = Duration::from_millis(300);
/// How many listening addresses of a process are tried, and how many Unix sockets.
const MOST_TRIED: usize = 16;
/// How long the profile or dump may take; the handler answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// Above this a dump with ids stops the service for too long.
const MOST_DUMPED: u64 = 1_000;
/// A profile's goroutines beyond this are counted, but not told one by one.
const MOST_TOLD: usize = 1_000_000;

/// A pprof endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://127.0.0.1:6060/debug/pprof/`, or `http://unix:/run/app.sock:/debug/pprof/` as nginx and
    /// others write it, as it is reached from the process's own network and root directory; to be
    /// shown, so without a password.
    pub url: String,
    /// What is asked for, with name and password where they were given.
    asked: String,
    /// Over which Unix socket, if not over TCP.
    socket: Option<Socket>,
    /// The process in whose network namespace the URL is meant; `None` for our own.
    namespace_of: Option<Pid>,
}

impl Endpoint {
    /// The endpoint that a user named, reached from our own network namespace: its host alone, the
    /// directory of its profiles, or one of them. `http://name:password@host/…` asks with these (RFC
    /// 7617); `http://unix:/path/to.sock:/…` asks over that socket.
    #[must_use]
    pub fn named(url: &str) -> Self {
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if let Some(over) = rest.strip_prefix("unix:") {
            let (socket, path) = over.split_once(':').unwrap_or((over, ""));
            return Self::over(Socket::named(socket), &directory(path), None);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = directory(path);
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        Self {
            url: format!("{scheme}://{host}{path}"),
            asked: format!("{scheme}://{authority}{path}"),
            socket: None,
            namespace_of: None,
        }
    }

    /// One at a TCP address of the network that `pid` is in.
    fn at(address: SocketAddr, pid: Pid) -> Self {
        let url = format!("http://{address}{PATH}");
        Self {
            asked: url.clone(),
            url,
            socket: None,
            namespace_of: Some(pid),
        }
    }

    /// One behind a Unix socket.
    fn over(socket: Socket, path: &str, namespace_of: Option<Pid>) -> Self {
        Self {
            url: format!("http://unix:{socket}:{path}"),
            // The host is for the form only.
            asked: format!("http://127.0.0.1{path}"),
            socket: Some(socket),
            namespace_of,
        }
    }

    fn get(&self, what: &str) -> Result<Vec<u8>, GoError> {
        let found = match in_network_of(self.namespace_of, || self.ask(what, PATIENCE)) {
            Ok(Ok(answer)) => return Ok(answer),
            // ureq tells the URL in some errors.
            Ok(Err(found)) => found.replace(&self.asked, &self.url),
            Err(error) => format!("its network namespace cannot be entered ({error})"),
        };
        Err(self.failed(what, found))
    }

    /// Asks from the network namespace that this thread is in.
    fn ask(&self, what: &str, patience: Duration) -> Result<Vec<u8>, String> {
        let url = format!("{}{what}", self.asked);
        get(&url, self.socket.as_ref(), patience)
    }

    fn failed(&self, what: &str, found: String) -> GoError {
        let url = format!("{}{what}", self.url);
        GoError::Pprof { url, found }
    }
}

/// The directory in which the profiles lie, of a path that names it, a profile in it, or neither.
fn directory(path: &str) -> String {
    let known = PATH.trim_end_matches('/');
    if let Some(at) = path.find(known) {
        return format!("{}{PATH}", path.get(..at).unwrap_or_default());
    }
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/goroutine").unwrap_or(path);
    if path.is_empty() {
        PATH.to_owned()
    } else {
        format!("{path}/")
    }
}

/// Looks for `net/http/pprof` on the TCP ports and Unix sockets that `pid` listens on; `None` where none
/// proves to be it, or where the process cannot be looked at.
///
/// Each gets one small request, `GET /debug/pprof/cmdline`, whose answer must be the command line
/// that the kernel knows for `pid`. A service that speaks something else may log it.
#[must_use]
pub fn discover(pid: Pid) -> Option<Endpoint> {
    let process = Process::new(pid.cast_signed()).ok()?;
    let program = process.cmdline().ok()?.into_iter().next()?;
    let inodes = sockets(&process).ok()?;
    let ports = listening(&process, &inodes).into_iter().take(MOST_TRIED);
    let files = Socket::of(&process, &inodes).into_iter().take(MOST_TRIED);
    let candidates: Vec<Endpoint> = ports
        .map(|address| Endpoint::at(address, pid))
        .chain(files.map(|socket| Endpoint::over(socket, PATH, Some(pid))))
        .collect();
    in_network_of(Some(pid), || {
        candidates.into_iter().find(|endpoint| {
            endpoint.ask("cmdline", PROOF_PATIENCE).is_ok_and(|answer| {
                answer.split(|byte| *byte == 0).next() == Some(program.as_bytes())
            })
        })
    })
    .ok()?
}

/// The goroutines that the endpoint tells of, at most `limit` of them; `pid` is the process it belongs
/// to. With many goroutines they come without ids (0), states and waiting times, but by their stacks in
/// the right proportion.
///
/// # Errors
///
/// [`GoError::Pprof`] where it does not answer, or answers something else.
pub fn snapshot(endpoint: &Endpoint, pid: Pid, limit: usize) -> Result<Snapshot, GoError> {
    let (saved, _) = census(endpoint)?;
    let census = saved.census;
    Ok(census.snapshot(pid, SnapshotSource::Pprof, limit.min(MOST_TOLD)))
}

/// The goroutines that the endpoint tells of, and what was asked for, with the reason.
///
/// # Errors
///
/// As [`snapshot`].
pub fn census(endpoint: &Endpoint) -> Result<(Saved, String), GoError> {
    const PROFILE: &str = "goroutine?debug=0";
    const DUMP: &str = "goroutine?debug=2";
    let ask = |what| {
        let answer = endpoint.get(what)?;
        saved::read(answer.as_slice()).map_err(|error| {
            endpoint.failed(
                what,
                format!("what it answered is no goroutine profile ({error})"),
            )
        })
    };
    let profile = ask(PROFILE)?;
    let total = profile.census.total;
    if profile.form == Form::Dump {
        return Ok((profile, "the endpoint gave a full dump unasked".to_owned()));
    }
    if total > MOST_DUMPED {
        let reason = format!(
            "asked for the profile alone (debug=0, without ids): a dump of {total} goroutines would \
             stop the service for too long"
        );
        return Ok((profile, reason));
    }
    let reason = format!("asked for a full dump (debug=2): {total} goroutines are few enough");
    Ok((ask(DUMP)?, reason))
}

/// The inodes of a process's sockets.
fn sockets(process: &Process) -> procfs::ProcResult<HashSet<u64>> {
    let descriptors = process.fd()?.flatten();
    Ok(descriptors
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect())
}

/// The addresses at which `process` listens, as they are to be connected to; loopback ones first, since
/// that is where pprof belongs.
fn listening(process: &Process, inodes: &HashSet<u64>) -> Vec<SocketAddr> {
    let entries = [process.tcp(), process.tcp6()];
    let mut addresses: Vec<SocketAddr> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen && inodes.contains(&entry.inode))
        .flat_map(|entry| reachable(entry.local_address))
        .collect();
    addresses.sort_by_key(|address| (!address.ip().is_loopback(), address.port()));
    addresses.dedup();
    addresses
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        os::{linux::net::SocketAddrExt as _, unix::net::UnixListener},
        time::Instant,
    };

    use super::*;

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
        for (url, directory) in [
            ("shop:6060", "http://shop:6060/debug/pprof/"),
            (
                "http://shop/admin/debug/pprof/heap",
                "http://shop/admin/debug/pprof/",
            ),
            ("http://shop/internal/prof/", "http://shop/internal/prof/"),
            (
                "http://shop/internal/prof/goroutine?debug=1",
                "http://shop/internal/prof/",
            ),
        ] {
            assert_eq!(Endpoint::named(url).url, directory, "{url}");
        }
    }

    #[test]
    fn an_endpoint_behind_a_unix_socket_is_understood_in_each_form() {
        for url in [
            "http://unix:/run/app.sock:/debug/pprof/",
            "http://unix:/run/app.sock:",
            "unix:/run/app.sock",
            "unix:/run/app.sock:/debug/pprof/goroutine?debug=2",
        ] {
            let endpoint = Endpoint::named(url);
            assert_eq!(
                endpoint.url, "http://unix:/run/app.sock:/debug/pprof/",
                "{url}"
            );
            assert_eq!(
                endpoint.socket,
                Some(Socket::named("/run/app.sock")),
                "{url}"
            );
        }
    }

    #[test]
    fn an_endpoint_is_asked_over_a_unix_socket_however_long_its_path_is() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        // No address holds so long a path; who binds there says it in another way.
        let at = File::open(&deep).unwrap();
        let short = format!(
            "/proc/self/fd/{}/a.sock",
            std::os::fd::AsRawFd::as_raw_fd(&at)
        );
        let listener = UnixListener::bind(short).unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, PROFILE));
        let endpoint = Endpoint::named(&format!("unix:{}/a.sock", deep.display()));
        let (saved, _) = census(&endpoint).unwrap();
        assert_eq!(saved.census.told(), 1001);
        let request = server.join().unwrap();
        assert!(
            request.starts_with("GET /debug/pprof/goroutine?debug=0 HTTP/1.1\r\n"),
            "{request}"
        );
        let hosts = request.to_lowercase().matches("\r\nhost: \r\n").count();
        assert_eq!(hosts, 1, "{request}");
    }

    #[test]
    fn an_abstract_unix_socket_is_asked_too() {
        let name = format!("gopulse-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, PROFILE));
        let (saved, _) = census(&Endpoint::named(&format!("unix:@{name}"))).unwrap();
        assert_eq!(saved.census.told(), 1001);
        server.join().unwrap();
    }

    #[test]
    fn a_unix_socket_that_never_answers_is_left_soon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let socket = Socket::named(path.to_str().unwrap());
        let started = Instant::now();
        let patience = Duration::from_millis(50);
        let error = get("http://127.0.0.1/", Some(&socket), patience).unwrap_err();
        assert!(error.contains("timeout"), "{error}");
        // Nobody accepts: when the queue is full, `connect` waits.
        let queued: Vec<_> = (0..10_000)
            .map(|_| socket.connect(Some(Duration::from_millis(1))))
            .take_while(Result::is_ok)
            .collect();
        assert!(queued.len() < 10_000);
        get("http://127.0.0.1/", Some(&socket), patience).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_password_is_used_and_not_shown() {
        let endpoint = Endpoint::named("http://me:secret@127.0.0.1:1/debug/pprof/");
        assert_eq!(endpoint.url, "http://127.0.0.1:1/debug/pprof/");
        assert_eq!(endpoint.asked, "http://me:secret@127.0.0.1:1/debug/pprof/");
        let error = census(&endpoint).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    const PROFILE: &str =
        "goroutine profile: total 1001\n1001 @ 0x10\n#\t0x10\tmain.f+0x1\t/a.go:1\n";

    /// Answers one request with a profile, and gives back the request.
    fn answer(mut stream: impl Read + Write, profile: &str) -> String {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            request.extend(byte);
        }
        let length = profile.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{profile}"
        )
        .unwrap();
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn of_many_goroutines_only_the_profile_is_asked_for_with_name_and_password() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, PROFILE));
        let endpoint = Endpoint::named(&format!("http://me:secret@{address}/prof/"));
        let (saved, choice) = census(&endpoint).unwrap();
        assert_eq!(saved.census.told(), 1001);
        assert!(choice.contains("debug=0"), "{choice}");
        let request = server.join().unwrap();
        assert!(
            request.starts_with("GET /prof/goroutine?debug=0 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains(" Basic bWU6c2VjcmV0\r\n"), "{request}");
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
        assert!(error.to_string().contains("/debug/pprof/goroutine?debug=0"));
    }
}
