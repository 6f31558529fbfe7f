//! What the runtimes call a container, from the files in which they keep their state.
//!
//! Where those lie is set in many ways (`daemon.json`, `storage.conf`, a distribution of Kubernetes, a user's
//! home), so it is learnt from who looks after the container, the parent of its first process: conmon is told
//! the container's bundle, and containerd's shim works in it. A path of theirs means what it means to them,
//! below their own root directory, for a runtime may itself be in a container.
//!
//! | runtime | file | what it is called |
//! | --- | --- | --- |
//! | docker | `config.v2.json` in the directory whence the container has its `/etc/hosts` | `web` |
//! | containerd (Kubernetes, nerdctl) | the bundle's `config.json` | `web`, `POD/web`, `NAMESPACE/POD/web` |
//! | CRI-O | the same | the same |
//! | podman | `containers.json` beside all bundles | `web` |
//!
//! Such files may be a user's own: what is no plain file, too large or makes no sense names nothing.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{super::parent, is_id};
use crate::{event::Pid, plain};

/// A larger file is not read: podman lists every container of a host in one.
const LARGEST: u64 = 32 << 20;

/// What the container `id` is called, which has these processes; nothing where no file tells.
pub(super) fn of(id: &str, pids: &BTreeSet<Pid>) -> Vec<String> {
    let parents: BTreeSet<Pid> = pids.iter().filter_map(|pid| parent(*pid)).collect();
    let keepers = parents.difference(pids);
    let bundles = keepers.filter_map(|keeper| Bundle::kept_by(*keeper, id));
    let mut names = Vec::new();
    for name in bundles.flat_map(|bundle| bundle.names(id)) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A container as its runtime was told to run it (the OCI runtime specification's word).
struct Bundle {
    /// The root directory of who looks after it.
    root: PathBuf,
    /// Where it is, below that.
    at: PathBuf,
}

/// As much of its `config.json` as tells names.
#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    source: String,
}

impl Bundle {
    fn kept_by(keeper: Pid, id: &str) -> Option<Self> {
        let of = |file: &str| format!("/proc/{keeper}/{file}");
        let at = match told_to_conmon(&plain::read(&of("cmdline"))?) {
            Some(bundle) => PathBuf::from(bundle),
            // One shim may look after all containers of a pod, whose bundles lie beside each other.
            None => fs::read_link(of("cwd")).ok()?.with_file_name(id),
        };
        let root = PathBuf::from(of("root"));
        Some(Self { root, at })
    }

    fn names(&self, id: &str) -> Vec<String> {
        let file = self.at.join("config.json");
        let configuration: Configuration = self.read(&file).unwrap_or_default();
        let mut names = self.of_docker(id, &configuration.mounts);
        names.extend(annotated(&configuration.annotations.unwrap_or_default()));
        names.extend(self.of_podman(id));
        names
    }

    /// Docker makes a container's `/etc/hosts` and such in `containers/ID` of its data: its own, or where it
    /// has the network of another container that one's.
    fn of_docker(&self, id: &str, mounts: &[Mount]) -> Vec<String> {
        #[derive(Deserialize)]
        struct Container {
            #[serde(rename = "Name")]
            name: String,
        }
        let beside = mounts.iter().find_map(|mount| {
            let of_one = Path::new(&mount.source).parent()?;
            let all = of_one.parent()?;
            let docker = all.ends_with("containers") && is_id(of_one.file_name()?.to_str()?);
            docker.then_some(all)
        });
        let told = beside.and_then(|all| self.read(&all.join(id).join("config.v2.json")));
        told.map(|Container { name }| name.trim_start_matches('/').to_owned())
            .into_iter()
            .collect()
    }

    /// podman's bundle is `userdata` in the container's directory.
    fn of_podman(&self, id: &str) -> Vec<String> {
        #[derive(Deserialize)]
        struct Container {
            id: String,
            #[serde(default)]
            names: Vec<String>,
        }
        let all = self.at.ancestors().nth(2);
        // Those that are removed when they end are in a list of their own.
        let lists = ["containers.json", "volatile-containers.json"];
        all.into_iter()
            .flat_map(|all| lists.map(|list| all.join(list)))
            .filter_map(|list| self.read::<Vec<Container>>(&list))
            .flatten()
            .filter(|container| container.id == id)
            .flat_map(|container| container.names)
            .collect()
    }

    /// A file of JSON; `None` where it is not there or is something else.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        // A pipe that nobody writes to would hold us up for ever.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let root = File::open(&self.root).ok()?;
        let file = File::from(openat2(root, path, how).ok()?);
        let about = file.metadata().ok()?;
        if !about.is_file() || about.len() > LARGEST {
            return None;
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// The bundle that a `conmon` was given (`-b`), of its command line.
fn told_to_conmon(command: &str) -> Option<&str> {
    let mut words = command.split('\0');
    let conmon = Path::new(words.next()?).file_name()? == "conmon";
    words.find(|word| conmon && matches!(*word, "-b" | "--bundle"))?;
    words.next()
}

/// The names in the annotations of a container's configuration: those of the CRI as containerd and CRI-O write
/// them, and nerdctl's.
fn annotated(annotations: &serde_json::Map<String, Value>) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "e582e825c771a4a8ea3d08ddfca37d005d8c3a87aa73be4f404b6551db854e5c";
    const OTHER: &str = "2689909ccb3e1100828b8452ca0df76e493e58e2f4a2dbdaa2c06787d1145aaf";

    /// A made-up root directory, of who looks after containers.
    struct Root(tempfile::TempDir);

    impl Root {
        /// With these files, where `ID` and `OTHER` stand for the two.
        fn with(files: &[(&str, &str)]) -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = root.0.path().join(&meant(path)[1..]);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, meant(text)).unwrap();
            }
            root
        }

        fn names(&self, bundle: &str) -> Vec<String> {
            let bundle = Bundle {
                root: self.0.path().to_owned(),
                at: PathBuf::from(meant(bundle)),
            };
            bundle.names(ID)
        }
    }

    fn meant(text: &str) -> String {
        text.replace("OTHER", OTHER).replace("ID", ID)
    }

    /// As Docker 20.10 and containerd 1.6 write it, cut to what is read.
    const MOBY: &str = "/run/containerd/io.containerd.runtime.v2.task/moby/ID";
    const OF_DOCKER: &str = r#"{"ociVersion": "1.0.2-dev", "annotations": null, "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/srv", "type": "bind", "source": "/home/ann/containers/nginx/conf"},
        {"destination": "/etc/hosts", "type": "bind",
         "source": "/var/lib/docker/containers/ID/hosts", "options": ["rbind", "rprivate"]}]}"#;
    const IN_ITS_DATA: (&str, &str) = (
        "/var/lib/docker/containers/ID/config.v2.json",
        r#"{"StreamConfig": {}, "State": {"Running": true}, "ID": "ID", "Name": "/web"}"#,
    );

    #[test]
    fn docker_names_a_container_in_its_data_to_which_the_bundle_leads() {
        let configuration = format!("{MOBY}/config.json");
        let root = Root::with(&[(&configuration, OF_DOCKER), IN_ITS_DATA]);
        assert_eq!(root.names(MOBY), ["web"]);
        // Wherever the data are, also where the network is that of another container.
        let moved = OF_DOCKER.replace(
            "/var/lib/docker/containers/ID",
            "/srv/data/containers/OTHER",
        );
        let data = ("/srv/data/containers/ID/config.v2.json", IN_ITS_DATA.1);
        let root = Root::with(&[(&configuration, &moved), data]);
        assert_eq!(root.names(MOBY), ["web"]);
    }

    #[test]
    fn a_path_means_what_it_means_to_who_looks_after_the_container() {
        let root = Root::with(&[
            (&format!("{MOBY}/config.json"), OF_DOCKER),
            ("/data/docker/containers/ID/config.v2.json", IN_ITS_DATA.1),
        ]);
        let library = root.0.path().join("var/lib");
        fs::create_dir_all(&library).unwrap();
        std::os::unix::fs::symlink("/data/docker", library.join("docker")).unwrap();
        assert_eq!(root.names(MOBY), ["web"]);
    }

    #[test]
    fn kubernetes_names_a_container_by_its_pod_and_namespace() {
        // As containerd 1.6 writes it.
        let annotations = r#"{"ociVersion": "1.0.2-dev", "annotations": {
            "io.kubernetes.cri.container-name": "nginx",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "OTHER",
            "io.kubernetes.cri.sandbox-name": "web-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
        let bundle = "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/ID";
        assert_eq!(
            Root::with(&[(&format!("{bundle}/config.json"), annotations)]).names(bundle),
            ["shop/web-7d9f/nginx", "web-7d9f/nginx", "nginx"]
        );
    }

    #[test]
    fn the_sandbox_of_a_pod_is_no_container_of_its_name() {
        let bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID";
        let annotations = r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": "ID", "io.kubernetes.cri.sandbox-name": "web-7d9f",
            "io.kubernetes.cri.sandbox-namespace": "shop"}}"#;
        let root = Root::with(&[(&format!("{bundle}/config.json"), annotations)]);
        assert!(root.names(bundle).is_empty());
    }

    #[test]
    fn nerdctl_names_a_container_in_its_annotations() {
        let bundle = "/run/containerd/io.containerd.runtime.v2.task/default/ID";
        let annotations = r#"{"annotations": {"nerdctl/name": "web"}}"#;
        let root = Root::with(&[(&format!("{bundle}/config.json"), annotations)]);
        assert_eq!(root.names(bundle), ["web"]);
    }

    #[test]
    fn cri_o_names_a_container_by_its_pod_and_namespace() {
        let bundle = "/run/containers/storage/overlay-containers/ID/userdata";
        let annotations = r#"{"annotations": {"io.kubernetes.container.name": "nginx",
            "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop"}}"#;
        let root = Root::with(&[(&format!("{bundle}/config.json"), annotations)]);
        assert_eq!(root.names(bundle), ["shop/web/nginx", "web/nginx", "nginx"]);
    }

    #[test]
    fn podman_names_containers_in_a_list_also_those_that_are_removed_at_their_end() {
        // As podman 4.3 writes it.
        let list = r#"[{"id": "OTHER", "names": ["other"], "image": "a55e", "layer": "23f0"},
            {"id": "ID", "names": ["web"], "image": "a55e", "layer": "103e", "flags": {}}]"#;
        let storage = "/home/ann/.local/share/containers/storage/vfs-containers";
        let configuration = (
            format!("{storage}/ID/userdata/config.json"),
            r#"{"annotations": {"io.container.manager": "libpod"}}"#,
        );
        for file in ["containers.json", "volatile-containers.json"] {
            let list = (format!("{storage}/{file}"), list);
            let files = [&configuration, &list].map(|(path, text)| (path.as_str(), *text));
            let names = Root::with(&files).names(&format!("{storage}/ID/userdata"));
            assert_eq!(names, ["web"], "{file}");
        }
    }

    #[test]
    fn conmon_is_told_the_bundle() {
        let told = |words: &[&str]| told_to_conmon(&words.join("\0")).map(str::to_owned);
        let conmon = "/usr/bin/conmon";
        for bundle in ["-b", "--bundle"] {
            let words = [
                conmon,
                "-c",
                ID,
                "-u",
                ID,
                bundle,
                "/x/userdata",
                "-n",
                "web",
            ];
            assert_eq!(told(&words).as_deref(), Some("/x/userdata"));
        }
        assert_eq!(told(&[conmon, "-c", ID, "-b"]), None);
        assert_eq!(told(&["/bin/bash", "-b", "/x"]), None);
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn files_that_make_no_sense_name_nothing_and_hold_nobody_up() {
        let configuration = (&*format!("{MOBY}/config.json"), OF_DOCKER);
        for text in ["", "[]", "{}", r#"{"Name": 7}"#, "\u{0}"] {
            let root = Root::with(&[configuration, (IN_ITS_DATA.0, text)]);
            assert!(root.names(MOBY).is_empty(), "{text}");
            let root = Root::with(&[(configuration.0, text), IN_ITS_DATA]);
            assert!(root.names(MOBY).is_empty(), "{text}");
        }
        let root = Root::with(&[("/run/other", "")]);
        let pipe = root.0.path().join(&meant(configuration.0)[1..]);
        fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(root.names(MOBY).is_empty());
        // Nobody looks after us but who started us.
        assert!(of(ID, &BTreeSet::from([std::process::id(), u32::MAX])).is_empty());
    }
}
