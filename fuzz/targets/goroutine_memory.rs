//! The memory of a process that wants to mislead its reader: `gs`, wait queues, labels and stacks that point at
//! each other in every wrong way, and change while they are read.
#![no_main]

use std::{cell::RefCell, env, fs};

use libfuzzer_sys::fuzz_target;
use tracer_user::golang::made_up::Started;

thread_local! {
    /// `cargo xtask fuzz` builds it.
    static STARTED: RefCell<Started> = {
        let path = env::var("GOPULSE_FUZZ_PROGRAM").expect("GOPULSE_FUZZ_PROGRAM names a Go program");
        let bytes = fs::read(path).expect("it can be read");
        RefCell::new(Started::of(bytes).expect("it is a Go program"))
    };
}

fuzz_target!(|script: &[u8]| {
    STARTED.with_borrow_mut(|started| {
        let Ok((reading, blocking)) = started.read(script) else {
            return;
        };
        assert!(reading.snapshot.goroutines.len() <= 128);
        for goroutine in &reading.snapshot.goroutines {
            assert!(goroutine.frames.len() <= 128 * 64);
        }
        for set in &reading.labels.sets {
            assert!(set.labels.len() <= 64);
            assert!(set.labels.iter().all(|(key, value)| key.len().max(value.len()) <= 3 * 256 + 3));
        }
        assert!(blocking.at_channels.iter().all(|at| at.channels.len() <= 8));
    });
});
