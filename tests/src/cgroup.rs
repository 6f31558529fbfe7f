//! Cgroups with a CPU quota or a limit of memory, for one scenario.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context as _;

use crate::wait;

/// How long processes that were killed may take to leave it.
const LEAVING: Duration = Duration::from_secs(5);

/// A cgroup whose processes may use so much CPU time, or memory. It is removed when dropped, so drop, or declare
/// later, whatever runs in it.
pub struct Quota(Cgroup);

/// A cgroup whose processes may use so much memory. It is removed as a [`Quota`] is.
pub struct Memory(Cgroup, Version);

struct Cgroup {
    at: PathBuf,
}

impl Quota {
    /// Makes one where processes may use `quota` of CPU time in each `period`.
    ///
    /// # Errors
    ///
    /// No cgroup can be made that has quotas; the error says why.
    pub fn new(quota: Duration, period: Duration) -> anyhow::Result<Self> {
        let (made, version) = Cgroup::new("cpu")?;
        let (quota, period) = (quota.as_micros(), period.as_micros());
        match version {
            Version::One => {
                made.write("cpu.cfs_period_us", &period.to_string())?;
                made.write("cpu.cfs_quota_us", &quota.to_string())?;
            }
            Version::Two => made.write("cpu.max", &format!("{quota} {period}"))?,
        }
        Ok(Self(made))
    }

    /// A command that runs `program` in it from its first instruction on.
    pub fn command(&self, program: &Path) -> Command {
        self.0.command(program)
    }

    /// Puts a process that runs already into it.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn take_in(&self, pid: u32) -> anyhow::Result<()> {
        self.0.write("cgroup.procs", &pid.to_string())
    }

    /// Its path, as gopulse tells it.
    pub fn name(&self) -> String {
        self.0.name()
    }
}

impl Memory {
    /// Makes one where processes may use so many bytes.
    ///
    /// # Errors
    ///
    /// No cgroup can be made that limits memory; the error says why.
    pub fn new(bytes: u64) -> anyhow::Result<Self> {
        let (made, version) = Cgroup::new("memory")?;
        let memory = Self(made, version);
        memory.limit(bytes)?;
        Ok(memory)
    }

    /// A command that runs `program` in it from its first instruction on.
    pub fn command(&self, program: &Path) -> Command {
        self.0.command(program)
    }

    /// Its path, as gopulse tells it.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Leaves its processes so many bytes more than they use.
    ///
    /// # Errors
    ///
    /// The kernel cannot take from them what it would have to.
    pub fn tighten(&self, bytes: u64) -> anyhow::Result<()> {
        let used = match self.1 {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        let used: u64 = self.0.read(used)?.trim().parse()?;
        self.limit(used + bytes)
    }

    /// How many processes were killed in it because no memory was left.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn kills(&self) -> anyhow::Result<u64> {
        let told = self.0.read(match self.1 {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        })?;
        let kills = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(kills.context("no oom_kill")?.trim().parse()?)
    }

    fn limit(&self, bytes: u64) -> anyhow::Result<()> {
        let file = match self.1 {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        self.0.write(file, &bytes.to_string())
    }
}

impl Cgroup {
    /// Makes one in which `controller` has a say.
    fn new(controller: &str) -> anyhow::Result<(Self, Version)> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let (root, version) = mounted(controller)?;
        let at = root.join(format!("gopulse-test-{}-{nth}", process::id()));
        fs::create_dir(&at).with_context(|| format!("cannot make {}", at.display()))?;
        Ok((Self { at }, version))
    }

    /// A command that runs `program` in it from its first instruction on.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.at.join("cgroup.procs"))
            .arg(program);
        command
    }

    fn name(&self) -> String {
        let name = self.at.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.at.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.at.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel refuses while processes are in it, and those that were killed take a moment.
        drop(wait::until(
            "the cgroup's processes",
            LEAVING,
            || match fs::remove_dir(&self.at) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
                _ => Ok(Some(())),
            },
        ));
    }
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// Where the cgroups with a controller are.
fn mounted(controller: &str) -> anyhow::Result<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let place = |of: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            of(kind, options).then(|| PathBuf::from(at))
        })
    };
    if let Some(at) = place(&|kind, options| {
        kind == "cgroup" && options.split(',').any(|option| option == controller)
    }) {
        return Ok((at, Version::One));
    }
    let at = place(&|kind, _| kind == "cgroup2").context("no cgroup file system is mounted")?;
    fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")).with_context(|| {
        format!(
            "{} does not hand on the {controller} controller",
            at.display()
        )
    })?;
    Ok((at, Version::Two))
}
