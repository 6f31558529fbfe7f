//! What a runtime says of itself, read from outside, compared with what it says when asked.

use super::*;

/// `GOMAXPROCS`, collections so far, and the bytes of the heap.
fn asked(waiters: &mut Waiters) -> (u32, u64, u64) {
    let told = waiters.ask("runtime");
    let mut numbers = told.split(' ').map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    (next() as u32, next(), next())
}

#[test]
fn processors_timers_and_collections_are_what_the_runtime_says_stripped_or_not() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            for procs in [3, 1, 40] {
                waiters.ask(&format!("procs {procs}"));
                let told = runtime::read(&program).unwrap();
                assert_eq!(told.max_procs, Some(procs), "{name}");
                assert_eq!(asked(waiters).0, procs, "{name}");
            }
            let before = runtime::read(&program).unwrap();
            assert!(before.timers.unwrap() < 50, "{name} {before:?}");
            waiters.ask("timers 5000");
            waiters.ask("gc");
            let after = runtime::read(&program).unwrap();
            let timers = after.timers.unwrap();
            assert!((5_000..5_050).contains(&timers), "{name} {after:?}");
            let (_, collections, heap) = asked(waiters);
            assert_eq!(after.collections, Some(collections), "{name}");
            assert!(after.collections > before.collections, "{name}");
            let live = after.live_bytes.unwrap();
            assert!(live > heap / 4 && live < heap * 4, "{name} {live} {heap}");
        });
    }
}

#[test]
fn the_collectors_limits_are_read() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let told = runtime::read(&program).unwrap();
            assert_eq!((told.gc_percent, told.memory_limit), (Some(100), None));
            waiters.ask("limits 37 123456789");
            let told = runtime::read(&program).unwrap();
            let expected = (Some(37), Some(123_456_789));
            assert_eq!((told.gc_percent, told.memory_limit), expected, "{name}");
            waiters.ask("limits -1 123456789");
            let told = runtime::read(&program).unwrap();
            assert_eq!(told.gc_percent, Some(-1), "{name}");
        });
    }
}

#[test]
fn the_addresses_in_the_code_are_those_of_the_symbols() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let program = waiters.program();
            let globals = program.runtime.globals;
            let processors = globals.processors.unwrap();
            let figures = program.layout().unwrap().figures.unwrap();
            let memstats = globals.collector_enabled.unwrap() - u64::from(figures.memstats_enabled);
            for (symbol, found) in [
                ("runtime.gomaxprocs", processors.max),
                ("runtime.allp", processors.all),
                ("runtime.memstats", memstats),
                ("runtime.gcController", globals.pacer.unwrap()),
            ] {
                assert_eq!(waiters.symbol(symbol), Some(found), "{name} {symbol}");
            }
        });
    }
}

#[test]
fn whether_the_runtime_follows_the_quota_is_told_by_version_module_and_environment() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let binary = go.build(directory.path(), PLAIN);
        let told = |environment: &[(&str, &str)]| {
            let mut command = Command::new(&binary);
            command.env_remove("GOMAXPROCS").env_remove("GODEBUG");
            command.envs(environment.iter().copied());
            let waiters = Waiters::run(command, binary.clone());
            let program = waiters.program();
            let told = runtime::read(&program).unwrap();
            let newer = program.minor.unwrap() >= 25;
            (told.max_procs_set, told.adapts, newer)
        };
        // Its go.mod says 1.21, and the newer runtimes keep to the ways of that.
        assert!(matches!(told(&[]), (false, false, _)));
        let (set, adapts, newer) = told(&[("GODEBUG", "containermaxprocs=1")]);
        assert!(!set && adapts == newer);
        let settings = [("GODEBUG", "containermaxprocs=1"), ("GOMAXPROCS", "7")];
        assert!(matches!(told(&settings), (true, false, _)));
    }
}

#[test]
fn what_contradicts_itself_is_unknown_and_not_wrong() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let mut program = waiters.program();
            let right = program.runtime;
            let moved = |by: u64| code::Processors {
                max: right.globals.processors.unwrap().max + by,
                all: right.globals.processors.unwrap().all + by,
            };
            for by in [8, 24, 4096, 1 << 40] {
                program.runtime.globals.processors = Some(moved(by));
                program.runtime.globals.pacer = right.globals.pacer.map(|at| at + (1 << 40));
                program.runtime.globals.collector_enabled = Some(by);
                let told = runtime::read(&program).unwrap();
                assert_eq!((told.max_procs, told.timers), (None, None), "{name}");
                assert_eq!((told.collections, told.live_bytes), (None, None), "{name}");
            }
            program.runtime = right;
            let layout = program.layout().unwrap();
            let figures = layout.figures.unwrap();
            for p_timers in [0, figures.p_timers - 8, figures.p_timers + 8] {
                let wrong = layout::Figures {
                    p_timers,
                    ..figures
                };
                program.layout = Ok(Layout {
                    figures: Some(wrong),
                    ..layout
                });
                waiters.ask("timers 300");
                let told = runtime::read(&program).unwrap();
                assert_eq!(told.timers, None, "{name} {p_timers}");
            }
            drop(waiters.dump());
        });
    }
}
