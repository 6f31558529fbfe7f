//! Packet captures as a source: what is counted on each connection is what Wireshark counts, and a
//! gateway that gives up is found from packets alone.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::{self, Verdict},
    netns::Pair,
    process::{Process, succeed},
    report::Finding,
    services::{self, Service, go_time},
    streams::{self, Stream},
    turn::Turn,
    wait,
};
use tempfile::TempDir;
use tracer_user::pcap::{file::Reader, segment, tracker::Tracker};

/// The same by gopulse.
fn by_gopulse(capture: &Path) -> anyhow::Result<BTreeMap<u32, Stream>> {
    let mut reader =
        Reader::new(File::open(capture)?).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let told = Rc::new(RefCell::new(BTreeMap::new()));
    let mut tracker = Tracker::new();
    let each = Rc::clone(&told);
    tracker.each_stream(move |stream| {
        let [one, other] = stream.key.ends().map(|end| end.to_string());
        let counts = stream.counts;
        each.borrow_mut().insert(
            stream.number,
            Stream {
                ends: if one < other {
                    (one, other)
                } else {
                    (other, one)
                },
                retransmissions: counts.retransmissions
                    + counts.fast_retransmissions
                    + counts.spurious_retransmissions,
                fast: counts.fast_retransmissions,
                spurious: counts.spurious_retransmissions,
                out_of_order: counts.out_of_order,
                duplicate_acks: counts.duplicate_acks,
                zero_windows: counts.zero_windows,
                windows_full: counts.windows_full,
                keep_alives: counts.keep_alives,
                gaps: counts.gaps,
                handshake: stream.handshake,
                segments: counts.segments,
            },
        );
    });
    while let Some(packet) = reader
        .next_packet()
        .map_err(|error| anyhow::anyhow!("{error:?}"))?
    {
        if let Ok(segment) = segment::decode(&packet) {
            tracker.take(&segment);
        }
        tracker.events().clear();
    }
    tracker.end(0);
    Ok(told.take())
}

/// Where the two differ, one line each.
fn differences(capture: &Path) -> anyhow::Result<Vec<String>> {
    let theirs = streams::by_tshark(capture)?;
    let mut ours = by_gopulse(capture)?;
    let mut differing = Vec::new();
    for (number, their) in &theirs {
        match ours.remove(number) {
            Some(our) if our == *their => {}
            our => differing.push(format!(
                "tcp.stream {number}: tshark {their:?}, gopulse {our:?}"
            )),
        }
    }
    differing.extend(
        ours.iter()
            .map(|(number, our)| format!("{number}: only gopulse {our:?}")),
    );
    Ok(differing)
}

/// tcpdump at work.
struct Capturing {
    tcpdump: Process,
    file: PathBuf,
}

impl Capturing {
    /// Starts it with these arguments, as `command`; gives back when it listens.
    fn start(mut command: Command, arguments: &[&str], file: PathBuf) -> anyhow::Result<Self> {
        // As root's, or tcpdump may not be allowed to write there. In immediate mode each packet takes a
        // slot as long as the snap length: the default length and buffer have room for eight packets, these
        // for more than a thousand of the longest that the loopback device has.
        command
            .args(["-Z", "root", "-U", "--immediate-mode"])
            .args(["-s", "65600", "-B", "131072", "-w"])
            .arg(&file);
        let mut tcpdump = Process::start(command.args(arguments))?;
        tcpdump.line("tcpdump: listening on ")?;
        Ok(Self { tcpdump, file })
    }

    /// Ends it once nothing new has come for a moment, and gives the capture; `None` where it lacks
    /// packets, because tcpdump could not keep up.
    fn end(self) -> anyhow::Result<Option<PathBuf>> {
        let mut last = (0, Instant::now());
        wait::until("the end of the packets", Duration::from_secs(30), || {
            let now = fs::metadata(&self.file)?.len();
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() > Duration::from_millis(300)).then_some(()))
        })?;
        self.tcpdump.interrupt()?;
        let said = self.tcpdump.wait(Duration::from_secs(10))?.stderr;
        let dropped: u64 = said
            .lines()
            .find_map(|line| {
                line.split_once(" packets dropped by kernel")?
                    .0
                    .parse()
                    .ok()
            })
            .with_context(|| format!("tcpdump counts no dropped packets: {said}"))?;
        Ok((dropped == 0).then_some(self.file))
    }
}

/// Lets a scenario happen until tcpdump keeps up with it: what a capture lacks, no diagnosis can find.
fn until_captured<T>(mut scenario: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    for _ in 0..3 {
        if let Some(captured) = scenario()? {
            return Ok(captured);
        }
    }
    anyhow::bail!(
        "tcpdump dropped packets three times in a row: this machine is too busy to capture"
    )
}

/// Nothing that anybody acknowledged lacks in a capture from which tcpdump dropped nothing.
fn assert_lacks_nothing(capture: &Path) -> anyhow::Result<()> {
    let path = capture.to_str().context("a path that is no text")?;
    let report = gopulse::diagnose(&[path])?.report;
    assert_eq!(report.packets_lost(), Some(0), "{}", report.titles());
    Ok(())
}

fn assert_same_as_tshark(capture: &Path) -> anyhow::Result<BTreeMap<u32, Stream>> {
    let found = differences(capture)?;
    assert!(found.is_empty(), "{}", found.join("\n"));
    by_gopulse(capture)
}

#[test]
fn losses_and_reordering_are_counted_as_wireshark_counts_them() -> anyhow::Result<()> {
    let name = "losses counted as Wireshark does";
    let Some(_turn) = Turn::take_without_tracing(name, &["tshark", "tcpdump", "ip", "nft"]) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    let pair = Pair::new()?;
    let address = format!("{}:{}", Pair::FAR, draw.number(2_000..30_000));
    let mut upload = pair.far.command(services::program("upload")?);
    upload.args(["-listen", &address, "-large-delay", "1ms"]);
    let _upload = Service::run(&mut upload)?;
    for end in [&pair.near, &pair.far] {
        end.lose_tcp(draw.number(3..8))?;
    }
    let url = format!("http://{address}/upload");
    let directory = tempfile::tempdir()?;
    let captures = until_captured(|| {
        let [near, far] = [(&pair.near, "near"), (&pair.far, "far")].map(|(end, name)| {
            let file = directory.path().join(name);
            Capturing::start(end.command("tcpdump"), &["-i", "cable", "tcp"], file)
        });
        let (near, far) = (near?, far?);
        for _ in 0..3 {
            let mut client = pair.near.command(services::program("client")?);
            services::upload_by(client.args(["-url", &url, "-n", "20", "-large-every", "1"]))?;
        }
        Ok(near.end()?.zip(far.end()?).map(<[PathBuf; 2]>::from))
    })?;
    let mut seen = Vec::new();
    for capture in captures {
        assert_lacks_nothing(&capture)?;
        seen.extend(assert_same_as_tshark(&capture)?.into_values());
    }
    let sum = |count: fn(&Stream) -> u32| seen.iter().map(count).sum::<u32>();
    assert!(sum(|stream| stream.retransmissions) > 0, "{seen:?}");
    assert!(sum(|stream| stream.out_of_order) > 0, "{seen:?}");
    assert!(sum(|stream| stream.duplicate_acks) > 0, "{seen:?}");
    Ok(())
}

#[test]
fn a_reader_that_stops_closes_its_window() -> anyhow::Result<()> {
    let name = "a reader that stops";
    let Some(_turn) = Turn::take_without_tracing(name, &["tshark", "tcpdump"]) else {
        return Ok(());
    };
    let pause = Draw::new(name).millis(700..1_500);
    let directory = tempfile::tempdir()?;
    let capture = until_captured(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let capturing = Capturing::start(
            Command::new("tcpdump"),
            &["-i", "lo", "tcp", "port", &address.port().to_string()],
            directory.path().join("capture"),
        )?;
        let reader = thread::spawn(move || -> io::Result<u64> {
            let (mut stream, _) = listener.accept()?;
            stream.read_exact(&mut [0; 1_000])?;
            thread::sleep(pause);
            io::copy(&mut stream, &mut io::sink())
        });
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&vec![b'x'; 16 << 20])?;
        drop(stream);
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader failed"))??;
        capturing.end()
    })?;
    assert_lacks_nothing(&capture)?;
    let streams = assert_same_as_tshark(&capture)?;
    let stream = streams.values().next().context("no connection")?;
    assert!(stream.zero_windows > 0, "{stream:?}");
    assert!(stream.windows_full > 0, "{stream:?}");
    Ok(())
}

/// A gateway whose patience ends before its upstream answers, a capture of both its sides, and the
/// goroutines of both as curl saved them meanwhile.
struct Incident {
    _directory: TempDir,
    capture: PathBuf,
    dumps: [PathBuf; 2],
    upstream: String,
    gateway: String,
    patience: Duration,
    failed: u64,
}

/// A request that waits longer is none of the small ones, which only pass by.
const LONG: Duration = Duration::from_millis(50);

/// The goroutine (`goroutine 34`) that waits in a dump for the upstream, or sleeps over a large upload.
fn who_waits(dump: &str) -> Option<&str> {
    let waits = [
        ("[select", "persistConn).roundTrip"),
        ("[sleep", "Archive).store"),
    ];
    let waiting = dump.split("\n\n").find(|goroutine| {
        waits
            .iter()
            .any(|(state, frame)| goroutine.contains(state) && goroutine.contains(frame))
    })?;
    waiting.split(" [").next()
}

impl Incident {
    fn happen(draw: &mut Draw, interface: &str) -> anyhow::Result<Self> {
        until_captured(|| Self::happen_once(draw, interface))
    }

    fn happen_once(draw: &mut Draw, interface: &str) -> anyhow::Result<Option<Self>> {
        let patience = draw.millis(500..1_000);
        let delay = patience + draw.millis(300..600);
        let profiled = ["-pprof", "127.0.0.1:0"];
        let mut upload = Service::start(
            "upload",
            &[&profiled[..], &["-large-delay", &go_time(delay)]].concat(),
        )?;
        let upstream = upload.address.to_string();
        let patient = go_time(patience);
        let arguments = ["-upstream", &upstream, "-response-header-timeout", &patient];
        let mut gateway = Service::start("gateway", &[&profiled[..], &arguments].concat())?;
        let directory = tempfile::tempdir()?;
        let filter = format!("tcp port {} or tcp port {}", upload.port(), gateway.port());
        let capturing = Capturing::start(
            Command::new("tcpdump"),
            &["-i", interface, &filter],
            directory.path().join("capture"),
        )?;
        let url = format!("http://{}/upload", gateway.address);
        let client =
            thread::spawn(move || services::upload(&url, &["-n", "6", "-large-every", "3"]));
        let dump_of = |service: &mut Service| -> anyhow::Result<PathBuf> {
            let pprof = service.process.line("pprof ")?;
            let dump = directory
                .path()
                .join(format!("goroutines-{}", service.port()));
            let mut since = None;
            wait::until("a request in flight", Duration::from_secs(5), || {
                let url = format!("http://{pprof}/debug/pprof/goroutine?debug=2");
                let text = succeed(Command::new("curl").args(["-s", &url]))?;
                let waiting = who_waits(&text).map(str::to_owned);
                if waiting.is_none() || since.as_ref().map(|(who, _)| who) != waiting.as_ref() {
                    since = waiting.map(|who| (who, Instant::now()));
                    return Ok(None);
                }
                let long = since.as_ref().is_some_and(|(_, at)| at.elapsed() > LONG);
                long.then(|| fs::write(&dump, &text))
                    .transpose()
                    .map_err(Into::into)
            })?;
            Ok(dump)
        };
        let dumps = [dump_of(&mut gateway)?, dump_of(&mut upload)?];
        let outcomes = client
            .join()
            .map_err(|_| anyhow::anyhow!("the client failed"))??;
        let Some(capture) = capturing.end()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            capture,
            _directory: directory,
            dumps,
            upstream,
            gateway: gateway.address.to_string(),
            patience,
            failed: outcomes
                .iter()
                .filter(|outcome| outcome.status != 200)
                .count() as u64,
        }))
    }

    fn diagnose(&self, dumps: &[&Path]) -> anyhow::Result<Verdict> {
        let mut arguments = vec![self.capture.to_str().context("a path that is no text")?];
        for dump in dumps {
            arguments.extend([
                "--goroutines",
                dump.to_str().context("a path that is no text")?,
            ]);
        }
        gopulse::diagnose(&arguments)
    }

    fn assert_told(&self, verdict: &Verdict) -> anyhow::Result<()> {
        let report = &verdict.report;
        assert_eq!(report.packets_lost(), Some(0), "{}", report.titles());
        let found = report.only("proxy-timeout")?;
        assert_eq!(found.comm(), self.gateway, "{}", report.titles());
        assert!(found.mentions(&self.upstream), "{found:?}");
        assert_eq!(found.pid(), None, "packets name no process");
        assert_eq!(found.setting(), None, "packets name no setting");
        assert_eq!(found.count(), Some(self.failed), "{}", report.titles());
        let waited = found.waited_s().context("no wait")?;
        // The patience counts from when the request was written, and its last segment may leave as much
        // later as the peer delays an ACK (40 ms) that it waits for.
        let short = self.patience.as_secs_f64() - waited;
        assert!(
            (-0.02..0.06).contains(&short),
            "waited {waited} s of {:?}",
            self.patience
        );
        assert_eq!(report.rules(), ["proxy-timeout"], "{}", report.titles());
        assert_eq!(verdict.status, 1);
        Ok(())
    }
}

#[test]
fn a_gateway_that_gives_up_is_found_from_packets_alone() -> anyhow::Result<()> {
    let name = "a gateway found from packets";
    let programs = ["tcpdump", "tshark", "curl"];
    let Some(_turn) = Turn::take_without_tracing(name, &programs) else {
        return Ok(());
    };
    let mut draw = Draw::new(name);
    for interface in ["lo", "any"] {
        let incident = Incident::happen(&mut draw, interface)?;
        let verdict = incident.diagnose(&[])?;
        incident.assert_told(&verdict)?;
        let found = verdict.report.only("proxy-timeout")?;
        assert!(!found.mentions("persistConn"), "{found:?}");
        assert_its_packets_are_shown(&incident.capture, &found)?;
    }
    Ok(())
}

/// Wireshark shows every packet that the evidence names under the filter that the finding gives.
fn assert_its_packets_are_shown(capture: &Path, found: &Finding<'_>) -> anyhow::Result<()> {
    let frames = found.frames();
    assert!(frames.len() >= 4, "{found:?}");
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(capture);
    tshark.args([
        "-Y",
        found.wireshark_filter(),
        "-T",
        "fields",
        "-e",
        "frame.number",
    ]);
    let shown = succeed(&mut tshark)?;
    let shown: Vec<u64> = shown.lines().filter_map(|line| line.parse().ok()).collect();
    for frame in frames {
        assert!(
            shown.contains(&frame),
            "frame {frame} is not shown: {found:?}"
        );
    }
    Ok(())
}

#[test]
fn goroutine_dumps_show_who_waits_and_who_is_at_work() -> anyhow::Result<()> {
    let name = "goroutine dumps beside packets";
    let Some(_turn) = Turn::take_without_tracing(name, &["tcpdump", "curl"]) else {
        return Ok(());
    };
    let incident = Incident::happen(&mut Draw::new(name), "lo")?;
    let [gateway, upload] = &incident.dumps;
    for (dumps, waits, at_work) in [
        (vec![gateway.as_path(), upload], true, true),
        (vec![upload.as_path()], false, true),
        (vec![gateway.as_path()], true, false),
    ] {
        let verdict = incident.diagnose(&dumps)?;
        incident.assert_told(&verdict)?;
        let found = verdict.report.only("proxy-timeout")?;
        assert_eq!(found.mentions("persistConn).roundTrip"), waits, "{found:?}");
        assert_eq!(
            found.mentions("main.(*Archive).store"),
            at_work,
            "{found:?}"
        );
    }
    Ok(())
}
