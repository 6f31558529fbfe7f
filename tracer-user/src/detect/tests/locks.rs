//! Queues for locks, and goroutines that wait for each other.

use crate::{
    event::{Goroutine, Lock},
    model::story::{Asked, Story, frame, goroutine},
};

use super::*;

const LOCKS: &str = "main.(*ledger).update /srv/ledger/ledger.go:20";
const LATER: &str = "main.(*ledger).update /srv/ledger/ledger.go:23";
const SECOND: &str = "main.(*ledger).update /srv/ledger/ledger.go:21";
const SERVES: &str = "net/http.(*conn).serve /go/src/net/http/server.go:2100";

fn at_lock(id: u64, line: &str) -> Goroutine {
    let lock = [
        "internal/sync.(*Mutex).lockSlow",
        "sync.(*Mutex).Lock",
        line,
        SERVES,
    ];
    goroutine(id, "sync.Mutex.Lock", &lock)
}

fn lock(address: u64, waiters: &[u64], known_to: &[u64]) -> Lock {
    Lock {
        address,
        held: Some(true),
        waiters: waiters.to_vec(),
        known_to: known_to.to_vec(),
    }
}

fn ledger() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "ledger");
    story
}

/// Five looks: eight others queue in each, behind one that has the lock.
fn queue(story: &mut Story, holder: &str, state: &str) {
    for second in 0..5_u64 {
        let at = second as f64 * 1000.0 + 100.0;
        let ids: Vec<u64> = (100 + 8 * second..108 + 8 * second).collect();
        let mut all: Vec<Goroutine> = ids.iter().map(|id| at_lock(*id, LOCKS)).collect();
        all.push(goroutine(50 + second, state, &[holder, SERVES]));
        story.goroutines(at, UPSTREAM, all);
        story.blocking(at, UPSTREAM, vec![], vec![lock(8, &ids, &[50 + second])]);
    }
}

/// Their requests: each takes so long.
fn requests(story: &mut Story, took: f64) {
    for second in 0..5_u16 {
        for nth in 0..8 {
            let client = format!("10.0.0.9:{}", 40_000 + 8 * second + nth);
            let socket = story.accepted(0.0, UPSTREAM, &client, UPSTREAM_ADDRESS);
            let began = f64::from(second) * 1000.0 + 90.0;
            let id = 100 + u64::from(8 * second + nth);
            let asked = Asked::at(began, 80).by(UPSTREAM, id);
            story.http(socket, 0, "GET /update", asked.answered(began + took, 200));
        }
    }
}

#[test]
fn a_lock_that_is_held_over_a_slow_call_is_told_with_who_holds_it() {
    let mut story = ledger();
    queue(&mut story, LATER, "IO wait");
    requests(&mut story, 900.0);
    let findings = found(&mut story);
    let found = only(&findings, Rule::LockContention);
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.count, 40);
    assert_eq!(found.code, Some(frame(LATER)));
    assert_eq!(
        found.goroutines[0].attribution,
        crate::event::Attribution::Inferred
    );
    assert!(found.explanation.contains("likely"), "{found:?}");
    assert!(
        found.explanation.contains("waits for the network"),
        "{found:?}"
    );
    assert_eq!(findings.len(), 1, "{:?}", rules(&findings));
}

#[test]
fn a_busy_lock_harms_nobody_who_is_answered_in_time() {
    let mut story = ledger();
    queue(&mut story, LATER, "running");
    requests(&mut story, 30.0);
    assert_eq!(rules(&found(&mut story)), []);
}

#[test]
fn a_holder_in_another_method_is_known_by_the_address() {
    let mut story = ledger();
    queue(
        &mut story,
        "main.(*ledger).save /srv/ledger/save.go:9",
        "sleep",
    );
    requests(&mut story, 900.0);
    let findings = found(&mut story);
    let told = only(&findings, Rule::LockContention);
    assert!(told.explanation.contains("save.go:9"), "{told:?}");

    let mut story = ledger();
    queue(
        &mut story,
        "main.unconcerned /srv/ledger/main.go:9",
        "sleep",
    );
    requests(&mut story, 900.0);
    let findings = found(&mut story);
    let told = only(&findings, Rule::LockContention);
    assert!(!told.explanation.contains("likely"), "{told:?}");
    assert_eq!(told.code, Some(frame(LOCKS)));
}

/// Looks at two locks, at each of which one waits that has the other, and somebody behind them.
fn opposite(story: &mut Story, looks: u64, more: impl Fn(u64) -> Option<Goroutine>) {
    for second in 0..looks {
        let at = second as f64 * 1000.0 + 100.0;
        let mut all = vec![
            at_lock(1, SECOND),
            at_lock(2, SECOND),
            at_lock(3, LOCKS),
            at_lock(4, LOCKS),
        ];
        let extra = more(second);
        let knowing: Vec<u64> = extra.iter().map(|other| other.id).collect();
        all.extend(extra);
        story.goroutines(at, UPSTREAM, all);
        let first = lock(8, &[2, 3], &[&[1], knowing.as_slice()].concat());
        let second = lock(16, &[1, 4], &[2]);
        story.blocking(at, UPSTREAM, vec![], vec![first, second]);
    }
}

#[test]
fn two_locks_in_opposite_order_are_a_deadlock() {
    let mut story = ledger();
    opposite(&mut story, 6, |_| None);
    let findings = findings(&story.model(5_200.0));
    let found = only(&findings, Rule::Deadlock);
    // Handlers wait in it; their requests came before the window.
    assert_eq!(found.severity, Severity::Critical);
    assert_eq!(found.count, 4);
    let mut ids: Vec<u64> = found.goroutines.iter().map(|witness| witness.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    assert_eq!(findings.len(), 1, "{:?}", rules(&findings));
}

#[test]
fn writers_that_wait_for_one_reader_are_no_deadlock() {
    const WRITES: &str = "main.(*ledger).put /srv/ledger/ledger.go:50";
    let mut story = ledger();
    for second in 0..6_u64 {
        let at = second as f64 * 1000.0 + 100.0;
        // One waits for the reader to be done, the other for the one.
        let first = [
            "sync.runtime_SemacquireRWMutex",
            "sync.(*RWMutex).Lock",
            WRITES,
            SERVES,
        ];
        let next = ["sync.(*Mutex).Lock", "sync.(*RWMutex).Lock", WRITES, SERVES];
        let all = vec![
            goroutine(1, "sync.RWMutex.Lock", &first),
            goroutine(2, "sync.Mutex.Lock", &next),
            goroutine(
                9,
                "IO wait",
                &["main.report /srv/ledger/report.go:7", SERVES],
            ),
        ];
        story.goroutines(at, UPSTREAM, all);
        let readers = lock(72, &[1], &[2]);
        let writers = lock(68, &[2], &[1]);
        story.blocking(at, UPSTREAM, vec![], vec![readers, writers]);
    }
    let findings = findings(&story.model(5_200.0));
    assert!(!rules(&findings).contains(&Rule::Deadlock), "{findings:?}");
}

#[test]
fn requests_in_a_deadlock_are_its_harm() {
    let mut story = ledger();
    opposite(&mut story, 6, |_| None);
    for id in 1..5_u16 {
        let client = format!("10.0.0.9:{}", 40_000 + id);
        let socket = story.accepted(0.0, UPSTREAM, &client, UPSTREAM_ADDRESS);
        story.http(
            socket,
            0,
            "GET /move",
            Asked::at(50.0, 80).by(UPSTREAM, u64::from(id)),
        );
    }
    let findings = findings(&story.model(5_200.0));
    assert_eq!(findings[0].rule, Rule::Deadlock);
    assert_eq!(findings[0].severity, Severity::Critical);
    for consequence in &findings[1..] {
        assert_eq!(
            consequence.caused_by.as_deref(),
            Some("f1"),
            "{consequence:?}"
        );
    }
}

#[test]
fn who_waits_behind_one_that_works_is_in_no_deadlock() {
    for state in ["IO wait", "sleep", "runnable"] {
        let mut story = ledger();
        opposite(&mut story, 6, |_| Some(goroutine(9, state, &[LATER])));
        let findings = findings(&story.model(5_200.0));
        assert!(!rules(&findings).contains(&Rule::Deadlock), "{state}");
    }
}

#[test]
fn a_short_stand_is_no_deadlock() {
    let mut story = ledger();
    opposite(&mut story, 3, |_| None);
    assert_eq!(rules(&findings(&story.model(2_200.0))), []);
}

#[test]
fn where_somebody_goes_on_there_is_no_deadlock() {
    let mut story = ledger();
    opposite(&mut story, 5, |_| None);
    let rest = vec![at_lock(1, SECOND), at_lock(4, LOCKS), at_lock(3, LOCKS)];
    story.goroutines(5_100.0, UPSTREAM, rest);
    let locks = vec![lock(8, &[3], &[1]), lock(16, &[1, 4], &[])];
    story.blocking(5_100.0, UPSTREAM, vec![], locks);
    assert_eq!(rules(&findings(&story.model(5_200.0))), []);
}
