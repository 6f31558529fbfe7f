//! The directory of a recording, held open.
//!
//! In: a path, once. Out: files in that very directory: everything after the first look goes through its
//! descriptor, so nobody can swap the directory for another one under a privileged process. No symbolic
//! link is followed in the last part of a path, and no file that exists is opened for writing.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, renameat},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{UnlinkatFlags, fsync, geteuid, unlinkat},
};

use super::RecordingError;

pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Makes the directory, or takes an empty one that is there, and closes it to everybody else.
    pub(super) fn create(path: &Path) -> Result<Self, RecordingError> {
        // A slash or dot at the end would make the kernel follow a link in the last part.
        let path = path.components().collect::<PathBuf>();
        let create = |errno: Errno| RecordingError::Create {
            path: path.clone(),
            source: errno.into(),
        };
        match mkdirat(AT_FDCWD, &path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(create(errno)),
        }
        let descriptor = match open_directory(AT_FDCWD, &path) {
            Ok(descriptor) => descriptor,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(RecordingError::NotADirectory { path });
            }
            Err(errno) => return Err(create(errno)),
        };
        let owner = fstat(&descriptor).map_err(create)?.st_uid;
        if owner != geteuid().as_raw() {
            return Err(RecordingError::NotOurs { path, owner });
        }
        // A file that appears after this look is not overwritten either: each is created exclusively.
        if !is_empty(&descriptor).map_err(create)? {
            return Err(RecordingError::NotEmpty { path });
        }
        // Whatever the umask took, or whoever made it gave.
        fchmod(&descriptor, Mode::S_IRWXU).map_err(create)?;
        Ok(Self { descriptor, path })
    }

    /// Opens a directory that is there, to read from it.
    pub(super) fn open(path: &Path) -> Result<Self, RecordingError> {
        // Reading follows a link to the directory itself: whoever reads asked for it by name.
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(AT_FDCWD, path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Self {
                descriptor,
                path: path.to_owned(),
            }),
            Err(errno) => Err(RecordingError::Read {
                path: path.to_owned(),
                source: errno.into(),
            }),
        }
    }

    /// Makes a directory in this one.
    pub(super) fn subdirectory(&self, name: &str) -> Result<Self, RecordingError> {
        let path = self.path(name);
        mkdirat(&self.descriptor, name, Mode::S_IRWXU)
            .and_then(|()| open_directory(&self.descriptor, name))
            .and_then(|made| fchmod(&made, Mode::S_IRWXU).map(|()| made))
            .map(|descriptor| Self {
                descriptor,
                path: path.clone(),
            })
            .map_err(|errno| RecordingError::write(path, errno.into()))
    }

    /// Makes a file that was not there.
    pub(super) fn create_file(&self, name: &str) -> Result<File, RecordingError> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(&self.descriptor, name, flags, mode)
            // Whatever the umask took.
            .and_then(|made| fchmod(&made, mode).map(|()| made))
            .map(File::from)
            .map_err(|errno| RecordingError::write(self.path(name), errno.into()))
    }

    /// Opens a file to read it: a plain file, not a link or a pipe that a stranger put there.
    pub(super) fn open_file(&self, name: &str) -> Result<File, RecordingError> {
        let read = |source| RecordingError::Read {
            path: self.path(name),
            source,
        };
        // Without O_NONBLOCK a pipe would hold us until somebody writes to it.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.descriptor, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| read(errno.into()))?;
        if file.metadata().map_err(read)?.is_file() {
            Ok(file)
        } else {
            Err(RecordingError::NotARecording {
                path: self.path(name),
                found: "it is not a plain file".to_owned(),
            })
        }
    }

    /// Puts `from` in the place of `to`, at once.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), RecordingError> {
        renameat(&self.descriptor, from, &self.descriptor, to)
            .map_err(|errno| RecordingError::write(self.path(to), errno.into()))
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(
            &self.descriptor,
            name,
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    /// Waits until the names in the directory are on disk.
    pub(super) fn sync(&self) -> Result<(), RecordingError> {
        fsync(&self.descriptor)
            .map_err(|errno| RecordingError::write(self.path.clone(), errno.into()))
    }

    /// The path of a file in it, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Whether nothing is in a directory; `.` and `..` are in each.
fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut names = Dir::from_fd(directory.try_clone().map_err(|_| Errno::EMFILE)?)?;
    for entry in names.iter() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn open_directory(
    at: impl std::os::fd::AsFd,
    path: &(impl nix::NixPath + ?Sized),
) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(at, path, flags, Mode::empty())
}
