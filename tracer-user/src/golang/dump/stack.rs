//! The lines of a goroutine below its heading.
//!
//! In two steps, since goroutines share stacks: [`outline`] says at once what a line is and what of it
//! is the same for every goroutine on that stack (no arguments, no addresses); [`parse`] makes frames
//! of the lines of a stack that was not seen before.

use super::super::{census::Stack, traceback};
use crate::event::Frame;

/// What a line is; with what all goroutines on the same stack have of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A function, without its arguments.
    Function(&'a [u8]),
    /// File and line, without the offset.
    Place(&'a [u8]),
    /// The function that holds the `go` statement, and the goroutine that ran it.
    Creation(&'a [u8], Option<u64>),
    /// Nothing that is kept: frames left out, a stack that could not be had.
    Remark,
    /// What follows are the stacks of those that started it, and are not its own.
    Ancestors,
    /// A thread's registers, with which a dump ends where the runtime itself gave up.
    Register,
    /// No line of a goroutine.
    Foreign,
}

/// Marks a line of an outline as the function of the `go` statement.
const CREATION: u8 = b'\r';
/// Marks one as a place.
const PLACE: u8 = b'\t';

#[inline]
pub(super) fn outline(line: &[u8]) -> Line<'_> {
    match line {
        [b'\t', place @ ..] => {
            if place.starts_with(b"goroutine running on other thread") {
                return Line::Remark;
            }
            Line::Place(place_alone(place))
        }
        [.., b')'] if !line.starts_with(b"created by ") => match memchr::memrchr(b'(', line) {
            Some(open) if open > 0 => Line::Function(line.get(..open).unwrap_or_default()),
            _ => Line::Foreign,
        },
        _ => seldom(line),
    }
}

fn seldom(line: &[u8]) -> Line<'_> {
    if let Some(creator) = line.strip_prefix(b"created by ") {
        return creation(creator);
    }
    if line.starts_with(b"[originating from goroutine ") {
        return Line::Ancestors;
    }
    if line.starts_with(b"...") && line.ends_with(b" frames elided...") {
        return Line::Remark;
    }
    // A C function has no arguments: `sleep_in_c`, or where no symboliser was set its address.
    if line.starts_with(b"non-Go function") || !line.contains(&b' ') {
        return Line::Function(line);
    }
    if is_register(line) {
        return Line::Register;
    }
    Line::Foreign
}

/// `rax    0xfffffffffffffffc` (`runtime.dumpregs`).
fn is_register(line: &[u8]) -> bool {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let name = words
        .next()
        .is_some_and(|name| name.len() <= 6 && name.is_ascii());
    let value = words.next().is_some_and(|value| value.starts_with(b"0x"));
    name && value && words.next().is_none()
}

/// `net/http.(*Server).Serve in goroutine 4`; the goroutine is missing for ancestors.
fn creation(creator: &[u8]) -> Line<'_> {
    const IN: &[u8] = b" in goroutine ";
    let known = memchr::memmem::rfind(creator, IN).and_then(|at| {
        let id = creator.get(at + IN.len()..)?;
        let id = std::str::from_utf8(id).ok()?.parse().ok()?;
        Some(Line::Creation(creator.get(..at)?, Some(id)))
    });
    known.unwrap_or(Line::Creation(creator, None))
}

/// `/src/main.go:12` of `/src/main.go:12 +0x1d`, with ` fp=0x… sp=0x… pc=0x…` behind it in a full dump.
#[inline]
fn place_alone(place: &[u8]) -> &[u8] {
    let Some(last) = memchr::memrchr(b' ', place) else {
        return place;
    };
    let end = match place.get(last..) {
        Some([b' ', b'+', b'0', b'x', ..]) => last,
        _ => [&b" +0x"[..], b" fp=0x", b" pc=0x"]
            .iter()
            .filter_map(|mark| memchr::memmem::find(place, mark))
            .min()
            .unwrap_or(place.len()),
    };
    place.get(..end).unwrap_or(place)
}

/// Adds a line to the outline of a stack.
#[inline]
pub(super) fn add(outline: &mut Vec<u8>, line: Line<'_>) {
    let text = match line {
        Line::Function(name) => name,
        Line::Place(place) => {
            outline.push(PLACE);
            place
        }
        Line::Creation(name, _) => {
            outline.push(CREATION);
            name
        }
        Line::Remark | Line::Ancestors | Line::Register | Line::Foreign => return,
    };
    outline.extend_from_slice(text);
    outline.push(b'\n');
}

/// The stack of an outline, as a plain dump would show it, and how many of its lines were not
/// understood.
pub(super) fn parse(outline: &[u8]) -> (Stack, u64) {
    let text = String::from_utf8_lossy(outline);
    let mut stack = Stack::default();
    let mut unread = 0;
    // What a place is the place of: nothing, the last frame, or the `go` statement.
    let mut places: Option<bool> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(place) = line.strip_prefix('\t') {
            let frame = match places.take() {
                Some(true) => stack.created_by.as_mut(),
                Some(false) => stack.frames.last_mut(),
                None => None,
            };
            match frame.zip(file_and_line(place)) {
                Some((frame, (file, line))) => {
                    frame.file = Some(file.to_owned());
                    frame.line = Some(line);
                }
                // A C function whose file the symboliser does not know.
                None if place.starts_with("pc=0x") => {}
                None => unread += 1,
            }
        } else if let Some(creator) = line.strip_prefix('\r') {
            stack.created_by = Some(frame(creator));
            places = Some(true);
        } else {
            let has_place = lines.peek().is_some_and(|next| next.starts_with('\t'));
            match called(line, has_place) {
                Some(function) => {
                    stack.frames.push(frame(&function));
                    places = Some(false);
                }
                None => unread += 1,
            }
        }
    }
    stack.frames = only_shown(stack.frames);
    (stack, unread)
}

/// The name of a function; `None` where it can be none.
fn called(name: &str, has_place: bool) -> Option<String> {
    if let Some(address) = name.strip_prefix("non-Go function at pc=") {
        return Some(address.to_owned());
    }
    match name {
        // The one function that the runtime prints under another name (runtime.printFuncName).
        "panic" => Some("runtime.gopanic".to_owned()),
        // What a symboliser does not know.
        "non-Go function" => Some(name.to_owned()),
        // Every other function of Go has a package; one of C is told with a place.
        _ if name.contains(' ') || !(has_place || name.contains('.')) => None,
        _ => Some(name.to_owned()),
    }
}

/// `/src/main.go:12`, maybe with ` +0x1d` and more words after it.
pub(in super::super) fn file_and_line(place: &str) -> Option<(&str, u32)> {
    let alone = place_alone(place.as_bytes()).len();
    let (file, line) = place.get(..alone)?.trim_end().rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

pub(in super::super) fn frame(function: &str) -> Frame {
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
pub(in super::super) fn only_shown(frames: Vec<Frame>) -> Vec<Frame> {
    let mut shown: Vec<Frame> = Vec::with_capacity(frames.len());
    for frame in &frames {
        if traceback::shows(&frame.function, shown.is_empty()) && !is_generated(frame) {
            shown.push(frame.clone());
        }
    }
    if shown.is_empty() { frames } else { shown }
}
