//! Dumps come from files and from services, mixed with whatever else was logged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::{event::SnapshotSource, golang::dump};

fuzz_target!(|bytes: &[u8]| {
    let dump = dump::parse(bytes);
    // A goroutine takes a heading of a dozen bytes at least.
    assert!(dump.census.told() <= bytes.len() as u64 / 12);
    assert_eq!(dump.census.ids().len() as u64, dump.census.told());
    let snapshot = dump.census.snapshot(1, SnapshotSource::File, usize::MAX);
    assert_eq!(snapshot.goroutines.len() as u64, dump.census.told());
    // However it comes, it is the same.
    let (start, end) = bytes.split_at(bytes.len() / 3);
    let parts = std::io::Read::chain(start, end);
    assert_eq!(dump::read(parts).unwrap(), dump);
});
