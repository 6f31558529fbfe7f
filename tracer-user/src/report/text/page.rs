//! Lines on a page: indented, wrapped at spaces, coloured where asked for.
//!
//! Whatever comes from outside (names, paths, errors) passes through here, so control characters and
//! those that change the direction of text are written as escapes and never reach a terminal.

use std::io::{self, Write};

use crate::plain::clean;

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

/// Holds two words on one line.
pub(super) const NO_BREAK: char = '\u{a0}';

/// Breaks `text` at spaces into lines of at most `room` characters; a longer word has its own line.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let breaks = |character: char| character.is_whitespace() && character != NO_BREAK;
    for word in text.split(breaks).filter(|word| !word.is_empty()) {
        let needed = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && needed > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word.replace(NO_BREAK, " "));
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_stay_whole() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a unbreakable b", 5), ["a", "unbreakable", "b"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("one (frame\u{a0}2)", 10), ["one", "(frame 2)"]);
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
