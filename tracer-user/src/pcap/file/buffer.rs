//! The buffer through which a capture passes.

use std::io::{self, Read};

/// What is read at once: large enough that the system call costs nothing, small enough to stay in the
/// second-level cache until its packets are decoded.
const CHUNK: usize = 256 << 10;

/// Bytes of a reader, of which as many as are wanted lie side by side.
pub(super) struct Buffer<R> {
    input: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` lies in the input.
    offset: u64,
    over: bool,
}

impl<R: Read> Buffer<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            bytes: vec![0; CHUNK],
            start: 0,
            end: 0,
            offset: 0,
            over: false,
        }
    }

    /// All bytes at hand, `wanted` at least; fewer only at the end of the input.
    #[inline]
    pub(super) fn have(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.end - self.start < wanted && !self.over {
            self.fill(wanted)?;
        }
        Ok(self.bytes.get(self.start..self.end).unwrap_or_default())
    }

    #[cold]
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        while self.end < wanted {
            let Some(room) = self.bytes.get_mut(self.end..) else {
                break;
            };
            match self.input.read(room) {
                Ok(0) => {
                    self.over = true;
                    break;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The first `length` bytes at hand are done with.
    #[inline]
    pub(super) fn take(&mut self, length: usize) {
        let length = length.min(self.end - self.start);
        self.start += length;
        self.offset += length as u64;
    }

    /// A part of the `taken` bytes that were taken last; it stays valid until more are wanted.
    #[inline]
    pub(super) fn taken(&self, taken: usize, from: usize, length: usize) -> &[u8] {
        let from = self.start.saturating_sub(taken) + from;
        self.bytes.get(from..from + length).unwrap_or_default()
    }

    /// Where the bytes at hand lie in the input.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}
