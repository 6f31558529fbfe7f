//! An executable that is not what Go wrote: a small ELF file with debug information as it comes, or, where the
//! input is none, a Go program with some of its bytes changed.
#![no_main]

use std::{cell::LazyCell, env, fs};

use libfuzzer_sys::fuzz_target;
use tracer_user::golang::made_up;

thread_local! {
    /// `cargo xtask fuzz` builds it.
    static PROGRAM: LazyCell<Vec<u8>> = LazyCell::new(|| {
        let path = env::var("GOPULSE_FUZZ_PROGRAM").expect("GOPULSE_FUZZ_PROGRAM names a Go program");
        fs::read(path).expect("it can be read")
    });
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"\x7fELF") {
        made_up::executable(bytes.to_vec());
        return;
    }
    let mut program = PROGRAM.with(|program| (**program).clone());
    let (changes, _) = bytes.as_chunks::<5>();
    for [a, b, c, d, value] in changes {
        let at = u32::from_le_bytes([*a, *b, *c, *d]) as usize % program.len();
        program[at] = *value;
    }
    // 64 addresses, each with as many inlined calls as are followed.
    assert!(made_up::executable(program) <= 64 * 64);
});
