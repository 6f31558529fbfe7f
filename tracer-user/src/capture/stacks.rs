//! Stacks, each told when it is new, and once more when its addresses have got names.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use super::native::Natives;
use crate::{
    event::{BootInstant, Event, Fact, Frame, Pid, StackId, Unseen},
    golang::Program,
};

/// Stacks beyond this many get no name any more: a service has some hundred where anything is decided, and some ten
/// thousand where samples catch it in an hour.
const MOST: u32 = 65_536;

/// Whose the kernel's stacks are, among the processes.
pub(super) const KERNEL: Pid = 0;

/// A stack of a process, by two hashes of its addresses with keys of their own: 128 bits, in which 65,536 stacks do
/// not meet. The addresses themselves would take ten times the memory.
type Key = (Pid, [u64; 2]);

/// The stacks told so far.
pub(super) struct Stacks {
    known: HashMap<Key, StackId>,
    hashers: [RandomState; 2],
    told: u32,
    /// It was told that there are too many.
    overflowed: bool,
    pub(super) natives: Natives,
}

impl Stacks {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            told: 0,
            overflowed: false,
            natives: Natives::start(),
        }
    }

    /// The name of a stack, and, where it is new, the event that tells its frames, or that there are too many.
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
        let hashes = self
            .hashers
            .each_ref()
            .map(|hasher| hasher.hash_one(addresses));
        let key = (pid, hashes);
        if let Some(&id) = self.known.get(&key) {
            return (Some(id), None);
        }
        if self.told >= MOST {
            let first = !std::mem::replace(&mut self.overflowed, true);
            let told = first.then(|| Event {
                at,
                fact: Fact::Unseen(too_many()),
            });
            return (None, told);
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

    /// A process's addresses mean something else from now on, or nothing any more. Names stay taken: they were told.
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

fn too_many() -> Unseen {
    Unseen {
        what: "stacks that are new from then on".to_owned(),
        why: format!("{MOST} different ones are kept"),
        remedy: "watch for a shorter time, or fewer processes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: BootInstant = BootInstant(0);

    #[test]
    fn a_stack_is_told_once_and_once_more_of_another_process() {
        let mut stacks = Stacks::new();
        let (first, told) = stacks.name(AT, 7, &[0x10, 0x20], None);
        assert!(first.is_some() && told.is_some());
        assert_eq!(stacks.name(AT, 7, &[0x10, 0x20], None), (first, None));
        for (pid, addresses) in [(8, &[0x10, 0x20][..]), (7, &[0x20, 0x10]), (7, &[0x10])] {
            let (other, told) = stacks.name(AT, pid, addresses, None);
            assert!(other.is_some_and(|other| Some(other) != first) && told.is_some());
        }
        stacks.forget(7);
        let (again, told) = stacks.name(AT, 7, &[0x10, 0x20], None);
        assert!(again != first && told.is_some());
        assert_eq!(stacks.name(AT, 7, &[], None), (None, None));
    }

    #[test]
    fn that_there_are_too_many_is_said_once() {
        let mut stacks = Stacks::new();
        for address in 0..u64::from(MOST) {
            assert!(stacks.name(AT, 7, &[address], None).0.is_some());
        }
        let (none, said) = stacks.name(AT, 7, &[u64::MAX], None);
        assert_eq!(none, None);
        assert!(matches!(
            said.map(|event| event.fact),
            Some(Fact::Unseen(_))
        ));
        assert_eq!(stacks.name(AT, 7, &[u64::MAX], None), (None, None));
        assert!(stacks.name(AT, 7, &[0], None).0.is_some(), "it is known");
    }
}
