//! A capture written anew: the same packets, with comments, and with entries of a journal between them.
//!
//! In: the blocks of a capture that [`super::Blocks`] reads. Out: blocks. Who calls says what goes where;
//! here it is only put into bytes. Texts are to be one line each.

use std::io::{self, Write};

use super::{
    block::{Block, Kind},
    option,
    read::{self, CapturedPacket},
};

/// Writes a capture from parts of another one.
pub struct Rewriter<W: Write> {
    output: W,
    block: Block,
}

impl<W: Write> Rewriter<W> {
    /// Writes to `output`; give it one that buffers.
    pub fn new(output: W) -> Self {
        Self {
            output,
            block: Block::default(),
        }
    }

    /// A block as it is.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn copy(&mut self, block: &read::Block<'_>) -> io::Result<()> {
        self.output.write_all(block.bytes)
    }

    /// A packet, with these comments in the place of any it had.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn packet<'c>(
        &mut self,
        packet: &CapturedPacket<'_>,
        comments: impl Iterator<Item = &'c str>,
    ) -> io::Result<()> {
        self.block
            .begin(Kind::EnhancedPacket)
            .padded(packet.before_options);
        for comment in comments {
            self.block.text(option::COMMENT, comment);
        }
        for (code, value) in packet.options_but_comments() {
            self.block.option(code, value);
        }
        self.block.end_of_options();
        self.output.write_all(self.block.seal())
    }

    /// An entry of a journal, `at` so many microseconds since 1970: fields by their name.
    ///
    /// Its form is [systemd's](https://systemd.io/JOURNAL_EXPORT_FORMATS/), as the block of pcapng wants it.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn entry<'f>(
        &mut self,
        at: u64,
        fields: impl Iterator<Item = (&'f str, &'f str)>,
    ) -> io::Result<()> {
        let mut entry = format!("__REALTIME_TIMESTAMP={at}\n");
        for (name, value) in fields {
            entry.extend([name, "=", value, "\n"]);
        }
        // An empty line ends it.
        entry.push('\n');
        self.block
            .begin(Kind::SystemdJournal)
            .padded(entry.as_bytes());
        self.output.write_all(self.block.seal())
    }

    /// The output.
    pub fn into_output(self) -> W {
        self.output
    }
}
