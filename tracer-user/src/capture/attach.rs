//! Loads the programs and attaches them by the plan, each want by the first way that works.

use std::{fs, os::fd::AsFd as _, path::PathBuf};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, FExit, Iter,
        KProbe, PerfEvent, ProgramError,
    },
};
use tracer_ebpf::Config;
use zerocopy::IntoBytes as _;

use super::{CaptureError, samples};
use crate::{
    event::{self, Unseen},
    host::{
        HostError,
        btf::{Btf, VMLINUX},
        offsets::offsets,
        plan::{Choice, Hook, WANTS, Want},
        privileges,
    },
    plain,
};

/// The kernel half.
static OBJECT: &[u8] = include_bytes_aligned!(env!("GOPULSE_PROBES"));

/// The programs in the kernel. Dropping it detaches them.
pub struct Probes {
    pub(super) ebpf: Ebpf,
    pub(super) kernel: Btf,
}

/// Programs in the kernel and what became of each want.
pub struct Attached {
    /// The programs.
    pub probes: Probes,
    /// One for each of [`WANTS`], in its order.
    pub choices: Vec<Choice>,
}

impl Attached {
    /// Loads and attaches what the kernel allows.
    ///
    /// # Errors
    /// Where privileges or BTF are missing, or the maps cannot be made. That a single want cannot be
    /// had is no error here: see [`Attached::require`].
    pub fn new(config: Config) -> Result<Self, CaptureError> {
        privileges::check()?;
        let kernel = Btf::of_this_kernel()?;
        let offsets = offsets(&kernel)?;
        let load_error = |why: String| CaptureError::Load { why };
        let aya_btf = AyaBtf::from_sys_fs().map_err(|error| {
            CaptureError::Host(HostError::Btf {
                path: VMLINUX.into(),
                why: error.to_string(),
            })
        })?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&aya_btf))
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .override_global("CONFIG", config.as_bytes(), true)
            .load(OBJECT)
            .map_err(|error| load_error(chain(&error)))?;
        let choices = WANTS
            .iter()
            .map(|want| choose(want, &mut ebpf, &aya_btf, &kernel))
            .collect();
        Ok(Self {
            probes: Probes { ebpf, kernel },
            choices,
        })
    }

    /// Fails where a want that everything hangs on cannot be had.
    ///
    /// # Errors
    /// Names the want and what was said against each way.
    pub fn require(&self) -> Result<(), CaptureError> {
        let Some(choice) = self
            .choices
            .iter()
            .find(|choice| choice.by.is_none() && choice.want.without.is_none())
        else {
            return Ok(());
        };
        Err(CaptureError::Want {
            want: choice.want.name,
            why: against(choice),
        })
    }

    /// Which hook tells what, for the report.
    #[must_use]
    pub fn hooks(&self) -> Vec<event::Hook> {
        self.choices
            .iter()
            .filter_map(|choice| {
                let by = choice.by.clone()?;
                Some(event::Hook {
                    wants: choice.want.name.to_owned(),
                    by,
                })
            })
            .collect()
    }

    /// What will not be seen.
    #[must_use]
    pub fn unseen(&self) -> Vec<Unseen> {
        self.choices
            .iter()
            .filter(|choice| choice.by.is_none())
            .map(|choice| Unseen {
                what: format!(
                    "{}: {}",
                    choice.want.name,
                    choice.want.without.unwrap_or("nothing works without it")
                ),
                why: against(choice),
                remedy: "gopulse doctor says what this host allows".to_owned(),
            })
            .collect()
    }
}

/// What was said against each way of a want.
fn against(choice: &Choice) -> String {
    let each: Vec<String> = choice
        .refused
        .iter()
        .map(|(way, why)| format!("{way}: {why}"))
        .collect();
    each.join("; ")
}

fn choose(want: &'static Want, ebpf: &mut Ebpf, aya_btf: &AyaBtf, kernel: &Btf) -> Choice {
    let mut refused = Vec::new();
    for way in want.ways {
        let name = way.iter().map(Hook::place).collect::<Vec<_>>().join(" + ");
        match way
            .iter()
            .try_for_each(|hook| attach(hook, ebpf, aya_btf, kernel))
        {
            Ok(()) => {
                return Choice {
                    want,
                    by: Some(name),
                    refused,
                };
            }
            Err(why) => refused.push((name, why)),
        }
    }
    Choice {
        want,
        by: None,
        refused,
    }
}

fn attach(hook: &Hook, ebpf: &mut Ebpf, aya_btf: &AyaBtf, kernel: &Btf) -> Result<(), String> {
    if let Some(why) = hook.ruled_out(kernel) {
        return Err(why);
    }
    let program = ebpf
        .program_mut(hook.program())
        .ok_or_else(|| format!("the object has no program {}", hook.program()))?;
    let done: Result<(), ProgramError> = (|| {
        match hook {
            Hook::Tracepoint { name, .. } => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, aya_btf)?;
                program.attach()?;
            }
            Hook::Fexit { function, .. } => {
                let program: &mut FExit = program.try_into()?;
                program.load(function, aya_btf)?;
                program.attach()?;
            }
            Hook::Fentry { function, .. } => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function, aya_btf)?;
                program.attach()?;
            }
            Hook::Kprobe { function, .. } | Hook::Kretprobe { function, .. } => {
                let program: &mut KProbe = program.try_into()?;
                program.load()?;
                program.attach(*function, 0)?;
            }
            Hook::CgroupSkb { egress, .. } => {
                let program: &mut CgroupSkb = program.try_into()?;
                program.load()?;
                let root = root_cgroup().ok_or_else(|| ProgramError::IOError(no_cgroup()))?;
                let root = fs::File::open(root).map_err(ProgramError::IOError)?;
                let way = if *egress {
                    CgroupSkbAttachType::Egress
                } else {
                    CgroupSkbAttachType::Ingress
                };
                program.attach(root.as_fd(), way, CgroupAttachMode::Single)?;
            }
            Hook::CpuClock { .. } => {
                let program: &mut PerfEvent = program.try_into()?;
                program.load()?;
                for cpu in samples::online().map_err(ProgramError::IOError)? {
                    samples::attach(program, cpu)?;
                }
            }
            Hook::Iterator { over, .. } => {
                let program: &mut Iter = program.try_into()?;
                program.load(over, aya_btf)?;
            }
        }
        Ok(())
    })();
    done.map_err(|error| chain(&error))
}

fn no_cgroup() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, "cgroup v2 is not mounted")
}

/// Where cgroup v2 is mounted.
fn root_cgroup() -> Option<PathBuf> {
    let mounts = plain::read("/proc/self/mounts")?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| place.into())
    })
}

/// An error with its causes, on one line; of a verifier's log only its last line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    // The verifier's last line counts instructions; what it objects to stands before.
    match lines.rfind(|line| !line.starts_with("processed ")) {
        Some(last) => format!("{first} … {last}"),
        None => first,
    }
}
