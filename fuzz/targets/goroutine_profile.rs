//! `debug=1` of a service that may say anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::{event::SnapshotSource, golang::profile};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    profile::total(&text);
    let profile = profile::parse(&text);
    // Whatever number it claims, no more are made of it than asked for.
    let snapshot = profile.census.snapshot(1, SnapshotSource::Pprof, 1_000);
    assert!(snapshot.goroutines.len() <= 1_000);
});
