//! The first line of a goroutine in a dump (`runtime.goroutineheader`, `src/runtime/traceback.go`).

use std::{sync::Arc, time::Duration};

/// What the brackets say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heading {
    pub(super) state: String,
    pub(super) wait: Option<Duration>,
    pub(super) locked: bool,
    /// It says more than is understood.
    pub(super) says_more: bool,
    pub(super) labels: Arc<Vec<(String, String)>>,
}

/// The id, and the rest from the bracket on, of `goroutine 7 gp=… m=… mp=… [state, …]…:`.
#[inline]
pub(super) fn split(line: &[u8]) -> Option<(u64, &[u8])> {
    let rest = line.strip_prefix(b"goroutine ")?;
    let digits = rest.iter().take_while(|digit| digit.is_ascii_digit());
    let digits = digits.count();
    let id = std::str::from_utf8(rest.get(..digits)?).ok()?;
    let id = id.parse().ok()?;
    let rest = rest.get(digits..)?;
    if let Some(bracket) = rest
        .strip_prefix(b" ")
        .filter(|rest| rest.starts_with(b"["))
    {
        return Some((id, bracket));
    }
    let bracket = memchr::memchr(b'[', rest)?;
    let (words, bracket) = rest.split_at_checked(bracket)?;
    let mut words = words
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    words
        .all(|word| word.contains(&b'='))
        .then_some((id, bracket))
}

/// What stands in and behind the brackets, from `[` to `:`.
pub(super) fn parse(text: &str) -> Option<Heading> {
    let inner = text.strip_prefix('[')?.strip_suffix(':')?;
    // No state has a bracket in it, but label values may.
    let (inside, labels) = match (inner.find(" labels:{"), inner.find(']')) {
        (Some(at), Some(end)) if at < end => {
            let labels = inner.get(at + " labels:".len()..)?.strip_suffix(']')?;
            (inner.get(..at)?, labels)
        }
        (_, end) => (inner.get(..end?)?, inner.get(end? + 1..)?.trim_start()),
    };
    let mut heading = Heading {
        labels: Arc::new(if labels.is_empty() {
            Vec::new()
        } else {
            parse_labels(labels)?
        }),
        ..Heading::default()
    };
    for (place, part) in inside.split(", ").enumerate() {
        if place == 0 {
            heading.state = part.replacen(" (scan)", "", 1);
        } else if let Some(minutes) = part.strip_suffix(" minutes") {
            let minutes: u64 = minutes.parse().ok()?;
            heading.wait = Some(Duration::from_secs(minutes.saturating_mul(60)));
        } else if part == "locked to thread" {
            heading.locked = true;
        } else if !is_bubble(part) {
            heading.says_more = true;
        }
    }
    Some(heading)
}

/// `synctest bubble 4`, up to 1.24 `synctest group 4`: who else is in it makes no difference to what a
/// goroutine does.
fn is_bubble(part: &str) -> bool {
    let number = part
        .strip_prefix("synctest bubble ")
        .or_else(|| part.strip_prefix("synctest group "));
    number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// `{"k": "v"}` of 1.26, `{k: v, req: "a b"}` of 1.27, `{"k":"v"}` of profiles; in the order of keys.
pub(in super::super) fn parse_labels(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.strip_prefix('{')?;
    let mut labels = Vec::new();
    if rest.trim_end() == "}" {
        return Some(labels);
    }
    loop {
        let (key, after) = word(rest, &[':'])?;
        let after = after.strip_prefix(':')?.trim_start();
        let (value, after) = word(after, &[',', '}'])?;
        labels.push((key, value));
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => {
                labels.sort();
                return (after.trim_end() == "}").then_some(labels);
            }
        }
    }
}

/// A word as Go prints it, quoted or not, and what follows it.
fn word<'a>(text: &'a str, ends: &[char]) -> Option<(String, &'a str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(ends)?;
        return Some((text.get(..end)?.to_owned(), text.get(end..)?));
    };
    let mut word = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return Some((word, rest.as_str())),
            '\\' => word.push(escaped(&mut rest)?),
            plain => word.push(plain),
        }
    }
}

/// What stands behind a backslash (`strconv.Quote`).
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match rest.next()? {
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\x0b'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        itself => return Some(itself),
    };
    let number = rest.as_str().get(..digits)?;
    let number = u32::from_str_radix(number, 16).ok()?;
    rest.nth(digits - 1)?;
    Some(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_heading_is_read() {
        for (line, id, state, minutes, locked) in [
            ("goroutine 1 [running]:", 1, "running", None, false),
            (
                "goroutine 7 [chan receive, 3 minutes]:",
                7,
                "chan receive",
                Some(3),
                false,
            ),
            (
                "goroutine 7 [syscall, 1204 minutes, locked to thread]:",
                7,
                "syscall",
                Some(1204),
                true,
            ),
            (
                "goroutine 7 [select (no cases)]:",
                7,
                "select (no cases)",
                None,
                false,
            ),
            (
                "goroutine 7 [chan send (nil chan) (scan), 2 minutes]:",
                7,
                "chan send (nil chan)",
                Some(2),
                false,
            ),
            (
                "goroutine 7 [chan receive (leaked) (scan), 9 minutes]:",
                7,
                "chan receive (leaked)",
                Some(9),
                false,
            ),
            (
                "goroutine 7 [select (durable), synctest bubble 4]:",
                7,
                "select (durable)",
                None,
                false,
            ),
            (
                "goroutine 7 [chan receive (synctest), synctest group 5]:",
                7,
                "chan receive (synctest)",
                None,
                false,
            ),
            (
                "goroutine 1 gp=0xc000002380 m=nil [IO wait]:",
                1,
                "IO wait",
                None,
                false,
            ),
            (
                "goroutine 1 gp=0xc0 m=3 mp=0xc1 [GC worker (idle)]:",
                1,
                "GC worker (idle)",
                None,
                false,
            ),
        ] {
            let (found, rest) = split(line.as_bytes()).unwrap();
            let heading = parse(std::str::from_utf8(rest).unwrap()).unwrap();
            assert_eq!(found, id, "{line}");
            assert_eq!(heading.state, state, "{line}");
            assert_eq!(heading.locked, locked, "{line}");
            let wait = minutes.map(|minutes| Duration::from_secs(minutes * 60));
            assert_eq!(heading.wait, wait, "{line}");
            assert!(heading.labels.is_empty(), "{line}");
            assert!(!heading.says_more, "{line}");
        }
        let newer = parse("[select, on a hot plate]:").unwrap();
        assert_eq!((newer.state.as_str(), newer.says_more), ("select", true));
    }

    #[test]
    fn labels_are_read_inside_the_brackets_and_behind_them() {
        for (text, state, minutes, labels) in [
            (
                r#"[select labels:{"k": "v]:", "b": "c, 5 minutes"}]:"#,
                "select",
                None,
                [("b", "c, 5 minutes"), ("k", "v]:")],
            ),
            (
                r#"[select, 4 minutes labels:{"k": "v", "l": "\u00e9\n\x41"}]:"#,
                "select",
                Some(4),
                [("k", "v"), ("l", "é\nA")],
            ),
            (
                r#"[select] {k: v, req: "a [b], 6 minutes"}:"#,
                "select",
                None,
                [("k", "v"), ("req", "a [b], 6 minutes")],
            ),
            (
                r#"[IO wait, 8 minutes] {a: "labels:{", b: ""}:"#,
                "IO wait",
                Some(8),
                [("a", "labels:{"), ("b", "")],
            ),
        ] {
            let heading = parse(text).unwrap();
            assert_eq!(heading.state, state, "{text}");
            let wait = minutes.map(|minutes: u64| Duration::from_secs(minutes * 60));
            assert_eq!(heading.wait, wait, "{text}");
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(*heading.labels, labels, "{text}");
        }
    }

    #[test]
    fn what_is_cut_or_no_heading_is_refused() {
        for text in [
            "[chan rec",
            "[select",
            "[select] {k: v",
            "[select] {k: v:",
            "[a labels:{]:",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for line in [
            "goroutine profile: total 3",
            "goroutine x [y]:",
            "goroutine 7 or so [y]:",
        ] {
            assert_eq!(split(line.as_bytes()), None, "{line}");
        }
    }
}
