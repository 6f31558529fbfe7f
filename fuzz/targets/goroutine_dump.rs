//! Dumps come from files and from services, mixed with whatever else was logged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::golang::dump;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let dump = dump::parse(&text);
    // A goroutine takes a header of a dozen bytes at least.
    assert!(dump.goroutines.len() <= bytes.len() / 12);
});
