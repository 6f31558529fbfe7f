//! TCP headers as Wireshark reads them from a capture, for comparing one capture with another.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::Context as _;

use crate::{process::succeed, workspace};

/// One direction of one connection: source and destination, as `ADDRESS:PORT`.
pub type Direction = (String, String);

/// What of a segment's header must be the same in every capture of it, as tshark prints it:
/// sequence number, acknowledgement number, flags, window, payload length.
pub type Header = [String; 5];

const FIELDS: [&str; 9] = [
    "ip.src",
    "tcp.srcport",
    "ip.dst",
    "tcp.dstport",
    "tcp.seq",
    "tcp.ack",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.len",
];

/// The headers of each direction, in the capture's order.
///
/// # Errors
///
/// tshark cannot read it.
pub fn headers(capture: &Path) -> anyhow::Result<BTreeMap<Direction, Vec<Header>>> {
    let mut tshark = tshark(capture);
    tshark.args(["-Y", "tcp", "-T", "fields"]);
    tshark.args(["-o", "tcp.relative_sequence_numbers:FALSE"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let mut directions = BTreeMap::<_, Vec<_>>::new();
    for line in succeed(&mut tshark)?.lines() {
        let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let [
            source,
            sport,
            destination,
            dport,
            seq,
            ack,
            flags,
            window,
            len,
        ] = fields
            .try_into()
            .map_err(|fields| anyhow::anyhow!("tshark printed {fields:?}"))?;
        directions
            .entry((
                format!("{source}:{sport}"),
                format!("{destination}:{dport}"),
            ))
            .or_default()
            .push([seq, ack, flags, window, len]);
    }
    Ok(directions)
}

/// What carries data or begins or ends a connection, in the capture's order; behind it the bare ACKs,
/// in the order of what they acknowledge and the window they tell.
#[must_use]
pub fn bare_acks_last(headers: &[Header]) -> Vec<Header> {
    const ACK: &str = "0x0010";
    let bare = |[_, _, flags, _, length]: &&Header| flags == ACK && length == "0";
    let mut acks: Vec<_> = headers.iter().filter(bare).cloned().collect();
    acks.sort();
    let rest = headers.iter().filter(|header| !bare(header));
    rest.cloned().chain(acks).collect()
}

/// What tshark has to say against a capture: about the file, and packets it finds malformed or whose
/// neighbours are missing.
///
/// # Errors
///
/// tshark cannot read it at all.
pub fn complaints(capture: &Path) -> anyhow::Result<Vec<String>> {
    let missing = "_ws.malformed || tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment";
    let mut tshark = tshark(capture);
    tshark.args(["-Y", missing]);
    let read = crate::process::run(&mut tshark, std::time::Duration::from_secs(60))?;
    anyhow::ensure!(read.status == 0, "tshark failed: {}", read.stderr);
    let said = read.stderr.lines().chain(read.stdout.lines());
    Ok(said
        .filter(|line| !line.starts_with("Running as user"))
        .map(str::to_owned)
        .collect())
}

/// The numbers of the frames that a display filter shows, with gopulse's dissector loaded.
///
/// # Errors
///
/// tshark cannot read the capture or does not know the filter, or the dissector fails.
pub fn frames(capture: &Path, filter: &str) -> anyhow::Result<BTreeSet<u64>> {
    let shown = dissected(capture, filter, &["frame.number"])?;
    let numbers = shown.iter().flatten();
    numbers
        .map(|number| number.parse().context("no frame number"))
        .collect()
}

/// Fields of the frames that a display filter shows, with gopulse's dissector loaded. What a frame has
/// several of is joined by commas.
///
/// # Errors
///
/// As [`frames`].
pub fn dissected(
    capture: &Path,
    filter: &str,
    fields: &[&str],
) -> anyhow::Result<Vec<Vec<String>>> {
    let dissector = workspace::root().join("packaging/wireshark/gopulse.lua");
    let mut tshark = tshark(capture);
    tshark.arg("-X");
    tshark.arg(format!("lua_script:{}", dissector.display()));
    tshark.args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let read = crate::process::run(&mut tshark, std::time::Duration::from_secs(60))?;
    let complaints: Vec<&str> = read
        .stderr
        .lines()
        .filter(|line| !line.starts_with("Running as user"))
        .collect();
    anyhow::ensure!(read.status == 0 && complaints.is_empty(), "{complaints:?}");
    Ok(read
        .stdout
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect())
}

fn tshark(capture: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture);
    command
}
