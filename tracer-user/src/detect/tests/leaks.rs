//! Goroutines that come and stay, and all that looks like it.

use crate::{
    event::{AtChannels, Creation, Goroutine, MemoryLimit, Runtime},
    model::story::{Asked, Story, frame, goroutine},
};

use super::*;

const STARTS: &str = "main.report /srv/leaky/leaks.go:14";
const STUCK: &str = "main.report.func1 /srv/leaky/leaks.go:15";

/// A goroutine of `report`'s, in this state.
fn started(id: u64, state: &str) -> Goroutine {
    Goroutine {
        created_by: Some(Creation {
            frame: frame(STARTS),
            goroutine: Some(7),
        }),
        ..goroutine(id, state, &["runtime.gopark", STUCK])
    }
}

/// Ten looks, a second apart; in each the goroutines that `ids` gives.
fn looks(story: &mut Story, state: &str, ids: impl Fn(u64) -> std::ops::Range<u64>) {
    for second in 0..=9 {
        let all = ids(second).map(|id| started(id, state)).collect();
        story.goroutines(second as f64 * 1000.0, UPSTREAM, all);
    }
}

fn leaky() -> Story {
    let mut story = Story::new();
    story.go(UPSTREAM, "leaky");
    story
}

fn found_in_ten_seconds(story: &mut Story) -> Vec<Finding> {
    findings(&story.model(9_100.0))
}

#[test]
fn goroutines_that_come_and_stay_leak() {
    let mut story = leaky();
    looks(&mut story, "chan send", |second| 100..100 + 12 * second);
    let findings = found_in_ten_seconds(&mut story);
    let found = only(&findings, Rule::GoroutineLeak);
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.count, 108);
    assert_eq!(found.measured.growth_per_s, Some(12.0));
    assert_eq!(found.code, Some(frame(STUCK)));
    assert!(
        found.explanation.contains("main.report (leaks.go:14)"),
        "{found:?}"
    );
    assert!(found.advice[0].contains("ctx.Done()"), "{found:?}");
    assert!(found.confidence > 0.8);
}

#[test]
fn goroutines_that_come_and_go_do_not() {
    let mut story = leaky();
    // Ever more of them, for requests take longer and longer: but none stays.
    looks(&mut story, "chan send", |second| {
        30 * second..30 * second + 20 + 5 * second
    });
    assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
}

#[test]
fn a_queue_that_is_worked_off_from_its_front_is_no_leak() {
    let mut story = leaky();
    looks(&mut story, "chan send", |second| {
        3 * second..50 * (second + 1)
    });
    assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
}

#[test]
fn many_idle_goroutines_are_no_leak() {
    let mut story = leaky();
    looks(&mut story, "select", |_| 100..5_000);
    assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
}

#[test]
fn a_pool_that_fills_up_and_a_burst_are_no_leak() {
    for filled in [2, 6] {
        let mut story = leaky();
        looks(&mut story, "chan receive", |second| {
            100..100 + 20 * second.min(filled)
        });
        assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
    }
    let mut story = leaky();
    looks(&mut story, "chan send", |second| {
        100..100 + 500 * u64::from(second > 4)
    });
    assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
}

#[test]
fn whoever_waits_for_the_network_or_for_time_ends_by_itself() {
    for state in ["IO wait", "sleep", "running", "sync.Mutex.Lock"] {
        let mut story = leaky();
        looks(&mut story, state, |second| 100..100 + 12 * second);
        assert_eq!(rules(&found_in_ten_seconds(&mut story)), [], "{state}");
    }
}

#[test]
fn workers_at_one_channel_are_worth_knowing_and_no_alarm() {
    let mut story = leaky();
    looks(&mut story, "chan receive", |second| 100..100 + 12 * second);
    let shared = |goroutine| AtChannels {
        goroutine,
        channels: vec![0xc000],
        timed: false,
    };
    story.blocking(9_000.0, UPSTREAM, (100..208).map(shared).collect(), vec![]);
    let findings = found_in_ten_seconds(&mut story);
    let found = only(&findings, Rule::GoroutineLeak);
    assert_eq!(found.severity, Severity::Info);
    assert!(found.title.contains("more and more"), "{found:?}");
}

#[test]
fn whoever_waits_for_a_timer_is_left_to_it_unless_it_has_outlived_some() {
    for (outlived, severity) in [(false, Severity::Info), (true, Severity::Warning)] {
        let mut story = leaky();
        looks(&mut story, "select", |second| 100..100 + 12 * second);
        for second in [8, 9] {
            let at = |goroutine| AtChannels {
                goroutine,
                channels: vec![
                    goroutine * 8,
                    goroutine * 800 + second * u64::from(outlived),
                ],
                timed: true,
            };
            let ids = 100..100 + 12 * second;
            story.blocking(
                second as f64 * 1000.0,
                UPSTREAM,
                ids.map(at).collect(),
                vec![],
            );
        }
        let findings = found_in_ten_seconds(&mut story);
        assert_eq!(only(&findings, Rule::GoroutineLeak).severity, severity);
    }
}

#[test]
fn whoever_waits_for_the_ticks_of_one_ticker_is_not_told_to_await_its_end() {
    let mut story = leaky();
    looks(&mut story, "chan receive", |second| 100..100 + 12 * second);
    let at = |goroutine| AtChannels {
        goroutine,
        channels: vec![goroutine * 8],
        timed: true,
    };
    story.blocking(9_000.0, UPSTREAM, (100..208).map(at).collect(), vec![]);
    let findings = found_in_ten_seconds(&mut story);
    let found = only(&findings, Rule::GoroutineLeak);
    assert_eq!(found.severity, Severity::Info);
    let unknown = found.incomplete.as_deref().unwrap_or_default();
    assert!(unknown.contains("as those at a ticker do"), "{found:?}");
    // Nobody closes a ticker's channel.
    assert!(!found.advice[0].contains("Close the channel"), "{found:?}");
}

#[test]
fn whoever_came_with_a_connection_waits_for_it() {
    let mut story = leaky();
    looks(&mut story, "select", |second| 100..100 + 12 * second);
    for nth in 0..100_u16 {
        let client = format!("10.0.0.9:{}", 40_000 + nth);
        story.accepted(
            f64::from(nth) * 89.0 + 1.0,
            UPSTREAM,
            &client,
            UPSTREAM_ADDRESS,
        );
    }
    assert_eq!(rules(&found_in_ten_seconds(&mut story)), []);
}

#[test]
fn whoever_came_with_a_request_that_is_open_waits_for_it() {
    for (answered, expected) in [(false, vec![]), (true, vec![Rule::GoroutineLeak])] {
        let mut story = leaky();
        looks(&mut story, "chan receive", |second| 100..100 + 12 * second);
        // Connections from before, each of which gets one request more.
        for nth in 0..100_u16 {
            let client = format!("10.0.0.9:{}", 40_000 + nth);
            let socket = story.found_accepted(UPSTREAM, &client, UPSTREAM_ADDRESS);
            let at = f64::from(nth) * 89.0 + 1.0;
            let asked = Asked::at(at, 90).by(UPSTREAM, 20_000 + u64::from(nth));
            let asked = if answered {
                asked.answered(at + 2.0, 200)
            } else {
                asked
            };
            story.http(socket, 1, "GET /report", asked);
        }
        let found = found_in_ten_seconds(&mut story);
        assert_eq!(rules(&found), expected, "{answered}");
    }
}

#[test]
fn whoever_was_started_by_a_handler_that_is_at_its_request_ends_with_it() {
    const STREAM: [&str; 2] = [
        "main.(*Board).Watch /srv/leaky/board.go:30",
        "net/http.(*http2serverConn).runHandler /go/src/net/http/h2_bundle.go:6200",
    ];
    const NEXT: [&str; 2] = [
        "internal/poll.(*FD).Read /go/src/internal/poll/fd_unix.go:165",
        "net/http.(*conn).serve /go/src/net/http/server.go:2050",
    ];
    for (frames, state, expected) in [
        (&STREAM, "select", vec![]),
        // Its request is over, and its connection waits for the next one.
        (&NEXT, "IO wait", vec![Rule::GoroutineLeak]),
    ] {
        let mut story = leaky();
        for second in 0..=9_u64 {
            let ids = 100..100 + 12 * second;
            let children = ids.clone().map(|id| Goroutine {
                created_by: Some(Creation {
                    frame: frame(STARTS),
                    goroutine: Some(id + 10_000),
                }),
                ..goroutine(id, "chan receive", &["runtime.gopark", STUCK])
            });
            let handlers = ids.clone().map(|id| goroutine(id + 10_000, state, frames));
            let all = children.chain(handlers).collect();
            story.goroutines(second as f64 * 1000.0, UPSTREAM, all);
        }
        let found = found_in_ten_seconds(&mut story);
        assert_eq!(rules(&found), expected, "{state}");
    }
}

#[test]
fn deadlines_that_come_with_them_may_still_end_them() {
    for (timers, severity) in [(108, Severity::Info), (10, Severity::Warning)] {
        let mut story = leaky();
        looks(&mut story, "chan receive", |second| 100..100 + 12 * second);
        for second in 0..=9_u64 {
            let runtime = Runtime {
                pid: UPSTREAM,
                timers: Some(40 + timers * second / 9),
                ..Runtime::default()
            };
            story.runtime(second as f64 * 1000.0, runtime);
        }
        let findings = found_in_ten_seconds(&mut story);
        let found = only(&findings, Rule::GoroutineLeak);
        assert_eq!(found.severity, severity, "{timers}");
        if severity == Severity::Info {
            let incomplete = found.incomplete.as_ref().unwrap();
            assert!(incomplete.contains("deadline"), "{incomplete}");
        }
    }
}

#[test]
fn those_that_have_waited_for_minutes_are_held_to_leak_more_surely() {
    let confidence = |oldest: u64| {
        let mut story = leaky();
        for second in 0..=9_u64 {
            let all = (100..150 + 12 * second).map(|id| Goroutine {
                wait: Some(Duration::from_secs(if id < 150 { oldest } else { 1 })),
                ..started(id, "chan receive")
            });
            story.goroutines(second as f64 * 1000.0, UPSTREAM, all.collect());
        }
        only(&found_in_ten_seconds(&mut story), Rule::GoroutineLeak).confidence
    };
    assert!(confidence(300) > confidence(5));
}

#[test]
fn a_group_whose_members_are_at_work_will_be_done() {
    for (at_work, expected) in [(true, vec![]), (false, vec![Rule::GoroutineLeak])] {
        let mut story = leaky();
        for second in 0..=9_u64 {
            let ids = 100..100 + 12 * second;
            let mut all: Vec<Goroutine> = ids
                .clone()
                .map(|id| started(id, "sync.WaitGroup.Wait"))
                .collect();
            if at_work {
                all.extend(ids.map(|id| Goroutine {
                    created_by: Some(Creation {
                        frame: frame("main.gather /srv/leaky/leaks.go:30"),
                        goroutine: Some(id),
                    }),
                    ..goroutine(id + 10_000, "IO wait", &["main.query /srv/leaky/db.go:9"])
                }));
            }
            story.goroutines(second as f64 * 1000.0, UPSTREAM, all);
        }
        assert_eq!(rules(&found_in_ten_seconds(&mut story)), expected);
    }
}

#[test]
fn a_service_that_does_not_answer_may_be_what_they_wait_for() {
    let mut story = leaky();
    looks(&mut story, "chan send", |second| 100..100 + 12 * second);
    let database = story.connected(100.0, UPSTREAM, "10.0.0.1:50000", "10.0.0.2:5432");
    story.exchange(database, 0, Asked::at(200.0, 80));
    let findings = found_in_ten_seconds(&mut story);
    assert_eq!(
        only(&findings, Rule::GoroutineLeak).severity,
        Severity::Info
    );
}

#[test]
fn handlers_that_wait_for_news_are_no_leak_and_those_that_can_never_go_on_are_one() {
    for (state, expected) in [
        ("select", vec![]),
        ("chan receive", vec![]),
        ("chan send", vec![Rule::GoroutineLeak]),
    ] {
        let mut story = leaky();
        for second in 0..=9_u64 {
            let all = (100..100 + 12 * second).map(|id| {
                goroutine(
                    id,
                    state,
                    &[
                        STUCK,
                        "net/http.(*conn).serve /go/src/net/http/server.go:2100",
                    ],
                )
            });
            story.goroutines(second as f64 * 1000.0, UPSTREAM, all.collect());
        }
        assert_eq!(
            rules(&found_in_ten_seconds(&mut story)),
            expected,
            "{state}"
        );
    }
}

#[test]
fn bodies_that_nobody_closes_leak_and_those_that_are_being_read_do_not() {
    for (readers, expected) in [(0, vec![Rule::GoroutineLeak]), (100, vec![])] {
        let mut story = leaky();
        for second in 0..=9_u64 {
            let loops = (100..100 + 12 * second).map(|id| {
                goroutine(
                    id,
                    "select",
                    &["net/http.(*persistConn).readLoop /go/src/net/http/transport.go:2616"],
                )
            });
            let reading = (0..readers).map(|id| {
                goroutine(
                    10_000 + id,
                    "IO wait",
                    &[
                        "net/http.(*bodyEOFSignal).Read",
                        "main.copy /srv/leaky/main.go:9",
                    ],
                )
            });
            story.goroutines(
                second as f64 * 1000.0,
                UPSTREAM,
                loops.chain(reading).collect(),
            );
        }
        assert_eq!(rules(&found_in_ten_seconds(&mut story)), expected);
    }
}

#[test]
fn a_leak_from_before_the_window_is_worth_knowing() {
    let mut story = leaky();
    let before = |state: &str| -> Vec<Goroutine> {
        let old = |id| Goroutine {
            wait: Some(Duration::from_secs(3_000)),
            ..started(id, state)
        };
        (100..3_100).map(old).collect()
    };
    for second in 0..=3 {
        story.goroutines(f64::from(second) * 1000.0, UPSTREAM, before("chan send"));
    }
    let findings = found_in_ten_seconds(&mut story);
    let found = only(&findings, Rule::GoroutineLeak);
    assert_eq!(found.severity, Severity::Info);
    assert!(found.incomplete.is_some());

    let mut idle = leaky();
    for second in 0..=3 {
        idle.goroutines(f64::from(second) * 1000.0, UPSTREAM, before("chan receive"));
    }
    assert_eq!(rules(&found_in_ten_seconds(&mut idle)), []);
}

#[test]
fn a_leak_that_soon_fills_the_memory_is_critical() {
    let mut story = leaky();
    looks(&mut story, "chan send", |second| 100..100 + 500 * second);
    let runtime = Runtime {
        pid: UPSTREAM,
        memory_limit: Some(64 << 20),
        live_bytes: Some(8 << 20),
        ..Runtime::default()
    };
    story.runtime(9_000.0, runtime);
    let findings = found_in_ten_seconds(&mut story);
    let found = only(&findings, Rule::GoroutineLeak);
    assert_eq!(found.severity, Severity::Critical);
    let left = found.measured.exhausted_in_s.unwrap();
    assert!((40.0..60.0).contains(&left), "{left}");
}

#[test]
fn of_several_memory_limits_the_one_that_is_met_first_is_told() {
    for (of_cgroup, told) in [
        (48_u64 << 20, "its cgroup /pods/leaky (48.0 MiB) is met in"),
        (900 << 20, "GOMEMLIMIT (256.0 MiB) is met in"),
    ] {
        let mut story = leaky();
        looks(&mut story, "chan send", |second| 100..100 + 500 * second);
        for (at, used) in [(0.0, 10 << 20), (9_000.0, 28 << 20)] {
            let limit = MemoryLimit {
                pid: UPSTREAM,
                cgroup: "/pods/leaky".into(),
                limit: of_cgroup,
                used,
            };
            story.memory_limit(at, limit);
        }
        let runtime = Runtime {
            pid: UPSTREAM,
            memory_limit: Some(256 << 20),
            live_bytes: Some(8 << 20),
            ..Runtime::default()
        };
        story.runtime(9_000.0, runtime);
        let findings = found_in_ten_seconds(&mut story);
        let found = only(&findings, Rule::GoroutineLeak);
        assert!(found.explanation.contains(told), "{}", found.explanation);
        let measured = &found.measured;
        if of_cgroup < 256 << 20 {
            // 18 MiB in 9 s, with 20 MiB to go.
            let left = measured.exhausted_in_s.unwrap();
            assert!((9.0..11.0).contains(&left), "{left}");
            assert_eq!(measured.memory_each_bytes, Some((18 << 20) / 4_500));
            assert_eq!(measured.memory_limit_bytes, Some(of_cgroup));
        } else {
            assert_eq!(measured.memory_each_bytes, Some(2_048));
        }
    }
}

#[test]
fn three_looks_are_enough_and_two_are_not() {
    for (middle, expected) in [(Some(180), vec![Rule::GoroutineLeak]), (None, vec![])] {
        let mut story = leaky();
        let looks = [(0.0, Some(100)), (6_000.0, middle), (9_000.0, Some(230))];
        for (at, most) in looks {
            if let Some(most) = most {
                let all = (100..most).map(|id| started(id, "chan send")).collect();
                story.goroutines(at, UPSTREAM, all);
            }
        }
        assert_eq!(rules(&found_in_ten_seconds(&mut story)), expected);
    }
}
