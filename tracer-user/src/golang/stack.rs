//! Walking a goroutine's stack that was copied out of its process.
//!
//! In: where the goroutine stands and the bytes of its stack from there on. Out: what each address on
//! it stands for, innermost first. It finds callers as the runtime does, by each function's own record
//! of its frame size, which holds for every Go function on every path; it does not need frame pointers,
//! which assembly and system calls (before 1.23) leave undefined. Every step moves towards the stack's
//! end, so it ends on any input.

use std::sync::Arc;

use super::{
    Program,
    symbols::{Site, Unwind},
};

/// More frames than this are not followed; the runtime's dumps print 100.
pub(super) const DEEPEST: usize = 128;

/// Where a goroutine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub pc: u64,
    pub sp: u64,
}

/// What a walk saw.
pub(super) struct Walk {
    /// Innermost first.
    pub sites: Vec<Arc<Site>>,
    pub end: End,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the goroutine's first function: it is whole.
    Outermost,
    /// After [`DEEPEST`] frames.
    TooDeep,
    /// It goes on beyond the bytes given.
    NeedsMore,
    /// In code nobody can unwind, or the stack changed while it was copied.
    Lost,
}

/// Walks from `position` through `stack`, whose first byte is at `position.sp`.
pub(super) fn walk(program: &Program, position: Position, stack: &[u8]) -> Walk {
    let mut sites: Vec<Arc<Site>> = Vec::new();
    let (mut pc, mut at) = (position.pc, 0_usize);
    let end = loop {
        if sites.len() == DEEPEST {
            break End::TooDeep;
        }
        // The position itself is that of a call too: the goroutine called the scheduler or the kernel.
        let returns_here = sites.last().is_none_or(|callee| !callee.interrupts_caller);
        let site = program.site(pc, returns_here);
        let unwind = site.unwind;
        sites.push(site);
        let frame = match unwind {
            Unwind::ReturnAt(frame) => frame as usize,
            Unwind::Outermost => break End::Outermost,
            Unwind::Unknown => break End::Lost,
        };
        let Some(word) = at
            .checked_add(frame)
            .and_then(|start| stack.get(start..)?.first_chunk::<8>())
        else {
            break End::NeedsMore;
        };
        pc = u64::from_le_bytes(*word);
        at += frame + 8;
    };
    Walk { sites, end }
}
