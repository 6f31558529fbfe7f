//! A file that ends at a whole block, whatever happens to it.
//!
//! In: blocks, each whole. Out: the same bytes, in few large writes. When the disk is full, the block
//! that was cut is taken back, so that what is on disk can be read. After the first failure nothing is
//! written any more.

use std::{
    fs::File,
    io::{self, Write},
};

/// Enough that a busy capture makes a few system calls a second, not thousands.
const CAPACITY: usize = 256 * 1024;

/// What blocks are written to.
pub(super) trait Medium: Write {
    /// Cuts off everything behind the first `length` bytes.
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

impl Medium for File {
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

pub(super) struct WholeBlocks<M: Medium> {
    medium: M,
    /// Bytes on the medium.
    written: u64,
    /// Whole blocks that are not on the medium yet, and where in `pending` each ends.
    pending: Vec<u8>,
    ends: Vec<usize>,
    failed: Option<io::ErrorKind>,
}

impl<M: Medium> WholeBlocks<M> {
    /// Begins at the start of an empty medium.
    pub(super) fn new(medium: M) -> Self {
        Self {
            medium,
            written: 0,
            pending: Vec::with_capacity(CAPACITY),
            ends: Vec::new(),
            failed: None,
        }
    }

    /// Takes one block, told in parts.
    pub(super) fn block(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.pending.len() + length > CAPACITY {
            self.write_pending()?;
        }
        self.usable()?;
        for part in parts {
            self.pending.extend_from_slice(part);
        }
        self.ends.push(self.pending.len());
        Ok(())
    }

    /// Hands every block to the medium.
    pub(super) fn write_pending(&mut self) -> io::Result<()> {
        self.usable()?;
        let (taken, outcome) = write_until_error(&mut self.medium, &self.pending);
        match &outcome {
            Ok(()) => self.written += taken as u64,
            Err(error) => {
                self.failed = Some(error.kind());
                self.take_back(taken);
            }
        }
        self.ends.clear();
        self.pending.clear();
        self.pending.shrink_to(CAPACITY);
        outcome
    }

    pub(super) fn medium(&self) -> &M {
        &self.medium
    }

    /// After a failure: keeps the blocks that are whole within the first `taken` pending bytes.
    fn take_back(&mut self, taken: usize) {
        let whole = self.ends.iter().rev().find(|end| **end <= taken);
        self.written += whole.map_or(0, |end| *end as u64);
        // To give room back does not fail for want of room; should it fail otherwise, readers stop at the
        // cut block by its length and checksum.
        let _ = self.medium.set_length(self.written);
    }

    fn usable(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// As `write_all`, but says how many bytes were taken.
fn write_until_error(medium: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match medium.write(rest) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => taken += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

/// Each write is one block.
impl<M: Medium> Write for WholeBlocks<M> {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        self.block(&[block])?;
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_pending()
    }
}

/// A capture that ends early keeps what it had.
impl<M: Medium> Drop for WholeBlocks<M> {
    fn drop(&mut self) {
        let _ = self.write_pending();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// Memory with room for so many bytes, that can be looked at while it is written.
    #[derive(Clone)]
    pub(in crate::recording) struct Room {
        pub(in crate::recording) bytes: Rc<RefCell<Vec<u8>>>,
        size: usize,
    }

    impl Room {
        pub(in crate::recording) fn of(size: usize) -> Self {
            Self {
                bytes: Rc::default(),
                size,
            }
        }
    }

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = self.bytes.borrow_mut();
            let fits = bytes.len().min(self.size - kept.len());
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            kept.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Medium for Room {
        fn set_length(&mut self, length: u64) -> io::Result<()> {
            self.bytes.borrow_mut().truncate(length.try_into().unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_full_medium_ends_at_a_whole_block() {
        for size in 0..35 {
            let room = Room::of(size);
            let mut file = WholeBlocks::new(room.clone());
            file.block(&[&[1; 5]]).unwrap();
            file.write_pending()
                .map_or_else(|_| assert!(size < 5), |()| assert!(size >= 5));
            let _ = file.block(&[&[2; 4], &[2; 6]]);
            let _ = file.block(&[&[3; 20]]);
            let outcome = file.write_pending();
            assert_eq!(outcome.is_ok(), size >= 35);
            let whole = [0, 5, 15].into_iter().rfind(|end| *end <= size).unwrap();
            assert_eq!(room.bytes.borrow().len(), whole, "room for {size} bytes");
        }
    }

    #[test]
    fn nothing_is_written_after_a_failure() {
        let room = Room::of(8);
        let mut file = WholeBlocks::new(room.clone());
        file.block(&[&[1; 6]]).unwrap();
        file.block(&[&[2; 6]]).unwrap();
        assert!(file.write_pending().is_err());
        assert_eq!(
            file.block(&[&[3; 1]]).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        drop(file);
        assert_eq!(*room.bytes.borrow(), [1; 6]);
    }

    #[test]
    fn what_was_pending_is_written_when_the_file_is_dropped() {
        let room = Room::of(8);
        WholeBlocks::new(room.clone()).block(&[&[1; 6]]).unwrap();
        assert_eq!(*room.bytes.borrow(), [1; 6]);
    }

    #[test]
    fn a_block_larger_than_the_buffer_goes_through() {
        let room = Room::of(usize::MAX);
        let mut file = WholeBlocks::new(room.clone());
        file.block(&[&[1; 6]]).unwrap();
        file.block(&[&[2; 2 * CAPACITY]]).unwrap();
        file.write_pending().unwrap();
        assert_eq!(room.bytes.borrow().len(), 6 + 2 * CAPACITY);
    }
}
