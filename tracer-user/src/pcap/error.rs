//! Why a capture could not be read, in words for the person who named it.

use std::{io, path::PathBuf};

/// A capture that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// It could not be opened.
    #[error(
        "cannot open {path}: {source}; a packet capture (pcap or pcapng, also gzip or zstd) or a recording is wanted: `ls -l {path}`"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Reading failed.
    #[error(
        "cannot read {path} from offset {offset} on: {source}; a packet capture is read from its beginning to its end, so copy it once more from where it was made"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// How far it was read, in bytes (after decompression).
        offset: u64,
        /// What the kernel, or the decompressor, said.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error(
        "{path} is empty: not even the header of a capture is in it; tcpdump writes what it holds back when it is ended with Ctrl-C, or at once with `-U`"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error(
        "{path} is no packet capture: {found}; pcap and pcapng are read (also compressed with gzip or zstd), as `tcpdump -w FILE` and `dumpcap -w FILE` write them, and recordings, which are directories; `file {path}` may know what it is"
    )]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// It is one, but broken before the first packet.
    #[error(
        "{path} is damaged at offset {offset}: {found}; nothing before that is a packet, so copy it once more from where it was made"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in bytes (after decompression).
        offset: u64,
        /// What was found.
        found: String,
    },
}
