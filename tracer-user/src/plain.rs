//! Text from outside (names, paths, errors), made harmless for a terminal and for readers that go by lines.
//!
//! In: any text. Out: one line in which control characters, and those that change the direction of text,
//! are written as escapes.

mod json;

use std::fs;

pub use json::write_json;

/// `text` with every character escaped that a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// A message of ours of several lines, each of them [clean].
#[must_use]
pub fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(clean).collect();
    lines.join("\n")
}

/// A file of the kernel's, as text; `None` where it cannot be read. Names in it are whatever bytes somebody
/// chose: a process's is cut after fifteen of them, also within a character.
#[must_use]
pub fn read(path: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// At most the first `bytes` bytes of `text`, cut between two characters.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Whether a terminal would do something else than to show it: the control characters (C0, DEL, and C1, which
/// begin sequences as well as ESC does), and what turns the direction of text.
fn is_obeyed(character: char) -> bool {
    character.is_control() || turns_direction(character)
}

/// Bidirectional controls (Unicode 9.0 UAX #9, section 2), and the separators that some readers take
/// for the end of a line.
fn turns_direction(character: char) -> bool {
    matches!(
        character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            clean("evil\x1b[2J\nname\u{202e}"),
            "evil\\u{1b}[2J\\nname\\u{202e}"
        );
        assert_eq!(clean("plain äöü"), "plain äöü");
        // C1 controls begin sequences as well as ESC does.
        assert_eq!(clean("\u{9b}31m\u{7f}\r"), "\\u{9b}31m\\u{7f}\\r");
    }

    #[test]
    fn a_message_keeps_its_lines() {
        assert_eq!(clean_lines("one\x1b[2J\n  two"), "one\\u{1b}[2J\n  two");
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 3), "abc");
    }
}
