//! The facts of transfers, queues, descriptors and deadlines, each against what the scenario itself knows.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    services::{Service, go_time},
    turn::Turn,
    wait,
};
use tracer_user::{
    event::{
        BootInstant, Decider, Descriptors, Event, Exchange, Fact, Listening, Message, SocketId,
        Stall,
    },
    recording::Reader,
};

/// What calls and timers may be late by on a busy machine.
const SLACK: Duration = Duration::from_millis(60);
/// More than all buffers on the way hold.
const MUCH: usize = 24 << 20;

/// A recording that goes on.
struct Recorded {
    watch: Watch,
    directory: tempfile::TempDir,
}

impl Recorded {
    fn start(pid: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("recording");
        let path = path.to_str().context("a path that is no text")?;
        let watch = Watch::start(&["record", "--pid", pid, "-d", "60s", "-o", path])?;
        Ok(Self { watch, directory })
    }

    fn events(self) -> anyhow::Result<Vec<Event>> {
        let ended = self.watch.stop()?;
        let mut reader = Reader::open(&self.directory.path().join("recording"))
            .with_context(|| format!("gopulse said: {}", ended.stderr))?;
        Ok(reader.by_ref().collect())
    }
}

/// The request of `balk`: its lengths, and its beginning.
fn request(length: usize, response: usize, begun: usize) -> Vec<u8> {
    let mut bytes = format!("{length:016}{response:016}").into_bytes();
    bytes.resize(bytes.len() + begun, b'x');
    bytes
}

fn near(found: Duration, wanted: Duration) -> bool {
    found.abs_diff(wanted) <= SLACK
}

fn exchanges(events: &[Event]) -> Vec<&Exchange> {
    let told = events.iter().filter_map(|event| match &event.fact {
        Fact::Exchange(exchange) => Some(exchange),
        _ => None,
    });
    told.collect()
}

fn stalls(events: &[Event]) -> Vec<&Stall> {
    let told = events.iter().filter_map(|event| match &event.fact {
        Fact::Stalled(stall) => Some(stall),
        _ => None,
    });
    told.collect()
}

fn unread(events: &[Event]) -> Vec<(BootInstant, Option<u64>)> {
    let told = events.iter().filter_map(|event| match &event.fact {
        Fact::Unread { since, bytes, .. } => Some((*since, *bytes)),
        _ => None,
    });
    told.collect()
}

fn deadlines(events: &[Event], decider: Decider) -> Vec<(BootInstant, Option<SocketId>)> {
    let told = events.iter().filter_map(|event| match &event.fact {
        Fact::Decision(decision) if decision.decider == decider => {
            Some((event.at, decision.socket))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn what_a_process_reads_late_had_arrived() -> anyhow::Result<()> {
    let name = "a request that is read late";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let late = Draw::new(name).millis(120..500);
    let balk = Service::start("balk", &["-before-read", &go_time(late)])?;
    let recorded = Recorded::start(&balk.pid())?;
    let mut stream = TcpStream::connect(balk.address)?;
    let mut response = [0; 100];
    for _ in 0..2 {
        stream.write_all(&request(500, 100, 500))?;
        stream.read_exact(&mut response)?;
    }
    let events = recorded.events()?;
    let [first, second] = exchanges(&events)[..] else {
        anyhow::bail!("not two exchanges: {:?}", exchanges(&events));
    };
    let waited = first.started.since(first.arrived.context("no arrival")?);
    assert!(near(waited, late), "{waited:?} for {late:?}");
    let waited = second.started.since(second.arrived.context("no arrival")?);
    assert!(waited < SLACK, "{waited:?}");
    assert!(first.round_trip.is_some_and(|time| time < SLACK));
    assert!(stalls(&events).is_empty() && unread(&events).is_empty());
    Ok(())
}

/// Waits until every buffer between the sender and us is full, when what lies in the socket grows no more;
/// gives the moment from which on it did not.
fn until_nothing_comes(stream: &TcpStream) -> anyhow::Result<Instant> {
    let mut lying = vec![0; MUCH];
    let mut last = (0, Instant::now());
    wait::until("full buffers", Duration::from_secs(10), || {
        let now = stream.peek(&mut lying)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > SLACK / 2).then_some(last.1))
    })
}

#[test]
fn a_receiver_that_stops_reading_limits_the_sender_by_its_window() -> anyhow::Result<()> {
    let name = "a receiver that stops reading";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let pause = Draw::new(name).millis(300..900);
    let balk = Service::start("balk", &[])?;
    let recorded = Recorded::start(&balk.pid())?;
    let mut stream = TcpStream::connect(balk.address)?;
    stream.write_all(&request(10, MUCH, 10))?;
    let mut response = vec![0; MUCH];
    let (begin, rest) = response.split_at_mut(64 << 10);
    stream.read_exact(begin)?;
    let quiet = until_nothing_comes(&stream)?;
    sleep(pause);
    let quiet = quiet.elapsed();
    stream.read_exact(rest)?;
    // And one that never goes on.
    stream.write_all(&request(10, MUCH, 10))?;
    stream.read_exact(begin)?;
    until_nothing_comes(&stream)?;
    sleep(pause);
    let events = recorded.events()?;
    let [first, second] = stalls(&events)[..] else {
        anyhow::bail!("not two gaps: {:?}", stalls(&events));
    };
    for (stall, resumed) in [(first, true), (second, false)] {
        assert_eq!((stall.message, stall.resumed), (Message::Response, resumed));
        let gap = stall.until.since(stall.from);
        assert!(
            gap + SLACK > pause && stall.bytes_before > 64 << 10,
            "{stall:?}"
        );
        let full = stall.buffer_full.context("the buffer was full")?;
        assert!(full.since(stall.from) < SLACK, "{stall:?}");
        assert!(stall.window_limited + SLACK > gap, "{stall:?}");
        assert_eq!(stall.arrived, None);
        // The kernel may send its last segment once more, to probe for a loss.
        assert!(stall.retransmits <= 3, "{stall:?}");
    }
    assert!(near(first.until.since(first.from), quiet), "{first:?}");
    Ok(())
}

#[test]
fn a_gap_in_a_request_is_the_senders_or_the_readers() -> anyhow::Result<()> {
    let name = "a gap in a request";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let pause = Draw::new(name).millis(300..700);
    for theirs in [true, false] {
        let mid = if theirs { Duration::ZERO } else { pause };
        let balk = Service::start("balk", &["-mid-read", &go_time(mid)])?;
        let recorded = Recorded::start(&balk.pid())?;
        let mut stream = TcpStream::connect(balk.address)?;
        stream.write_all(&request(2000, 10, 1200))?;
        if theirs {
            sleep(pause);
        }
        stream.write_all(&[b'x'; 800])?;
        stream.read_exact(&mut [0; 10])?;
        let events = recorded.events()?;
        let [stall] = stalls(&events)[..] else {
            anyhow::bail!("not one gap: {:?}", stalls(&events));
        };
        assert_eq!((stall.message, stall.resumed), (Message::Request, true));
        assert!(near(stall.until.since(stall.from), pause), "{stall:?}");
        let lay = stall.until.since(stall.arrived.context("no arrival")?);
        let wanted = if theirs { Duration::ZERO } else { pause };
        assert!(near(lay, wanted), "{lay:?} of {stall:?}");
        assert_eq!(stall.buffer_full, None);
    }
    Ok(())
}

#[test]
fn what_nobody_accepts_lies_unread_and_waits_in_the_queue() -> anyhow::Result<()> {
    let name = "connections that nobody accepts";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let (bytes, clients) = (draw.number(1..5000), draw.number(2..6));
    let balk = Service::start("balk", &["-accept=false"])?;
    let recorded = Recorded::start(&balk.pid())?;
    let streams: Vec<TcpStream> = (0..clients)
        .map(|_| {
            let mut stream = TcpStream::connect(balk.address)?;
            stream.write_all(&vec![b'x'; usize::try_from(bytes)?])?;
            anyhow::Ok(stream)
        })
        .collect::<Result<_, _>>()?;
    let lain = draw.millis(400..700);
    sleep(lain);
    let events = recorded.events()?;
    drop(streams);
    let told = unread(&events);
    assert_eq!(told.len() as u64, clients, "{told:?}");
    let end = events
        .iter()
        .map(|event| event.at)
        .max()
        .unwrap_or_default();
    for (since, told) in told {
        assert_eq!(told, Some(bytes));
        assert!(end.since(since) + SLACK > lain, "{:?}", end.since(since));
    }
    let queue = queues(&events, balk.address);
    let last = queue.last().context("no queue")?;
    assert_eq!((u64::from(last.queued), last.dropped), (clients, 0));
    assert!(queue.first().is_some_and(|first| first.queued == 0));
    Ok(())
}

fn queues(events: &[Event], of: SocketAddr) -> Vec<&Listening> {
    let told = events.iter().filter_map(|event| match &event.fact {
        Fact::Listening(listening) if listening.address == of => Some(listening),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_peer_that_closed_before_the_window_is_told() -> anyhow::Result<()> {
    let name = "a peer that closed before";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let balk = Service::start("balk", &["-before-read", "1h"])?;
    drop(TcpStream::connect(balk.address)?);
    // Bytes from before the window lie there at its end, since its start at the latest.
    let mut stream = TcpStream::connect(balk.address)?;
    stream.write_all(&request(10, 10, 10))?;
    let recorded = Recorded::start(&balk.pid())?;
    let events = recorded.events()?;
    let closed = events
        .iter()
        .filter(|event| matches!(event.fact, Fact::PeerClosed { .. }));
    assert_eq!(closed.count(), 1);
    let [(_, bytes)] = unread(&events)[..] else {
        anyhow::bail!("not one that lies unread: {:?}", unread(&events));
    };
    assert_eq!(bytes, Some(42));
    Ok(())
}

#[test]
fn refused_calls_are_counted_near_the_limit() -> anyhow::Result<()> {
    let name = "file descriptors that run out";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let limit = Draw::new(name).number(100..400);
    let mut balk = Service::start("balk", &["-files", &limit.to_string()])?;
    let recorded = Recorded::start(&balk.pid())?;
    let refused: u64 = balk.process.line("refused ")?.parse()?;
    let events = recorded.events()?;
    let told: Vec<&Descriptors> = events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Descriptors(told) => Some(told),
            _ => None,
        })
        .collect();
    let last = told.last().context("no descriptors")?;
    // Descriptors that were inherited may stand above the limit.
    assert!(last.open >= limit && last.limit == limit, "{told:?}");
    assert_eq!(last.refused, Some(refused), "{told:?}");
    let most = last.held.first().context("nothing held")?;
    assert_eq!(most.0, "file /dev/null");
    assert!(most.1 > limit * 8 / 10 && refused > 0);
    Ok(())
}

#[test]
fn deadlines_that_pass_and_a_shutdown_are_told() -> anyhow::Result<()> {
    let name = "deadlines that pass";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let (read, write) = (draw.millis(200..500), draw.millis(600..900));
    let limits = Service::start(
        "limits",
        &[
            "-read-timeout",
            &go_time(read),
            "-write-timeout",
            &go_time(write),
            "-shutdown-after",
            "3s",
        ],
    )?;
    let recorded = Recorded::start(&limits.pid())?;
    let mut body = TcpStream::connect(limits.address)?;
    body.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")?;
    let mut page = TcpStream::connect(limits.address)?;
    page.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    sleep(read.max(write) + SLACK);
    // One that is answered in time passes none.
    let mut quick = TcpStream::connect(limits.address)?;
    quick.write_all(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )?;
    quick.read_to_end(&mut Vec::new())?;
    let began = Instant::now();
    wait::until("the listener's end", Duration::from_secs(5), || {
        let open = TcpListener::bind(limits.address).is_err() && began.elapsed().as_secs() < 4;
        Ok((!open).then_some(()))
    })?;
    let events = recorded.events()?;
    for (decider, limit) in [
        (Decider::ReadDeadline, read),
        (Decider::WriteDeadline, write),
    ] {
        let [(at, Some(socket))] = deadlines(&events, decider)[..] else {
            anyhow::bail!("{decider:?}: {:?}", deadlines(&events, decider));
        };
        let asked = exchanges(&events)
            .iter()
            .find(|told| told.socket == socket)
            .map(|told| told.started)
            .context("an exchange")?;
        assert!(
            near(at.since(asked), limit),
            "{decider:?} after {:?}",
            at.since(asked)
        );
    }
    assert!(!deadlines(&events, Decider::ServerShutdown).is_empty());
    Ok(())
}
