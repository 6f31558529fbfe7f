//! Goroutine profiles in pprof's own form: what `/debug/pprof/goroutine` gives without `debug`, after
//! gzip is undone.
//!
//! In: the bytes of a `perftools.profiles.Profile`
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>). Out: a [`Census`] without ids,
//! states or waiting times. Always holds: no more is kept than the bytes given, however often they
//! refer to each other.

use std::collections::HashMap;

use super::{
    census::{Census, Group},
    dump::frame,
    profile::group,
};
use crate::event::Frame;

/// Deeper stacks than the runtime's own (`runtime.maxProfStackDepth`, 1024) are cut.
const DEEPEST: usize = 4096;

/// Why bytes are no goroutine profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// They are no profile at all, or cut off.
    #[error("it is no pprof profile, or not a whole one")]
    Damaged,
    /// A profile of something else.
    #[error("it is a profile of {0}, not of goroutines")]
    Other(String),
}

/// Reads a profile.
///
/// # Errors
///
/// It is damaged, or counts something else.
pub fn parse(bytes: &[u8]) -> Result<Census, ProtoError> {
    let profile = Profile::decode(bytes).ok_or(ProtoError::Damaged)?;
    let counts = profile.string(profile.counts.unwrap_or_default());
    match counts {
        Some("goroutine" | "goroutineleak") => {}
        Some("") | None => return Err(ProtoError::Damaged),
        Some(other) => return Err(ProtoError::Other(other.to_owned())),
    }
    let groups: Option<Vec<Group>> = profile
        .samples
        .iter()
        .map(|sample| profile.group(sample))
        .collect();
    Ok(Census::gather(groups.ok_or(ProtoError::Damaged)?, None))
}

/// The messages that are needed, by their ids.
#[derive(Default)]
struct Profile<'a> {
    /// What the first value of a sample counts, as the number of a string.
    counts: Option<u64>,
    samples: Vec<Sample>,
    locations: HashMap<u64, Location>,
    /// Name and file, as numbers of strings.
    functions: HashMap<u64, (u64, u64)>,
    strings: Vec<&'a str>,
}

#[derive(Default)]
struct Sample {
    count: u64,
    locations: Vec<u64>,
    /// Key and value, as numbers of strings.
    labels: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Location {
    address: u64,
    /// Function and line, innermost first.
    lines: Vec<(u64, u64)>,
}

impl<'a> Profile<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut profile = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(kind)) if profile.counts.is_none() => {
                    profile.counts = number(kind, 1);
                }
                (2, Value::Bytes(sample)) => profile.samples.push(Sample::decode(sample)?),
                (4, Value::Bytes(location)) => {
                    let id = number(location, 1)?;
                    profile.locations.insert(id, Location::decode(location)?);
                }
                (5, Value::Bytes(function)) => {
                    let (name, file) = (number(function, 2), number(function, 4));
                    let names = (name.unwrap_or_default(), file.unwrap_or_default());
                    profile.functions.insert(number(function, 1)?, names);
                }
                (6, Value::Bytes(text)) => profile.strings.push(std::str::from_utf8(text).ok()?),
                _ => {}
            }
        }
        Some(profile)
    }

    fn string(&self, number: u64) -> Option<&'a str> {
        self.strings.get(usize::try_from(number).ok()?).copied()
    }

    /// `None` where it refers to what is not there.
    fn group(&self, sample: &Sample) -> Option<Group> {
        let mut frames = Vec::new();
        for id in sample.locations.iter().take(DEEPEST) {
            let location = self.locations.get(id)?;
            for (function, line) in location.lines.iter().take(DEEPEST) {
                frames.push(self.frame(*function, *line)?);
            }
            if location.lines.is_empty() {
                frames.push(frame(&format!("{:#x}", location.address)));
            }
        }
        frames.truncate(DEEPEST);
        let text = |number: u64| self.string(number).map(str::to_owned);
        let labels = sample.labels.iter();
        let labels = labels.map(|(key, value)| Some((text(*key)?, text(*value)?)));
        let mut labels: Vec<(String, String)> = labels.collect::<Option<_>>()?;
        labels.sort();
        Some(group(frames, labels, sample.count))
    }

    fn frame(&self, function: u64, line: u64) -> Option<Frame> {
        let (name, file) = self.functions.get(&function)?;
        let file = Some(self.string(*file)?).filter(|file| !file.is_empty());
        Some(Frame {
            function: self.string(*name)?.to_owned(),
            file: file.map(str::to_owned),
            line: u32::try_from(line).ok().filter(|line| *line > 0),
        })
    }
}

impl Sample {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut sample = Self::default();
        let mut values = Vec::new();
        for field in Fields(bytes) {
            match field? {
                (1, value) => value.numbers(&mut sample.locations)?,
                (2, value) => value.numbers(&mut values)?,
                (3, Value::Bytes(label)) => {
                    // A label with a number in place of a text has none.
                    if let (Some(key), Some(value)) = (number(label, 1), number(label, 2)) {
                        sample.labels.push((key, value));
                    }
                }
                _ => {}
            }
        }
        // The counts are signed; of nothing there are none.
        sample.count = u64::try_from(values.first()?.cast_signed()).ok()?;
        Some(sample)
    }
}

impl Location {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut location = Self::default();
        for field in Fields(bytes) {
            match field? {
                (3, Value::Number(address)) => location.address = address,
                (4, Value::Bytes(line)) => {
                    let (function, line) = (number(line, 1), number(line, 2));
                    location
                        .lines
                        .push((function.unwrap_or_default(), line.unwrap_or_default()));
                }
                _ => {}
            }
        }
        Some(location)
    }
}

/// The fields of a protobuf message; `None` where it is damaged, and nothing after that.
struct Fields<'a>(&'a [u8]);

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed width; none of those is needed.
    Fixed,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl Value<'_> {
    /// Adds one number, or many that are packed.
    fn numbers(self, numbers: &mut Vec<u64>) -> Option<()> {
        match self {
            Self::Number(number) => numbers.push(number),
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    numbers.push(varint(&mut packed)?);
                }
            }
            Self::Fixed => return None,
        }
        Some(())
    }
}

/// The number in a field of a message.
fn number(bytes: &[u8], wanted: u64) -> Option<u64> {
    Fields(bytes).find_map(|field| match field {
        Some((field, Value::Number(number))) if field == wanted => Some(number),
        _ => None,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        field.extend(bytes);
        field
    }

    /// Three goroutines at main.wait, inlined into main.main, with a label; `counts` of them.
    fn profile(counts: &str) -> Vec<u8> {
        let strings = [
            "",
            counts,
            "count",
            "main.wait",
            "/a.go",
            "main.main",
            "k",
            "v",
        ];
        [
            field(1, &[0x08, 1, 0x10, 2]),
            field(
                2,
                &[
                    [0x0a, 1, 9, 0x12, 1, 3].as_slice(),
                    &field(3, &[0x08, 6, 0x10, 7]),
                ]
                .concat(),
            ),
            field(
                4,
                &[
                    [0x08, 9, 0x18, 0x10].as_slice(),
                    &field(4, &[8, 1, 16, 12]),
                    &field(4, &[8, 2, 16, 20]),
                ]
                .concat(),
            ),
            field(5, &[0x08, 1, 0x10, 3, 0x20, 4]),
            field(5, &[0x08, 2, 0x10, 5, 0x20, 4]),
            strings.map(|text| field(6, text.as_bytes())).concat(),
        ]
        .concat()
    }

    #[test]
    fn a_profile_tells_counts_labels_and_inlined_frames() {
        let census = parse(&profile("goroutine")).unwrap();
        assert_eq!((census.total, census.groups.len()), (3, 1));
        let kind = &census.groups[0].kind;
        let frames: Vec<_> = kind
            .stack
            .frames
            .iter()
            .map(|frame| (frame.function.as_str(), frame.line))
            .collect();
        assert_eq!(frames, [("main.wait", Some(12)), ("main.main", Some(20))]);
        assert_eq!(*kind.labels, [("k".to_owned(), "v".to_owned())]);
    }

    #[test]
    fn another_profile_is_named_and_a_cut_one_refused() {
        let other = ProtoError::Other("inuse_space".to_owned());
        assert_eq!(parse(&profile("inuse_space")), Err(other));
        let whole = profile("goroutine");
        assert_eq!(parse(&whole[..whole.len() - 3]), Err(ProtoError::Damaged));
        assert_eq!(parse(b""), Err(ProtoError::Damaged));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cut in 0..120_usize, at in 0..120_usize, byte: u8) {
            let mut bytes = profile("goroutine");
            bytes.truncate(cut);
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            let _ = parse(&bytes);
        }
    }
}
