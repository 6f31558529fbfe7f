//! Lines on a page: indented, wrapped at spaces, coloured where asked for.
//!
//! Whatever comes from outside (names, paths, errors) passes through here, so control characters and
//! those that change the direction of text are written as escapes and never reach a terminal.

use std::io::{self, Write};

/// How a page looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With colours (ANSI escapes).
    pub colour: bool,
    /// Columns to wrap at.
    pub width: usize,
}

impl Default for Style {
    /// No colours, 100 columns.
    fn default() -> Self {
        Self {
            colour: false,
            width: 100,
        }
    }
}

/// Narrower than this, wrapping makes text unreadable.
const NARROWEST: usize = 40;

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
}

impl Ink {
    /// The parameters of its SGR escape (ECMA-48 8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Red => Some("1;31"),
            Self::Yellow => Some("1;33"),
            Self::Green => Some("1;32"),
        }
    }
}

/// A page being written.
pub(super) struct Page<'w, W> {
    out: &'w mut W,
    style: Style,
}

impl<'w, W: Write> Page<'w, W> {
    pub(super) fn new(out: &'w mut W, style: Style) -> Self {
        Self { out, style }
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// A paragraph, all of its lines indented alike.
    pub(super) fn text(&mut self, indent: usize, ink: Ink, text: &str) -> io::Result<()> {
        self.hanging(indent, "", ink, text)
    }

    /// A paragraph after `label`, whose further lines stand under its first word.
    pub(super) fn hanging(
        &mut self,
        indent: usize,
        label: &str,
        ink: Ink,
        text: &str,
    ) -> io::Result<()> {
        let label = clean(label);
        let hang = indent + label.chars().count();
        let room = self
            .style
            .width
            .max(NARROWEST)
            .saturating_sub(hang)
            .max(NARROWEST / 2);
        for (number, line) in wrap(&clean(text), room).iter().enumerate() {
            if number == 0 {
                write!(self.out, "{:indent$}{label}", "")?;
            } else {
                write!(self.out, "{:hang$}", "")?;
            }
            self.paint(ink, line)?;
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// A line that is never wrapped, for it is to be copied.
    pub(super) fn verbatim(&mut self, indent: usize, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:indent$}{}", "", clean(text))
    }

    fn paint(&mut self, ink: Ink, text: &str) -> io::Result<()> {
        match ink.code().filter(|_| self.style.colour) {
            Some(code) => write!(self.out, "\x1b[{code}m{text}\x1b[0m"),
            None => self.out.write_all(text.as_bytes()),
        }
    }
}

/// Breaks `text` at spaces into lines of at most `room` characters; a longer word has its own line.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let needed = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && needed > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// `text` with every character escaped that a terminal would obey.
fn clean(text: &str) -> String {
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

/// Bidirectional controls (Unicode 9.0 UAX #9, section 2).
fn turns_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_stay_whole() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a unbreakable b", 5), ["a", "unbreakable", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            clean("evil\x1b[2J\nname\u{202e}"),
            "evil\\u{1b}[2J\\nname\\u{202e}"
        );
        assert_eq!(clean("plain äöü"), "plain äöü");
    }

    #[test]
    fn further_lines_stand_under_the_first_word() {
        let mut out = Vec::new();
        let style = Style {
            colour: false,
            width: 40,
        };
        Page::new(&mut out, style)
            .hanging(
                2,
                "label  ",
                Ink::Plain,
                "words that are more than fit into forty columns",
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "  label  words that are more than fit\n         into forty columns\n"
        );
    }
}
