//! Text from outside (names, paths, errors), made harmless for a terminal and for readers that go by lines.
//!
//! In: any text. Out: one line in which control characters, and those that change the direction of text,
//! are written as escapes.

/// `text` with every character escaped that a terminal would obey.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_direction(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// At most the first `bytes` bytes of `text`, cut between two characters.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Bidirectional controls (Unicode 9.0 UAX #9, section 2), and the separators that some readers take
/// for the end of a line.
fn turns_direction(character: char) -> bool {
    matches!(
        character,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
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
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("abc", 3), "abc");
    }
}
