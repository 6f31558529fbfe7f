//! TCP headers as Wireshark reads them from a capture, for comparing one capture with another.

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::process::succeed;

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

fn tshark(capture: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture);
    command
}
