//! Why a recording could not be written or read, in words for the person who asked for it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A recording that could not be made, went wrong, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The directory could not be made.
    #[error(
        "cannot create the recording {path}: {source}; gopulse makes the directory itself, so the one it lies in \
         must exist and be writable: `mkdir -p {}`",
        parent(path).display()
    )]
    Create {
        /// The recording.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is something in the directory already.
    #[error(
        "cannot record into {path}: there are files in it, and a recording never overwrites what it finds; give \
         another directory with `-o`, or remove this one with `rm -r {path}`"
    )]
    NotEmpty {
        /// The recording.
        path: PathBuf,
    },
    /// There is a file, or a symbolic link, where the directory should be.
    #[error(
        "cannot record into {path}: it is not a directory (a symbolic link is not followed, because it could lead a \
         privileged process anywhere); give another directory with `-o`"
    )]
    NotADirectory {
        /// The recording.
        path: PathBuf,
    },
    /// The directory is there and belongs to another user.
    #[error(
        "cannot record into {path}: it belongs to the user {owner}, who could open it to others at any time; let \
         gopulse make the directory: give another one with `-o`, or remove this one with `rmdir {path}`"
    )]
    NotOurs {
        /// The recording.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The disk (or the quota) is full. What was written is whole and can be read.
    #[error(
        "recording stopped at {path}: {source}; what was recorded until then is whole and stays readable, but later \
         events need more room: `df -h {path}` shows how much there is, and `-o` chooses another place"
    )]
    Full {
        /// The file that did not fit.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file could not be written for another reason.
    #[error(
        "recording stopped at {path}: {source}; what was recorded until then stays readable, and `-o` chooses another \
         place for the next try"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An attachment's name would leave the directory or is taken.
    #[error("cannot attach {name:?} to the recording: {why}")]
    Name {
        /// The name that was asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of the recording could not be read.
    #[error(
        "cannot read the recording's {path}: {source}; recordings belong to who made them, often root: try `sudo`, or \
         give the directory that `gopulse record` wrote"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there, but holds something else.
    #[error(
        "{path} is not a part of a gopulse recording: {found}; give the directory that `gopulse record -o` wrote"
    )]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A later gopulse wrote it.
    #[error(
        "{path} is in the format {found}, and gopulse {} reads {known}; a format may change its meaning, so it is not \
         guessed at: read the recording with the gopulse that wrote it or a later one (`gopulse --version`)",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: String,
        /// The version that this gopulse reads.
        known: String,
    },
}

impl RecordingError {
    /// A failed write to `path`.
    pub(super) fn write(path: PathBuf, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full { path, source },
            _ => Self::Write { path, source },
        }
    }
}

/// The directory that `path` lies in.
fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
