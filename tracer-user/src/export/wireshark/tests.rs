use std::io::Cursor;

use super::*;
use crate::{
    detect::{GATEWAY, Rule, findings, large_uploads_fail},
    event::{
        BootInstant, ConnectFailure, Descriptors, Fact, Listening, Message, Origin, Packet,
        SocketId, Stall,
    },
    model::story::{Asked, Story, ms, source},
    pcapng::{
        Writer,
        tests::{file, run, segment_v4},
    },
};

const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const DATA: u8 = 0x18;
const ACK: u8 = 0x10;

/// A segment `at` so many milliseconds of the story.
fn segment(at: f64, ports: [u16; 2], flags: u8, payload: u16) -> Packet {
    let mut packet = segment_v4(ports, 1, flags, payload);
    packet.at = ms(at);
    packet
}

/// A capture of these packets, in the order of time.
fn capture(model: &Model, mut packets: Vec<Packet>) -> Vec<u8> {
    packets.sort_by_key(|packet| packet.at);
    let mut writer = Writer::new(Vec::new(), model.source()).unwrap();
    for packet in &packets {
        writer.packet(packet).unwrap();
    }
    writer.finish(model.now(), 3).unwrap();
    writer.into_output()
}

/// Everything that a recording of `story` with these packets comes to.
struct Told {
    model: Model,
    findings: Vec<Finding>,
    rows: Rows,
    plain: Vec<u8>,
    annotated: Vec<u8>,
}

fn told(story: &mut Story, packets: Vec<Packet>) -> Told {
    let mut model = Model::new(source());
    let mut rows = Rows::default();
    for event in story.in_order() {
        model.apply(event);
        rows.tell(event, &model);
    }
    model.end(ms(30_000.0));
    let plain = capture(&model, packets);
    let mut findings = findings(&model);
    let annotated = annotated(&plain, &model, &mut findings, &rows);
    Told {
        model,
        findings,
        rows,
        plain,
        annotated,
    }
}

fn annotated(plain: &[u8], model: &Model, findings: &mut [Finding], rows: &Rows) -> Vec<u8> {
    let mut output = Vec::new();
    annotate(&mut Cursor::new(plain), &mut output, model, findings, rows).unwrap();
    output
}

/// The packets of [`large_uploads_fail`]'s first failed upload, and those of an answered one.
fn of_large_uploads() -> Vec<Packet> {
    let (front, back) = ([36004, 9000], [53004, 9001]);
    let [front_back, back_back] = [[9000, 36004], [9001, 53004]];
    let at = 4000.0;
    vec![
        segment(at - 0.2, front, SYN, 0),
        segment(at + 0.4, back, SYN, 0),
        segment(at + 0.9, front, DATA, 100),
        segment(at + 2.05, back, DATA, 100),
        segment(at + 19.95, front, DATA, 1000),
        segment(at + 20.01, back, DATA, 1000),
        segment(at + 20.05, back_back, ACK, 0),
        segment(at + 1020.35, back, FIN, 0),
        segment(at + 1020.75, front_back, FIN, 0),
        segment(at + 1520.3, back_back, DATA, 150),
        segment(99.8, [36001, 9000], SYN, 0),
        segment(101.0, [36001, 9000], DATA, 900),
        segment(130.0, [9000, 36001], DATA, 150),
    ]
}

/// One line a frame: its number, the packet's ports or the row's word, and its comments.
fn frames(capture: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut blocks = Blocks::new(capture);
    while let Some(block) = blocks.next().unwrap() {
        let number = lines.len() + 1;
        match block.content() {
            Content::Packet(packet) => {
                let segment = Segment::of(packet.bytes, packet.wire_length).unwrap();
                let ports = [segment.source.port(), segment.destination.port()];
                let comments = packet.comments().collect::<Vec<_>>().join(" | ");
                lines.push(format!("{number} {ports:?} {comments}"));
            }
            Content::Journal(entry) => {
                let [event, message] =
                    ["GOPULSE_EVENT", "MESSAGE"].map(|name| entry.field(name).unwrap_or_default());
                lines.push(format!("{number} {event}: {message}"));
            }
            Content::Statistics | Content::Other => {}
        }
    }
    lines
}

fn numbers(finding: &Finding) -> Vec<(&str, Option<u64>)> {
    let told = finding.evidence.iter();
    told.map(|event| (event.event.as_str(), event.frame))
        .collect()
}

#[test]
fn findings_processes_and_goroutines_stand_on_their_packets_and_decisions_between_them() {
    let told = told(&mut large_uploads_fail(1000.0), of_large_uploads());
    insta::assert_snapshot!(frames(&told.annotated).join("\n"));
    let proxy = &told.findings[0];
    assert_eq!(proxy.rule, Rule::ProxyTimeout);
    let events = numbers(proxy);
    assert_eq!(events.first(), Some(&("request", Some(8))));
    assert_eq!(events[3..5], [("decision", Some(13)), ("close", Some(14))]);
    assert_eq!(events.last(), Some(&("late", Some(17))));
}

#[test]
fn writing_it_anew_changes_no_byte_and_no_number() {
    let mut told = told(&mut large_uploads_fail(1000.0), of_large_uploads());
    let first = told.findings.clone();
    let again = annotated(&told.annotated, &told.model, &mut told.findings, &told.rows);
    assert_eq!(again, told.annotated);
    assert_eq!(told.findings, first);
}

#[test]
fn frames_are_found_again_in_the_file_as_it_stands() {
    let told = told(&mut large_uploads_fail(1000.0), of_large_uploads());
    let mut later = findings(&told.model);
    find_frames(&told.annotated[..], &told.model, &mut later).unwrap();
    assert_eq!(later, told.findings);
    // In a capture that was never annotated a decision has only the packet next to it.
    find_frames(&told.plain[..], &told.model, &mut later).unwrap();
    let proxy = &later[0];
    let of = |event: &str| numbers(proxy).into_iter().find(|(word, _)| *word == event);
    assert_eq!(of("decision").unwrap().1, of("close").unwrap().1);
}

#[test]
fn packets_are_the_same_as_before() {
    let told = told(&mut large_uploads_fail(1000.0), of_large_uploads());
    let packets = |capture: &[u8]| {
        let mut blocks = Blocks::new(capture);
        let mut packets = Vec::new();
        while let Some(block) = blocks.next().unwrap() {
            if let Content::Packet(packet) = block.content() {
                packets.push((packet.at, packet.wire_length, packet.bytes.to_vec()));
            }
        }
        packets
    };
    assert_eq!(packets(&told.annotated), packets(&told.plain));
}

#[test]
fn a_capture_that_was_cut_is_annotated_up_to_the_cut() {
    let mut told = told(&mut large_uploads_fail(1000.0), of_large_uploads());
    let whole = frames(&told.annotated).len();
    for length in [told.plain.len() - 1, told.plain.len() / 2] {
        let cut = &told.plain[..length];
        let annotated = annotated(cut, &told.model, &mut told.findings, &told.rows);
        let rows = frames(&annotated);
        assert!(rows.len() > 8 && rows.len() <= whole, "{rows:#?}");
        if let Some(seen) = run(
            "tshark",
            &["-T", "fields", "-e", "frame.number"],
            file(&annotated).path(),
        ) {
            assert_eq!(seen.lines().count(), rows.len());
        }
    }
}

#[test]
fn without_packets_there_are_rows_alone() {
    let told = told(&mut large_uploads_fail(1000.0), Vec::new());
    assert_eq!(frames(&told.annotated).len(), 8);
    for (event, frame) in numbers(&told.findings[0]) {
        assert_eq!(frame.is_some(), event == "decision", "{event}");
    }
    let capture = file(&told.annotated);
    for (tool, rows) in [("tshark", 8), ("tcpdump", 0)] {
        if let Some(seen) = run(tool, &[], capture.path()) {
            assert_eq!(seen.lines().count(), rows, "{tool}");
        }
    }
    let mut later = findings(&told.model);
    find_frames(&told.plain[..], &told.model, &mut later).unwrap();
    let mut all = later.iter().flat_map(|finding| &finding.evidence);
    assert!(all.all(|event| event.frame.is_none()));
}

#[test]
fn a_port_used_again_has_the_packets_of_each_connection_apart() {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    let ends = ("127.0.0.1:5000", "127.0.0.1:80");
    for at in [1_000.0, 15_000.0] {
        let socket = story.connected(at, GATEWAY, ends.0, ends.1);
        story
            .http(
                socket,
                0,
                "GET /",
                Asked::at(at + 1.0, 90).by(GATEWAY, at as u64),
            )
            .peer_closed(at + 2.0, socket)
            .gone(at + 3.0, socket);
    }
    let packets = [1_000.0, 15_000.0].into_iter().flat_map(|at| {
        [
            segment(at + 0.05, [5000, 80], SYN, 0),
            segment(at + 1.05, [5000, 80], DATA, 90),
            segment(at + 1.95, [80, 5000], FIN, 0),
        ]
    });
    let told = told(&mut story, packets.collect());
    let told_packets: Vec<String> = frames(&told.annotated)
        .into_iter()
        .filter(|line| line.contains("5000"))
        .collect();
    insta::assert_snapshot!(told_packets.join("\n"));
}

#[test]
fn a_request_read_long_after_it_came_is_found_by_going_back() {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    let socket = story.accepted(10.0, GATEWAY, "127.0.0.1:5000", "127.0.0.1:80");
    let asked = |at| Asked::at(at, 90).by(GATEWAY, 7);
    story
        .http(socket, 0, "GET /", asked(2_000.0).answered(2_001.0, 200))
        .http(socket, 1, "GET /", asked(2_500.0).arrived(2_010.0));
    let packets = vec![
        segment(9.9, [5000, 80], SYN, 0),
        segment(11.0, [5000, 80], DATA, 90),
        segment(1_999.0, [80, 5000], ACK, 0),
        segment(2_001.1, [80, 5000], DATA, 10),
        segment(2_009.9, [5000, 80], DATA, 90),
        segment(2_450.0, [80, 5000], ACK, 0),
    ];
    let frames = frames(&told(&mut story, packets).annotated);
    let served = frames.iter().filter(|line| line.contains("goroutine 7"));
    let numbers: Vec<&str> = served.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["3", "6"], "{frames:#?}");
}

#[test]
fn a_process_of_an_evil_name_writes_no_line_of_its_own() {
    let mut story = Story::new();
    story.go(GATEWAY, "a\nMESSAGE=b\x1b[2J");
    story.connected(10.0, GATEWAY, "127.0.0.1:5000", "127.0.0.1:80");
    story.exited(20.0, GATEWAY);
    let told = told(&mut story, vec![segment(10.1, [5000, 80], SYN, 0)]);
    assert!(!told.annotated.contains(&0x1b));
    let frames = frames(&told.annotated);
    assert_eq!(
        frames.last().unwrap(),
        "3 exit: a\\nMESSAGE=b\\u{1b}[2J (pid 20) ended"
    );
    assert!(frames[1].ends_with("a\\nMESSAGE=b\\u{1b}[2J (pid 20), client of 127.0.0.1:80"));
}

/// What has no packet, one of each kind.
fn trouble() -> Story {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    let address = "127.0.0.1:80".parse().unwrap();
    let listening = |queued, dropped| {
        Fact::Listening(Listening {
            pid: GATEWAY,
            address,
            queued,
            backlog: 128,
            dropped,
        })
    };
    let descriptors = |refused| {
        Fact::Descriptors(Descriptors {
            pid: GATEWAY,
            open: 1024,
            limit: 1024,
            refused,
            held: Vec::new(),
        })
    };
    let connecting = story.connecting(10.0, GATEWAY, "127.0.0.1:5000", "127.0.0.1:81");
    let sending = story.accepted(11.0, GATEWAY, "127.0.0.1:6000", "127.0.0.1:80");
    let lost = |count| Fact::Lost {
        probe: "packets".into(),
        count,
    };
    let dropped = |socket: SocketId, reason: &str| Fact::Dropped {
        socket,
        reason: reason.into(),
    };
    story
        .tell(12.0, dropped(connecting, "NETFILTER_DROP"))
        .tell(12.5, dropped(sending, "NOT_SPECIFIED"))
        .tell(13.0, listening(3, 40))
        .tell(14.0, listening(129, 42))
        .tell(15.0, descriptors(Some(0)))
        .tell(16.0, descriptors(Some(2)))
        .tell(17.0, lost(5))
        .tell(18.0, lost(5))
        .tell(
            400.0,
            Fact::Stalled(Stall {
                socket: sending,
                number: 0,
                message: Message::Response,
                from: ms(19.0),
                until: ms(400.0),
                resumed: true,
                bytes_before: 4096,
                arrived: None,
                buffer_full: None,
                window_limited: std::time::Duration::ZERO,
                retransmits: 0,
            }),
        )
        .tell(
            1_010.0,
            Fact::ConnectFailed {
                socket: connecting,
                why: ConnectFailure::TimedOut,
                actor: None,
                stack: None,
            },
        )
        .tell(
            1_020.0,
            Fact::Unread {
                socket: sending,
                since: BootInstant(0),
                bytes: Some(7),
            },
        );
    story
}

#[test]
fn what_has_no_packet_has_a_row() {
    let told = told(&mut trouble(), vec![segment(10.1, [5000, 81], SYN, 0)]);
    insta::assert_snapshot!(frames(&told.annotated).join("\n"));
}

#[test]
fn rows_too_many_to_keep_are_counted() {
    let mut story = trouble();
    for nth in 0..5_000_u32 {
        let reason = Fact::Dropped {
            socket: SocketId(1),
            reason: "NETFILTER_DROP".into(),
        };
        story.tell(20.0 + f64::from(nth) / 100.0, reason);
    }
    let frames = frames(&told(&mut story, vec![segment(10.1, [5000, 81], SYN, 0)]).annotated);
    let last = frames.last().unwrap();
    assert!(
        last.ends_with("more: 905 more of the kind \"drop\" are not shown"),
        "{last}"
    );
}

#[test]
fn a_connection_from_before_the_window_is_named_on_its_first_packet_in_it() {
    let mut story = Story::new();
    story.go(GATEWAY, "gateway");
    story.found(GATEWAY, "127.0.0.1:5000", "127.0.0.1:80");
    let packets = vec![
        segment(9_000.0, [80, 5000], DATA, 10),
        segment(9_001.0, [5000, 80], ACK, 0),
    ];
    let told = told(&mut story, packets);
    assert_eq!(
        told.model.connections().next().unwrap().origin,
        Origin::Found
    );
    assert_eq!(
        frames(&told.annotated)[1],
        "2 [80, 5000] gateway (pid 20), client of 127.0.0.1:80"
    );
}

#[test]
fn wireshark_its_tools_and_tcpdump_read_it() {
    let mut story = large_uploads_fail(1000.0);
    let told = told(&mut story, of_large_uploads());
    let capture = file(&told.annotated);
    let frames = frames(&told.annotated).len();
    let times = ["-T", "fields", "-e", "frame.time_relative"];
    if let Some(times) = run("tshark", &times, capture.path()) {
        let times: Vec<f64> = times.lines().map(|time| time.parse().unwrap()).collect();
        assert_eq!(times.len(), frames);
        assert_eq!(times[0], 0.0);
        assert!(times.is_sorted(), "{times:?}");
        assert!(times.last().unwrap() < &30.0);
    }
    if let Some(packets) = run("tcpdump", &["-n"], capture.path()) {
        assert_eq!(packets.lines().count(), of_large_uploads().len());
    }
    let rows = [
        "-Y",
        "systemd_journal.code_func contains \"roundTrip\" && systemd_journal.pid == 20",
    ];
    if let Some(rows) = run("tshark", &rows, capture.path()) {
        assert_eq!(rows.lines().count(), 3, "{rows}");
    }
}
