use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::{Goroutine, SnapshotSource};

fn goroutines(dump: &Dump) -> Vec<Goroutine> {
    let snapshot = dump.census.snapshot(7, SnapshotSource::File, usize::MAX);
    snapshot.goroutines
}

fn only(text: &str) -> Goroutine {
    let dump = parse(text.as_bytes());
    assert_eq!(dump.unread_lines, 0, "{text}");
    let goroutines = goroutines(&dump);
    assert_eq!(goroutines.len(), 1, "{text}");
    goroutines[0].clone()
}

fn functions(goroutine: &Goroutine) -> Vec<&str> {
    let frames = goroutine.frames.iter();
    frames.map(|frame| frame.function.as_str()).collect()
}

#[test]
fn frames_and_the_go_statement_are_read() {
    let goroutine = only(
        "goroutine 19 [chan receive, 2 minutes]:\n\
         main.(*T[...]).wait(0xc00001, {0x1, ...})\n\
         \t/src/a b/main.go:12 +0x1d\n\
         ...23 frames elided...\n\
         main.main.func1(...)\n\
         \t/src/main.go:30\n\
         created by main.main in goroutine 1\n\
         \t/src/main.go:29 +0x55\n",
    );
    assert_eq!(
        functions(&goroutine),
        ["main.(*T[...]).wait", "main.main.func1"]
    );
    assert_eq!(
        goroutine.frames[0].file.as_deref(),
        Some("/src/a b/main.go")
    );
    assert_eq!(goroutine.frames[1].line, Some(30));
    assert_eq!(goroutine.wait, Some(Duration::from_mins(2)));
    let creation = goroutine.created_by.unwrap();
    assert_eq!(creation.frame.function, "main.main");
    assert_eq!(creation.frame.line, Some(29));
    assert_eq!(creation.goroutine, Some(1));
}

#[test]
fn a_sigquit_dump_shows_what_a_plain_one_does() {
    let dump = parse(
        b"SIGQUIT: quit\n\
         PC=0x47 m=0 sigcode=0\n\
         \n\
         goroutine 0 gp=0x5a1c80 m=0 mp=0x5a2a80 [idle]:\n\
         runtime.futex(0x5a2bd8, 0x80, 0x0, 0x0, 0x0, 0x0)\n\
         \t/go/src/runtime/sys_linux_amd64.s:557 +0x21 fp=0x7f sp=0x7f pc=0x47\n\
         \n\
         goroutine 1 gp=0xc000002380 m=nil [sleep]:\n\
         runtime.gopark(0x1?, 0x2?, 0x3?, 0x4?, 0x5?)\n\
         \t/go/src/runtime/proc.go:425 +0xce fp=0xc0000 sp=0xc0001 pc=0x46\n\
         time.Sleep(0x34630b8a000)\n\
         \t/go/src/runtime/time.go:315 +0xf2 fp=0xc0000 sp=0xc0001 pc=0x46\n\
         main.main()\n\
         \t/src/main.go:7 +0x1d fp=0xc0000 sp=0xc0001 pc=0x46\n\
         runtime.main()\n\
         \t/go/src/runtime/proc.go:272 +0x28b fp=0xc0000 sp=0xc0001 pc=0x46\n\
         \n\
         rax    0xca\n",
    );
    assert_eq!((dump.unread_lines, dump.scheduler_stacks), (0, 1));
    let goroutines = goroutines(&dump);
    assert_eq!(functions(&goroutines[0]), ["time.Sleep", "main.main"]);
    assert_eq!(goroutines[0].frames[0].line, Some(315));
}

#[test]
fn ancestors_are_not_the_goroutines_own_frames() {
    let goroutine = only(
        "goroutine 7 [sleep]:\n\
         time.Sleep(0x3)\n\
         \t/go/src/runtime/time.go:315 +0xf2\n\
         created by main.start\n\
         \t/src/main.go:9 +0x1d\n\
         [originating from goroutine 1]:\n\
         main.start(...)\n\
         \t/src/main.go:9 +0x1d\n\
         ...additional frames elided...\n\
         created by main.begin\n\
         \t/src/main.go:3 +0x1d\n",
    );
    assert_eq!(goroutine.frames.len(), 1);
    let creation = goroutine.created_by.unwrap();
    assert_eq!(creation.frame.function, "main.start");
    assert_eq!(creation.goroutine, None);
}

#[test]
fn c_frames_and_missing_stacks_are_understood() {
    let goroutine = only(
        "goroutine 7 [running]:\n\
         \tgoroutine running on other thread; stack unavailable\n\
         created by main.main in goroutine 1\n\
         \t/src/main.go:9 +0x1d\n",
    );
    assert!(goroutine.frames.is_empty());
    let goroutine = only(
        "goroutine 7 [syscall]:\n\
         non-Go function at pc=0x7f01\n\
         non-Go function\n\
         \tpc=0x7f03\n\
         sleep_in_c\n\
         \t/src/c.c:4 pc=0x7f02\n\
         main.main()\n\
         \t/src/main.go:9 +0x1d\n",
    );
    assert_eq!(functions(&goroutine), ["0x7f01", "main.main"]);
}

#[test]
fn goroutines_on_one_stack_are_one_group_whatever_their_arguments_and_offsets() {
    let text: String = (1..=1000)
        .map(|id| {
            format!(
                "goroutine {id} gp={id:#x} m=nil [select, {} minutes]:\n\
                 main.work({id:#x}, {{0x{id}, 0x2}})\n\
                 \t/src/main.go:12 +0x1d fp={id:#x} sp=0xc0001 pc=0x46\n\
                 created by main.main in goroutine {}\n\
                 \t/src/main.go:9 +{id:#x}\n\n",
                id % 7,
                id / 10 + 1,
            )
        })
        .collect();
    let dump = parse(text.as_bytes());
    assert_eq!(dump.unread_lines, 0);
    assert_eq!((dump.census.groups.len(), dump.census.told()), (1, 1000));
    let group = &dump.census.groups[0];
    assert_eq!(group.members.longest_wait(), Some(Duration::from_mins(6)));
    let told = goroutines(&dump);
    let ids: Vec<u64> = told.iter().map(|goroutine| goroutine.id).collect();
    assert_eq!(ids, (1..=1000).collect::<Vec<_>>());
    let creators = told
        .iter()
        .map(|told| told.created_by.as_ref().unwrap().goroutine);
    assert!(creators.eq((1..=1000).map(|id| Some(id / 10 + 1))));
}

#[test]
fn labels_and_locked_threads_make_groups_of_their_own() {
    let text = "goroutine 1 [select] {k: a}:\n\ngoroutine 2 [select] {k: b}:\n\n\
                goroutine 3 [select, locked to thread]:\n\ngoroutine 4 [select, 2 minutes]:\n";
    let dump = parse(text.as_bytes());
    assert_eq!(dump.census.groups.len(), 4);
}

#[test]
fn what_is_cut_off_or_mixed_in_is_counted() {
    let dump = parse(
        b"2026/11/21 a log line\n\
         goroutine 7 [sleep]:\n\
         time.Sleep(0x3)\n\
         2026/11/21 12:00:00 a log line in between (of another kind)\n\
         2026/11/21 12:00:00 another\n\
         \t/go/time.go:3 +0x1\n\
         \n\
         goroutine 8 [chan rec",
    );
    assert_eq!(goroutines(&dump).len(), 1);
    assert_eq!((dump.unread_lines, dump.first_unread), (3, Some(5)));
    let told = parse(b"goroutine 7 [sleep]:\ntime.Sleep(0x3)\n\t/go/src/ti");
    assert!(told.cut);
}

#[test]
fn what_follows_a_whole_goroutine_is_not_its_own() {
    let dump = parse(
        b"2026/11/21 11:00:00 http: panic serving 127.0.0.1:4711: no such order\n\
         goroutine 34 [running]:\n\
         net/http.(*conn).serve.func1()\n\
         \t/go/src/net/http/server.go:1947 +0xbe\n\
         panic({0x123, 0x456})\n\
         \t/go/src/runtime/panic.go:783 +0x132\n\
         main.handle({0x7f, 0x1}, 0xc0)\n\
         \t/srv/main.go:7 +0x1d\n\
         created by net/http.(*Server).Serve in goroutine 1\n\
         \t/go/src/net/http/server.go:3454 +0x485\n\
         2026/11/21 11:00:01 next\n\
         2026/11/21 11:00:02 and more (much more)\n",
    );
    assert_eq!(dump.unread_lines, 0, "{dump:?}");
    let [goroutine] = goroutines(&dump).try_into().unwrap();
    assert_eq!(functions(&goroutine)[1], "runtime.gopanic");
}

#[test]
fn a_dump_is_found_behind_what_logs_put_before_its_lines() {
    let dump = "panic: boom\n\ngoroutine 7 [chan receive, 3 minutes]:\nmain.wait(0x1)\n\
                \t/srv/main.go:12 +0x1d\ncreated by main.main in goroutine 1\n\
                \t/srv/main.go:9 +0x2f\n\ngoroutine 8 [select]:\nmain.work()\n\t/srv/main.go:20 +0x1\n";
    let expected = goroutines(&parse(dump.as_bytes()));
    assert_eq!(expected.len(), 2);
    let wrap = |line: &dyn Fn(usize, &str) -> String| -> String {
        let lines = dump.lines().enumerate();
        lines
            .map(|(number, text)| line(number, text) + "\n")
            .collect()
    };
    for wrapped in [
        wrap(&|number, text| format!("Nov 21 11:00:0{} edge shop[77]: {text}", number % 10)),
        wrap(&|number, text| format!("2026-11-21T11:00:00.{}Z stderr F {text}", number * number)),
        wrap(&|_, text| format!("shop-1  | {text}").trim_end().to_owned()),
        wrap(&|_, text| format!("{text}\r")),
        wrap(&|_, text| {
            let log = serde_json::to_string(&format!("{text}\n")).unwrap();
            format!(r#"{{"log":{log},"stream":"stderr","time":"2026-11-21T11:00:00Z"}}"#)
        }),
        format!(
            "{}\n{{\"level\":\"info\",\"msg\":\"a goroutine ended\"}}\n",
            serde_json::json!({"level": "fatal", "stacktrace": dump})
        ),
        // A logger's first line, with the dump as its message.
        format!("2026/11/21 11:00:00 {}", dump.split_once("\n\n").unwrap().1),
    ] {
        let found = parse(wrapped.as_bytes());
        assert_eq!(found.unread_lines, 0, "{wrapped}");
        assert_eq!(goroutines(&found), expected, "{wrapped}");
    }
}

#[test]
fn a_snapshot_that_was_cut_short_says_how_many_there_were() {
    let dump =
        parse(b"1 of 100000 goroutines; reading them was cut short\n\ngoroutine 7 [sleep]:\n");
    assert_eq!((dump.census.told(), dump.census.total), (1, 100_000));
}

#[test]
fn a_line_without_end_is_passed_over_in_bounded_memory() {
    let long = io::Read::take(io::repeat(b'x'), 2 * LONGEST_LINE as u64);
    let text = io::Read::chain(long, b"\ngoroutine 7 [select]:\n".as_slice());
    let dump = read(text).unwrap();
    assert_eq!(
        (dump.census.told(), dump.unread_lines, dump.first_unread),
        (1, 1, Some(1))
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(goroutine [0-9]{1,3} \\[|\\]:\n|, [0-9]+ minutes|created by |\\{\"log\":\"|app: |\t|\n|[a-z(){}:.+ ]{0,8}){0,40}") {
        prop_assert!(parse(text.as_bytes()).unread_lines <= text.lines().count() as u64);
    }

    #[test]
    fn it_does_not_matter_how_the_text_comes(text in "(goroutine [0-9]{1,3} \\[[a-z]{1,4}\\]:\n|main\\.[a-z]\\(\\)\n|\t/a\\.go:1\n|\n){0,40}", at in 0..200_usize) {
        let at = at.min(text.len());
        let parts = text.as_bytes()[..at].chain(&text.as_bytes()[at..]);
        prop_assert_eq!(read(parts).unwrap(), parse(text.as_bytes()));
    }
}
