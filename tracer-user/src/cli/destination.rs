//! What `-o` names, opened before the work begins.
//!
//! In: a path from the user, who may be root, in a directory where others may write. Out: standard output, a
//! new file that is nobody else's to read, a file of ours that is overwritten, or a pipe or device. What
//! always holds: a symbolic link is not followed in the last part of the path, nothing is written into what
//! belongs to somebody else, and a file that was there is as it was until the result is written. The
//! directory is opened once, so nobody can put another in its place between a look and the file.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat},
    unistd::{Uid, UnlinkatFlags, geteuid, unlinkat},
};

use crate::capabilities::{self, Step};

/// Where a result goes.
#[derive(Debug)]
pub(super) enum Destination {
    /// Standard output.
    Standard,
    /// What was named.
    Named(Named),
}

/// An open file, pipe or device.
#[derive(Debug)]
pub(super) struct Named {
    file: File,
    /// It is a plain file, so what it held goes when the result comes.
    plain: bool,
    /// We made it, and no result is in it yet.
    made: Option<Made>,
}

/// Where a new file is, to remove it again where no result comes.
#[derive(Debug)]
struct Made {
    directory: OwnedFd,
    name: OsString,
}

impl Destination {
    /// Opens what `to` names; standard output for nothing, `-` and `/dev/stdout`.
    ///
    /// # Errors
    ///
    /// In words for the user, with what mends it.
    pub(super) fn open(to: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = to else {
            return Ok(Self::Standard);
        };
        match given(path) {
            Some(1) => return Ok(Self::Standard),
            // A descriptor that we were handed, as by the shell's >(COMMAND).
            Some(_) => {
                let file = File::options().write(true).open(path);
                let file = file.map_err(|error| cannot(path, error))?;
                return Ok(Self::Named(Named {
                    file,
                    plain: false,
                    made: None,
                }));
            }
            None => {}
        }
        named(path).map(Self::Named)
    }

    /// The same for a result that files alone tell: once it is open, privileges are needed to read them, and
    /// all others are given up before a byte of what a stranger may have written is looked at.
    ///
    /// # Errors
    ///
    /// As [`Destination::open`].
    pub(super) fn of_files(to: Option<&Path>) -> anyhow::Result<Self> {
        let to = Self::open(to)?;
        // Where a sandbox keeps us from it, we are no worse off than before.
        let _ = capabilities::keep(&[Step::Files]);
        Ok(to)
    }
}

impl Named {
    /// The file, with room for the result alone.
    pub(super) fn begin(&mut self) -> io::Result<&mut File> {
        if self.plain {
            self.file.set_len(0)?;
        }
        Ok(&mut self.file)
    }

    /// The result is whole.
    pub(super) fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(Made { directory, name }) = &self.made {
            // Where it cannot be removed an empty file stays, which no reader takes for a result.
            let _ = unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The descriptor of ours that a path names.
fn given(path: &Path) -> Option<u32> {
    let text = path.to_str()?;
    match text {
        "-" | "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ => ["/dev/fd/", "/proc/self/fd/"]
            .iter()
            .find_map(|directory| text.strip_prefix(directory)?.parse().ok()),
    }
}

fn named(path: &Path) -> anyhow::Result<Named> {
    let name = match path.file_name() {
        Some(name) if !path.as_os_str().as_bytes().ends_with(b"/") => name,
        _ => return Err(refused(path, "it is a directory")),
    };
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let directory = openat(
        AT_FDCWD,
        parent.unwrap_or(Path::new(".")),
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| cannot(path, errno.into()))?;
    match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => create(path, directory, name),
        Err(errno) => Err(cannot(path, errno.into())),
        Ok(there) => open(path, &directory, name, &there),
    }
}

fn create(path: &Path, directory: OwnedFd, name: &OsStr) -> anyhow::Result<Named> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let made = openat(&directory, name, flags, mode);
    let file = made.map_err(|errno| cannot(path, errno.into()))?;
    let named = Named {
        file: File::from(file),
        plain: true,
        made: Some(Made {
            directory,
            name: name.to_owned(),
        }),
    };
    // Whatever the umask took.
    fchmod(named.file.as_fd(), mode).map_err(|errno| cannot(path, errno.into()))?;
    Ok(named)
}

/// What is there already, if it may be written into.
fn open(path: &Path, directory: &OwnedFd, name: &OsStr, there: &FileStat) -> anyhow::Result<Named> {
    may_write(path, there)?;
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // A pipe waits here for its reader, as everywhere.
    let opened = openat(directory, name, flags, Mode::empty());
    let file = File::from(opened.map_err(|errno| cannot(path, errno.into()))?);
    // What was opened may be another than what was looked at.
    let opened = fstat(&file).map_err(|errno| cannot(path, errno.into()))?;
    may_write(path, &opened)?;
    Ok(Named {
        plain: kind(&opened) == SFlag::S_IFREG,
        file,
        made: None,
    })
}

fn may_write(path: &Path, there: &FileStat) -> anyhow::Result<()> {
    let owner = Uid::from_raw(there.st_uid);
    let ours = owner == geteuid();
    let why = match kind(there) {
        SFlag::S_IFREG if ours && there.st_nlink == 1 => return Ok(()),
        SFlag::S_IFIFO | SFlag::S_IFCHR if ours || owner.is_root() => return Ok(()),
        SFlag::S_IFREG if ours => "it has other names, under which it would be overwritten too",
        SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFCHR => {
            "it belongs to somebody else, who could read what is written or lead it elsewhere"
        }
        SFlag::S_IFLNK => {
            "it is a symbolic link, which is not followed because it could lead a privileged process anywhere"
        }
        SFlag::S_IFDIR => "it is a directory",
        _ => "it is neither a plain file, nor a pipe, nor a character device",
    };
    Err(refused(path, why))
}

fn kind(of: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(of.st_mode) & SFlag::S_IFMT
}

fn refused(path: &Path, why: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot write to {path}: {why}\n  name another file with -o, or let the shell write it: > {path}",
        path = path.display()
    )
}

fn cannot(path: &Path, error: io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot write to {}: {error}", path.display())
}
