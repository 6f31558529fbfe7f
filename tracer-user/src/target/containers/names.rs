//! What the runtimes call a container, from the files in which they keep their state.
//!
//! | runtime | file | what it is called |
//! | --- | --- | --- |
//! | docker | `config.v2.json` in `/var/lib/docker/containers/ID` | `web` |
//! | containerd (Kubernetes, nerdctl) | `config.json` of the task under `/run/containerd` | `web`, `POD/web`, `NAMESPACE/POD/web` |
//! | CRI-O | `config.json` under `/run/containers/storage` | the same |
//! | podman | `containers.json` in `/var/lib/containers/storage` | `web` |
//!
//! Docker and podman of a user keep theirs in the user's home. Such files are the user's own: what is no
//! plain file, too large or makes no sense names nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::libc::O_NONBLOCK;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// A larger file is not read: podman lists every container of a host in one.
const LARGEST: u64 = 32 << 20;

/// The state directories of containerd, by who runs it.
const CONTAINERD: [&str; 3] = [
    "run/containerd",
    "run/k3s/containerd",
    "var/snap/microk8s/common/run/containerd",
];

/// What the container `id` is called on the host whose root directory this is; nothing where no file
/// tells. `cgroups` are the paths of its cgroups, which name the user whose it is.
pub(super) fn of(id: &str, cgroups: &BTreeSet<String>, root: &Path) -> Vec<String> {
    let home = cgroups.iter().find_map(|path| home(path, root));
    let mut names = of_docker(id, root, home.as_deref());
    names.extend(of_containerd(id, root));
    names.extend(of_crio(id, root));
    names.extend(of_podman(id, root, home.as_deref()));
    let mut seen = BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// The home of the user in whose slice a cgroup is: `/user.slice/user-1000.slice/…`.
fn home(cgroup: &str, root: &Path) -> Option<PathBuf> {
    let uid: u32 = cgroup
        .split('/')
        .find_map(|name| name.strip_prefix("user-")?.strip_suffix(".slice"))?
        .parse()
        .ok()?;
    // `name:password:uid:gid:comment:home:shell` (passwd(5)).
    let passwd = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let home = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let of = fields.nth(2)?.parse() == Ok(uid);
        of.then(|| fields.nth(2)).flatten()
    })?;
    Some(under(root, home))
}

fn of_docker(id: &str, root: &Path, home: Option<&Path>) -> Vec<String> {
    #[derive(Deserialize)]
    struct Daemon {
        #[serde(rename = "data-root")]
        data_root: Option<String>,
    }
    #[derive(Deserialize)]
    struct Container {
        #[serde(rename = "Name")]
        name: String,
    }
    let moved = read::<Daemon>(&root.join("etc/docker/daemon.json"))
        .and_then(|daemon| daemon.data_root)
        .map(|at| under(root, &at));
    let data = [
        moved,
        Some(root.join("var/lib/docker")),
        home.map(|home| home.join(".local/share/docker")),
    ];
    data.into_iter()
        .flatten()
        .filter_map(|data| {
            let file = data.join("containers").join(id).join("config.v2.json");
            let container: Container = read(&file)?;
            Some(container.name.trim_start_matches('/').to_owned())
        })
        .collect()
}

fn of_containerd(id: &str, root: &Path) -> Vec<String> {
    CONTAINERD
        .iter()
        .flat_map(|state| entries(&root.join(state).join("io.containerd.runtime.v2.task")))
        .flat_map(|namespace| annotated(&namespace.join(id).join("config.json")))
        .collect()
}

fn of_crio(id: &str, root: &Path) -> Vec<String> {
    ["run/containers/storage", "var/lib/containers/storage"]
        .iter()
        .flat_map(|storage| of_driver(&root.join(storage)))
        .flat_map(|containers| annotated(&containers.join(id).join("userdata/config.json")))
        .collect()
}

fn of_podman(id: &str, root: &Path, home: Option<&Path>) -> Vec<String> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let storages = [
        Some(root.join("var/lib/containers/storage")),
        home.map(|home| home.join(".local/share/containers/storage")),
    ];
    storages
        .into_iter()
        .flatten()
        .flat_map(|storage| of_driver(&storage))
        // Those that are removed when they end are in a list of their own.
        .flat_map(|at| ["containers.json", "volatile-containers.json"].map(|file| at.join(file)))
        .filter_map(|file| read::<Vec<Container>>(&file))
        .flatten()
        .filter(|container| container.id == id)
        .flat_map(|container| container.names)
        .collect()
}

/// Where a storage keeps its containers: `overlay-containers`, or by another driver.
fn of_driver(storage: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    entries(storage).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with("-containers"))
    })
}

/// The names in the annotations of a container's OCI configuration: those of the CRI as containerd and
/// CRI-O write them, and nerdctl's.
fn annotated(file: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Configuration {
        #[serde(default)]
        annotations: serde_json::Map<String, Value>,
    }
    let Some(Configuration { annotations }) = read(file) else {
        return Vec::new();
    };
    let text = |keys: &[&str]| {
        let mut found = keys
            .iter()
            .filter_map(|key| annotations.get(*key)?.as_str());
        found.next().map(str::to_owned)
    };
    let mut names: Vec<String> = text(&["nerdctl/name"]).into_iter().collect();
    let container = text(&[
        "io.kubernetes.cri.container-name",
        "io.kubernetes.container.name",
    ]);
    let pod = text(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
    let namespace = text(&[
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.pod.namespace",
    ]);
    if let Some(container) = container {
        if let Some(pod) = pod {
            let in_pod = format!("{pod}/{container}");
            names.extend(namespace.map(|namespace| format!("{namespace}/{in_pod}")));
            names.push(in_pod);
        }
        names.push(container);
    }
    names
}

/// An absolute path as it is meant below another root.
fn under(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// A file of JSON; `None` where it is not there or is something else.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    // A pipe that nobody writes to would hold us up for ever.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)
        .ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > LARGEST {
        return None;
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3fa1b2c3d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccddeeff";
    const OTHER: &str = "00a1b2c3d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccddeeff";

    /// A made-up root directory.
    struct Root(tempfile::TempDir);

    impl Root {
        fn with(files: &[(&str, &str)]) -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = root.0.path().join(path.replace("ID", ID));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text.replace("ID", ID)).unwrap();
            }
            root
        }

        fn names(&self, cgroup: &str) -> Vec<String> {
            of(ID, &BTreeSet::from([cgroup.to_owned()]), self.0.path())
        }
    }

    #[test]
    fn docker_names_a_container_in_its_configuration() {
        let file = ("var/lib/docker/containers/ID/config.v2.json", {
            r#"{"ID": "ID", "State": {"Running": true}, "Name": "/web", "Driver": "overlay2"}"#
        });
        assert_eq!(Root::with(&[file]).names("/docker/x"), ["web"]);
    }

    #[test]
    fn dockers_data_may_have_been_moved() {
        let root = Root::with(&[
            ("etc/docker/daemon.json", r#"{"data-root": "/srv/docker"}"#),
            (
                "srv/docker/containers/ID/config.v2.json",
                r#"{"Name": "/web"}"#,
            ),
        ]);
        assert_eq!(root.names("/docker/x"), ["web"]);
    }

    #[test]
    fn kubernetes_names_a_container_by_its_pod_and_namespace() {
        let annotations = r#"{"ociVersion": "1.1.0", "annotations": {
            "io.kubernetes.cri.container-name": "nginx",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-name": "web-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
        for state in CONTAINERD {
            let path = format!("{state}/io.containerd.runtime.v2.task/k8s.io/ID/config.json");
            assert_eq!(
                Root::with(&[(&path, annotations)]).names("/kubepods/x"),
                ["shop/web-7d9f/nginx", "web-7d9f/nginx", "nginx"],
                "{state}"
            );
        }
    }

    #[test]
    fn the_sandbox_of_a_pod_is_no_container_of_its_name() {
        let root = Root::with(&[(
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
            r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-name": "web-7d9f"}}"#,
        )]);
        assert!(root.names("/kubepods/x").is_empty());
    }

    #[test]
    fn nerdctl_names_a_container_in_its_annotations() {
        let root = Root::with(&[(
            "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
            r#"{"annotations": {"nerdctl/name": "web"}}"#,
        )]);
        assert_eq!(root.names("/default/x"), ["web"]);
    }

    #[test]
    fn cri_o_names_a_container_by_its_pod_and_namespace() {
        let root = Root::with(&[(
            "run/containers/storage/overlay-containers/ID/userdata/config.json",
            r#"{"annotations": {"io.kubernetes.container.name": "nginx",
                "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop"}}"#,
        )]);
        assert_eq!(
            root.names("/kubepods.slice/x"),
            ["shop/web/nginx", "web/nginx", "nginx"]
        );
    }

    #[test]
    fn podman_names_containers_in_a_list_also_those_that_are_removed_at_their_end() {
        let list = format!(
            r#"[{{"id": "{OTHER}", "names": ["other"]}}, {{"id": "ID", "names": ["web"]}}]"#
        );
        for file in [
            "overlay-containers/containers.json",
            "vfs-containers/volatile-containers.json",
        ] {
            let path = format!("var/lib/containers/storage/{file}");
            let root = Root::with(&[(&path, &list)]);
            assert_eq!(root.names("/machine.slice/x"), ["web"], "{file}");
        }
    }

    #[test]
    fn what_a_user_runs_is_named_in_the_users_home() {
        let root = Root::with(&[
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
            ),
            (
                "home/ann/.local/share/containers/storage/overlay-containers/containers.json",
                r#"[{"id": "ID", "names": ["web"]}]"#,
            ),
            (
                "home/ann/.local/share/docker/containers/ID/config.v2.json",
                r#"{"Name": "/shop"}"#,
            ),
        ]);
        let slice = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope";
        assert_eq!(root.names(slice), ["shop", "web"]);
        assert!(root.names("/user.slice/user-1001.slice/x").is_empty());
        assert!(root.names("/machine.slice/x").is_empty());
    }

    #[test]
    fn files_that_make_no_sense_name_nothing_and_hold_nobody_up() {
        let path = "var/lib/docker/containers/ID/config.v2.json";
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Name": 7}"#,
            "\u{0}",
            r#"{"Name": "/"}"#,
        ] {
            let root = Root::with(&[(path, text)]);
            assert!(root.names("/docker/x").is_empty(), "{text}");
        }
        let root = Root::with(&[("var/lib/docker/containers/ID/other", "")]);
        let pipe = root.0.path().join(path.replace("ID", ID));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(root.names("/docker/x").is_empty());
    }
}
