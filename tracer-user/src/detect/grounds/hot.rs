//! In which line requests spent their time on CPU.

use std::collections::HashMap;

use crate::{
    detect::own_code::own_frame,
    event::{Frame, StackId},
    model::{Connection, Exchange},
};

use super::{held_up, scene::Scene};

/// Where most of it went.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hot {
    /// The line: the innermost one of the program's own code, where there is one.
    pub(crate) frame: Frame,
    /// The whole stack that was seen there most often; innermost first.
    pub(crate) frames: Vec<Frame>,
    /// The share of the samples that its function has, from 0 to 1.
    pub(crate) share: f64,
}

/// The function that had most of the time on CPU of `requests`, each with its server's end, and its
/// busiest line.
pub(crate) fn of<'r>(
    scene: &Scene<'_>,
    requests: impl Iterator<Item = (&'r Connection, &'r Exchange)>,
) -> Option<Hot> {
    let mut stacks: HashMap<StackId, u64> = HashMap::new();
    for (connection, exchange) in requests {
        for sampled in held_up::samples(scene, connection, exchange) {
            if let Some(stack) = sampled.sample.stack {
                *stacks.entry(stack).or_default() += 1;
            }
        }
    }
    busiest(scene, &stacks)
}

/// The same of all that the processes of `requests` computed while these waited, they themselves apart.
pub(crate) fn meanwhile<'r>(
    scene: &Scene<'_>,
    requests: impl Iterator<Item = (&'r Connection, &'r Exchange)>,
) -> Option<Hot> {
    let mut stacks: HashMap<StackId, u64> = HashMap::new();
    for (connection, exchange) in requests {
        let own = exchange.actor.and_then(|actor| actor.goroutine);
        let window = held_up::window(scene, connection, exchange);
        for sampled in scene.schedule.samples_of_all(connection.pid, window) {
            let other = own.is_none() || sampled.sample.goroutine != own;
            if let Some(stack) = sampled.sample.stack.filter(|_| other) {
                *stacks.entry(stack).or_default() += 1;
            }
        }
    }
    busiest(scene, &stacks)
}

fn busiest(scene: &Scene<'_>, stacks: &HashMap<StackId, u64>) -> Option<Hot> {
    let own = |stack: StackId| {
        let frames = scene.model.frames(Some(stack));
        own_frame(frames).or(frames.first())
    };
    let mut functions: HashMap<&str, u64> = HashMap::new();
    let mut lines: HashMap<&Frame, u64> = HashMap::new();
    for (stack, samples) in stacks {
        if let Some(frame) = own(*stack) {
            *functions.entry(&frame.function).or_default() += samples;
            *lines.entry(frame).or_default() += samples;
        }
    }
    let all: u64 = functions.values().sum();
    let (function, samples) = functions
        .into_iter()
        .max_by_key(|(name, samples)| (*samples, *name))?;
    let (frame, _) = lines
        .into_iter()
        .filter(|(frame, _)| frame.function == function)
        .max_by_key(|(frame, samples)| (*samples, frame.line))?;
    let (stack, _) = stacks
        .iter()
        .filter(|(stack, _)| own(**stack) == Some(frame))
        .max_by_key(|(stack, samples)| (**samples, **stack))?;
    Some(Hot {
        frame: frame.clone(),
        frames: scene.model.frames(Some(*stack)).to_vec(),
        share: samples as f64 / all as f64,
    })
}
