//! Goroutines from a file that somebody saved: a dump (`debug=2`, SIGQUIT, a panic in a log) or a
//! profile (`debug=1`, or pprof's own form), compressed or not, told apart by what is in it.

use std::{
    fmt,
    io::{self, Read},
};

use flate2::read::MultiGzDecoder;

use super::{
    census::Census,
    dump, profile,
    proto::{self, ProtoError},
};
use crate::event::{Pid, Snapshot, SnapshotSource};

/// Goroutines kept of one file, where they are told one by one.
const MOST: usize = 200_000;
/// A larger profile is none: the runtime's have a few kilobytes for each distinct stack.
const LARGEST_PROFILE: u64 = 256 << 20;
/// The beginning that tells what a file is.
const BEGINNING: u64 = 64;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Its goroutines.
    pub census: Census,
    /// What it is.
    pub form: Form,
    /// Lines that look like a goroutine's and were not understood.
    pub unread_lines: u64,
    /// The first of them, counted from 1, where the form has such.
    pub first_unread: Option<u64>,
    /// It ends in the middle of a goroutine.
    pub cut: bool,
}

/// What a file of goroutines is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With ids, states and waiting times (`debug=2`).
    Dump,
    /// As text (`debug=1`).
    Profile,
    /// As pprof writes it (`debug=0`).
    Proto,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dump => "dump",
            Self::Profile => "profile",
            Self::Proto => "pprof profile",
        })
    }
}

/// Why a file tells no goroutines.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// There is none in it.
    #[error("it has no goroutine in it")]
    Empty,
    /// A profile of something else.
    #[error(transparent)]
    Proto(#[from] ProtoError),
    /// A profile that is far too large.
    #[error("it is larger than any goroutine profile ({} MiB)", LARGEST_PROFILE >> 20)]
    TooLarge,
}

impl Saved {
    /// The goroutines one by one, as those of `pid`.
    #[must_use]
    pub fn snapshot(&self, pid: Pid) -> Snapshot {
        self.census.snapshot(pid, SnapshotSource::File, MOST)
    }
}

/// Reads goroutines in whichever form they come.
///
/// # Errors
///
/// It cannot be read, or has none in it.
pub fn read(input: impl Read) -> Result<Saved, SavedError> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    let (beginning, input) = look(input)?;
    if beginning.starts_with(GZIP) {
        let (beginning, input) = look(MultiGzDecoder::new(input))?;
        read_plain(&beginning, input)
    } else {
        read_plain(&beginning, input)
    }
}

/// The beginning of `input`, and all of it again.
fn look(mut input: impl Read) -> io::Result<(Vec<u8>, impl Read)> {
    let mut beginning = Vec::new();
    input.by_ref().take(BEGINNING).read_to_end(&mut beginning)?;
    Ok((beginning.clone(), io::Cursor::new(beginning).chain(input)))
}

fn read_plain(beginning: &[u8], input: impl Read) -> Result<Saved, SavedError> {
    // The runtime writes the period's type first (field 11), other tools that of the first sample (field
    // 1), which are messages of a few bytes. But a text may begin with an empty line, too.
    let saved = if let [0x5a | 0x0a, 0..0x20, ..] = beginning {
        let bytes = whole(input)?;
        match proto::parse(&bytes) {
            Ok(census) => Saved {
                census,
                form: Form::Proto,
                unread_lines: 0,
                first_unread: None,
                cut: false,
            },
            Err(error) => {
                let dump = of_dump(dump::parse(&bytes));
                if dump.census.told() == 0 {
                    return Err(error.into());
                }
                dump
            }
        }
    } else if profile::total(&String::from_utf8_lossy(beginning)).is_some() {
        let profile = profile::parse(&String::from_utf8_lossy(&whole(input)?));
        Saved {
            census: profile.census,
            form: Form::Profile,
            unread_lines: profile.unread_lines,
            first_unread: None,
            cut: false,
        }
    } else {
        of_dump(dump::read(input)?)
    };
    if saved.census.told() == 0 {
        return Err(SavedError::Empty);
    }
    Ok(saved)
}

fn of_dump(dump: dump::Dump) -> Saved {
    Saved {
        census: dump.census,
        form: Form::Dump,
        unread_lines: dump.unread_lines,
        first_unread: dump.first_unread,
        cut: dump.cut,
    }
}

fn whole(input: impl Read) -> Result<Vec<u8>, SavedError> {
    let mut bytes = Vec::new();
    input.take(LARGEST_PROFILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_PROFILE {
        return Err(SavedError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{super::census::Group, *};

    #[test]
    fn the_forms_are_told_apart_by_themselves() {
        let dump = "\nSIGQUIT: quit\n\ngoroutine 7 [sleep]:\nmain.wait()\n\t/src/main.go:1 +0x1\n";
        let profile =
            "goroutine profile: total 3\n3 @ 0x10\n#\t0x10\tmain.wait+0x1\t/src/main.go:1\n";
        for (text, form, goroutines) in [(dump, Form::Dump, 1), (profile, Form::Profile, 3)] {
            let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            zipped.write_all(text.as_bytes()).unwrap();
            for bytes in [text.as_bytes().to_vec(), zipped.finish().unwrap()] {
                let saved = read(bytes.as_slice()).unwrap();
                assert_eq!((saved.form, saved.unread_lines), (form, 0));
                let snapshot = saved.snapshot(7);
                assert_eq!(snapshot.goroutines.len(), goroutines);
                assert_eq!(snapshot.goroutines[0].frames[0].function, "main.wait");
            }
        }
    }

    /// What `testdata/crowd` left, built by each of these: dumps by a panic, by SIGQUIT at the level
    /// `crash`, with ancestors, and profiles in both forms.
    const MINORS: [&str; 7] = ["1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27"];
    /// What `runtime.NumGoroutine` counted in it.
    const COUNTED: u64 = 74;

    fn left(minor: &str, name: &str) -> Saved {
        left_in(&format!("crowd/go{minor}/{name}"))
    }

    fn left_in(path: &str) -> Saved {
        let path = format!(
            "{}/src/golang/testdata/{path}.gz",
            env!("CARGO_MANIFEST_DIR")
        );
        read(std::fs::File::open(&path).unwrap()).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn count(census: &Census, counts: impl Fn(&Group) -> bool) -> u64 {
        let groups = census.groups.iter().filter(|group| counts(group));
        groups.map(|group| group.members.count()).sum()
    }

    #[test]
    fn what_programs_of_each_minor_left_holds_as_many_goroutines_as_the_runtime_counted() {
        for minor in MINORS {
            for (name, form) in [
                ("panic.txt", Form::Dump),
                ("ancestors.txt", Form::Dump),
                ("debug1.txt", Form::Profile),
                ("debug0.pb", Form::Proto),
            ] {
                let saved = left(minor, name);
                assert_eq!(
                    (saved.form, saved.unread_lines),
                    (form, 0),
                    "{minor} {name}"
                );
                assert_eq!(saved.census.told(), COUNTED, "{minor} {name}");
                assert_eq!(saved.census.repeated(), 0, "{minor} {name}");
            }
        }
    }

    #[test]
    fn a_full_dump_also_tells_the_runtimes_own_goroutines() {
        for minor in MINORS {
            let saved = left(minor, "quit.txt");
            assert_eq!(saved.unread_lines, 0, "{minor}");
            let is_own = |group: &Group| {
                let creator = group.kind.stack.created_by.as_ref();
                creator.is_some_and(|creator| creator.function.starts_with("runtime."))
            };
            let others = count(&saved.census, |group| !is_own(group));
            assert_eq!(others, COUNTED, "{minor}");
            assert!(count(&saved.census, is_own) > 2, "{minor}");
        }
    }

    #[test]
    fn dumps_and_profiles_of_one_moment_tell_the_same_stacks_and_labels() {
        for minor in MINORS {
            let named = |name: &str, function: &str| {
                count(&left(minor, name).census, |group| {
                    let frames = &group.kind.stack.frames;
                    frames.iter().any(|frame| frame.function == function)
                })
            };
            for (function, goroutines) in [("main.(*store).save", 40), ("main.deep", 3)] {
                for name in ["panic.txt", "quit.txt", "debug1.txt", "debug0.pb"] {
                    assert_eq!(
                        named(name, function),
                        goroutines,
                        "{minor} {name} {function}"
                    );
                }
            }
            let labelled = |name: &str| {
                count(&left(minor, name).census, |group| {
                    let labels = group.kind.labels.iter();
                    labels.eq([
                        &("k".to_owned(), "v1".to_owned()),
                        &("req".to_owned(), "a [b]: \"c\", 5 minutes".to_owned()),
                    ])
                })
            };
            assert_eq!(labelled("debug1.txt"), 2, "{minor}");
            assert_eq!(labelled("debug0.pb"), 2, "{minor}");
            let dumped = if minor < "1.26" { 0 } else { 2 };
            assert_eq!(labelled("panic.txt"), dumped, "{minor}");
            assert_eq!(labelled("quit.txt"), dumped, "{minor}");
        }
    }

    /// What `testdata/bubbles` left: a plain dump, and how many goroutines the runtime counted in it.
    #[test]
    fn goroutines_in_bubbles_are_told_with_those_outside() {
        for (minor, counted, state) in [
            ("1.24", 25, "chan receive (synctest)"),
            ("1.25", 27, "chan receive (durable)"),
            ("1.26", 27, "chan receive (durable)"),
            ("1.27", 27, "chan receive (durable)"),
        ] {
            let saved = left_in(&format!("bubbles/go{minor}.txt"));
            assert_eq!((saved.unread_lines, saved.cut), (0, false), "{minor}");
            assert_eq!(saved.census.told(), counted, "{minor}");
            // Both bubbles' make one group: eight wait for the same.
            let largest = &saved.census.groups[0];
            assert_eq!(largest.kind.state, state, "{minor}");
            assert_eq!(largest.members.count(), 8, "{minor}");
        }
    }

    #[test]
    fn text_without_a_goroutine_is_told_so() {
        for text in [
            "404 page not found\n",
            "",
            "\n",
            "goroutine profile: total 0\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
