//! Containers: which one a process is in, and which one a user means.
//!
//! In: the paths of cgroups, and the state files of the runtimes for names. Out: ids as the runtimes give
//! them (64 hexadecimal digits), and the cgroups of one container. No runtime is asked: its socket may be
//! closed to us, and a tracer has no business to start anything there.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use super::{
    TargetError,
    cgroups::{self, Hierarchy, directories},
    every_pid,
};
use crate::event::Pid;

/// Hexadecimal digits of an id.
const ID: usize = 64;
/// As many of them as `docker ps` shows.
const SHORT: usize = 12;

/// The container that a process is in, of what its `/proc/PID/cgroup` says: of one inside another the
/// inner one.
#[must_use]
pub fn of_cgroups(cgroups: &str) -> Option<&str> {
    paths(cgroups).find_map(|path| named_in(path).last().map(|(id, _)| id))
}

/// As much of an id as people read.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// The paths in a `/proc/PID/cgroup`: `4:cpu,cpuacct:/docker/…`, `0::/system.slice/…`.
fn paths(cgroups: &str) -> impl Iterator<Item = &str> {
    cgroups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        Some(rest.split_once(':')?.1)
    })
}

/// The containers that a cgroup's path leads through, the outermost first, each with the path of its own
/// cgroup.
fn named_in(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut end = 0;
    path.split('/').filter_map(move |name| {
        let own = path.get(..end + name.len());
        end += name.len() + 1;
        Some((id_of(name)?, own?))
    })
}

/// The id of the container whose cgroup is called so. Runtimes write it alone or behind their name, and
/// systemd makes a scope of it:
///
/// | `docker` | `0123…`, `docker-0123….scope` |
/// | --- | --- |
/// | `containerd` | `0123…`, `cri-containerd-0123….scope`, `nerdctl-0123….scope`, `….slice:cri-containerd:0123…` |
/// | `CRI-O` | `crio-0123…`, `crio-0123….scope` |
/// | `podman` | `libpod-0123…`, `libpod-0123….scope`, `libpod-payload-0123…` |
///
/// What looks after a container (`conmon`) has its id, too, and is not in it; a pod's id
/// (`libpod_pod_0123…`) is none of a container.
fn id_of(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    (is_id(id) && !runtime.ends_with("conmon")).then_some(id)
}

fn is_id(text: &str) -> bool {
    let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == ID && text.bytes().all(digit)
}

/// A container that has processes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    id: String,
    names: Vec<String>,
    /// Its cgroups, as `/proc/PID/cgroup` writes them.
    paths: BTreeSet<String>,
    pids: BTreeSet<Pid>,
}

impl Running {
    fn read_names(&mut self) {
        self.names = names::of(&self.id, &self.pids);
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(short(&self.id))?;
        // The longest says most: a container of Kubernetes is called by its pod, too.
        match self.names.iter().max_by_key(|name| name.len()) {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// Every container that has processes, without their names.
fn running(processes: impl Iterator<Item = (Pid, String)>) -> Vec<Running> {
    let mut found: BTreeMap<String, Running> = BTreeMap::new();
    for (pid, cgroups) in processes {
        for (id, own) in paths(&cgroups).flat_map(named_in) {
            let container = found.entry(id.to_owned()).or_insert_with(|| Running {
                id: id.to_owned(),
                names: Vec::new(),
                paths: BTreeSet::new(),
                pids: BTreeSet::new(),
            });
            container.paths.insert(own.to_owned());
            container.pids.insert(pid);
        }
    }
    found.into_values().collect()
}

/// The processes of the container that a user named by its id, its name or the beginning of its id, in
/// this order, as docker takes it; and where its cgroups would be, as far as that is to be seen from here.
///
/// # Errors
///
/// [`TargetError::NoContainer`] and [`TargetError::AmbiguousContainer`].
pub(super) fn find(
    asked: &str,
    hierarchies: &[Hierarchy],
) -> Result<(BTreeSet<Pid>, Vec<PathBuf>), TargetError> {
    let processes = every_pid()
        .into_iter()
        .filter_map(|pid| Some((pid, cgroups::of_process(pid)?)));
    let mut running = running(processes);
    // A whole id needs no names, which are in many files.
    if !running.iter().any(|container| container.id == asked) {
        for container in &mut running {
            container.read_names();
        }
    }
    let meant = meant(asked, &running)?;
    let paths = meant.paths.iter();
    let at: BTreeSet<PathBuf> = paths
        .flat_map(|path| directories(path, hierarchies))
        .collect();
    Ok((meant.pids.clone(), at.into_iter().collect()))
}

/// Which of those that run is meant.
fn meant<'r>(asked: &str, running: &'r [Running]) -> Result<&'r Running, TargetError> {
    let by = |is: &dyn Fn(&Running) -> bool| -> Vec<&'r Running> {
        running.iter().filter(|container| is(container)).collect()
    };
    let ways: [&dyn Fn(&Running) -> bool; 3] = [
        &|container| container.id == asked,
        &|container| container.names.iter().any(|name| name == asked),
        &|container| !asked.is_empty() && container.id.starts_with(asked),
    ];
    for way in ways {
        match by(way).as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                return Err(TargetError::AmbiguousContainer {
                    asked: asked.to_owned(),
                    candidates: listed(several.iter().copied()),
                });
            }
        }
    }
    Err(TargetError::NoContainer {
        asked: asked.to_owned(),
        running: listed(running.iter()),
    })
}

/// Containers as a message lists them; `none` where there are none.
fn listed<'r>(containers: impl ExactSizeIterator<Item = &'r Running>) -> String {
    const LISTED: usize = 10;
    let more = containers.len().saturating_sub(LISTED);
    let mut listed: Vec<String> = containers.take(LISTED).map(Running::to_string).collect();
    match (listed.is_empty(), more) {
        (true, _) => return "none".to_owned(),
        (false, 0) => {}
        (false, more) => listed.push(format!("{more} more")),
    }
    listed.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id that begins so.
    fn id(begins: &str) -> String {
        format!("{begins:0<ID$}")
    }

    #[test]
    fn an_id_is_read_from_every_form_of_path() {
        let (one, pod) = (&id("3fa1"), "pod0a1b2c3d-0000-1111-2222-333344445555");
        let burstable = "kubepods-burstable";
        let slices = format!("kubepods.slice/{burstable}.slice/{burstable}-{pod}.slice");
        for path in [
            // docker, by cgroupfs, by systemd, rootless, and as ECS puts it.
            format!("/docker/{one}"),
            format!("/system.slice/docker-{one}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{one}.scope"),
            format!("/ecs/0123456789abcdef0123456789abcdef/{one}"),
            // Kubernetes with docker and containerd.
            format!("/kubepods/burstable/{pod}/{one}"),
            format!("/kubepods/{pod}/{one}/nested/group"),
            format!("/{slices}/docker-{one}.scope"),
            format!("/{slices}/cri-containerd-{one}.scope"),
            format!(
                "/system.slice/containerd.service/{burstable}-{pod}.slice:cri-containerd:{one}"
            ),
            // nerdctl.
            format!("/default/{one}"),
            format!("/system.slice/nerdctl-{one}.scope"),
            // CRI-O.
            format!("/{slices}/crio-{one}.scope"),
            format!("/{slices}/crio-{one}.scope/container"),
            format!("/kubepods/besteffort/{pod}/crio-{one}"),
            // podman.
            format!("/machine.slice/libpod-{one}.scope/container"),
            format!("/libpod_parent/libpod-{one}"),
            format!("/system.slice/web.service/libpod-payload-{one}"),
            format!(
                "/machine.slice/machine-libpod_pod_{}.slice/libpod-{one}.scope",
                id("99")
            ),
            // Seen from another cgroup namespace.
            format!("/../{one}"),
        ] {
            let cgroups = format!("0::{path}\n");
            assert_eq!(of_cgroups(&cgroups), Some(one.as_str()), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        let one = &id("3fa1");
        for path in [
            "/".to_owned(),
            "/system.slice/nginx.service".to_owned(),
            format!("/machine.slice/libpod-conmon-{one}.scope"),
            format!("/system.slice/crio-conmon-{one}.scope"),
            format!("/libpod_parent/libpod_pod_{one}"),
            format!("/machine.slice/machine-libpod_pod_{one}.slice"),
            format!("/system.slice/var-lib-docker-overlay2-{one}-merged.mount"),
            format!("/docker/{}", &one[1..]),
            format!("/docker/{one}0"),
            format!("/docker/{}", one.to_uppercase()),
        ] {
            assert_eq!(of_cgroups(&format!("0::{path}\n")), None, "{path}");
        }
        assert_eq!(of_cgroups(""), None);
        assert_eq!(of_cgroups("nonsense\n1:2"), None);
    }

    #[test]
    fn of_a_container_in_a_container_the_inner_one_is_told() {
        let (node, pod) = (id("aa"), id("bb"));
        let cgroups = format!("0::/docker/{node}/kubelet/kubepods/besteffort/podX/{pod}\n");
        assert_eq!(of_cgroups(&cgroups), Some(pod.as_str()));
    }

    #[test]
    fn a_host_with_both_versions_tells_it_in_some_line() {
        let one = id("3fa1");
        let cgroups = format!("9:name=systemd:/init\n4:cpu,cpuacct:/docker/{one}\n0::/\n");
        assert_eq!(of_cgroups(&cgroups), Some(one.as_str()));
    }

    #[test]
    fn a_container_has_all_processes_at_and_below_its_cgroups() {
        let (node, pod) = (id("aa"), id("bb"));
        let cgroups = |path: String| format!("4:cpu:{path}\n0::/\n");
        let found = running(
            [
                (1, cgroups("/".into())),
                (10, cgroups(format!("/docker/{node}"))),
                (11, cgroups(format!("/docker/{node}/init"))),
                (12, cgroups(format!("/docker/{node}/kubepods/{pod}"))),
            ]
            .into_iter(),
        );
        let told: Vec<_> = found
            .iter()
            .map(|container| {
                let paths: Vec<&str> = container.paths.iter().map(String::as_str).collect();
                let pids: Vec<Pid> = container.pids.iter().copied().collect();
                (container.id.clone(), paths.join(" "), pids)
            })
            .collect();
        assert_eq!(
            told,
            [
                (node.clone(), format!("/docker/{node}"), vec![10, 11, 12]),
                (
                    pod.clone(),
                    format!("/docker/{node}/kubepods/{pod}"),
                    vec![12]
                ),
            ]
        );
    }

    fn container(begins: &str, names: &[&str]) -> Running {
        Running {
            id: id(begins),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            paths: BTreeSet::new(),
            pids: BTreeSet::new(),
        }
    }

    #[test]
    fn a_container_is_meant_by_its_id_its_name_or_the_beginning_of_its_id() {
        let running = [
            container("3fa1", &["web"]),
            // Called like the beginning of the other's id: the name wins, as with docker.
            container("9c", &["3fa"]),
            container("9d", &["nginx", "web-1/nginx", "default/web-1/nginx"]),
            container("9e", &["nginx", "web-2/nginx", "default/web-2/nginx"]),
        ];
        let by = |asked: &str| meant(asked, &running).map(|found| short(&found.id)[..4].to_owned());
        for (asked, begins) in [
            (id("3fa1").as_str(), "3fa1"),
            ("web", "3fa1"),
            ("3fa", "9c00"),
            ("3", "3fa1"),
            ("9d", "9d00"),
            ("web-2/nginx", "9e00"),
            ("default/web-1/nginx", "9d00"),
        ] {
            assert_eq!(by(asked), Ok(begins.to_owned()), "{asked}");
        }
    }

    #[test]
    fn who_is_not_meant_clearly_is_an_error_that_lists_those_there_are() {
        let running = [
            container("3fa1", &["web"]),
            container("3fb2", &[]),
            container("9d", &["nginx", "default/web-1/nginx"]),
            container("9e", &["nginx", "default/web-2/nginx"]),
        ];
        let said = |asked: &str| meant(asked, &running).unwrap_err().to_string();
        insta::assert_snapshot!(said("3f"), @"3f may be any of several containers: 3fa100000000 (web), 3fb200000000 (more of the id names one)");
        insta::assert_snapshot!(said("nginx"), @"nginx may be any of several containers: 9d0000000000 (default/web-1/nginx), 9e0000000000 (default/web-2/nginx) (more of the id names one)");
        insta::assert_snapshot!(said("shop"), @"no running container has the id or name shop; running are 3fa100000000 (web), 3fb200000000, 9d0000000000 (default/web-1/nginx), 9e0000000000 (default/web-2/nginx) (docker ps, podman ps or crictl ps lists them)");
        insta::assert_snapshot!(meant("web", &[]).unwrap_err(), @"no running container has the id or name web; running are none (docker ps, podman ps or crictl ps lists them)");
    }
}
