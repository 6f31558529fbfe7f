//! Handlers that stood still before the window began, and those who may yet go on.

use crate::model::story::goroutine;

use super::*;

const SHOP: Pid = 40;

const TAKES_A_SLOT: [&str; 3] = [
    "runtime.chansend1 /go/src/runtime/chan.go:157",
    "main.(*Shop).take /srv/shop/slots.go:31",
    "net/http.(*conn).serve /go/src/net/http/server.go:2145",
];

/// Looks, a second apart, at six handlers that stand in `state`, and at `other`.
fn shop(looks: u64, state: &str, other: Option<(&str, &[&str])>) -> Vec<Finding> {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    for second in 0..looks {
        let mut all: Vec<Goroutine> = (0..6)
            .map(|id| goroutine(100 + id, state, &TAKES_A_SLOT))
            .collect();
        all.extend(other.map(|(state, frames)| goroutine(7, state, frames)));
        story.goroutines(100.0 + 1_000.0 * second as f64, SHOP, all);
    }
    findings(&story.model(1_000.0 * looks as f64))
}

#[test]
fn handlers_that_stand_where_nothing_calls_them_off_are_told_without_their_requests() {
    for state in ["chan send", "semacquire"] {
        let found = shop(8, state, None);
        assert_eq!(rules(&found), [Rule::NoResponse]);
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[0].count, 6);
        assert_eq!(found[0].code.as_ref().unwrap().line, Some(31));
        assert!(found[0].title.contains("6 handlers stand at"), "{found:?}");
    }
}

#[test]
fn handlers_that_may_be_called_off_or_stood_for_a_moment_are_not() {
    for state in [
        "select",
        "chan receive",
        "sync.Cond.Wait",
        "sleep",
        "IO wait",
    ] {
        assert_eq!(rules(&shop(8, state, None)), [], "{state}");
    }
    assert_eq!(rules(&shop(4, "chan send", None)), []);
}

#[test]
fn handlers_that_wait_for_a_colleague_at_work_are_not() {
    let worker = ["time.Sleep", "main.worker /srv/shop/jobs.go:12"];
    for state in ["sleep", "IO wait", "syscall", "running"] {
        let found = shop(8, "chan send", Some((state, &worker)));
        assert_eq!(rules(&found), [], "{state}");
    }
    let accepting = [
        "net.(*TCPListener).Accept",
        "net/http.(*Server).Serve",
        "main.main /srv/shop/main.go:9",
    ];
    let found = shop(8, "chan send", Some(("IO wait", &accepting)));
    assert_eq!(rules(&found), [Rule::NoResponse]);
}
