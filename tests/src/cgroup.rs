//! A cgroup with a CPU quota, for one scenario.

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

/// A cgroup whose processes may use so much CPU time. It is removed when dropped, so drop, or declare
/// later, whatever runs in it.
pub struct Quota {
    at: PathBuf,
}

impl Quota {
    /// Makes one where processes may use `quota` of CPU time in each `period`.
    ///
    /// # Errors
    ///
    /// No cgroup can be made that has quotas; the error says why.
    pub fn new(quota: Duration, period: Duration) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let (root, version) = mounted()?;
        let at = root.join(format!("gopulse-test-{}-{nth}", process::id()));
        fs::create_dir(&at).with_context(|| format!("cannot make {}", at.display()))?;
        let made = Self { at };
        let (quota, period) = (quota.as_micros(), period.as_micros());
        match version {
            Version::One => {
                made.write("cpu.cfs_period_us", &period.to_string())?;
                made.write("cpu.cfs_quota_us", &quota.to_string())?;
            }
            Version::Two => made.write("cpu.max", &format!("{quota} {period}"))?,
        }
        Ok(made)
    }

    /// A command that runs `program` in it from its first instruction on.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.at.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// Its path, as gopulse tells it.
    pub fn name(&self) -> String {
        let name = self.at.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.at.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Quota {
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

/// Where the cgroups with the cpu controller are.
fn mounted() -> anyhow::Result<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let place = |of: fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            of(kind, options).then(|| PathBuf::from(at))
        })
    };
    if let Some(at) =
        place(|kind, options| kind == "cgroup" && options.split(',').any(|option| option == "cpu"))
    {
        return Ok((at, Version::One));
    }
    let at = place(|kind, _| kind == "cgroup2").context("no cgroup file system is mounted")?;
    fs::write(at.join("cgroup.subtree_control"), "+cpu")
        .with_context(|| format!("{} does not hand on the cpu controller", at.display()))?;
    Ok((at, Version::Two))
}
