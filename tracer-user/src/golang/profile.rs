//! Goroutine profiles: the text that `/debug/pprof/goroutine?debug=1` gives.
//!
//! In: text of Go 1.21 to 1.27. Out: a [`Census`] without ids, states or waiting times, and how many
//! lines could not be understood. A profile costs the service far less than a [dump](super::dump).

use std::sync::Arc;

use super::{
    census::{Census, Group, Kind, Members, Stack, UNTOLD},
    dump::{file_and_line, frame, only_shown, parse_labels},
};
use crate::event::Frame;

/// A profile that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The goroutines.
    pub census: Census,
    /// Lines that were not understood.
    pub unread_lines: u64,
}

/// Goroutines with the same stack, as they are read.
#[derive(Default)]
struct Record {
    count: u64,
    frames: Vec<Frame>,
    labels: Vec<(String, String)>,
}

/// Reads a goroutine profile as text (`debug=1`).
#[must_use]
pub fn parse(text: &str) -> Profile {
    let mut unread_lines = 0;
    let mut records: Vec<Record> = Vec::new();
    let tells_nothing = |line: &&str| line.is_empty() || head(line).is_some();
    for line in text.lines().filter(|line| !tells_nothing(line)) {
        let understood = match (line.strip_prefix('#'), records.last_mut()) {
            (Some(columns), Some(record)) => record.add(columns),
            (Some(_), None) => None,
            (None, _) => count(line).map(|count| {
                records.push(Record {
                    count,
                    ..Record::default()
                });
            }),
        };
        if understood.is_none() {
            unread_lines += 1;
        }
    }
    Profile {
        census: Census::gather(records.into_iter().map(Record::group), total(text)),
        unread_lines,
    }
}

impl Record {
    /// What follows the `#` of a line; `None` where it was not understood.
    fn add(&mut self, columns: &str) -> Option<()> {
        match columns.strip_prefix(" labels: ") {
            Some(labels) => self.labels = parse_labels(labels)?,
            None => self.frames.push(call(columns)?),
        }
        Some(())
    }

    fn group(self) -> Group {
        group(self.frames, self.labels, self.count)
    }
}

/// A group of goroutines of which a profile tells no more.
pub(super) fn group(frames: Vec<Frame>, labels: Vec<(String, String)>, count: u64) -> Group {
    Group {
        kind: Kind {
            state: UNTOLD.to_owned(),
            stack: Arc::new(Stack {
                frames: only_shown(frames),
                created_by: None,
            }),
            labels: Arc::new(labels),
            ..Kind::default()
        },
        members: Members::unnamed(count),
    }
}

/// The count in a profile's first line, which is all that is needed to know what a dump would cost.
#[must_use]
pub fn total(text: &str) -> Option<u64> {
    head(text.lines().next()?)
}

/// `goroutine profile: total 1003`; `goroutineleak` for those that the runtime found leaked.
fn head(line: &str) -> Option<u64> {
    let (name, total) = line.split_once(" profile: total ")?;
    let known = matches!(name, "goroutine" | "goroutineleak");
    known.then(|| total.trim().parse().ok())?
}

/// `1000 @ 0x43d8ae 0x40c5a5`.
fn count(line: &str) -> Option<u64> {
    let (count, _) = line.split_once(" @")?;
    count.parse().ok()
}

/// `\t0x4a5d26\tmain.wait+0x66\t/src/main.go:12`, or an address alone.
fn call(columns: &str) -> Option<Frame> {
    let mut columns = columns.split('\t').filter(|column| !column.is_empty());
    let address = columns.next()?;
    let Some(function) = columns.next() else {
        return address.starts_with("0x").then(|| frame(address));
    };
    let (name, _) = function.rsplit_once("+0x")?;
    let (file, line) = file_and_line(columns.next()?)?;
    Some(Frame {
        function: name.to_owned(),
        file: Some(file.to_owned()),
        line: Some(line),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_profile_tells_counts_labels_and_frames() {
        let text = "goroutine profile: total 1003\n\
                    1000 @ 0x43d8ae 0x40c5a5 0x4a5d26 0x46e4a1\n\
                    # labels: {\"k\":\"v\", \"path\":\"/a b\"}\n\
                    #\t0x4a5d25\tmain.wait+0x25\t\t/src/main.go:12\n\
                    #\t0x4a5dff\truntime.main+0x28b\t/go/src/runtime/proc.go:272\n\
                    \n\
                    3 @ 0x10\n\
                    #\t0x10\n\
                    \n";
        assert_eq!(total(text), Some(1003));
        let profile = parse(text);
        assert_eq!(profile.unread_lines, 0);
        assert_eq!(profile.census.total, 1003);
        let [large, small] = profile.census.groups.as_slice() else {
            panic!("{profile:?}");
        };
        assert_eq!(large.members.count(), 1000);
        assert_eq!(large.kind.stack.frames.len(), 1);
        assert_eq!(large.kind.stack.frames[0].function, "main.wait");
        let labels = [("k", "v"), ("path", "/a b")];
        assert_eq!(
            *large.kind.labels,
            labels.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert_eq!(small.kind.stack.frames[0].function, "0x10");
    }

    #[test]
    fn a_profile_of_leaked_goroutines_is_one_too() {
        let text = "goroutineleak profile: total 2\n2 @ 0x10\n#\t0x10\tmain.f+0x1\t/a.go:1\n";
        assert_eq!(parse(text).census.told(), 2);
        assert_eq!(total("heap profile: 1: 16 [2: 32] @ heap/1048576\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(goroutine profile: total |[0-9]{1,3} @|# labels: |\\{\"k\":\"|#\t0x|\t|\n|[a-z(){}:.+# ]{0,8}){0,40}") {
            prop_assert!(parse(&text).unread_lines <= text.lines().count() as u64);
        }
    }
}
