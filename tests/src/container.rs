//! Containers without a runtime: namespaces of their own, and a cgroup that is called as docker calls it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use crate::{netns::Netns, wait};

/// How long processes that were killed may take to leave its cgroup.
const LEAVING: Duration = Duration::from_secs(5);

/// A container. It is removed when dropped, so drop, or declare later, whatever runs in it.
pub struct Container {
    id: String,
    at: PathBuf,
}

impl Container {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// No cgroup can be made.
    pub fn new() -> anyhow::Result<Self> {
        let id = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let at = root()?.join("docker").join(&id);
        fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
        Ok(Self { id, at })
    }

    /// Its id, as docker would give it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its cgroup's path, as `/proc/PID/cgroup` writes it.
    pub fn cgroup(&self) -> String {
        format!("/docker/{}", self.id)
    }

    /// The directory of its cgroup.
    pub fn directory(&self) -> &Path {
        &self.at
    }

    /// A command that runs `program` in it, in a pid and a mount namespace of its own, and in this network
    /// namespace. What is started is `unshare`, and `program` is its child.
    pub fn command(&self, netns: &Netns, program: impl AsRef<Path>) -> Command {
        let mut entering = netns.command("unshare");
        entering.args(["--fork", "--kill-child", "--pid", "--mount", "--mount-proc"]);
        let mut command = self.enter(entering.get_program());
        command.args(entering.get_args()).arg(program.as_ref());
        command
    }

    /// A command that runs `program` in its cgroup, and in no namespace of its own. It becomes the program
    /// itself: the process id is the same.
    pub fn enter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.at.join("cgroup.procs"))
            .arg(program.as_ref());
        command
    }

    /// The process of this name in it, by its id outside.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn process(&self, comm: &str) -> anyhow::Result<u32> {
        let all = fs::read_to_string(self.at.join("cgroup.procs"))?;
        let called = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim_end() == comm)
        };
        let mut pids = all.lines().filter_map(|pid| pid.parse().ok());
        pids.find(called)
            .with_context(|| format!("no {comm} is in {}", self.at.display()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The kernel refuses while processes are in it, and those that were killed take a moment.
        drop(wait::until(
            "the container's processes",
            LEAVING,
            || match fs::remove_dir(&self.at) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
                _ => Ok(Some(())),
            },
        ));
        // Other containers may still be in it.
        drop(self.at.parent().map(fs::remove_dir));
    }
}

/// Where cgroups are: of version two, or of some controller.
fn root() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = |wanted: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == wanted).then(|| PathBuf::from(at))
        })
    };
    of("cgroup2")
        .or_else(|| of("cgroup"))
        .context("no cgroup file system is mounted")
}
