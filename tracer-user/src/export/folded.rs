//! For flame graphs: a line for each stack, outermost frame first, with the number of its samples.
//!
//! The form is that of Brendan Gregg's `stackcollapse` scripts, which flamegraph.pl, inferno and
//! speedscope read: `gateway;main.main;main.work 42`. The process's name is the root, and frames of the
//! kernel end in `_[k]`.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{event::Frame, export::Samples, model::Model, plain::clean};

use super::samples::{Seen, UNKNOWN};

/// Writes `samples` to `output`, the lines in alphabetical order.
///
/// # Errors
///
/// What `output` says.
pub fn write(samples: &Samples, model: &Model, output: &mut impl Write) -> io::Result<()> {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for (seen, count) in samples.sums() {
        *stacks.entry(line(seen, model)).or_default() += count;
    }
    for (stack, count) in stacks {
        writeln!(output, "{stack} {count}")?;
    }
    Ok(())
}

fn line(seen: Seen, model: &Model) -> String {
    let mut line = part(&model.name(seen.pid));
    let mut frame = |name: &str| {
        line.push(';');
        line.push_str(name);
    };
    let (program, kernel) = (model.frames(seen.stack), model.frames(seen.kernel));
    if program.is_empty() && kernel.is_empty() {
        frame(UNKNOWN);
    }
    program.iter().rev().for_each(|of| frame(&name(of)));
    kernel
        .iter()
        .rev()
        .for_each(|of| frame(&format!("{}_[k]", name(of))));
    line
}

fn name(frame: &Frame) -> String {
    if frame.function.is_empty() {
        UNKNOWN.to_owned()
    } else {
        part(&frame.function)
    }
}

/// A text that ends no frame before its time.
fn part(text: &str) -> String {
    clean(text).replace(';', ":")
}
