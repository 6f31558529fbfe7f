//! Goroutine dumps: the text that `runtime.Stack`, a SIGQUIT and `/debug/pprof/goroutine?debug=2` give.
//!
//! In: text of Go 1.21 to 1.27, maybe cut off, maybe with log lines around it. Out: goroutines, and how
//! many lines could not be understood. A goroutine whose header is understood is never left out, in
//! whichever of the many forms it comes:
//!
//! ```text
//! goroutine 7 [chan receive, 3 minutes, locked to thread]:
//! goroutine 7 gp=0xc000002380 m=nil [IO wait]:                          SIGQUIT
//! goroutine 7 [select (durable), synctest bubble 4]:                    synctest
//! goroutine 7 [select labels:{"k": "v"}]:                               1.26, GODEBUG=tracebacklabels=1
//! goroutine 7 [select] {k: v, req: "a b"}:                              1.27
//! ```
//!
//! Kept are the state (with the runtime's `(leaked)` and `(durable)`), the waiting time in whole
//! minutes, the frames that a plain dump shows, and the `go` statement. Labels, bubbles and threads
//! have no place in a [`Goroutine`]; the moment's `(scan)` is no state.

use std::time::Duration;

use super::traceback;
use crate::event::{Creation, Frame, Goroutine};

/// What a dump held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// In the order of the text.
    pub goroutines: Vec<Goroutine>,
    /// Lines inside of goroutines, or that look like their headers, that were not understood. More
    /// than zero means that the dump was cut off or mixed with other output.
    pub unread_lines: u64,
}

/// Reads a dump of goroutines with headers (`debug=2`, `runtime.Stack`, SIGQUIT, a panic).
#[must_use]
pub fn parse(text: &str) -> Dump {
    let mut dump = Dump::default();
    let mut block: Option<Block> = None;
    for line in text.lines() {
        if line.starts_with("goroutine ") {
            dump.goroutines.extend(block.take().map(Block::end));
            match header(line) {
                Some(goroutine) => block = Some(Block::of(goroutine)),
                // The first line of a profile, or prose such as "goroutine running on …".
                None if !line.contains('[') => {}
                None => dump.unread_lines += 1,
            }
        } else if line.is_empty() {
            dump.goroutines.extend(block.take().map(Block::end));
        } else if let Some(block) = &mut block
            && !block.add(line)
        {
            dump.unread_lines += 1;
        }
    }
    dump.goroutines.extend(block.map(Block::end));
    dump
}

/// A goroutine whose lines are being read.
struct Block {
    goroutine: Goroutine,
    /// A function's line was read and its file's line is next.
    awaits_file: bool,
    /// The `go` statement was read; what follows are its ancestors' stacks
    /// (`GODEBUG=tracebackancestors`), which are not this goroutine's.
    is_created: bool,
}

impl Block {
    fn of(goroutine: Goroutine) -> Self {
        Self {
            goroutine,
            awaits_file: false,
            is_created: false,
        }
    }

    /// Takes a line; `false` where it is none of a goroutine's.
    fn add(&mut self, line: &str) -> bool {
        if let Some(place) = line.strip_prefix('\t') {
            return self.add_file(place);
        }
        self.awaits_file = false;
        let goroutine = &mut self.goroutine;
        if line.starts_with("[originating from goroutine ") || is_elision(line) {
            return true;
        }
        if let Some(creator) = line.strip_prefix("created by ") {
            if self.is_created {
                return true;
            }
            self.is_created = true;
            self.awaits_file = true;
            goroutine.created_by = Some(creation(creator));
            return true;
        }
        if let Some(address) = line.strip_prefix("non-Go function at pc=") {
            goroutine.frames.push(frame(&format!("0x{address}")));
            return true;
        }
        match called(line) {
            Some(_) if self.is_created => true,
            Some(function) => {
                goroutine.frames.push(frame(function));
                self.awaits_file = true;
                true
            }
            // A C function, told by a symboliser, has no arguments; its place follows like a Go one's.
            None if !line.contains(' ') && !self.is_created => {
                goroutine.frames.push(frame(line));
                self.awaits_file = true;
                true
            }
            None => false,
        }
    }

    fn add_file(&mut self, place: &str) -> bool {
        if !std::mem::take(&mut self.awaits_file) {
            // "goroutine running on other thread; stack unavailable", or an ancestor's place.
            return self.is_created || place.starts_with("goroutine running on other thread");
        }
        let frame = match &mut self.goroutine.created_by {
            Some(creation) if self.is_created => Some(&mut creation.frame),
            _ => self.goroutine.frames.last_mut(),
        };
        let Some((frame, (file, line))) = frame.zip(file_and_line(place)) else {
            return false;
        };
        frame.file = Some(file.to_owned());
        frame.line = Some(line);
        true
    }

    fn end(self) -> Goroutine {
        let mut goroutine = self.goroutine;
        goroutine.frames = only_shown(goroutine.frames);
        goroutine
    }
}

/// `goroutine 7 gp=… m=… mp=… [state, …]…:`.
fn header(line: &str) -> Option<Goroutine> {
    let rest = line.strip_prefix("goroutine ")?.strip_suffix(':')?;
    let (before, after) = rest.split_once('[')?;
    let mut words = before.split_ascii_whitespace();
    let id = words.next()?.parse().ok()?;
    if !words.all(|word| word.contains('=')) {
        return None;
    }
    // No state has a bracket in it, but label values may.
    let end = after.find(" labels:{").or_else(|| after.find(']'))?;
    let mut parts = after.get(..end)?.split(", ");
    let state = parts.next()?.replacen(" (scan)", "", 1);
    let minutes = parts
        .find_map(|part| part.strip_suffix(" minutes"))
        .and_then(|minutes| minutes.parse::<u64>().ok());
    Some(Goroutine {
        id,
        state,
        wait: minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60))),
        frames: Vec::new(),
        created_by: None,
    })
}

/// `...23 frames elided...`, `...additional frames elided...`.
fn is_elision(line: &str) -> bool {
    line.starts_with("...") && line.ends_with(" frames elided...")
}

/// The function of `main.(*T).method(0xc000012345, {0x1, …})`. Arguments hold no parentheses.
fn called(line: &str) -> Option<&str> {
    let (function, _) = line.strip_suffix(')')?.rsplit_once('(')?;
    match function {
        "" => None,
        // The one function that the runtime prints under another name (runtime.printFuncName).
        "panic" => Some("runtime.gopanic"),
        _ => Some(function),
    }
}

/// `net/http.(*Server).Serve in goroutine 4`; the goroutine is missing for ancestors.
fn creation(creator: &str) -> Creation {
    let (function, goroutine) = match creator.rsplit_once(" in goroutine ") {
        Some((function, id)) => (function, id.parse().ok()),
        None => (creator, None),
    };
    Creation {
        frame: frame(function),
        goroutine,
    }
}

/// `/src/main.go:12 +0x1d`, with more words after it under `GOTRACEBACK=system`.
pub(super) fn file_and_line(place: &str) -> Option<(&str, u32)> {
    let end = [" +0x", " fp=0x", " pc=0x"]
        .iter()
        .filter_map(|mark| place.find(mark))
        .min()
        .unwrap_or(place.len());
    let (file, line) = place.get(..end)?.trim_end().rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

pub(super) fn frame(function: &str) -> Frame {
    Frame {
        function: function.to_owned(),
        ..Frame::default()
    }
}

/// A full dump (SIGQUIT) also tells functions that the compiler generated: method wrappers, and since
/// 1.22 by name the closures around `go` and `defer` statements.
fn is_generated(frame: &Frame) -> bool {
    let closure = frame.function.rsplit('.').next().unwrap_or_default();
    let numbered = ["gowrap", "deferwrap"]
        .iter()
        .find_map(|prefix| closure.strip_prefix(prefix));
    frame.file.as_deref() == Some("<autogenerated>")
        || numbered.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Leaves out what a plain dump would not show, unless that is everything.
pub(super) fn only_shown(frames: Vec<Frame>) -> Vec<Frame> {
    let mut shown: Vec<Frame> = Vec::with_capacity(frames.len());
    for frame in &frames {
        if traceback::shows(&frame.function, shown.is_empty()) && !is_generated(frame) {
            shown.push(frame.clone());
        }
    }
    if shown.is_empty() { frames } else { shown }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(text: &str) -> Goroutine {
        let dump = parse(text);
        assert_eq!(dump.unread_lines, 0, "{text}");
        assert_eq!(dump.goroutines.len(), 1, "{text}");
        dump.goroutines[0].clone()
    }

    #[test]
    fn every_form_of_header_gives_its_goroutine() {
        for (line, id, state, minutes) in [
            ("goroutine 1 [running]:", 1, "running", None),
            (
                "goroutine 7 [chan receive, 3 minutes]:",
                7,
                "chan receive",
                Some(3),
            ),
            (
                "goroutine 7 [syscall, 1204 minutes, locked to thread]:",
                7,
                "syscall",
                Some(1204),
            ),
            (
                "goroutine 7 [select (no cases)]:",
                7,
                "select (no cases)",
                None,
            ),
            (
                "goroutine 7 [chan send (nil chan) (scan), 2 minutes]:",
                7,
                "chan send (nil chan)",
                Some(2),
            ),
            (
                "goroutine 7 [chan receive (leaked)]:",
                7,
                "chan receive (leaked)",
                None,
            ),
            (
                "goroutine 7 [chan receive (leaked) (scan), 9 minutes]:",
                7,
                "chan receive (leaked)",
                Some(9),
            ),
            (
                "goroutine 7 [select (durable), synctest bubble 4]:",
                7,
                "select (durable)",
                None,
            ),
            (
                "goroutine 7 [chan receive (synctest), synctest group 5]:",
                7,
                "chan receive (synctest)",
                None,
            ),
            (
                "goroutine 0 gp=0x5a1c80 m=0 mp=0x5a2a80 [idle]:",
                0,
                "idle",
                None,
            ),
            (
                "goroutine 1 gp=0xc000002380 m=nil [IO wait]:",
                1,
                "IO wait",
                None,
            ),
            (
                r#"goroutine 7 [select labels:{"k": "v]:", "b": "c, 5 minutes"}]:"#,
                7,
                "select",
                None,
            ),
            (
                r#"goroutine 7 [select, 4 minutes labels:{"k": "v"}]:"#,
                7,
                "select",
                Some(4),
            ),
            (
                r#"goroutine 7 [select] {k: v, req: "a [b], 6 minutes"}:"#,
                7,
                "select",
                None,
            ),
            (
                r#"goroutine 7 [IO wait, 8 minutes] {k: v}:"#,
                7,
                "IO wait",
                Some(8),
            ),
        ] {
            let goroutine = only(line);
            assert_eq!(goroutine.id, id, "{line}");
            assert_eq!(goroutine.state, state, "{line}");
            assert_eq!(
                goroutine.wait,
                minutes.map(|minutes| Duration::from_secs(minutes * 60)),
                "{line}"
            );
        }
    }

    #[test]
    fn frames_and_the_go_statement_are_read() {
        let goroutine = only(
            "goroutine 19 [chan receive]:\n\
             main.(*T[...]).wait(0xc00001, {0x1, ...})\n\
             \t/src/a b/main.go:12 +0x1d\n\
             ...23 frames elided...\n\
             main.main.func1(...)\n\
             \t/src/main.go:30\n\
             created by main.main in goroutine 1\n\
             \t/src/main.go:29 +0x55\n",
        );
        let functions: Vec<&str> = goroutine
            .frames
            .iter()
            .map(|frame| frame.function.as_str())
            .collect();
        assert_eq!(functions, ["main.(*T[...]).wait", "main.main.func1"]);
        assert_eq!(
            goroutine.frames[0].file.as_deref(),
            Some("/src/a b/main.go")
        );
        assert_eq!(goroutine.frames[1].line, Some(30));
        let creation = goroutine.created_by.unwrap();
        assert_eq!(creation.frame.function, "main.main");
        assert_eq!(creation.frame.line, Some(29));
        assert_eq!(creation.goroutine, Some(1));
    }

    #[test]
    fn a_sigquit_dump_shows_what_a_plain_one_does() {
        let goroutine = only(
            "goroutine 1 gp=0xc000002380 m=nil [sleep]:\n\
             runtime.gopark(0x1?, 0x2?, 0x3?, 0x4?, 0x5?)\n\
             \t/go/src/runtime/proc.go:425 +0xce fp=0xc0000 sp=0xc0001 pc=0x46\n\
             time.Sleep(0x34630b8a000)\n\
             \t/go/src/runtime/time.go:315 +0xf2 fp=0xc0000 sp=0xc0001 pc=0x46\n\
             main.main()\n\
             \t/src/main.go:7 +0x1d fp=0xc0000 sp=0xc0001 pc=0x46\n\
             runtime.main()\n\
             \t/go/src/runtime/proc.go:272 +0x28b fp=0xc0000 sp=0xc0001 pc=0x46\n",
        );
        let functions: Vec<&str> = goroutine
            .frames
            .iter()
            .map(|frame| frame.function.as_str())
            .collect();
        assert_eq!(functions, ["time.Sleep", "main.main"]);
        assert_eq!(goroutine.frames[0].line, Some(315));
    }

    #[test]
    fn ancestors_are_not_the_goroutines_own_frames() {
        let goroutine = only(
            "goroutine 7 [sleep]:\n\
             time.Sleep(0x3)\n\
             \t/go/src/runtime/time.go:315 +0xf2\n\
             created by main.start\n\
             \t/src/main.go:9 +0x1d\n\
             [originating from goroutine 1]:\n\
             main.start(...)\n\
             \t/src/main.go:9 +0x1d\n\
             created by main.begin\n\
             \t/src/main.go:3 +0x1d\n",
        );
        assert_eq!(goroutine.frames.len(), 1);
        let creation = goroutine.created_by.unwrap();
        assert_eq!(creation.frame.function, "main.start");
        assert_eq!(creation.goroutine, None);
    }

    #[test]
    fn c_frames_and_missing_stacks_are_understood() {
        let goroutine = only(
            "goroutine 7 [running]:\n\
             \tgoroutine running on other thread; stack unavailable\n\
             created by main.main in goroutine 1\n\
             \t/src/main.go:9 +0x1d\n",
        );
        assert!(goroutine.frames.is_empty());
        let goroutine = only(
            "goroutine 7 [syscall]:\n\
             non-Go function at pc=0x7f01\n\
             sleep_in_c\n\
             \t/src/c.c:4 pc=0x7f02\n\
             main.main()\n\
             \t/src/main.go:9 +0x1d\n",
        );
        assert_eq!(goroutine.frames.len(), 3 - 1, "{goroutine:?}");
    }

    #[test]
    fn what_is_cut_off_or_mixed_in_is_counted() {
        let dump = parse(
            "2026/11/21 a log line\n\
             goroutine 7 [sleep]:\n\
             time.Sleep(0x3)\n\
             2026/11/21 12:00:00 a log line in between\n\
             \n\
             goroutine 8 [chan rec",
        );
        assert_eq!(dump.goroutines.len(), 1);
        assert_eq!(dump.unread_lines, 2);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(goroutine [0-9]{1,3} \\[|\\]:\n|, [0-9]+ minutes|created by |\t|\n|[a-z(){}:.+ ]{0,8}){0,40}") {
            prop_assert!(parse(&text).unread_lines <= text.lines().count() as u64);
        }
    }
}
