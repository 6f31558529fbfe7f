//! What stands around the lines of a dump that came through a log.
//!
//! A prefix before every line (journald, Kubernetes, docker compose, a logger's time):
//!
//! ```text
//! Nov 21 11:00:00 edge-1 shop[77]: goroutine 7 [select]:
//! 2026-11-21T11:00:00.123456789Z stderr F goroutine 7 [select]:
//! shop-1  | goroutine 7 [select]:
//! ```
//!
//! or JSON: docker's `{"log":"goroutine 7 [select]:\n",…}`, a line each; a logger's
//! `{"stacktrace":"goroutine 7 [select]:\nmain.work(…",…}`, a whole dump in one.

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;

use super::heading;

/// How deep in a logger's JSON a dump is looked for.
const DEEPEST: usize = 4;

/// Finds headings that do not begin their line.
#[derive(Debug)]
pub(super) struct Headings(Finder<'static>);

impl Default for Headings {
    fn default() -> Self {
        Self(Finder::new("goroutine "))
    }
}

impl Headings {
    /// Where in `line` something begins that looks like a heading.
    pub(super) fn find(&self, line: &[u8]) -> Option<usize> {
        self.0.find_iter(line).find(|at| {
            line.get(*at..)
                .is_some_and(|rest| heading::split(rest).is_some())
        })
    }

    /// Whether there may be one in `line`.
    pub(super) fn may_be_in(&self, line: &[u8]) -> bool {
        self.0.find(line).is_some()
    }
}

/// What stands before each line: the same on each, but for its numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prefix(Vec<u8>);

impl Prefix {
    /// `text` stands before a heading; `None` where nothing does.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_vec()))
    }

    /// What follows the prefix in `line`; `None` where it begins otherwise.
    pub(super) fn strip<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let mut prefix = self.0.as_slice();
        let mut rest = line;
        while let Some((expected, after)) = prefix.split_first() {
            if expected.is_ascii_digit() {
                prefix = after_number(prefix);
                let behind = after_number(rest);
                if behind.len() == rest.len() {
                    return None;
                }
                rest = behind;
            } else {
                match rest.split_first() {
                    Some((found, behind)) if found == expected => rest = behind,
                    // An empty line may have lost the space at its end.
                    None if prefix == b" " => return Some(rest),
                    _ => return None,
                }
                prefix = after;
            }
        }
        Some(rest)
    }
}

/// Fractions of seconds come in any length.
fn after_number(text: &[u8]) -> &[u8] {
    let number = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
    let length = text.iter().take_while(number).count();
    text.get(length..).unwrap_or_default()
}

/// A line of docker's `json-file` driver.
#[derive(Deserialize)]
struct Docker {
    log: String,
}

/// The line that docker wrapped.
pub(super) fn docker(line: &[u8]) -> Option<String> {
    let wrapped = line.starts_with(br#"{"log":""#);
    let mut text = wrapped
        .then(|| serde_json::from_slice::<Docker>(line))?
        .ok()?
        .log;
    if text.ends_with('\n') {
        text.pop();
    }
    Some(text)
}

/// The dumps in the fields of a line that a logger wrote.
pub(super) fn fields(line: &[u8]) -> Vec<String> {
    let mut dumps = Vec::new();
    if line.starts_with(b"{")
        && let Ok(value) = serde_json::from_slice(line)
    {
        collect(value, DEEPEST, &mut dumps);
    }
    dumps
}

fn collect(value: Value, depth: usize, dumps: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("goroutine ") => dumps.push(text),
        Value::Array(values) if depth > 0 => {
            values
                .into_iter()
                .for_each(|value| collect(value, depth - 1, dumps));
        }
        Value::Object(values) if depth > 0 => {
            values
                .into_iter()
                .for_each(|(_, value)| collect(value, depth - 1, dumps));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_known_again_whatever_its_numbers() {
        for (prefix, line, rest) in [
            (
                "Nov 21 11:59:59 edge shop[77]: ",
                "Nov 21 12:00:00 edge shop[77]: \t/a.go:1",
                Some("\t/a.go:1"),
            ),
            (
                "Nov 21 11:59:59 edge shop[77]: ",
                "Nov 21 12:00:00 edge shop[77]:",
                Some(""),
            ),
            (
                "Nov 21 11:59:59 edge shop[77]: ",
                "Nov 21 12:00:00 edge cron[78]: x",
                None,
            ),
            (
                "2026-11-21T11:00:00.12Z stderr F ",
                "2026-11-21T11:00:00.123456Z stderr F a()",
                Some("a()"),
            ),
            (
                "2026-11-21T11:00:00.12Z stderr F ",
                "2026-11-21T11:00:00Z stderr F a()",
                Some("a()"),
            ),
            (
                "2026-11-21T11:00:00.12Z stderr F ",
                "2026-11-21T11:00:00.2Z stdout F a()",
                None,
            ),
            ("shop-1  | ", "shop-1  | main.f()", Some("main.f()")),
        ] {
            let stripped = Prefix::of(prefix.as_bytes()).unwrap();
            let stripped = stripped.strip(line.as_bytes());
            assert_eq!(stripped, rest.map(str::as_bytes), "{prefix}{line}");
        }
    }

    #[test]
    fn json_is_unwrapped() {
        let line = br#"{"log":"\u0009/a.go:1 +0x1d\n","stream":"stderr","time":"2026"}"#;
        assert_eq!(docker(line).as_deref(), Some("\t/a.go:1 +0x1d"));
        assert_eq!(docker(br#"{"msg":"x"}"#), None);
        let line = br#"{"level":"error","error":{"stack":"goroutine 7 [running]:\nmain.f()"}}"#;
        assert_eq!(fields(line), ["goroutine 7 [running]:\nmain.f()"]);
        assert!(fields(b"{cut").is_empty());
    }
}
