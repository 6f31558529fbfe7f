//! A file of goroutines in whichever form, compressed or not; most of all pprof's own form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::{
    event::SnapshotSource,
    golang::{proto, saved},
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(census) = proto::parse(bytes) {
        let snapshot = census.snapshot(1, SnapshotSource::Pprof, 1_000);
        assert!(snapshot.goroutines.len() <= 1_000);
    }
    let _ = saved::read(bytes);
});
