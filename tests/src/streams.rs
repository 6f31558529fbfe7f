//! What Wireshark counts on each TCP connection of a capture, for comparing it with others' counts.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Context as _;

use crate::process::succeed;

/// What was counted on one connection (`tcp.stream`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// One end of it, as `ADDRESS:PORT`, the other behind it; the smaller text first.
    pub ends: (String, String),
    /// `tcp.analysis.retransmission`, which the other two also are.
    pub retransmissions: u32,
    /// `tcp.analysis.fast_retransmission`.
    pub fast: u32,
    /// `tcp.analysis.spurious_retransmission`.
    pub spurious: u32,
    /// `tcp.analysis.out_of_order`.
    pub out_of_order: u32,
    /// `tcp.analysis.duplicate_ack`.
    pub duplicate_acks: u32,
    /// `tcp.analysis.zero_window`.
    pub zero_windows: u32,
    /// `tcp.analysis.window_full`.
    pub windows_full: u32,
    /// `tcp.analysis.keep_alive`.
    pub keep_alives: u32,
    /// `tcp.analysis.lost_segment`.
    pub gaps: u32,
    /// `tcp.analysis.initial_rtt`, in nanoseconds.
    pub handshake: u64,
    /// Segments.
    pub segments: u64,
}

const FIELDS: [&str; 15] = [
    "tcp.stream",
    "ip.src",
    "ip.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.analysis.initial_rtt",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.duplicate_ack",
    "tcp.analysis.zero_window",
    "tcp.analysis.window_full",
    "tcp.analysis.keep_alive",
    "tcp.analysis.lost_segment",
];

/// The connections of a capture, by their number.
///
/// # Errors
///
/// tshark cannot read it.
pub fn by_tshark(capture: &Path) -> anyhow::Result<BTreeMap<u32, Stream>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(capture);
    tshark.args(["-Y", "tcp", "-T", "fields", "-E", "occurrence=f"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let mut streams = BTreeMap::<u32, Stream>::new();
    for line in succeed(&mut tshark)?.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [number, from, to, sport, dport, rtt, flags @ ..] = fields.as_slice() else {
            anyhow::bail!("tshark printed {line}");
        };
        let stream = streams.entry(number.parse()?).or_default();
        stream.segments += 1;
        let (one, other) = (format!("{from}:{sport}"), format!("{to}:{dport}"));
        stream.ends = if one < other {
            (one, other)
        } else {
            (other, one)
        };
        if !rtt.is_empty() {
            stream.handshake = nanoseconds(rtt)?;
        }
        let counts = [
            &mut stream.retransmissions,
            &mut stream.fast,
            &mut stream.spurious,
            &mut stream.out_of_order,
            &mut stream.duplicate_acks,
            &mut stream.zero_windows,
            &mut stream.windows_full,
            &mut stream.keep_alives,
            &mut stream.gaps,
        ];
        for (count, flag) in counts.into_iter().zip(flags) {
            *count += u32::from(!flag.is_empty());
        }
    }
    Ok(streams)
}

/// `0.000032000` seconds.
fn nanoseconds(seconds: &str) -> anyhow::Result<u64> {
    let (whole, fraction) = seconds.split_once('.').context("no fraction")?;
    let fraction: u64 = format!("{fraction:0<9}").get(..9).unwrap_or("0").parse()?;
    Ok(whole.parse::<u64>()? * 1_000_000_000 + fraction)
}
