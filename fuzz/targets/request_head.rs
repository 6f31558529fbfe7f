//! What a client may send as the head of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::http;

fuzz_target!(|bytes: &[u8]| {
    let Some(head) = http::parse(bytes) else {
        return;
    };
    // Nothing but what is kept, and never a query.
    assert!(!head.path.contains(['?', '#']));
    assert!(head.path.chars().count() <= 256);
    assert!(head.traceparent.is_none_or(|value| value.len() <= 64));
});
