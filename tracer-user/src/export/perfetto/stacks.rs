//! The profiler's samples, with their stacks told once.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use crate::{
    event::{self, BootInstant, Pid, Sample, StackId},
    export::samples::UNKNOWN,
    model::{Model, TICK},
};

use super::{
    message::{
        CLEARED, Callstack, Counter, CpuMode, Frame, InternedData, InternedString, Mapping, NEEDS,
        PerfSample, PerfSampleDefaults, Timebase, TracePacket, TracePacketDefaults,
    },
    packets::{Packets, SAMPLES},
};

/// What was told, each thing by its number.
#[derive(Default)]
pub(super) struct Stacks {
    begun: bool,
    programs: HashMap<Option<Pid>, u64>,
    functions: HashMap<String, u64>,
    frames: HashMap<(u64, u64), u64>,
    stacks: HashMap<(Pid, Option<StackId>, Option<StackId>), u64>,
}

impl Stacks {
    pub(super) fn tell(
        &mut self,
        at: BootInstant,
        sample: Sample,
        model: &Model,
        packets: &mut Packets<impl Write>,
    ) -> io::Result<()> {
        let mut new = InternedData::default();
        let stack = self.stack(sample, model, &mut new);
        let first = !self.begun;
        self.begun = true;
        let mode = if sample.kernel.is_some() {
            CpuMode::Kernel
        } else {
            CpuMode::User
        };
        packets.put(TracePacket {
            timestamp: Some(at.0),
            trusted_packet_sequence_id: SAMPLES,
            sequence_flags: if first { CLEARED | NEEDS } else { NEEDS },
            trace_packet_defaults: first.then(defaults),
            interned_data: (new != InternedData::default()).then_some(new),
            perf_sample: Some(PerfSample {
                pid: sample.pid,
                tid: sample.tid,
                callstack_iid: Some(stack),
                cpu_mode: mode.into(),
            }),
            ..TracePacket::default()
        })
    }

    fn stack(&mut self, sample: Sample, model: &Model, new: &mut InternedData) -> u64 {
        let key = (sample.pid, sample.stack, sample.kernel);
        if let Some(stack) = self.stacks.get(&key) {
            return *stack;
        }
        let (program, kernel) = (model.frames(sample.stack), model.frames(sample.kernel));
        let mut frame_ids = Vec::with_capacity(program.len() + kernel.len());
        for (of, frames) in [(Some(sample.pid), program), (None, kernel)] {
            let mut outermost_first = frames.iter().rev().peekable();
            if outermost_first.peek().is_some() {
                let mapping = self.mapping(of, model, new);
                frame_ids.extend(outermost_first.map(|frame| self.frame(mapping, frame, new)));
            }
        }
        if frame_ids.is_empty() {
            let mapping = self.mapping(Some(sample.pid), model, new);
            frame_ids.push(self.frame(mapping, &event::Frame::default(), new));
        }
        let iid = self.stacks.len() as u64 + 1;
        self.stacks.insert(key, iid);
        new.callstacks.push(Callstack { iid, frame_ids });
        iid
    }

    /// The program of a process; of none, the kernel.
    fn mapping(&mut self, of: Option<Pid>, model: &Model, new: &mut InternedData) -> u64 {
        let next = self.programs.len() as u64 + 1;
        *self.programs.entry(of).or_insert_with(|| {
            let path = match of {
                Some(pid) => model
                    .process(pid)
                    .and_then(|process| process.about.exe.clone())
                    .unwrap_or_else(|| model.name(pid)),
                None => "/kernel".to_owned(),
            };
            new.mapping_paths.push(text(next, &path));
            new.mappings.push(Mapping {
                iid: next,
                path_string_ids: vec![next],
            });
            next
        })
    }

    fn frame(&mut self, mapping: u64, frame: &event::Frame, new: &mut InternedData) -> u64 {
        let name = match frame.function.as_str() {
            "" => UNKNOWN,
            name => name,
        };
        let function = match self.functions.get(name) {
            Some(function) => *function,
            None => {
                let next = self.functions.len() as u64 + 1;
                self.functions.insert(name.to_owned(), next);
                new.function_names.push(text(next, name));
                next
            }
        };
        let next = self.frames.len() as u64 + 1;
        *self.frames.entry((mapping, function)).or_insert_with(|| {
            new.frames.push(Frame {
                iid: next,
                function_name_id: function,
                mapping_id: mapping,
            });
            next
        })
    }
}

fn text(iid: u64, text: &str) -> InternedString {
    InternedString {
        iid,
        str: text.as_bytes().to_vec(),
    }
}

/// What holds for all samples: the profiler's clock.
fn defaults() -> TracePacketDefaults {
    let frequency = 1_000_000_000 / TICK.as_nanos().max(1);
    TracePacketDefaults {
        perf_sample_defaults: Some(PerfSampleDefaults {
            timebase: Some(Timebase {
                frequency: u64::try_from(frequency).unwrap_or_default(),
                counter: Counter::CpuClock.into(),
            }),
        }),
    }
}
