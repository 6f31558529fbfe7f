//! Goroutine profiles: the text that `/debug/pprof/goroutine?debug=1` gives.
//!
//! In: text of Go 1.21 to 1.27. Out: how many goroutines share each stack, and how many lines could not
//! be understood. A profile tells no ids, states or waiting times, but costs the service far less than
//! a [dump](super::dump).

use super::dump::{file_and_line, frame, only_shown};
use crate::event::Frame;

/// A profile that has no ids, only how many goroutines share a stack (`debug=1`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// How many goroutines there are.
    pub total: u64,
    /// Largest first.
    pub groups: Vec<Group>,
    /// Lines that were not understood.
    pub unread_lines: u64,
}

/// Goroutines with the same stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// Reads a goroutine profile as text (`debug=1`).
#[must_use]
pub fn parse(text: &str) -> Profile {
    let mut profile = Profile {
        total: total(text).unwrap_or_default(),
        ..Profile::default()
    };
    let tells_nothing = |line: &&str| {
        line.is_empty() || line.starts_with("# labels:") || line.starts_with("goroutine profile:")
    };
    for line in text.lines().filter(|line| !tells_nothing(line)) {
        if let Some(columns) = line.strip_prefix('#') {
            let frame = call(columns);
            match (profile.groups.last_mut(), frame) {
                (Some(group), Some(frame)) => group.frames.push(frame),
                _ => profile.unread_lines += 1,
            }
        } else if let Some(count) = line
            .split_once(" @")
            .and_then(|(count, _)| count.parse().ok())
        {
            profile.groups.push(Group {
                count,
                frames: Vec::new(),
            });
        } else {
            profile.unread_lines += 1;
        }
    }
    for group in &mut profile.groups {
        group.frames = only_shown(std::mem::take(&mut group.frames));
    }
    profile
}

/// The count in a profile's first line, which is all that is needed to know what a dump would cost.
#[must_use]
pub fn total(text: &str) -> Option<u64> {
    text.lines()
        .next()?
        .strip_prefix("goroutine profile: total ")?
        .trim()
        .parse()
        .ok()
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
    fn a_profile_tells_counts_and_frames() {
        let text = "goroutine profile: total 1003\n\
                    1000 @ 0x43d8ae 0x40c5a5 0x4a5d26 0x46e4a1\n\
                    # labels: {\"k\":\"v\"}\n\
                    #\t0x4a5d25\tmain.wait+0x25\t\t/src/main.go:12\n\
                    #\t0x4a5dff\truntime.main+0x28b\t/go/src/runtime/proc.go:272\n\
                    \n\
                    3 @ 0x10\n\
                    #\t0x10\n\
                    \n";
        assert_eq!(total(text), Some(1003));
        let profile = parse(text);
        assert_eq!(profile.unread_lines, 0);
        assert_eq!(profile.total, 1003);
        assert_eq!(profile.groups.len(), 2);
        assert_eq!(profile.groups[0].count, 1000);
        assert_eq!(profile.groups[0].frames.len(), 1);
        assert_eq!(profile.groups[0].frames[0].function, "main.wait");
        assert_eq!(profile.groups[1].frames[0].function, "0x10");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(goroutine profile: total |[0-9]{1,3} @|# labels:|#\t0x|\t|\n|[a-z(){}:.+# ]{0,8}){0,40}") {
            prop_assert!(parse(&text).unread_lines <= text.lines().count() as u64);
        }
    }
}
