use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::event::SocketId;

/// Runs a tool that reads captures and returns what it prints. `None`, and one counted line, where the tool
/// is missing; in CI that is a failure.
pub(crate) fn run(tool: &str, arguments: &[&str], capture: &Path) -> Option<String> {
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let outcome = Command::new(tool)
        .args(arguments)
        .arg("-r")
        .arg(capture)
        .env("TZ", "UTC")
        .output();
    let Ok(Output {
        status,
        stdout,
        stderr,
    }) = outcome
    else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{tool} is missing: apt-get install {tool}"
        );
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        // Not `eprintln`, which the test harness keeps to itself.
        writeln!(std::io::stderr(), "skipped ({count}): {tool} is missing").unwrap();
        return None;
    };
    let stderr = String::from_utf8(stderr).unwrap();
    // Both tell something harmless: who runs them, and what they read.
    let warnings: Vec<&str> = stderr
        .lines()
        .filter(|line| {
            !line.starts_with("Running as user") && !line.starts_with("reading from file")
        })
        .collect();
    assert!(status.success() && warnings.is_empty(), "{tool}: {stderr}");
    Some(String::from_utf8(stdout).unwrap())
}

fn source() -> Source {
    Source {
        kind: SourceKind::Live,
        host: "web-1".to_owned(),
        kernel: "6.18.44".to_owned(),
        started: BootInstant(5_000_000_000),
        started_wall: "2026-01-02T03:04:05.000000007Z".parse().unwrap(),
        hooks: Vec::new(),
    }
}

/// An IPv4 segment on loopback with `payload` bytes on the wire, of which only the headers were captured.
pub(crate) fn segment_v4(ports: [u16; 2], sequence: u32, flags: u8, payload: u16) -> Packet {
    let mut bytes = vec![0x45, 0];
    bytes.extend((40 + payload).to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    tcp(
        &mut bytes,
        ports,
        sequence,
        flags,
        folded(0xfe02 + 6 + 20 + u32::from(payload)),
    );
    packet(bytes, payload)
}

fn segment_v6(ports: [u16; 2], sequence: u32, flags: u8, payload: u16) -> Packet {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((20 + payload).to_be_bytes());
    bytes.extend([6, 64]);
    for _ in ["source", "destination"] {
        bytes.extend(std::net::Ipv6Addr::LOCALHOST.octets());
    }
    tcp(
        &mut bytes,
        ports,
        sequence,
        flags,
        folded(2 + 6 + 20 + u32::from(payload)),
    );
    packet(bytes, payload)
}

fn tcp(bytes: &mut Vec<u8>, ports: [u16; 2], sequence: u32, flags: u8, checksum: u16) {
    bytes.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, flags, 0x10, 0]);
    bytes.extend(checksum.to_be_bytes());
    bytes.extend([0, 0]);
}

fn folded(sum: u32) -> u16 {
    u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap()
}

fn packet(bytes: Vec<u8>, payload: u16) -> Packet {
    Packet {
        at: BootInstant(6_000_000_001),
        interface: 1,
        outgoing: true,
        wire_length: u32::try_from(bytes.len()).unwrap() + u32::from(payload),
        bytes,
        socket: SocketId(1),
    }
}

/// A capture of these packets.
fn capture(packets: &[Packet], lost: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &source()).unwrap();
    for (number, packet) in (1..).zip(packets) {
        assert_eq!(writer.packet(packet).unwrap(), number);
    }
    writer.finish(BootInstant(7_000_000_000), lost).unwrap();
    bytes
}

pub(crate) fn file(capture: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".pcapng").unwrap();
    file.write_all(capture).unwrap();
    file
}

/// Each block's type and body, both of its lengths proved.
fn blocks(mut capture: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |at: &[u8]| u32::from_le_bytes(at[..4].try_into().unwrap());
    let mut blocks = Vec::new();
    while !capture.is_empty() {
        let length = word(&capture[4..]) as usize;
        assert_eq!(length % 4, 0);
        let (block, rest) = capture.split_at(length);
        assert_eq!(word(&block[length - 4..]) as usize, length);
        blocks.push((word(block), block[8..length - 4].to_vec()));
        capture = rest;
    }
    blocks
}

/// The value of an option, among those that begin at `offset` of a block's body.
fn option_of(body: &[u8], offset: usize, wanted: u16) -> Option<Vec<u8>> {
    let mut rest = &body[offset..];
    loop {
        let code = u16::from_le_bytes(rest[..2].try_into().unwrap());
        let length = usize::from(u16::from_le_bytes(rest[2..4].try_into().unwrap()));
        if code == wanted || code == 0 {
            return (code == wanted).then(|| rest[4..4 + length].to_vec());
        }
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
}

#[test]
fn wireshark_reads_times_lengths_directions_and_tcp() {
    const SYN: u8 = 0x02;
    const PSH_ACK: u8 = 0x18;
    let mut answer = segment_v4([80, 53122], 7, PSH_ACK, 1400);
    answer.outgoing = false;
    answer.interface = 4_000_000;
    answer.at = BootInstant(6_123_456_789);
    let capture = capture(
        &[
            segment_v4([53122, 80], 1, SYN, 0),
            answer,
            segment_v6([53123, 80], 9, PSH_ACK, 3),
        ],
        0,
    );
    let fields = "frame.number frame.time_epoch frame.cap_len frame.len frame.packet_flags_direction \
                  frame.interface_name ip.src ipv6.src tcp.srcport tcp.seq_raw tcp.flags tcp.len";
    let mut arguments = vec!["-T", "fields", "-E", "separator=/s", "-E", "quote=d"];
    for field in fields.split_whitespace() {
        arguments.extend(["-e", field]);
    }
    let Some(rows) = run("tshark", &arguments, file(&capture).path()) else {
        return;
    };
    insta::assert_snapshot!(rows);
}

#[test]
fn tcpdump_reads_the_same_with_nanoseconds() {
    let capture = capture(
        &[
            segment_v4([53122, 80], 1, 0x02, 0),
            segment_v6([53123, 80], 9, 0x18, 3),
        ],
        0,
    );
    let arguments = ["-n", "-S", "-tt", "--time-stamp-precision=nano"];
    let Some(rows) = run("tcpdump", &arguments, file(&capture).path()) else {
        return;
    };
    insta::assert_snapshot!(rows);
}

#[test]
fn a_capture_without_packets_can_be_opened() {
    let file = file(&capture(&[], 0));
    for tool in ["tshark", "tcpdump"] {
        if let Some(rows) = run(tool, &[], file.path()) {
            assert_eq!(rows, "", "{tool}");
        }
    }
}

#[test]
fn a_checksum_left_to_the_card_is_flagged_on_the_way_out_only() {
    let sent = segment_v4([53122, 80], 1, 0x02, 0);
    let mut received = sent.clone();
    received.outgoing = false;
    let mut finished = sent.clone();
    finished.bytes[36] ^= 1;
    let flags: Vec<u32> = blocks(&capture(&[sent, received, finished], 0))
        .into_iter()
        .filter(|(kind, _)| *kind == Kind::EnhancedPacket as u32)
        .map(|(_, body)| option_of(&body, 20 + 40, option::EPB_FLAGS).unwrap())
        .map(|flags| u32::from_le_bytes(flags.try_into().unwrap()))
        .collect();
    assert_eq!(flags, [0x202, 0x001, 0x002]);
}

#[test]
fn every_interface_has_the_same_link_type_snap_length_and_resolution() {
    let mut elsewhere = segment_v4([53122, 80], 1, 0x02, 0);
    elsewhere.interface = 7;
    let mut writer = Writer::new(Vec::new(), &source()).unwrap();
    writer.declare(3, "eth0").unwrap();
    writer.declare(3, "never used").unwrap();
    writer.packet(&elsewhere).unwrap();
    let interfaces: Vec<Vec<u8>> = blocks(&writer.into_output())
        .into_iter()
        .filter(|(kind, _)| *kind == Kind::InterfaceDescription as u32)
        .map(|(_, body)| body)
        .collect();
    let names: Vec<String> = interfaces
        .iter()
        .map(|body| String::from_utf8(option_of(body, 8, option::IF_NAME).unwrap()).unwrap())
        .collect();
    assert_eq!(names, ["lo", "eth0", "if7"]);
    for body in interfaces {
        assert_eq!(body[..8], [101, 0, 0, 0, 0, 0, 4, 0]);
        assert_eq!(option_of(&body, 8, option::IF_TSRESOL), Some(vec![9]));
    }
}

#[test]
fn the_statistics_tell_what_was_written_and_lost() {
    let sent = segment_v4([53122, 80], 1, 0x02, 0);
    let capture = capture(&[sent.clone(), sent], 12);
    let (kind, body) = blocks(&capture).pop().unwrap();
    assert_eq!(kind, Kind::InterfaceStatistics as u32);
    let count = |code| {
        let value = option_of(&body, 12, code).unwrap();
        u64::from_le_bytes(value.try_into().unwrap())
    };
    assert_eq!(count(option::ISB_USRDELIV), 2);
    assert_eq!(count(option::ISB_IFRECV), 14);
    assert_eq!(count(option::ISB_IFDROP), 12);
    assert_eq!(count(option::ISB_OSDROP), 12);
    let wall = source().started_wall.as_nanosecond();
    assert_eq!(
        i128::from(count(option::ISB_STARTTIME).rotate_left(32)),
        wall
    );
    assert_eq!(
        i128::from(count(option::ISB_ENDTIME).rotate_left(32)),
        wall + 2_000_000_000
    );
}

#[test]
fn a_packet_longer_than_the_snap_length_is_cut_to_it() {
    let mut huge = segment_v6([53122, 80], 1, 0x10, 0);
    huge.bytes.resize(300_000, 0);
    huge.wire_length = 300_000;
    let (_, body) = blocks(&capture(&[huge], 0)).swap_remove(2);
    let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    assert_eq!((word(12), word(16)), (SNAP_LENGTH, 300_000));
}

#[test]
fn every_block_is_one_write() {
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);
    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = Writer::new(Writes::default(), &source()).unwrap();
    writer.packet(&segment_v4([1, 2], 1, 0x10, 9)).unwrap();
    writer.finish(BootInstant(0), 0).unwrap();
    for write in writer.into_output().0 {
        assert_eq!(blocks(&write).len(), 1);
    }
}

/// The capture with `comments` on its every packet, and an entry of a journal before each.
fn rewritten(capture: &[u8], comments: &[&str]) -> Vec<u8> {
    let mut blocks = Blocks::new(capture);
    let mut rewriter = Rewriter::new(Vec::new());
    while let Some(block) = blocks.next().unwrap() {
        let Content::Packet(packet) = block.content() else {
            rewriter.copy(&block).unwrap();
            continue;
        };
        let fields = [("MESSAGE", "said"), ("GOPULSE_GOID", "34")];
        rewriter
            .entry(packet.at / 1_000, fields.into_iter())
            .unwrap();
        rewriter.packet(&packet, comments.iter().copied()).unwrap();
    }
    rewriter.into_output()
}

#[test]
fn an_entry_of_a_journal_is_the_text_that_systemd_exports() {
    let capture = capture(&[segment_v4([53122, 80], 1, 0x02, 0)], 0);
    let rewritten = rewritten(&capture, &[]);
    let (kind, body) = blocks(&rewritten).swap_remove(2);
    assert_eq!(kind, 9);
    let at = source().started_wall.as_microsecond() + 1_000_000;
    let told = format!("__REALTIME_TIMESTAMP={at}\nMESSAGE=said\nGOPULSE_GOID=34\n\n");
    assert_eq!(
        String::from_utf8(body).unwrap().trim_end_matches('\0'),
        told
    );
}

#[test]
fn a_comment_is_added_and_the_packet_and_its_flags_stay() {
    let capture = capture(&[segment_v4([53122, 80], 1, 0x02, 0)], 0);
    let (_, before) = blocks(&capture).swap_remove(2);
    let (kind, after) = blocks(&rewritten(&capture, &["one", "two"])).swap_remove(3);
    assert_eq!(kind, Kind::EnhancedPacket as u32);
    assert_eq!(before[..60], after[..60]);
    assert_eq!(
        after[60..],
        [
            &[1, 0, 3, 0, b'o', b'n', b'e', 0][..],
            &[1, 0, 3, 0, b't', b'w', b'o', 0],
            &before[60..],
        ]
        .concat()
    );
}

#[test]
fn comments_replace_those_of_before() {
    let capture = capture(&[segment_v4([53122, 80], 1, 0x02, 0)], 0);
    let once = rewritten(&capture, &["one"]);
    let mut blocks = Blocks::new(&once[..]);
    let mut rewriter = Rewriter::new(Vec::new());
    while let Some(block) = blocks.next().unwrap() {
        match block.content() {
            Content::Packet(packet) => rewriter.packet(&packet, [].into_iter()).unwrap(),
            Content::Journal(entry) => assert_eq!(entry.field("GOPULSE_GOID"), Some("34")),
            Content::Statistics | Content::Other => rewriter.copy(&block).unwrap(),
        }
    }
    assert_eq!(rewriter.into_output(), capture);
}

#[test]
fn a_capture_that_was_cut_is_read_up_to_the_last_whole_block() {
    let packets = [1, 2].map(|sequence| segment_v4([53122, 80], sequence, 0x10, 0));
    let whole = capture(&packets, 0);
    let lengths: Vec<usize> = blocks(&whole)
        .iter()
        .scan(0, |end, (_, body)| {
            *end += body.len() + 12;
            Some(*end)
        })
        .collect();
    for length in lengths[0]..whole.len() {
        let mut blocks = Blocks::new(&whole[..length]);
        let mut read = 0;
        while blocks.next().unwrap().is_some() {
            read += 1;
        }
        let fit = lengths.iter().filter(|end| **end <= length).count();
        assert_eq!(read, fit, "{length} bytes");
    }
}

#[test]
fn what_gopulse_did_not_write_is_refused() {
    let whole = capture(&[], 0);
    for bytes in [
        &whole[..40],
        &b""[..],
        b"not a capture of any kind",
        &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0],
    ] {
        let error = Blocks::new(bytes).next().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_behind_a_header_come_to_an_end(bytes: Vec<u8>, kind in 0_u32..12) {
        let mut capture = capture(&[], 0);
        capture.extend(kind.to_le_bytes());
        capture.extend(u32::try_from(bytes.len().next_multiple_of(4) + 12).unwrap().to_le_bytes());
        capture.extend(&bytes);
        capture.resize(capture.len().next_multiple_of(4), 0);
        capture.extend(u32::try_from(bytes.len().next_multiple_of(4) + 12).unwrap().to_le_bytes());
        rewritten(&capture, &["a comment"]);
    }
}
