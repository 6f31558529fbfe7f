//! Names for what no Go program explains: the functions of other programs, of the libraries that cgo calls,
//! and of the kernel.
//!
//! In: stacks with frames that are addresses. Out: the same stacks, told once more with names. They are
//! looked up in a thread of its own, because to read the symbols of a large program takes longer than the
//! rings have room for. Only tables of symbols are read (`.symtab`, `.dynsym`, `/proc/kallsyms`): debug
//! information would tell lines as well, and takes seconds and hundreds of megabytes. What has no symbol
//! stays an address: a stripped program, code made at run time, a process that is gone.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use blazesym::{
    MaybeDefault,
    symbolize::{
        Input, Symbolizer,
        source::{Kernel, Process, Source},
    },
};

use super::{looks::now, stacks::KERNEL};
use crate::{
    capabilities::{self, Step},
    event::{Event, Fact, Frame, Pid, StackId, Unseen},
};

/// Stacks that wait for their names. What finds no room keeps its addresses.
const WAITING: usize = 4_096;

/// The symbols of so many processes are kept, and then all of them read anew.
const PROCESSES: usize = 128;

/// How much of `/proc/kallsyms` is looked at to see whether it tells addresses. Older kernels begin with
/// some hundred symbols of each CPU's own data, which lie at 0 and up.
const LOOKED_AT: u64 = 1 << 20;

/// Looks names up.
pub(super) struct Natives {
    wanted: SyncSender<Wanted>,
    named: Receiver<Fact>,
    /// Stacks whose names are still looked up.
    waiting: usize,
}

/// A stack with frames that have no name.
struct Wanted {
    id: StackId,
    pid: Pid,
    frames: Vec<Frame>,
}

impl Natives {
    pub(super) fn start() -> Self {
        let (wanted, queue) = mpsc::sync_channel(WAITING);
        let (answers, named) = mpsc::channel();
        // It ends with the channels. Where no thread can be had, nobody takes what is wanted.
        let _ = thread::Builder::new()
            .name("symbols".to_owned())
            .spawn(move || {
                // Where it fails it does so in every thread, and is told of the first.
                let _ =
                    capabilities::keep(&[Step::Processes, Step::Libraries, Step::KernelSymbols]);
                let mut symbols = Symbols::default();
                for wanted in queue {
                    if symbols.name(wanted, &answers).is_none() {
                        break;
                    }
                }
            });
        Self {
            wanted,
            named,
            waiting: 0,
        }
    }

    /// Has the frames of a stack named that are addresses, if there are any.
    pub(super) fn name(&mut self, id: StackId, pid: Pid, frames: &[Frame]) {
        if !frames.iter().any(|frame| address(frame).is_some()) {
            return;
        }
        let wanted = Wanted {
            id,
            pid,
            frames: frames.to_vec(),
        };
        if self.wanted.try_send(wanted).is_ok() {
            self.waiting += 1;
        }
    }

    /// What was found since.
    pub(super) fn answers(&mut self) -> Vec<Event> {
        let answers: Vec<Event> = self
            .named
            .try_iter()
            .map(|fact| Event { at: now(), fact })
            .collect();
        let stacks = answers
            .iter()
            .filter(|answer| matches!(answer.fact, Fact::Stack { .. }));
        self.waiting = self.waiting.saturating_sub(stacks.count());
        answers
    }

    /// Nothing is looked up any more.
    pub(super) fn idle(&self) -> bool {
        self.waiting == 0
    }
}

/// The symbols read so far.
struct Symbols {
    symbolizer: Symbolizer,
    processes: HashSet<Pid>,
    /// Whether the kernel tells where its functions lie; `None` where nobody asked yet.
    kernel_tells: Option<bool>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self {
            symbolizer: symbolizer(),
            processes: HashSet::new(),
            kernel_tells: None,
        }
    }
}

impl Symbols {
    /// Tells a stack with what names there are; `None` where nobody listens any more.
    fn name(&mut self, wanted: Wanted, answers: &mpsc::Sender<Fact>) -> Option<()> {
        let Wanted {
            id,
            pid,
            mut frames,
        } = wanted;
        if pid == KERNEL && self.kernel_tells.is_none() {
            let tells = kernel_tells();
            self.kernel_tells = Some(tells);
            if !tells {
                answers.send(Fact::Unseen(hidden())).ok()?;
            }
        }
        if pid != KERNEL || self.kernel_tells == Some(true) {
            self.look_up(pid, &mut frames);
        }
        answers.send(Fact::Stack { id, frames }).ok()
    }

    fn look_up(&mut self, pid: Pid, frames: &mut [Frame]) {
        if self.processes.len() >= PROCESSES && !self.processes.contains(&pid) {
            self.processes.clear();
            self.symbolizer = symbolizer();
        }
        self.processes.insert(pid);
        let mut addresses = Vec::new();
        let mut unnamed = Vec::new();
        for (depth, frame) in frames.iter_mut().enumerate() {
            if let Some(address) = address(frame) {
                // All but the innermost are return addresses, and the call before each is meant.
                addresses.push(address.saturating_sub(u64::from(depth > 0)));
                unnamed.push(frame);
            }
        }
        // A process that is gone has no symbols any more.
        let Ok(found) = self
            .symbolizer
            .symbolize(&source(pid), Input::AbsAddr(&addresses))
        else {
            return;
        };
        for (frame, symbol) in unnamed.into_iter().zip(&found) {
            if let Some(symbol) = symbol.as_sym() {
                frame.function = symbol.name.clone().into_owned();
            }
        }
    }
}

fn symbolizer() -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(false)
        .enable_inlined_fns(false)
        .build()
}

fn source(pid: Pid) -> Source<'static> {
    if pid == KERNEL {
        return Source::from(Kernel {
            vmlinux: MaybeDefault::None,
            debug_syms: false,
            ..Kernel::default()
        });
    }
    Source::from(Process {
        debug_syms: false,
        // The program itself would say what is in that file.
        perf_map: false,
        ..Process::new(pid.into())
    })
}

/// The address that stands in for the name of a frame.
fn address(frame: &Frame) -> Option<u64> {
    let digits = frame.function.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

/// `/proc/kallsyms` tells where functions lie; to whom it does not, each lies at 0.
fn kernel_tells() -> bool {
    let Ok(symbols) = File::open("/proc/kallsyms") else {
        return false;
    };
    BufReader::new(symbols.take(LOOKED_AT))
        .lines()
        .map_while(Result::ok)
        .any(|line| {
            let mut parts = line.split(' ');
            let address = parts
                .next()
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let code = parts.next().is_some_and(|kind| matches!(kind, "t" | "T"));
            code && address.is_some_and(|address| address != 0)
        })
}

fn hidden() -> Unseen {
    Unseen {
        what: "the names of the kernel's functions".to_owned(),
        why: "/proc/kallsyms tells no addresses (kernel.kptr_restrict)".to_owned(),
        remedy: "sysctl kernel.kptr_restrict=1, and CAP_SYSLOG".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn frames(addresses: &[u64]) -> Vec<Frame> {
        addresses
            .iter()
            .map(|address| Frame {
                function: format!("{address:#x}"),
                ..Frame::default()
            })
            .collect()
    }

    /// The names that a stack of `pid` gets.
    fn named(pid: Pid, frames: &[Frame]) -> Vec<String> {
        let mut natives = Natives::start();
        natives.name(StackId(3), pid, frames);
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            for answer in natives.answers() {
                if let Fact::Stack { id, frames } = answer.fact {
                    assert_eq!(id, StackId(3));
                    assert!(natives.idle());
                    return frames.into_iter().map(|frame| frame.function).collect();
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("no answer");
    }

    #[inline(never)]
    fn somewhere_in_this_program() -> u64 {
        somewhere_in_this_program as *const () as u64
    }

    #[test]
    fn functions_of_a_program_and_its_libraries_are_named() {
        let ours = somewhere_in_this_program();
        let libcs = nix::libc::getpid as *const () as u64;
        let go = Frame {
            function: "main.main".into(),
            file: Some("/srv/main.go".into()),
            line: Some(7),
        };
        // As return addresses, one byte into the functions.
        let mut stack = frames(&[ours, libcs + 1, 0x10]);
        stack.push(go);
        let names = named(std::process::id(), &stack);
        assert!(names[0].contains("somewhere_in_this_program"), "{names:?}");
        assert!(names[1].contains("getpid"), "{names:?}");
        assert_eq!(names[2..], ["0x10", "main.main"]);
    }

    #[test]
    fn a_process_that_is_gone_keeps_its_addresses() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(named(pid, &frames(&[0x401000])), ["0x401000"]);
    }

    #[test]
    fn functions_of_the_kernel_are_named_where_it_tells_them() {
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let function = symbols.lines().find_map(|line| {
            let address = line.strip_suffix(" T vfs_read")?;
            u64::from_str_radix(address, 16).ok()
        });
        let Some(address) = function else {
            return;
        };
        let names = named(KERNEL, &frames(&[address]));
        if kernel_tells() {
            assert_eq!(names, ["vfs_read"]);
        } else {
            assert_eq!(names, [format!("{address:#x}")]);
        }
    }
}
