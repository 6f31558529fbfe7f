//! Stacks, each told when it is new, and once more when its addresses have got names.

use std::collections::HashMap;

use super::native::Natives;
use crate::{
    event::{BootInstant, Event, Fact, Frame, Pid, StackId},
    golang::Program,
};

/// Stacks beyond this many get no name any more: a service has some hundred.
const MOST: u32 = 65_536;

/// Whose the kernel's stacks are, among the processes.
pub(super) const KERNEL: Pid = 0;

/// The stacks told so far.
pub(super) struct Stacks {
    known: HashMap<(Pid, Vec<u64>), StackId>,
    told: u32,
    pub(super) natives: Natives,
}

impl Stacks {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            told: 0,
            natives: Natives::start(),
        }
    }

    /// The name of a stack, and, where it is new, the event that tells its frames.
    pub(super) fn name(
        &mut self,
        at: BootInstant,
        pid: Pid,
        addresses: &[u64],
        program: Option<&Program>,
    ) -> (Option<StackId>, Option<Event>) {
        if addresses.is_empty() {
            return (None, None);
        }
        let key = (pid, addresses.to_vec());
        if let Some(&id) = self.known.get(&key) {
            return (Some(id), None);
        }
        if self.told >= MOST {
            return (None, None);
        }
        let id = StackId(self.told);
        self.told += 1;
        self.known.insert(key, id);
        let frames = frames(addresses, program);
        self.natives.name(id, pid, &frames);
        (
            Some(id),
            Some(Event {
                at,
                fact: Fact::Stack { id, frames },
            }),
        )
    }

    /// A process's addresses mean something else from now on. Names stay taken: they were told.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.known.retain(|(of, _), _| *of != pid);
    }
}

/// What stands at the addresses. Of the kernel, and of a program that is not Go, that is not known here.
fn frames(addresses: &[u64], program: Option<&Program>) -> Vec<Frame> {
    match program {
        Some(program) => program.frames(addresses),
        None => addresses.iter().map(|address| unknown(*address)).collect(),
    }
}

fn unknown(address: u64) -> Frame {
    Frame {
        function: format!("{address:#x}"),
        file: None,
        line: None,
    }
}
