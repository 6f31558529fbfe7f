//! Memory that was made up to mislead its reader.

use std::time::Instant;

use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::golang::made_up::Started;

/// Nothing that 128 KiB hold takes longer, also on a busy machine.
const SOON: std::time::Duration = std::time::Duration::from_secs(20);

fn started(go: &Go) -> Started {
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(go.build(directory.path(), PLAIN)).unwrap();
    Started::of(bytes).unwrap()
}

/// Reads what `script` makes; whatever that is, it is bounded.
fn read(started: &mut Started, script: &[u8]) -> bool {
    let began = Instant::now();
    let result = started.read(script);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let Ok((reading, blocking)) = &result else {
        return false;
    };
    assert!(reading.snapshot.goroutines.len() <= 128);
    for goroutine in &reading.snapshot.goroutines {
        assert!(goroutine.frames.len() <= stack::DEEPEST * 64);
    }
    assert!(reading.labels.sets.iter().all(|set| set.labels.len() <= 64));
    assert!(blocking.at_channels.iter().all(|at| at.channels.len() <= 8));
    true
}

#[test]
fn no_memory_makes_the_reader_panic_or_go_on_for_ever() {
    for go in toolchains() {
        let started = std::cell::RefCell::new(started(&go));
        let understood = std::cell::Cell::new(0);
        let script = proptest::collection::vec(proptest::num::u8::ANY, 0..2_000);
        let mut runner = TestRunner::new(Config {
            cases: 500,
            failure_persistence: None,
            ..Config::default()
        });
        let result = runner.run(&script, |script| {
            let told = read(&mut started.borrow_mut(), &script);
            understood.set(understood.get() + u32::from(told));
            Ok(())
        });
        result.unwrap();
        // Scripts spoil a little of what would be right; not all of them all of it.
        assert!(understood.get() > 50, "{understood:?}");
    }
}
