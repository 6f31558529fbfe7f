//! A picture of a host's settings and of how one process runs on it, to tell whether somebody changed them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use crate::process::succeed;

/// Under `/proc/sys`, what moves by itself: counters, and what is drawn anew at each reading.
const MOVING: [&str; 9] = [
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/quota/",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random/",
    "/proc/sys/net/netfilter/nf_conntrack_count",
];

/// Of a process, what says how it runs and not what it does.
const OF_A_PROCESS: [&str; 9] = [
    "autogroup",
    "cgroup",
    "coredump_filter",
    "cpuset",
    "limits",
    "mountinfo",
    "oom_score_adj",
    "timerslack_ns",
    "uid_map",
];

/// The lines of `/proc/PID/status` that say so.
const OF_ITS_STATUS: [&str; 14] = [
    "TracerPid",
    "Uid",
    "Gid",
    "FDSize",
    "NStgid",
    "SigCgt",
    "SigIgn",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
    "Mems_allowed",
];

/// Settings by their names.
#[derive(Clone, Debug, Default)]
pub struct Picture(BTreeMap<String, String>);

impl Picture {
    /// Of the host, and of the process `pid` on it.
    ///
    /// # Errors
    ///
    /// `ip`, `tc` or `nft` fails.
    pub fn take(pid: u32) -> anyhow::Result<Self> {
        let mut picture = Self::default();
        picture.sysctls(Path::new("/proc/sys"));
        picture.file(Path::new("/proc/self/mountinfo"));
        for probes in ["kprobe_events", "uprobe_events", "current_tracer"] {
            picture.file(&Path::new("/sys/kernel/tracing").join(probes));
        }
        picture.cgroups(Path::new("/sys/fs/cgroup"));
        picture.process(pid);
        for command in [
            "ip -d link",
            "ip address",
            "ip route show table all",
            "ip rule",
            "tc qdisc",
            "nft list ruleset",
        ] {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            let told = succeed(Command::new(program).args(words))?;
            picture.0.insert(command.to_owned(), told);
        }
        Ok(picture)
    }

    /// What is another, appeared or went in `later`.
    pub fn changed(&self, later: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.0.keys().chain(later.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != later.0.get(*name))
            .map(|name| format!("{name}: {:?} → {:?}", self.0.get(name), later.0.get(name)))
            .collect()
    }

    /// How many settings are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sysctls(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy();
            if MOVING.iter().any(|moving| name.starts_with(moving)) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.sysctls(&path),
                _ => self.file(&path),
            }
        }
    }

    /// Which cgroups there are, and what each hands on.
    fn cgroups(&mut self, directory: &Path) {
        self.file(&directory.join("cgroup.subtree_control"));
        self.0
            .insert(directory.display().to_string(), "there".to_owned());
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.cgroups(&entry.path());
            }
        }
    }

    fn process(&mut self, pid: u32) {
        let directory = Path::new("/proc").join(pid.to_string());
        for name in OF_A_PROCESS {
            self.file(&directory.join(name));
        }
        let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        for (name, value) in lines.filter(|(name, _)| OF_ITS_STATUS.contains(name)) {
            self.0.insert(format!("status {name}"), value.to_owned());
        }
        // Priority, nice value, real-time priority and policy: fields 18, 19, 40 and 41 of proc_pid_stat(5).
        let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        for field in [18, 19, 40, 41] {
            let value = fields.get(field - 2).copied().unwrap_or_default();
            self.0
                .insert(format!("stat field {field}"), value.to_owned());
        }
    }

    /// What cannot be read says that, which may change too.
    fn file(&mut self, path: &Path) {
        let value = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => error.to_string(),
        };
        self.0.insert(path.display().to_string(), value);
    }
}
