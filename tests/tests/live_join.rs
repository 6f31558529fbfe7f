//! Whose event it is: the goroutines to which thousands of exchanges are attributed, against what the
//! services wrote down themselves while their connections went from hand to hand.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    process::{Process, succeed},
    services::{self, Service, go_time},
    turn::Turn,
    workspace,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracer_user::{
    event::{Actor, Attribution, Event, Fact, Origin, SocketId},
    recording::Reader,
};

/// The least share of what is read in the context of a process that must be right.
const RIGHT: f64 = 0.999;

/// Exchanges that a run must have, at both ends together.
const MANY: u64 = 20_000;

/// Both ends of a connection, ours first.
type Ends = (SocketAddr, SocketAddr);

/// What was done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Deed {
    Connect,
    /// The request of this exchange was read, or sent.
    Ask(u32),
    Close,
}

/// Who did what, as the services wrote it down.
#[derive(Default)]
struct Ledger {
    hands: HashMap<(Ends, Deed), u64>,
    /// Ends that two connections had, one after the other.
    twice: HashSet<Ends>,
}

impl Ledger {
    fn read(&mut self, told: &str) -> anyhow::Result<()> {
        for line in told.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (deed, ours, theirs, goroutine) = match words[..] {
                ["connect", ours, theirs, by] => (Deed::Connect, ours, theirs, by),
                ["exchange", ours, theirs, number, by] => {
                    (Deed::Ask(number.parse()?), ours, theirs, by)
                }
                ["close", ours, theirs, by] => (Deed::Close, ours, theirs, by),
                _ => continue,
            };
            let ends = (ours.parse()?, theirs.parse()?);
            let known = self.hands.insert((ends, deed), goroutine.parse()?);
            if known.is_some() {
                self.twice.insert(ends);
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// How many are noted, of connections that can be told apart.
    fn exchanges(&self) -> u64 {
        let asked = self
            .hands
            .keys()
            .filter(|(ends, deed)| matches!(deed, Deed::Ask(_)) && !self.twice.contains(ends));
        asked.count() as u64
    }
}

/// How often a kind of event was attributed to whom.
#[derive(Debug, Default)]
struct Tally {
    right: u64,
    wrong: u64,
    nobody: u64,
}

impl Tally {
    fn share(&self) -> f64 {
        self.right as f64 / (self.right + self.wrong + self.nobody).max(1) as f64
    }
}

/// By what was done and how the doer is said to be known.
type Tallies = BTreeMap<(&'static str, String), Tally>;

fn compare(ledger: &Ledger, events: &[Event]) -> Tallies {
    let mut ends: HashMap<SocketId, Ends> = HashMap::new();
    for event in events {
        if let Fact::Opened(opened) = &event.fact {
            ends.insert(opened.socket, (opened.local, opened.remote));
        }
    }
    let mut tallies = Tallies::new();
    for event in events {
        let (what, socket, deed, actor): (_, _, _, Option<Actor>) = match &event.fact {
            // Of one that was found in use, who connected is not told.
            Fact::Opened(o) if o.origin == Origin::Connected => {
                ("connect", o.socket, Deed::Connect, o.actor)
            }
            Fact::Exchange(e) => ("exchange", e.socket, Deed::Ask(e.number), e.actor),
            Fact::LocalClosed { socket, actor, .. } => ("close", *socket, Deed::Close, *actor),
            _ => continue,
        };
        let Some(ends) = ends
            .get(&socket)
            .filter(|ends| !ledger.twice.contains(ends))
        else {
            continue;
        };
        let Some(truth) = ledger.hands.get(&(*ends, deed)) else {
            continue;
        };
        let how = actor.map_or_else(
            || "nobody".into(),
            |actor| format!("{:?}", actor.attribution),
        );
        let tally = tallies.entry((what, how)).or_default();
        match actor.and_then(|actor| actor.goroutine) {
            Some(goroutine) if goroutine == *truth => tally.right += 1,
            Some(_) => tally.wrong += 1,
            None => tally.nobody += 1,
        }
    }
    tallies
}

/// Two services of `program` that talk to each other while they are watched.
fn crews(program: &std::path::Path, draw: &mut Draw) -> anyhow::Result<(Ledger, Vec<Event>)> {
    let work = go_time(draw.millis(10..40));
    let server = Service::run(
        Command::new(program)
            .args(["-work", &work])
            .env("GOMAXPROCS", "8"),
    )?;
    let mut client = Process::start(
        Command::new(program)
            .args(["-ask", &server.address.to_string(), "-clients", "2000"])
            .args(["-rounds", "2", "-requests", "4"])
            .env("GOMAXPROCS", "8"),
    )?;
    client.line("ready")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("recording");
    let to = path.to_str().context("a path that is no text")?;
    let client_pid = client.pid().to_string();
    let watch = Watch::start(&[
        "record",
        "--pid",
        &server.pid(),
        "--pid",
        &client_pid,
        "-d",
        "60s",
        "-o",
        to,
    ])?;
    kill(Pid::from_raw(i32::try_from(client.pid())?), Signal::SIGCONT)?;
    let ended = client.wait(Duration::from_secs(50))?;
    anyhow::ensure!(ended.status == 0, "the client failed: {}", ended.stderr);
    let mut ledger = Ledger::default();
    ledger.read(&ended.stdout)?;
    let recorded = watch.stop()?;
    ledger.read(&server.process.stdout())?;
    let mut reader =
        Reader::open(&path).with_context(|| format!("gopulse said: {}", recorded.stderr))?;
    Ok((ledger, reader.by_ref().collect()))
}

fn assert_the_join_is_right(program: &std::path::Path, draw: &mut Draw) -> anyhow::Result<()> {
    let (ledger, events) = crews(program, draw)?;
    let tallies = compare(&ledger, &events);
    for ((what, how), tally) in &tallies {
        eprintln!(
            "{what} {how}: {} right, {} wrong, {} nobody's ({:.3}%)",
            tally.right,
            tally.wrong,
            tally.nobody,
            tally.share() * 100.0
        );
    }
    eprintln!(
        "{} ends were used twice and are left out",
        ledger.twice.len()
    );
    let direct = format!("{:?}", Attribution::Direct);
    let mut right = 0;
    for ((what, how), tally) in &tallies {
        if *what == "exchange" {
            right += tally.right;
        }
        if *how == direct {
            assert_eq!(tally.wrong, 0, "{what}: {tally:?}");
            assert!(tally.share() >= RIGHT, "{what}: {tally:?}");
        }
    }
    let served = ledger.exchanges();
    assert!(served >= MANY, "{served} exchanges were noted");
    // Sixteen threads want two CPUs, and the rings may fill up: whose the events were that are lost nobody can say.
    let lost = events
        .iter()
        .any(|event| matches!(&event.fact, Fact::Lost { probe, .. } if probe != "packets"));
    let least = if lost {
        MANY / 2
    } else {
        (served as f64 * RIGHT) as u64
    };
    assert!(
        right >= least,
        "{right} of {served} were told right, and {}",
        if lost {
            "some were lost"
        } else {
            "none was lost"
        }
    );
    Ok(())
}

#[test]
fn each_exchange_is_its_own_goroutines_wherever_the_connection_goes() -> anyhow::Result<()> {
    let name = "the join";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    assert_the_join_is_right(&services::program("crew")?, &mut Draw::new(name))
}

#[test]
fn each_exchange_is_its_own_goroutines_also_where_c_reads_it() -> anyhow::Result<()> {
    let name = "the join with cgo";
    let Some(_turn) = Turn::take(name, &["cc"]) else {
        return Ok(());
    };
    let program = workspace::target().join("services").join("crew-cgo");
    let build = ["build", "-o"];
    let mut go = services::go("go")?;
    go.args(build).arg(&program).arg("./crew");
    succeed(go.env("CGO_ENABLED", "1"))?;
    assert_the_join_is_right(&program, &mut Draw::new(name))
}
