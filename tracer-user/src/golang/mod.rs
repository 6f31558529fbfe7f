//! Go programs from outside: what they are, and what their goroutines do.
//!
//! In: a process id. Out: its Go version, its functions and lines, what the kernel half needs to tell
//! the running goroutine, snapshots of all goroutines, and what the runtime says of itself. Always holds: the process is never stopped,
//! changed or made to do work, except that [`pprof`] sends it a request when asked to; and nothing read
//! from it is trusted (lengths are bounded, cycles end, a layout that does not check out is an error).
//!
//! Only linux/amd64 and Go 1.21 to 1.27 are known. Three ways lead to goroutines: [`memory`], which
//! costs the process nothing; [`pprof`], the second choice; and [`dump`], [`profile`] and [`proto`], files
//! that somebody [saved]. All tell them alike, one by one or as a [`census`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use gobin::GoBinary;

mod allgs;
mod blocking;
pub mod census;
mod code;
pub mod dump;
mod dwarf;
mod error;
mod executable;
mod g;
pub mod growth;
mod labels;
mod layout;
#[cfg(any(test, fuzzing))]
pub mod made_up;
pub mod memory;
pub mod pprof;
mod process_memory;
pub mod profile;
pub mod proto;
pub mod runtime;
pub mod saved;
mod stack;
mod state;
mod symbols;
mod traceback;

pub use error::GoError;

use crate::event::{Frame, Pid};
use executable::{Executable, Segments};
use layout::{Layout, Version};
use process_memory::{Memory, ProcessMemory};
use symbols::{Site, Symbols};

/// Addresses whose lines are remembered; a program rarely waits in more places.
const REMEMBERED_SITES: usize = 1 << 14;
/// How much of a runtime function is looked at for the instructions we know.
const CODE_LOOKED_AT: usize = 192;

/// A running Go program.
///
/// It owns what it needs of the executable (the function table, not the code), so it works on after
/// the file is replaced. A new program in the same process (`execve`) needs a new one.
pub struct Program {
    pid: Pid,
    version: String,
    minor: Option<u32>,
    layout: Result<Layout, String>,
    /// Where a thread's `g` lies, from its FS base.
    tls: Option<i32>,
    /// Where `runtime.allgs` lies, as linked.
    allgs: Option<u64>,
    runtime: runtime::Known,
    symbols: Symbols,
    segments: Segments,
    /// What to add to an address as linked to get the one in the process.
    bias: u64,
    memory: Box<dyn Memory>,
    sites: Mutex<HashMap<(u64, bool), Arc<Site>>>,
}

/// What the kernel half needs to read the running goroutine in a thread of the program.
///
/// With `fsbase` the thread's FS base: `g = *(fsbase + tls)`, `m = *(g + g_m)`, the goroutine is
/// `curg = *(m + m_curg)` (it is 0 while the thread runs none), its id is `*(curg + g_goid)`; and
/// `*(m + m_procid)` must be the thread's id in the process's own pid namespace, or the rest is not
/// to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOffsets {
    /// Where the thread's `g` lies, in bytes from the FS base.
    pub tls: i32,
    /// `runtime.g.m`, in bytes.
    pub g_m: u32,
    /// `runtime.m.curg`, in bytes.
    pub m_curg: u32,
    /// `runtime.m.procid`, in bytes.
    pub m_procid: u32,
    /// `runtime.g.goid`, in bytes.
    pub g_goid: u32,
    /// `runtime.pollDesc.rseq`, in bytes.
    pub poll_read_seq: u32,
    /// `runtime.pollDesc.wseq`, in bytes.
    pub poll_write_seq: u32,
}

/// Where a function begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// In the executable file (`/proc/PID/exe`), in bytes; what a uprobe asks for.
    pub offset: u64,
    /// In the process's memory.
    pub address: u64,
}

impl Program {
    /// The Go program that `pid` runs; `None` where it runs something else.
    ///
    /// # Errors
    ///
    /// [`GoError::Gone`], [`GoError::Unreadable`] without the privilege to look at the process, and
    /// [`GoError::Program`] for a Go program whose tables are damaged or not for linux/amd64.
    pub fn of_process(pid: Pid) -> Result<Option<Self>, GoError> {
        let Some(executable) = Executable::of_process(pid)? else {
            return Ok(None);
        };
        let bias = load_bias(pid, &executable)?;
        Self::new(pid, &executable, bias)
            .map(Some)
            .map_err(|found| GoError::Program { pid, found })
    }

    fn new(pid: Pid, executable: &Executable, bias: u64) -> Result<Self, String> {
        let go = GoBinary::parse(&executable.bytes).ok_or("it has no build information")?;
        let version = go
            .go_version()
            .ok_or("its build information names no Go version")?
            .to_owned();
        let known = Version::of(&version);
        let minor = known.map(|version| version.minor);
        let symbols = Symbols::of(executable, &go, minor.unwrap_or(layout::NEWEST))?;
        let code = |function: &str| {
            let address = symbols.entry(function)?;
            Some((executable.at(address, CODE_LOOKED_AT)?, address))
        };
        Ok(Self {
            pid,
            layout: layout_of(executable, known),
            tls: code("runtime.stackcheck").and_then(|(code, _)| code::tls_offset(code)),
            allgs: code("runtime.allgadd").and_then(|(code, at)| code::allgs(code, at)),
            runtime: runtime::Known::of(pid, executable, &go, minor, &symbols),
            version,
            minor,
            symbols,
            segments: executable.segments.clone(),
            bias,
            memory: Box::new(ProcessMemory::of(pid)),
            sites: Mutex::default(),
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The version of Go that built it, as the executable tells it: `go1.27.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the kernel half needs to read the running goroutine.
    ///
    /// # Errors
    ///
    /// [`GoError::Layout`] where this version's layout is not known.
    pub fn runtime_offsets(&self) -> Result<RuntimeOffsets, GoError> {
        let layout = self.layout()?;
        let tls = self.tls.ok_or_else(|| {
            self.unknown_layout("runtime.stackcheck does not load g in a way we know".to_owned())
        })?;
        Ok(RuntimeOffsets {
            tls,
            g_m: layout.m,
            m_curg: layout.m_curg,
            m_procid: layout.m_procid,
            g_goid: layout.goid,
            poll_read_seq: layout.poll_read_seq,
            poll_write_seq: layout.poll_write_seq,
        })
    }

    /// The lines that the addresses of a stack stand for, innermost first, inlined calls as frames of
    /// their own, functions generated by the compiler left out.
    ///
    /// `pcs` are addresses in the process, innermost first: the first is where it stands, the others
    /// are return addresses, so the call before each is meant. What is not Go's code is told as
    /// `0x…`.
    #[must_use]
    pub fn frames(&self, pcs: &[u64]) -> Vec<Frame> {
        let mut sites = Vec::with_capacity(pcs.len());
        let mut returns_here = false;
        for pc in pcs {
            let site = self.site(*pc, returns_here);
            returns_here = !site.interrupts_caller;
            sites.push(site);
        }
        traceback::written(sites.iter().flat_map(|site| &site.calls))
            .cloned()
            .collect()
    }

    /// Where the function of that full name begins (`net/http.(*persistConn).closeLocked`); `None`
    /// where the program has none, or only inlined copies of it.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<FunctionEntry> {
        let linked = self.symbols.entry(name)?;
        Some(FunctionEntry {
            offset: self.segments.offset(linked)?,
            address: linked.wrapping_add(self.bias),
        })
    }

    /// What an address in the process stands for.
    fn site(&self, pc: u64, returns_here: bool) -> Arc<Site> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= REMEMBERED_SITES {
            sites.clear();
        }
        let site = sites.entry((pc, returns_here)).or_insert_with(|| {
            let mut site = self.symbols.site(pc.wrapping_sub(self.bias), returns_here);
            if site.calls.is_empty() {
                site.calls.push(symbols::Call {
                    frame: Frame {
                        function: format!("{pc:#x}"),
                        ..Frame::default()
                    },
                    wrapper: false,
                });
            }
            // Most have one call, and a list that grew to it has room for four.
            site.calls.shrink_to_fit();
            Arc::new(site)
        });
        Arc::clone(site)
    }

    /// Up to 1.23 a goroutine becomes runnable before it has its id (`runtime.newproc1`).
    fn names_late(&self) -> bool {
        self.minor.is_some_and(|minor| minor <= 23)
    }

    fn layout(&self) -> Result<Layout, GoError> {
        self.layout
            .clone()
            .map_err(|found| self.unknown_layout(found))
    }

    fn unknown_layout(&self, found: String) -> GoError {
        GoError::Layout {
            pid: self.pid,
            version: self.version.clone(),
            found,
        }
    }
}

/// The layout from the table, which a test checks against the debug information of each toolchain; for
/// a version it does not have, from the executable's own debug information. That order spares reading
/// tens of megabytes for each process at start.
fn layout_of(executable: &Executable, version: Option<Version>) -> Result<Layout, String> {
    if let Some(layout) = version.and_then(Layout::of) {
        return Ok(layout);
    }
    executable
        .elf()
        .ok()
        .and_then(|elf| dwarf::layout(&elf))
        .ok_or_else(|| {
            format!(
                "only go1.{} to go1.{} are known, and there is no debug information to read it from",
                layout::OLDEST,
                layout::NEWEST
            )
        })
}

/// At most `limit` of `items`, spread over all of them.
fn evenly<T>(items: impl ExactSizeIterator<Item = T>, limit: usize) -> impl Iterator<Item = T> {
    let step = items.len().div_ceil(limit.max(1)).max(1);
    items.step_by(step).take(limit)
}

/// How far from its linked address the program was loaded.
///
/// The kernel tells a process where its program's entry is (`AT_ENTRY` of the auxiliary vector), which
/// holds whatever the file is called now; matching `/proc/PID/maps` by name or inode does not, on
/// overlay file systems.
fn load_bias(pid: Pid, executable: &Executable) -> Result<u64, GoError> {
    const AT_ENTRY: u64 = 9;
    if !executable.position_independent {
        return Ok(0);
    }
    procfs::process::Process::new(pid.cast_signed())
        .and_then(|process| process.auxv())
        .map_err(std::io::Error::other)
        .and_then(|vector| {
            let entry = vector.get(&AT_ENTRY);
            entry
                .copied()
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
        })
        .map(|entry| entry.wrapping_sub(executable.entry))
        .map_err(|source| GoError::Unreadable {
            path: format!("/proc/{pid}/auxv"),
            source,
        })
}

#[cfg(test)]
mod live_tests;
