//! `debug=1` of a service that may say anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::golang::profile;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    profile::total(&text);
    profile::parse(&text);
});
