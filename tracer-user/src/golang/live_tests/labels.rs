//! Labels, as memory has them and as the runtime's own profile tells them.

use std::collections::BTreeMap;

use super::*;

/// How many goroutines carry which labels, and where they stand.
type Told = BTreeMap<(Vec<(String, String)>, String), u64>;

fn told(census: &census::Census) -> Told {
    let mut told = Told::new();
    for group in &census.groups {
        let stack = &group.kind.stack.frames;
        let mut functions = stack.iter().map(|frame| frame.function.as_str());
        // Profiles tell the runtime's own frames, too.
        let place = functions
            .find(|name| name.starts_with("main."))
            .unwrap_or_default();
        let labels = group.kind.labels.to_vec();
        if !labels.is_empty() {
            *told.entry((labels, place.to_owned())).or_default() += group.members.count();
        }
    }
    told
}

/// As they are told: a long text by its beginning.
fn cut(told: Told) -> Told {
    let text = |text: String| match text.len() {
        ..=256 => text,
        _ => format!("{}…", &text[..256]),
    };
    let cut = told.into_iter().map(|((labels, place), count)| {
        let labels = labels.into_iter().map(|(key, value)| (key, text(value)));
        ((labels.collect(), place), count)
    });
    cut.collect()
}

fn of_memory(program: &Program) -> Told {
    let reading = memory::read(program, usize::MAX).unwrap();
    assert_eq!(
        (reading.labels.unread, reading.unsettled),
        (0, 0),
        "{}",
        program.version()
    );
    told(&census::Census::of(&reading.snapshot, &reading.labels))
}

#[test]
fn labels_in_memory_are_those_of_the_runtimes_own_profile() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let profile = waiters.get("goroutine?debug=1");
            let profile = saved::read(profile.as_slice()).unwrap();
            assert_eq!(profile.unread_lines, 0, "{name}");
            let expected = cut(told(&profile.census));
            assert!(expected.len() > 8, "{name}: {expected:?}");
            assert_eq!(of_memory(&program), expected, "{name}");
        });
    }
}

#[test]
fn labels_in_memory_are_those_of_the_dumps_that_tell_them() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let program = waiters.program();
            if program.minor < Some(26) {
                return;
            }
            let dump = dump::parse(waiters.dump().as_bytes());
            assert_eq!(cut(told(&dump.census)), of_memory(&program), "{name}");
        });
    }
}

#[test]
fn what_else_lies_where_labels_should_is_counted_and_not_told() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let mut program = waiters.program();
            let right = program.layout().unwrap();
            // Every goroutine has a first function, and code is no set of labels.
            program.layout = Ok(Layout {
                labels: right.start_pc,
                ..right
            });
            let reading = memory::read(&program, usize::MAX).unwrap();
            assert_eq!(reading.labels.sets, [], "{name}");
            assert_eq!(reading.labels.unread, reading.snapshot.total, "{name}");
            drop(waiters.dump());
        });
    }
}
