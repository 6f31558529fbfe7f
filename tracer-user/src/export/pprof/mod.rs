//! For `go tool pprof` and its like: the CPU samples as a gzipped `profile.proto`.
//!
//! The sample types are those of Go's own CPU profiles, so that both can be compared and merged. Each
//! sample carries the process, the thread and the goroutine as labels. An inlined call is a location of its
//! own, for events tell frames and no addresses.

pub(super) mod message;

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    io::{self, Write},
};

use flate2::{Compression, write::GzEncoder};
use prost::Message as _;

use crate::{
    event::{Frame, Pid},
    export::Samples,
    model::{Model, TICK},
};

use super::samples::{Seen, UNKNOWN};
use message::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};

/// What `perf` and pprof call the kernel's own symbols.
const KERNEL: &str = "[kernel.kallsyms]";

/// Writes `samples` to `output`.
///
/// # Errors
///
/// What `output` says.
pub fn write(samples: &Samples, model: &Model, output: &mut impl Write) -> io::Result<()> {
    let profile = Tables::default().profile(samples, model);
    let mut packed = GzEncoder::new(output, Compression::default());
    packed.write_all(&profile.encode_to_vec())?;
    packed.finish().map(drop)
}

/// What samples refer to by number; each number is the place of the thing, counted from 1.
#[derive(Default)]
struct Tables {
    /// The text with number 0 is the empty one.
    texts: Numbers<String>,
    mappings: Numbers<String>,
    /// A mapping, a function and a line.
    locations: Numbers<(u64, u64, u32)>,
    /// A name and a file.
    functions: Numbers<(i64, i64)>,
}

impl Tables {
    fn profile(mut self, samples: &Samples, model: &Model) -> Profile {
        let sums = samples.sums();
        // pprof takes the first mapping for the program that the profile is of.
        for pid in busiest(&sums) {
            self.mapping(executable(model, pid));
        }
        let sample = sums
            .iter()
            .map(|(seen, count)| self.sample(*seen, *count, model))
            .collect();
        let [count, cpu] = ["samples/count", "cpu/nanoseconds"].map(|of| self.value_type(of));
        let source = model.source();
        Profile {
            sample_type: vec![count, cpu],
            sample,
            time_nanos: i64::try_from(source.started_wall.as_nanosecond()).unwrap_or_default(),
            duration_nanos: i64::try_from(model.watched().as_nanos()).unwrap_or(i64::MAX),
            period_type: Some(cpu),
            period: nanoseconds(1),
            default_sample_type: cpu.r#type,
            mapping: self.mapping_messages(),
            location: self.location_messages(),
            function: self.function_messages(),
            string_table: std::iter::once(String::new())
                .chain(self.texts.in_order())
                .collect(),
        }
    }

    fn sample(&mut self, seen: Seen, count: u64, model: &Model) -> Sample {
        let program = self.mapping(executable(model, seen.pid));
        let mut places = Vec::new();
        if seen.kernel.is_some() {
            let kernel = self.mapping(KERNEL.to_owned());
            let frames = model.frames(seen.kernel);
            places.extend(frames.iter().map(|frame| self.location(kernel, frame)));
        }
        let frames = model.frames(seen.stack);
        places.extend(frames.iter().map(|frame| self.location(program, frame)));
        if places.is_empty() {
            places.push(self.location(program, &Frame::default()));
        }
        Sample {
            location_id: places,
            value: vec![i64::try_from(count).unwrap_or(i64::MAX), nanoseconds(count)],
            label: self.labels(seen, model),
        }
    }

    fn labels(&mut self, seen: Seen, model: &Model) -> Vec<Label> {
        let numbers = [
            ("pid", Some(u64::from(seen.pid))),
            ("thread", seen.thread.map(u64::from)),
            ("goroutine", seen.goroutine),
        ];
        let comm = Label {
            key: self.text("comm"),
            str: self.text(&model.name(seen.pid)),
            num: 0,
        };
        numbers
            .into_iter()
            .filter_map(|(key, number)| {
                Some(Label {
                    key: self.text(key),
                    str: 0,
                    num: number?.cast_signed(),
                })
            })
            .chain([comm])
            .collect()
    }

    fn location(&mut self, mapping: u64, frame: &Frame) -> u64 {
        let name = self.text(match frame.function.as_str() {
            "" => UNKNOWN,
            name => name,
        });
        let file = self.text(frame.file.as_deref().unwrap_or_default());
        let function = self.functions.of((name, file));
        let line = frame.line.unwrap_or_default();
        self.locations.of((mapping, function, line))
    }

    fn mapping(&mut self, file: String) -> u64 {
        self.mappings.of(file)
    }

    fn text(&mut self, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        self.texts.of(text.to_owned()).cast_signed()
    }

    /// Of a type and its unit, such as `cpu/nanoseconds`.
    fn value_type(&mut self, of: &str) -> ValueType {
        let (name, unit) = of.split_once('/').unwrap_or((of, ""));
        ValueType {
            r#type: self.text(name),
            unit: self.text(unit),
        }
    }

    fn mapping_messages(&mut self) -> Vec<Mapping> {
        let files = self.mappings.in_order();
        (1..)
            .zip(files)
            .map(|(id, file)| Mapping {
                id,
                filename: self.text(&file),
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            })
            .collect()
    }

    fn location_messages(&self) -> Vec<Location> {
        (1..)
            .zip(self.locations.in_order())
            .map(|(id, (mapping_id, function_id, line))| Location {
                id,
                mapping_id,
                line: vec![Line {
                    function_id,
                    line: i64::from(line),
                }],
            })
            .collect()
    }

    fn function_messages(&self) -> Vec<Function> {
        (1..)
            .zip(self.functions.in_order())
            .map(|(id, (name, filename))| Function {
                id,
                name,
                system_name: name,
                filename,
            })
            .collect()
    }
}

/// Things in the order in which they were first asked for.
struct Numbers<T>(HashMap<T, u64>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    /// The number of `thing`, from 1.
    fn of(&mut self, thing: T) -> u64 {
        let next = self.0.len() as u64 + 1;
        *self.0.entry(thing).or_insert(next)
    }

    fn in_order(&self) -> Vec<T> {
        let mut things: Vec<_> = self.0.iter().collect();
        things.sort_unstable_by_key(|(_, number)| **number);
        things.into_iter().map(|(thing, _)| thing.clone()).collect()
    }
}

/// The processes that were seen, the one seen most often first.
fn busiest(sums: &[(Seen, u64)]) -> Vec<Pid> {
    let mut counts: BTreeMap<Pid, u64> = BTreeMap::new();
    for (seen, count) in sums {
        *counts.entry(seen.pid).or_default() += count;
    }
    let mut pids: Vec<_> = counts.into_iter().collect();
    pids.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    pids.into_iter().map(|(pid, _)| pid).collect()
}

/// The program's file; its name where that is not known.
fn executable(model: &Model, pid: Pid) -> String {
    let exe = model
        .process(pid)
        .and_then(|process| process.about.exe.clone());
    exe.unwrap_or_else(|| model.name(pid))
}

/// The CPU time that so many samples stand for.
fn nanoseconds(samples: u64) -> i64 {
    i64::try_from(TICK.as_nanos())
        .unwrap_or(i64::MAX)
        .saturating_mul(i64::try_from(samples).unwrap_or(i64::MAX))
}
