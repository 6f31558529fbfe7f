//! Channels and locks, as the runtime's wait queues name them.

use super::*;
use crate::event::{Blocking, Lock, Snapshot};

fn ids<'s>(snapshot: &'s Snapshot, function: &'s str, state: &'s str) -> Vec<u64> {
    let is_there = |goroutine: &&Goroutine| {
        let mut frames = goroutine.frames.iter();
        goroutine.state == state && frames.any(|frame| frame.function == function)
    };
    let there = snapshot.goroutines.iter().filter(is_there);
    there.map(|goroutine| goroutine.id).collect()
}

fn channels<'b>(blocking: &'b Blocking, id: &u64) -> &'b [u64] {
    let mut at = blocking.at_channels.iter();
    &at.find(|at| at.goroutine == *id).unwrap().channels
}

#[test]
fn who_waits_at_the_same_channel_is_told_and_who_will_be_woken_by_a_timer() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let (reading, blocking) = memory::read_with_blocking(&program, usize::MAX).unwrap();
            let snapshot = reading.snapshot;
            let receive = ids(&snapshot, "main.receive", "chan receive");
            assert!(receive.len() > 4, "{name}");
            let never = channels(&blocking, &receive[0]);
            assert_eq!(never.len(), 1, "{name}");
            for id in &receive {
                assert_eq!(channels(&blocking, id), never, "{name}");
            }
            for id in ids(&snapshot, "main.channel.send", "chan send") {
                assert_ne!(channels(&blocking, &id), never, "{name}");
            }
            let selects = blocking
                .at_channels
                .iter()
                .filter(|at| at.channels.len() == 2);
            let timed: Vec<bool> = selects
                .filter(|at| at.channels.contains(&never[0]))
                .map(|at| at.timed)
                .collect();
            assert_eq!(timed, [program.minor >= Some(23)], "{name}");
        });
    }
}

#[test]
fn a_lock_is_told_with_who_waits_for_it_and_who_knows_it() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let (reading, blocking) = memory::read_with_blocking(&program, usize::MAX).unwrap();
            let snapshot = reading.snapshot;
            let holder = ids(&snapshot, "main.(*ledger).hold", "chan receive");
            let of = |waiter: u64| {
                let mut locks = blocking.locks.iter();
                let lock = locks.find(|lock| lock.waiters.contains(&waiter));
                lock.unwrap_or_else(|| panic!("{name}: {waiter} in {:?}", blocking.locks))
            };
            let counts = ids(&snapshot, "main.(*ledger).count", "sync.Mutex.Lock");
            let lock = of(counts[0]);
            assert_eq!(lock.waiters.len(), 2, "{name}");
            assert_eq!(lock.held, Some(true), "{name}");
            // So does the one that waits for another part of the same.
            let known_to = |lock: &Lock| lock.known_to.contains(&holder[0]);
            assert!(known_to(lock), "{name}: {holder:?} in {lock:?}");
            let reads = ids(&snapshot, "main.(*ledger).read", "sync.RWMutex.RLock");
            let pages = of(reads[0]);
            // Its one waiter may keep no pointer that its holder keeps too, so nothing is said of that.
            assert_eq!((pages.waiters.len(), pages.held), (1, None), "{name}");
            for receiver in ids(&snapshot, "main.deep", "chan receive") {
                assert!(!lock.known_to.contains(&receiver), "{name}");
            }
            assert_eq!(blocking.locks.len(), 3, "{name}: {:?}", blocking.locks);
        });
    }
}
