//! Handlers that wait for a connection of a pool that is used up, and what looks like it.

use crate::model::story::goroutine;

use super::*;

const SHOP: Pid = 40;

const SQL: [&str; 4] = [
    "database/sql.(*DB).conn /go/src/database/sql/sql.go:1369",
    "database/sql.(*DB).QueryRowContext /go/src/database/sql/sql.go:1870",
    "main.(*Shop).item /srv/shop/items.go:21",
    "net/http.(*conn).serve /go/src/net/http/server.go:2145",
];
const TRANSPORT: [&str; 3] = [
    "net/http.(*Transport).getConn /go/src/net/http/transport.go:1500",
    "main.(*Shop).price /srv/shop/prices.go:9",
    "net/http.(*conn).serve /go/src/net/http/server.go:2145",
];

/// Twenty requests, one every 200 ms, each answered `late` ms after; and four looks, a second apart, at
/// handlers of which `waiting` stand at `frames`.
fn shop(late: f64, waiting: u64, frames: &[&str]) -> Story {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    for nth in 0..20_u16 {
        let at = 10.0 + 200.0 * f64::from(nth);
        let client = format!("10.0.0.9:{}", 50_000 + nth);
        let socket = story.accepted(at - 1.0, SHOP, &client, "10.0.0.1:80");
        let asked = Asked::at(at, 90).by(SHOP, 100 + u64::from(nth));
        story.http(socket, 0, "GET /item", asked.answered(at + late, 200));
    }
    for second in 1..=4_u64 {
        let all = (0..waiting).map(|id| goroutine(100 + id, "select", frames));
        story.goroutines(1_000.0 * second as f64, SHOP, all.collect());
    }
    story
}

#[test]
fn a_pool_that_is_used_up_is_told_with_its_setting_and_line() {
    for (frames, setting, line) in [
        (
            &SQL[..],
            "database/sql.DB.MaxOpenConns",
            "main.(*Shop).item",
        ),
        (
            &TRANSPORT,
            "net/http.Transport.MaxConnsPerHost",
            "main.(*Shop).price",
        ),
    ] {
        let found = found(&mut shop(1_500.0, 6, frames));
        assert_eq!(rules(&found), [Rule::SlowResponse]);
        let late = &found[0];
        assert_eq!(late.severity, Severity::Warning);
        assert_eq!(late.setting.as_ref().unwrap().name, setting);
        assert!(late.title.contains("up to 6 handlers"), "{}", late.title);
        assert_eq!(late.code.as_ref().unwrap().function, line);
    }
}

#[test]
fn a_proxy_without_a_line_of_its_own_is_told_as_well() {
    let proxy = [
        "net/http.(*Transport).getConn /go/src/net/http/transport.go:1500",
        "net/http/httputil.(*ReverseProxy).ServeHTTP /go/src/net/http/httputil/reverseproxy.go:566",
        "net/http.(*conn).serve /go/src/net/http/server.go:2145",
    ];
    let found = found(&mut shop(1_500.0, 6, &proxy));
    assert_eq!(rules(&found), [Rule::SlowResponse]);
}

#[test]
fn a_queue_that_is_over_when_the_window_ends_was_there_all_the_same() {
    let mut story = shop(1_500.0, 6, &TRANSPORT);
    story.goroutines(9_000.0, SHOP, vec![goroutine(1, "IO wait", &["main.main"])]);
    assert_eq!(rules(&found(&mut story)), [Rule::SlowResponse]);
}

#[test]
fn a_queue_whose_requests_are_answered_in_time_is_healthy() {
    assert_eq!(rules(&found(&mut shop(400.0, 6, &SQL))), []);
}

#[test]
fn few_in_the_queue_beside_many_long_polls_are_not_taken_for_their_reason() {
    let mut story = shop(700.0, 4, &SQL);
    for nth in 0..20_u16 {
        let client = format!("10.0.0.8:{}", 50_000 + nth);
        let socket = story.accepted(5.0, SHOP, &client, "10.0.0.1:80");
        let asked = Asked::at(6.0, 90).by(SHOP, 500 + u64::from(nth));
        story.http(socket, 0, "GET /events", asked.answered(8_000.0, 200));
    }
    assert_eq!(rules(&found(&mut story)), []);
}

#[test]
fn goroutines_that_serve_nobody_and_who_waits_for_a_dial_are_no_queue() {
    assert_eq!(rules(&found(&mut shop(1_500.0, 6, &SQL[..3]))), []);
    let mut story = shop(1_500.0, 0, &TRANSPORT);
    for second in 1..=4_u64 {
        let waiting = (0..6).map(|id| goroutine(100 + id, "select", &TRANSPORT));
        let dial = ["net.(*netFD).connect", "net/http.(*Transport).dialConn"];
        let all = waiting.chain([goroutine(300, "IO wait", &dial)]);
        story.goroutines(1_000.0 * second as f64, SHOP, all.collect());
    }
    assert_eq!(rules(&found(&mut story)), []);
}

#[test]
fn a_service_that_is_slow_itself_is_not_told_as_its_users_pool() {
    let mut story = shop(1_500.0, 6, &SQL);
    let database = story.connected(1.0, SHOP, "10.0.0.1:41000", "10.0.0.7:5432");
    for nth in 0..3_u32 {
        let at = 20.0 + 1_300.0 * f64::from(nth);
        story.exchange(database, nth, Asked::at(at, 90).answered(at + 1_200.0, 0));
    }
    let found = found(&mut story);
    let pool = found.iter().filter(|found| found.setting.is_some());
    assert_eq!(pool.count(), 0, "{found:?}");
}

/// Looks, a second apart, at six handlers that wait for a connection; their requests came before the window.
fn at_a_standstill(looks: u64) -> Story {
    let mut story = Story::new();
    story.go(SHOP, "shop");
    for second in 0..looks {
        let all = (0..6).map(|id| goroutine(100 + id, "select", &SQL));
        story.goroutines(100.0 + 1_000.0 * second as f64, SHOP, all.collect());
    }
    story
}

#[test]
fn connections_that_nobody_gives_back_are_told_without_a_request_in_the_window() {
    let found = findings(&at_a_standstill(6).model(6_000.0));
    assert_eq!(rules(&found), [Rule::SlowResponse]);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].measured.goroutines, Some(6));
    assert!(found[0].advice[0].starts_with("Close Rows"), "{found:?}");
    assert_eq!(rules(&findings(&at_a_standstill(3).model(3_000.0))), []);
}

#[test]
fn a_database_that_does_not_answer_keeps_its_pool() {
    let mut story = at_a_standstill(6);
    let upstream = story.connected(0.0, SHOP, "10.0.0.1:40000", "10.0.0.7:5432");
    story.exchange(upstream, 0, Asked::at(150.0, 90));
    let found = findings(&story.model(6_000.0));
    assert!(
        !found.iter().any(|finding| finding.setting.is_some()),
        "{found:?}"
    );
}
