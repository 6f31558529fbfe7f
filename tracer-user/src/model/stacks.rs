//! The stacks that were told, as a tree: a node for each line and who called it.
//!
//! In come stacks with their frames, out come the same frames. A busy program is sampled at ever new stacks, and each
//! differs from some other one in its innermost lines alone. So a new one costs a node or two, of some thirty bytes,
//! in place of a dozen frames with their names; the frames of a stack that is asked for are written out then.

use std::{
    cell::OnceCell,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use foldhash::fast::RandomState;

use crate::event::{Frame, StackId};

/// Who calls the outermost line.
const NOBODY: u32 = u32::MAX;

/// A line that was called, by its number, and the node that called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    caller: u32,
    line: u32,
}

/// A stack.
#[derive(Debug)]
struct Told {
    /// Its innermost node; [`NOBODY`] where it has no frames.
    innermost: u32,
    frames: OnceCell<Box<[Frame]>>,
}

#[derive(Debug, Default)]
pub(super) struct Stacks {
    told: HashMap<StackId, Told, RandomState>,
    nodes: Vec<Node>,
    places: HashMap<Node, u32, RandomState>,
    lines: Vec<Arc<Frame>>,
    numbers: HashMap<Arc<Frame>, u32>,
}

impl Stacks {
    /// A stack is told, innermost frame first; a second time replaces the first.
    pub(super) fn tell(&mut self, id: StackId, frames: &[Frame]) {
        let mut innermost = NOBODY;
        for frame in frames.iter().rev() {
            let line = self.line(frame);
            innermost = self.node(Node {
                caller: innermost,
                line,
            });
        }
        let told = Told {
            innermost,
            frames: OnceCell::new(),
        };
        self.told.insert(id, told);
    }

    /// Its frames, innermost first; `None` where it was never told.
    pub(super) fn frames(&self, id: StackId) -> Option<&[Frame]> {
        let told = self.told.get(&id)?;
        Some(told.frames.get_or_init(|| self.write_out(told.innermost)))
    }

    fn write_out(&self, innermost: u32) -> Box<[Frame]> {
        let node = |place: u32| self.nodes.get(place as usize);
        std::iter::successors(node(innermost), |called| node(called.caller))
            .filter_map(|node| self.lines.get(node.line as usize))
            .map(|line| Frame::clone(line))
            .collect()
    }

    fn node(&mut self, node: Node) -> u32 {
        match self.places.entry(node) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = next(self.nodes.len());
                self.nodes.push(node);
                *new.insert(place)
            }
        }
    }

    fn line(&mut self, frame: &Frame) -> u32 {
        if let Some(number) = self.numbers.get(frame) {
            return *number;
        }
        let (line, number) = (Arc::new(frame.clone()), next(self.lines.len()));
        self.lines.push(Arc::clone(&line));
        self.numbers.insert(line, number);
        number
    }
}

/// Four thousand million nodes are not reached: their stacks would fill all memory long before.
fn next(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(functions: &[&str]) -> Vec<Frame> {
        let frames = functions.iter().map(|function| Frame {
            function: (*function).into(),
            ..Frame::default()
        });
        frames.collect()
    }

    #[test]
    fn stacks_are_told_as_they_came_and_share_their_callers() {
        let mut stacks = Stacks::default();
        let told = [
            stack(&["read", "serve", "main"]),
            stack(&["write", "serve", "main"]),
            stack(&["serve", "serve", "main"]),
            stack(&["main"]),
            stack(&[]),
        ];
        for (id, frames) in (0..).map(StackId).zip(&told) {
            stacks.tell(id, frames);
        }
        for (id, frames) in (0..).map(StackId).zip(&told) {
            assert_eq!(stacks.frames(id), Some(frames.as_slice()));
        }
        assert_eq!(stacks.nodes.len(), 5);
        assert_eq!(stacks.frames(StackId(5)), None);
    }

    #[test]
    fn a_stack_that_gets_its_names_later_has_them() {
        let mut stacks = Stacks::default();
        let id = StackId(7);
        stacks.tell(id, &stack(&["0x401000", "main"]));
        assert_eq!(stacks.frames(id).map(|frames| frames.len()), Some(2));
        let named = stack(&["read", "main"]);
        stacks.tell(id, &named);
        assert_eq!(stacks.frames(id), Some(named.as_slice()));
    }
}
