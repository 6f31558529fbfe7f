//! Reads that were torn: the goroutines of a program that starts, moves and ends thousands of them a second,
//! each of which can be checked against what it can be. `testdata/churn` says how.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::event::Labels;

/// How long each program is read.
const WATCHED: Duration = Duration::from_secs(4);
/// A goroutine is there for a moment after it said that it ends; longer where its thread is off its CPU.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// What the program says of one goroutine when all is over.
struct Worker {
    class: String,
    number: String,
    ended: Duration,
}

/// One reading, and when it began.
struct Seen {
    began: Duration,
    reading: memory::Reading,
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// The class of a function, `twin` of `main.twinLeft_receive`; none for what several classes call.
fn class(function: &str) -> Option<&str> {
    let name = function.strip_prefix("main.")?;
    let end = name.find(|next: char| !next.is_ascii_lowercase())?;
    let class = &name[..end];
    ["twin", "call", "grow", "short", "sleep"]
        .contains(&class)
        .then_some(class)
}

/// What a program may be seen to do.
#[derive(Default)]
struct Judge {
    starters: BTreeMap<String, u64>,
    workers: BTreeMap<u64, Worker>,
    /// The lines from which each function was seen to be called.
    callers: BTreeMap<String, BTreeSet<(String, Option<u32>)>>,
    wrong: Vec<String>,
    whole: BTreeMap<String, u64>,
}

impl Judge {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["starter", class, id] => {
                self.starters.insert(class.to_owned(), id.parse().unwrap());
            }
            ["worker", class, id, number, ended] => {
                let worker = Worker {
                    class: class.to_owned(),
                    number: number.to_owned(),
                    ended: Duration::from_nanos(ended.parse().unwrap()),
                };
                self.workers.insert(id.parse().unwrap(), worker);
            }
            _ => panic!("{line}"),
        }
    }

    fn judge(&mut self, seen: &Seen) {
        for goroutine in &seen.reading.snapshot.goroutines {
            let Some(creation) = &goroutine.created_by else {
                continue;
            };
            let wrong = match class(&creation.frame.function) {
                Some(class) => self.worker(class, goroutine, seen),
                None => None,
            };
            if let Some(what) = wrong.or_else(|| self.stack(goroutine)) {
                let labels = of(&seen.reading.labels, goroutine.id);
                self.wrong.push(format!("{what}: {goroutine:?} {labels:?}"));
            }
        }
    }

    /// What cannot be of a goroutine that `class` started.
    fn worker(&mut self, class: &str, goroutine: &Goroutine, seen: &Seen) -> Option<String> {
        let Some(worker) = self.workers.get(&goroutine.id) else {
            return Some("nobody had this id".to_owned());
        };
        if worker.class != class {
            return Some(format!("its id is of class {}", worker.class));
        }
        if worker.ended + LEAVES_WITHIN < seen.began {
            return Some("it had ended".to_owned());
        }
        let creation = goroutine.created_by.as_ref()?;
        if creation.goroutine != self.starters.get(class).copied() {
            return Some("another started it".to_owned());
        }
        let mut classes = goroutine
            .frames
            .iter()
            .filter_map(|frame| self::class(&frame.function));
        if classes.any(|other| other != class) {
            return Some(format!("class {class} stands elsewhere"));
        }
        let labels = of(&seen.reading.labels, goroutine.id);
        let label = |key: &str| labels.iter().find(|(other, _)| other == key);
        if seen.reading.labels.unread == 0 && label("class").is_none_or(|(_, told)| told != class) {
            return Some(format!("class {class} carries other labels"));
        }
        if label("number").is_some_and(|(_, told)| *told != worker.number) {
            return Some(format!("number {} carries other labels", worker.number));
        }
        None
    }

    /// What cannot be of a stack.
    fn stack(&mut self, goroutine: &Goroutine) -> Option<String> {
        let frames: Vec<&Frame> = goroutine
            .frames
            .iter()
            .filter(|frame| frame.function.starts_with("main."))
            .collect();
        let innermost = frames.first()?;
        let last = frames.last()?;
        *self.whole.entry(last.function.clone()).or_default() += 1;
        // Whoever allocates may help to collect garbage, and wait there in many ways; but not in another's.
        let waits = [
            ("chan receive", "receive"),
            ("syscall", "syscall"),
            ("sleep", "sleep"),
        ];
        let wait = waits.iter().find(|(state, _)| goroutine.state == *state);
        let there = innermost.function.rsplit_once('_').map(|(_, there)| there);
        if let Some((_, waits)) = wait
            && class(&innermost.function).is_some()
            && there != Some(*waits)
        {
            return Some("it does not wait so there".to_owned());
        }
        for (callee, caller) in frames.iter().zip(frames.iter().skip(1)) {
            if class(&callee.function).is_none() {
                continue;
            }
            let callers = self.callers.entry(callee.function.clone()).or_default();
            callers.insert((caller.function.clone(), caller.line));
            let most = if callee.function == "main.grow_receive" {
                2
            } else {
                1
            };
            if callers.len() > most {
                return Some(format!("{} was called from {callers:?}", callee.function));
            }
        }
        None
    }
}

fn of(labels: &Labels, id: u64) -> Vec<(String, String)> {
    let set = labels.sets.iter().find(|set| set.goroutines.contains(&id));
    set.map(|set| set.labels.clone()).unwrap_or_default()
}

#[test]
fn nothing_is_told_as_a_fact_that_cannot_be() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let binary = go.build_of("churn", directory.path(), PLAIN);
        let mut child = Command::new(&binary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut judge = Judge::default();
        answers
            .by_ref()
            .take_while(|line| line != "ready")
            .for_each(|line| judge.take(&line));
        let program = Program::of_process(child.id()).unwrap().unwrap();
        let mut seen = Vec::new();
        let until = Instant::now() + WATCHED;
        while Instant::now() < until {
            let began = monotonic();
            let reading = memory::read(&program, usize::MAX).unwrap();
            seen.push(Seen { began, reading });
        }
        drop(child.stdin.take());
        answers.for_each(|line| judge.take(&line));
        assert!(child.wait().unwrap().success());
        for seen in &seen {
            judge.judge(seen);
        }
        let count = |of: fn(&memory::Reading) -> u64| -> u64 {
            seen.iter().map(|seen| of(&seen.reading)).sum()
        };
        let told = count(|reading| reading.snapshot.goroutines.len() as u64);
        println!(
            "{}: {} readings of {} goroutines in all, {told} told, {} of them unsettled, {} unnamed, {} with labels unread; {} torn; whole stacks: {:?}",
            program.version(),
            seen.len(),
            judge.workers.len(),
            count(|reading| reading.unsettled),
            count(|reading| reading.unnamed),
            count(|reading| reading.labels.unread),
            judge.wrong.len(),
            judge.whole,
        );
        let some = &judge.wrong[..judge.wrong.len().min(10)];
        assert!(some.is_empty(), "{}: {some:#?}", program.version());
        for class in ["twin", "grow", "sleep"] {
            let whole = judge.whole.get(&format!("main.{class}Work"));
            assert!(
                whole.is_some_and(|whole| *whole > 10),
                "{} {class}",
                program.version()
            );
        }
    }
}
