//! Loads the programs and attaches them by the plan, each want by the first way that works.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Mutex,
    thread,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness, include_bytes_aligned,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, FExit, Iter,
        KProbe, PerfEvent, Program, ProgramError,
    },
};
use tracer_ebpf::Config;
use zerocopy::IntoBytes as _;

use super::{CaptureError, samples, sizes};
use crate::{
    event::{self, Unseen},
    host::{
        btf::Btf,
        offsets::offsets,
        plan::{Choice, Hook, WANTS, Want},
        privileges,
        sparse::sparse,
    },
    plain,
};

/// The kernel half.
static OBJECT: &[u8] = include_bytes_aligned!(env!("GOPULSE_PROBES"));

/// Threads that have programs verified at once, at most; they are about twenty, and one takes a quarter of it all.
const VERIFIERS: usize = 4;

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
        let (mut ebpf, kernel, aya_btf) = load(config)?;
        verify(&mut ebpf, &aya_btf, &kernel);
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

/// Reads the kernel's types, for ourselves and what aya needs of them, and makes the maps.
fn load(config: Config) -> Result<(Ebpf, Btf, AyaBtf), CaptureError> {
    let load_error = |why: String| CaptureError::Load { why };
    let cut_short = |_| load_error("a thread ended early".to_owned());
    thread::scope(|scope| {
        // For some ten milliseconds it reads the types too, though the object has no relocations that would need
        // them.
        let loader = scope.spawn(EbpfLoader::new);
        let kernel = Btf::of_this_kernel()?;
        let offsets = offsets(&kernel)?;
        let hooked = AyaBtf::parse(&sparse(&kernel), Endianness::default())
            .map_err(|error| load_error(error.to_string()))?;
        let mut loader = loader.join().map_err(cut_short)?;
        for (map, entries) in sizes::sizes() {
            loader.map_max_entries(map, entries);
        }
        if let Some(bytes) = ring_bytes() {
            loader.map_max_entries("EVENTS", bytes);
        }
        let ebpf = loader
            .btf(None)
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .override_global("CONFIG", config.as_bytes(), true)
            .load(OBJECT)
            .map_err(|error| load_error(chain(&error)))?;
        Ok((ebpf, kernel, hooked))
    })
}

/// Has the kernel verify the programs that will be tried first, on all CPUs at once: nothing else takes as
/// long when a capture starts. What it objects to is told when the program is attached, for then it is
/// loaded once more.
fn verify(ebpf: &mut Ebpf, aya_btf: &AyaBtf, kernel: &Btf) {
    let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let first = WANTS
        .iter()
        .filter_map(|want| want.first_way(kernel))
        .flatten();
    let left: VecDeque<(&Hook, &mut Program)> = first
        .filter_map(|hook| Some((hook, programs.remove(hook.program())?)))
        .collect();
    let left = Mutex::new(left);
    let work = || {
        let next = || left.lock().ok()?.pop_front();
        while let Some((hook, program)) = next() {
            let _ = load_program(hook, program, aya_btf);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..threads.min(VERIFIERS) {
            scope.spawn(work);
        }
        work();
    });
}

/// A smaller ring for events, so that a test can have losses whenever it wants them.
fn ring_bytes() -> Option<u32> {
    std::env::var("GOPULSE_RING_BYTES").ok()?.parse().ok()
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
        if program.fd().is_err() {
            load_program(hook, program, aya_btf)?;
        }
        attach_program(hook, program)
    })();
    done.map_err(|error| chain(&error))
}

/// Puts a program into the kernel, which verifies it.
fn load_program(hook: &Hook, program: &mut Program, aya_btf: &AyaBtf) -> Result<(), ProgramError> {
    match hook {
        Hook::Tracepoint { name, .. } => {
            <&mut BtfTracePoint>::try_from(program)?.load(name, aya_btf)
        }
        Hook::Fexit { function, .. } => <&mut FExit>::try_from(program)?.load(function, aya_btf),
        Hook::Fentry { function, .. } => <&mut FEntry>::try_from(program)?.load(function, aya_btf),
        Hook::Kprobe { .. } | Hook::Kretprobe { .. } => <&mut KProbe>::try_from(program)?.load(),
        Hook::CgroupSkb { .. } => <&mut CgroupSkb>::try_from(program)?.load(),
        Hook::CpuClock { .. } => <&mut PerfEvent>::try_from(program)?.load(),
        Hook::Iterator { over, .. } => <&mut Iter>::try_from(program)?.load(over, aya_btf),
    }
}

/// Hooks a program in that is loaded. An iterator is run when it is asked.
fn attach_program(hook: &Hook, program: &mut Program) -> Result<(), ProgramError> {
    match hook {
        Hook::Tracepoint { .. } => {
            <&mut BtfTracePoint>::try_from(program)?.attach()?;
        }
        Hook::Fexit { .. } => {
            <&mut FExit>::try_from(program)?.attach()?;
        }
        Hook::Fentry { .. } => {
            <&mut FEntry>::try_from(program)?.attach()?;
        }
        Hook::Kprobe { function, .. } | Hook::Kretprobe { function, .. } => {
            <&mut KProbe>::try_from(program)?.attach(*function, 0)?;
        }
        Hook::CgroupSkb { egress, .. } => {
            let root = root_cgroup().ok_or_else(|| ProgramError::IOError(no_cgroup()))?;
            let root = fs::File::open(root).map_err(ProgramError::IOError)?;
            let way = if *egress {
                CgroupSkbAttachType::Egress
            } else {
                CgroupSkbAttachType::Ingress
            };
            let program: &mut CgroupSkb = program.try_into()?;
            program.attach(root.as_fd(), way, CgroupAttachMode::Single)?;
        }
        Hook::CpuClock { .. } => {
            let program: &mut PerfEvent = program.try_into()?;
            for cpu in samples::online().map_err(ProgramError::IOError)? {
                samples::attach(program, cpu)?;
            }
        }
        Hook::Iterator { .. } => {}
    }
    Ok(())
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
    // The verifier's last lines count its work; what it objects to stands before.
    let counts = ["processed ", "stack depth ", "verification time "];
    let objects = |line: &&str| !counts.iter().any(|count| line.starts_with(count));
    match lines.rfind(objects) {
        Some(last) => format!("{first} … {last}"),
        None => first,
    }
}
