//! A goroutine snapshot in the text form of Go's own dumps (`debug=2`, `SIGQUIT`).
//!
//! In: a [`Snapshot`]. Out: what `runtime.traceback` would have printed, so that every tool that reads Go
//! dumps reads it. What a snapshot does not know is left out the way Go leaves it out: arguments are
//! `(...)`, as for inlined calls, and an unknown file is `?:0`. A wait is told in whole minutes, and
//! not below one; the exact time is in the recording's events. Labels stand where Go 1.27 writes them.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    time::Duration,
};

use crate::event::{Creation, Frame, Goroutine, Labels, Snapshot};

/// Keys and values.
type Set<'a> = &'a [(String, String)];

/// Writes the whole snapshot in many small pieces: give it an output that buffers.
///
/// # Errors
///
/// What `output` says.
pub fn write(snapshot: &Snapshot, labels: &Labels, output: &mut impl Write) -> io::Result<()> {
    let sets = labels.sets.iter();
    let carried: HashMap<u64, Set<'_>> = sets
        .flat_map(|set| {
            let ids = set.goroutines.iter();
            ids.map(|id| (*id, set.labels.as_slice()))
        })
        .collect();
    let read = snapshot.goroutines.len() as u64;
    if read < snapshot.total {
        // Parsers look for lines that begin with "goroutine ", and pass over others.
        writeln!(
            output,
            "{read} of {} goroutines; reading them was cut short\n",
            snapshot.total
        )?;
    }
    for (number, goroutine) in snapshot.goroutines.iter().enumerate() {
        if number > 0 {
            output.write_all(b"\n")?;
        }
        let labels = carried.get(&goroutine.id).copied();
        write_goroutine(goroutine, labels.unwrap_or_default(), output)?;
    }
    Ok(())
}

fn write_goroutine(
    goroutine: &Goroutine,
    labels: Set<'_>,
    output: &mut impl Write,
) -> io::Result<()> {
    write!(output, "goroutine {} [", goroutine.id)?;
    text(&goroutine.state, output)?;
    if let Some(minutes) = goroutine
        .wait
        .map(whole_minutes)
        .filter(|minutes| *minutes > 0)
    {
        write!(output, ", {minutes} minutes")?;
    }
    output.write_all(b"]")?;
    write_labels(labels, output)?;
    output.write_all(b":\n")?;
    for frame in &goroutine.frames {
        text(&frame.function, output)?;
        output.write_all(b"(...)\n")?;
        write_place(frame, output)?;
    }
    goroutine
        .created_by
        .as_ref()
        .map_or(Ok(()), |creation| write_creation(creation, output))
}

/// ` {k: v, request: "a b"}`.
fn write_labels(labels: Set<'_>, output: &mut impl Write) -> io::Result<()> {
    for (number, (key, value)) in labels.iter().enumerate() {
        output.write_all(if number == 0 { b" {" } else { b", " })?;
        word(key, output)?;
        output.write_all(b": ")?;
        word(value, output)?;
    }
    output.write_all(if labels.is_empty() { b"" } else { b"}" })
}

/// As the runtime prints it, quoted where it is more than letters and digits (`runtime.printquoted`,
/// `tracebackStringNeedsQuoting`).
fn word(word: &str, output: &mut impl Write) -> io::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./_".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return output.write_all(word.as_bytes());
    }
    output.write_all(b"\"")?;
    for c in word.chars() {
        match c {
            '\n' => output.write_all(b"\\n")?,
            '\r' => output.write_all(b"\\r")?,
            '\t' => output.write_all(b"\\t")?,
            '\\' | '"' => write!(output, "\\{c}")?,
            ' '..='~' => write!(output, "{c}")?,
            '\0'..='\x1f' => write!(output, "\\x{:02x}", u32::from(c))?,
            '\x7f'..='\u{ffff}' => write!(output, "\\u{:04x}", u32::from(c))?,
            _ => write!(output, "\\U{:08x}", u32::from(c))?,
        }
    }
    output.write_all(b"\"")
}

fn write_creation(creation: &Creation, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"created by ")?;
    text(&creation.frame.function, output)?;
    if let Some(creator) = creation.goroutine {
        write!(output, " in goroutine {creator}")?;
    }
    output.write_all(b"\n")?;
    write_place(&creation.frame, output)
}

fn write_place(frame: &Frame, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"\t")?;
    text(frame.file.as_deref().unwrap_or("?"), output)?;
    writeln!(output, ":{}", frame.line.unwrap_or(0))
}

fn whole_minutes(wait: Duration) -> u64 {
    wait.as_secs() / 60
}

/// Names come from another process's memory: a line end in one would forge a line of the dump, and an
/// escape sequence would reach the terminal of whoever reads it.
fn text(name: &str, output: &mut impl Write) -> io::Result<()> {
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        write!(output, "{}", WithoutControls(name))
    } else {
        output.write_all(name.as_bytes())
    }
}

struct WithoutControls<'a>(&'a str);

impl fmt::Display for WithoutControls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(|c: char| c.is_ascii_control()) {
            let plain = part.trim_end_matches(|c: char| c.is_ascii_control());
            f.write_str(plain)?;
            if plain.len() < part.len() {
                f.write_str("?")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Labelled, SnapshotSource},
        golang::dump,
    };

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame {
            function: function.to_owned(),
            file: Some(file.to_owned()),
            line: Some(line),
        }
    }

    fn snapshot(goroutines: Vec<Goroutine>, total: u64) -> String {
        labelled(goroutines, total, Labels::default())
    }

    fn labelled(goroutines: Vec<Goroutine>, total: u64, labels: Labels) -> String {
        let mut text = Vec::new();
        let snapshot = Snapshot {
            pid: 2585,
            source: SnapshotSource::Memory,
            goroutines,
            total,
        };
        write(&snapshot, &labels, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_snapshot_reads_as_a_dump_of_go() {
        let main = Goroutine {
            id: 1,
            state: "IO wait".to_owned(),
            wait: Some(Duration::from_secs(179)),
            frames: vec![
                frame(
                    "internal/poll.runtime_pollWait",
                    "/go/src/runtime/netpoll.go",
                    351,
                ),
                Frame {
                    function: "0x4a3b12".to_owned(),
                    ..Frame::default()
                },
            ],
            created_by: None,
        };
        let worker = Goroutine {
            id: 34,
            state: "chan send".to_owned(),
            wait: Some(Duration::from_millis(59_900)),
            frames: vec![frame("main.handle.func1", "/srv/main.go", 12)],
            created_by: Some(Creation {
                frame: frame("main.handle", "/srv/main.go", 11),
                goroutine: Some(1),
            }),
        };
        insta::assert_snapshot!(snapshot(vec![main, worker], 2), @r"
        goroutine 1 [IO wait, 2 minutes]:
        internal/poll.runtime_pollWait(...)
        	/go/src/runtime/netpoll.go:351
        0x4a3b12(...)
        	?:0

        goroutine 34 [chan send]:
        main.handle.func1(...)
        	/srv/main.go:12
        created by main.handle in goroutine 1
        	/srv/main.go:11
        ");
    }

    #[test]
    fn a_snapshot_that_was_cut_short_says_so() {
        let idle = Goroutine {
            id: 7,
            state: "sleep".to_owned(),
            wait: None,
            frames: Vec::new(),
            created_by: None,
        };
        insta::assert_snapshot!(snapshot(vec![idle], 100_000), @r"
        1 of 100000 goroutines; reading them was cut short

        goroutine 7 [sleep]:
        ");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let hostile = Goroutine {
            id: 7,
            state: "sleep]:\nmain.innocent()".to_owned(),
            wait: None,
            frames: vec![frame("\u{1b}[2Jmain.main", "/a\n\tb.go", 1)],
            created_by: None,
        };
        insta::assert_snapshot!(snapshot(vec![hostile], 1), @r"
        goroutine 7 [sleep]:?main.innocent()]:
        ?[2Jmain.main(...)
        	/a??b.go:1
        ");
    }

    #[test]
    fn labels_are_written_as_go_does_and_read_again() {
        let goroutine = Goroutine {
            id: 7,
            state: "select".to_owned(),
            wait: None,
            frames: Vec::new(),
            created_by: None,
        };
        let text = |text: &str| text.to_owned();
        let set = vec![
            (text("k"), text("v.1")),
            (text("request"), text("a \"b]: {c},\n5 minutes…")),
            (text("z"), String::new()),
        ];
        let labels = Labels {
            pid: 2585,
            sets: vec![Labelled {
                labels: set.clone(),
                goroutines: vec![7],
            }],
            unread: 0,
        };
        let other = Goroutine {
            id: 8,
            ..goroutine.clone()
        };
        let written = labelled(vec![goroutine, other], 2, labels);
        insta::assert_snapshot!(written, @r#"
        goroutine 7 [select] {k: v.1, request: "a \"b]: {c},\n5 minutes\u2026", z: ""}:

        goroutine 8 [select]:
        "#);
        let read = dump::parse(written.as_bytes());
        assert_eq!((read.unread_lines, read.census.groups.len()), (0, 2));
        let carried = read.census.groups.iter().map(|group| &group.kind.labels);
        assert!(carried.into_iter().any(|labels| **labels == set));
    }
}
