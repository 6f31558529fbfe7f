//! Another process's memory, read without stopping it.
//!
//! In: addresses. Out: bytes, or that an address cannot be read. Many small reads go to the kernel in
//! one call (`process_vm_readv(2)`), which is what makes a hundred thousand goroutines readable in
//! well under a second. Nothing here makes the process wait; so what is read may be in the middle of a
//! change, and whoever reads it has to tell.
//!
//! Whoever reads takes any [`Memory`]: what a process may hold to mislead its reader is made up in tests
//! and when fuzzing.

use std::{io::IoSliceMut, time::Duration};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
};

use super::GoError;
use crate::event::Pid;

/// How many ranges the kernel takes in one call (`UIO_MAXIOV`).
pub(super) const BATCH: usize = 1024;

/// The memory of one process, or what a test makes of one.
pub(super) trait Memory: Send + Sync {
    /// Whose it is.
    fn pid(&self) -> Pid;

    /// Reads every range it can, and marks it so.
    fn read_each(&self, wants: &mut [Want<'_>]) -> Result<(), GoError>;

    /// Lets it go on for that long.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Fills `buffer` from `address` on.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), GoError> {
        let mut wants = [Want::new(address, buffer)];
        self.read_each(&mut wants)?;
        let [want] = wants;
        if want.read {
            Ok(())
        } else {
            Err(GoError::Memory {
                pid: self.pid(),
                address,
                errno: Errno::EFAULT,
            })
        }
    }

    /// The 8-byte word at `address`.
    fn word(&self, address: u64) -> Result<u64, GoError> {
        let mut word = [0; 8];
        self.read(address, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Reads 8-byte words from many places at once; `None` where there is no memory.
    fn words(&self, addresses: &[u64]) -> Result<Vec<Option<u64>>, GoError> {
        let mut bytes = vec![0; addresses.len() * 8];
        let mut wants: Vec<Want<'_>> = addresses
            .iter()
            .zip(bytes.chunks_mut(8))
            .map(|(address, buffer)| Want::new(*address, buffer))
            .collect();
        self.read_each(&mut wants)?;
        Ok(wants
            .iter()
            .map(|want| {
                let word = want.buffer.first_chunk::<8>().filter(|_| want.read)?;
                Some(u64::from_le_bytes(*word))
            })
            .collect())
    }
}

/// The memory of a process that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessMemory {
    pid: Pid,
}

/// A range that is wanted.
#[derive(Debug)]
pub(super) struct Want<'a> {
    /// Where it begins.
    pub address: u64,
    /// Filled with it.
    pub buffer: &'a mut [u8],
    /// Set when `buffer` was filled; otherwise (part of) the range is not mapped.
    pub read: bool,
}

impl<'a> Want<'a> {
    pub(super) fn new(address: u64, buffer: &'a mut [u8]) -> Self {
        Self {
            address,
            buffer,
            read: false,
        }
    }
}

impl ProcessMemory {
    pub(super) fn of(pid: Pid) -> Self {
        Self { pid }
    }

    /// Reads ranges until one fails; how many were read whole.
    fn read_run(&self, wants: &mut [Want<'_>]) -> Result<usize, GoError> {
        let remote: Vec<RemoteIoVec> = wants
            .iter()
            .map(|want| RemoteIoVec {
                base: usize::try_from(want.address).unwrap_or(usize::MAX),
                len: want.buffer.len(),
            })
            .collect();
        let mut local: Vec<IoSliceMut<'_>> = wants
            .iter_mut()
            .map(|want| IoSliceMut::new(want.buffer))
            .collect();
        let pid = nix::unistd::Pid::from_raw(self.pid.cast_signed());
        match process_vm_readv(pid, &mut local, &remote) {
            Ok(read) => Ok(remote
                .iter()
                .scan(0, |end, range| {
                    *end += range.len;
                    Some(*end)
                })
                .take_while(|end| *end <= read)
                .count()),
            Err(Errno::EFAULT | Errno::EINVAL | Errno::ENOMEM) => Ok(0),
            Err(Errno::ESRCH) => Err(GoError::Gone { pid: self.pid }),
            Err(errno) => Err(GoError::Memory {
                pid: self.pid,
                address: wants.first().map_or(0, |want| want.address),
                errno,
            }),
        }
    }
}

impl Memory for ProcessMemory {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn read_each(&self, wants: &mut [Want<'_>]) -> Result<(), GoError> {
        for batch in wants.chunks_mut(BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let whole = self.read_run(rest)?;
                let (done, left) = rest.split_at_mut(whole);
                for want in done {
                    want.read = true;
                }
                // The kernel stopped in the range after these: it stays unread.
                rest = left.get_mut(1..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading our own memory takes the same way as reading another's.
    #[test]
    fn an_unmapped_range_does_not_hide_its_neighbours() {
        let memory = ProcessMemory::of(std::process::id());
        let values = [7_u64, 9];
        let at = |index: usize| std::ptr::from_ref(&values[index]) as u64;
        let (mut first, mut hole, mut second) = ([0; 8], [0; 8], [0; 8]);
        let mut wants = [
            Want::new(at(0), &mut first),
            Want::new(8, &mut hole),
            Want::new(at(1), &mut second),
        ];
        memory.read_each(&mut wants).unwrap();
        assert_eq!(wants.each_ref().map(|want| want.read), [true, false, true]);
        assert_eq!(
            (u64::from_le_bytes(first), u64::from_le_bytes(second)),
            (7, 9)
        );
        assert!(matches!(
            memory.word(8),
            Err(GoError::Memory {
                address: 8,
                errno: Errno::EFAULT,
                ..
            })
        ));
    }
}
