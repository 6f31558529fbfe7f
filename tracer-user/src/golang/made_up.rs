//! A process's memory as a script makes it up: what a hostile or a very unlucky process may hold while its
//! goroutines are read. For tests, and for `fuzz/`.
//!
//! In: a real Go program's file, and a script of bytes. Out: what is read of a process that runs it. The
//! script plants `g`s, wait queues, labels and stacks that point at each other in every wrong way, and
//! changes them while they are read.

use std::sync::{Mutex, PoisonError};

use super::{
    GoError, Program, dwarf,
    executable::Executable,
    layout::{Layout, NEWEST, OLDEST, Version},
    memory::{self, Reading},
    process_memory::{Memory, Want},
};
use crate::event::{Blocking, Pid};

/// Where the memory that is there begins; far below lies the program, far above nothing.
pub(super) const BEGIN: u64 = 0x00c0_0000_0000;
/// Words of it.
const WORDS: usize = 16 << 10;
/// Most goroutines that a script plants.
const MOST: usize = 64;
/// Words from one planted `g` to the next.
const APART: usize = 64;

/// What a script wants next.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn two(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    /// A word as memory may hold it; `code` are addresses in the program.
    fn word(&mut self, code: &[u64]) -> Option<u64> {
        let place = |word: usize| BEGIN + 8 * (word % WORDS) as u64;
        Some(match self.byte()? % 12 {
            0 => 0,
            1 => u64::from(self.byte()?),
            2 | 3 => place(self.two()?),
            4 => place(self.two()?) + u64::from(self.byte()? % 8),
            5 => *code.get(self.two()? % code.len().max(1))?,
            6 => 1 << (self.byte()? % 64),
            7 => u64::MAX - u64::from(self.byte()?),
            8 => place(usize::MAX) - 8 * u64::from(self.byte()?),
            9 => u64::from(std::process::id()),
            10 => (1 << 60) | u64::from(self.byte()?),
            _ => (self.two()? as u64) << 32 | self.two()? as u64,
        })
    }
}

/// Memory, and how it goes on changing.
struct Paper {
    pid: Pid,
    state: Mutex<State>,
    /// Where the program keeps the head of its list of goroutines.
    list: u64,
}

struct State {
    words: Vec<u64>,
    head: [u64; 3],
    /// At each read one of these takes place, by turns.
    changes: Vec<(usize, u64)>,
    reads: usize,
}

/// Memory that is and stays so, from [`BEGIN`] on.
#[cfg(test)]
pub(super) fn paper(words: Vec<u64>) -> impl Memory {
    Paper {
        pid: 1,
        state: Mutex::new(State {
            words,
            head: [0; 3],
            changes: Vec::new(),
            reads: 0,
        }),
        list: 0,
    }
}

impl Memory for Paper {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn pause(&self, _: std::time::Duration) {}

    fn read_each(&self, wants: &mut [Want<'_>]) -> Result<(), GoError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reads += 1;
        let turn = state.reads;
        if let Some((word, value)) = state
            .changes
            .get(turn % state.changes.len().max(1))
            .copied()
            && let Some(changed) = state.words.get_mut(word)
        {
            *changed = value;
        }
        for want in wants {
            want.read = state.copy(self.list, want.address, want.buffer);
        }
        Ok(())
    }
}

impl State {
    fn copy(&self, list: u64, address: u64, buffer: &mut [u8]) -> bool {
        let byte = |address: u64| {
            let of = |words: &[u64], at: u64| {
                let word = words.get(usize::try_from(at / 8).ok()?)?;
                word.to_le_bytes().get((at % 8) as usize).copied()
            };
            match address.checked_sub(BEGIN) {
                Some(at) => of(&self.words, at),
                None => of(&self.head, address.checked_sub(list)?),
            }
        };
        buffer.iter_mut().zip(0..).all(|(to, nth)| {
            let from = address.checked_add(nth).and_then(byte);
            from.map(|from| *to = from).is_some()
        })
    }
}

/// A Go program's file as it would be started.
pub struct Started {
    program: Program,
    code: Vec<u64>,
}

impl Started {
    /// The program in these bytes.
    ///
    /// # Errors
    ///
    /// It is none, or not one that can be read from outside.
    pub fn of(bytes: Vec<u8>) -> Result<Self, String> {
        let executable = Executable::of_bytes(bytes)?;
        let program = Program::new(std::process::id(), &executable, 0)?;
        let code = [
            "runtime.gopark",
            "runtime.main",
            "runtime.goexit",
            "runtime.chanrecv",
            "runtime.semacquire1",
            "runtime.bgsweep",
            "runtime.systemstack",
            "runtime.sigpanic",
            "main.main",
        ];
        let code = code
            .iter()
            .filter_map(|name| program.function(name))
            .flat_map(|entry| [0, 1, 17, 40, 90].map(|into| entry.address + into))
            .collect();
        Ok(Self { program, code })
    }

    /// Reads the goroutines of a process that runs it and whose memory is as `script` says.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read(&mut self, script: &[u8]) -> Result<(Reading, Blocking), GoError> {
        let mut script = Script(script);
        let minor = OLDEST + u32::from(script.byte().unwrap_or(0)) % (NEWEST + 1 - OLDEST);
        let version = Version { minor, patch: 0 };
        self.program.minor = Some(minor);
        self.program.layout = Layout::of(version).ok_or_else(String::new);
        let list = self.program.allgs.unwrap_or_default();
        let state = self.planted(&mut script).unwrap_or(State {
            words: Vec::new(),
            head: [0; 3],
            changes: Vec::new(),
            reads: 0,
        });
        self.program.memory = Box::new(Paper {
            pid: self.program.pid,
            state: Mutex::new(state),
            list,
        });
        memory::read_with_blocking(&self.program, MOST * 2)
    }

    /// What the script makes of memory; what it does not reach stays zero.
    fn planted(&self, script: &mut Script<'_>) -> Option<State> {
        let layout = self.program.layout.clone().ok()?;
        let mut words = vec![0_u64; WORDS];
        let number = usize::from(script.byte()?) % MOST;
        let mut head = [BEGIN, number as u64, number as u64];
        // Goroutines that wait, as most do; the script then spoils them.
        for slot in 0..number {
            let base = MOST + slot * APART;
            let stack = (MOST + MOST * APART + slot * APART) as u64 * 8 + BEGIN;
            let code = self.code.get(slot % self.code.len().max(1)).copied();
            let mut plant = |offset: u32, value: u64| {
                if let Some(word) = words.get_mut(base + offset as usize / 8) {
                    *word = value;
                }
            };
            plant(layout.stack_lo, stack);
            plant(layout.stack_hi, stack + 8 * APART as u64);
            plant(layout.sched_sp, stack + 8);
            plant(layout.sched_pc, code.unwrap_or_default());
            plant(layout.status, 4);
            plant(layout.goid, slot as u64 + 1);
            plant(layout.start_pc, code.unwrap_or_default());
            plant(layout.wait_reason, (slot % 48) as u64);
            plant(layout.labels, stack);
            plant(layout.waiting, stack + 64);
            if let Some(word) = words.get_mut(slot) {
                *word = BEGIN + 8 * base as u64;
            }
        }
        let mut changes = Vec::new();
        while let Some(what) = script.byte() {
            let (Some(place), Some(value)) = (script.two(), script.word(&self.code)) else {
                break;
            };
            match what {
                0 => {
                    if let Some(word) = head.get_mut(place % 3) {
                        *word = value;
                    }
                }
                1..64 => changes.push((place % WORDS, value)),
                _ => {
                    if let Some(word) = words.get_mut(place % WORDS) {
                        *word = value;
                    }
                }
            }
        }
        Some(State {
            words,
            head,
            changes,
            reads: 0,
        })
    }
}

/// Everything that is read of an executable before a process of it is: its headers, its tables, its code and its
/// debug information. How many calls stand at some of its addresses.
pub fn executable(bytes: Vec<u8>) -> usize {
    let Ok(executable) = Executable::of_bytes(bytes) else {
        return 0;
    };
    if let Ok(elf) = executable.elf() {
        dwarf::layout(&elf);
    }
    let Ok(program) = Program::new(std::process::id(), &executable, 0) else {
        return 0;
    };
    let entry = program.function("runtime.gopark");
    let begin = entry.map_or(0, |entry| entry.address);
    let pcs: Vec<u64> = (0..64_u64)
        .map(|nth| begin.wrapping_add(nth * 97))
        .collect();
    program.frames(&pcs).len()
}
