//! The files that gopulse writes and reads by name: what is there already, and who could lead it elsewhere.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
    time::Duration,
};

use gopulse_tests::{
    gopulse::gopulse,
    process::{Ended, Process, run},
    turn, wait, workspace,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with what is in the way, and the recording that ships with the repository.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exports the recording into a file of this name.
    fn export(&self, name: &str) -> anyhow::Result<Ended> {
        export(self.path(name))
    }
}

fn export(to: impl AsRef<OsStr>) -> anyhow::Result<Ended> {
    let mut command = gopulse(&["export", "--to", "folded"])?;
    command
        .arg(workspace::fixture("stuck-upload"))
        .arg("-o")
        .arg(to.as_ref());
    run(&mut command, PATIENCE)
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777)
}

fn refused(ended: &Ended, why: &str) {
    assert_eq!(ended.status, 2, "{ended:?}");
    assert!(ended.stderr.contains(why), "{ended:?}");
}

#[test]
fn a_new_file_is_nobody_elses_to_read_whatever_the_umask() -> anyhow::Result<()> {
    for umask in ["000", "022", "077", "277"] {
        let place = Place::new()?;
        let file = place.path("out");
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask $0; exec \"$@\"", umask])
            .arg(workspace::gopulse()?)
            .args(["diagnose", "--format", "json"])
            .arg(workspace::fixture("stuck-upload"))
            .arg("-o")
            .arg(&file);
        let ended = run(&mut command, PATIENCE)?;
        assert_eq!(ended.status, 1, "{ended:?}");
        assert_eq!(mode(&file)?, 0o600, "umask {umask}");
        assert!(fs::metadata(&file)?.len() > 0);
    }
    Ok(())
}

#[test]
fn a_file_of_ours_is_overwritten_and_keeps_its_mode() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.path("out");
    fs::write(&file, "x".repeat(1 << 20))?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    assert_eq!(place.export("out")?.status, 0);
    assert_eq!(mode(&file)?, 0o644);
    assert!(fs::metadata(&file)?.len() < 1 << 20);
    Ok(())
}

#[test]
fn a_file_stays_as_it_was_and_none_is_left_where_no_result_comes() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path("old"), "old")?;
    fs::create_dir(place.path("no recording"))?;
    for name in ["old", "new"] {
        let mut command = gopulse(&["export", "--to", "folded"])?;
        command.arg(place.path("no recording"));
        command.arg("-o").arg(place.path(name));
        refused(&run(&mut command, PATIENCE)?, "recording");
    }
    assert_eq!(fs::read_to_string(place.path("old"))?, "old");
    assert!(!place.path("new").exists());
    Ok(())
}

#[test]
fn a_symbolic_link_is_not_followed_wherever_it_leads() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path("victim"), "precious")?;
    for (name, target) in [
        ("link", "victim"),
        ("dangling", "nowhere"),
        ("loop", "loop"),
    ] {
        symlink(place.path(target), place.path(name))?;
        refused(&place.export(name)?, "symbolic link");
    }
    assert_eq!(fs::read_to_string(place.path("victim"))?, "precious");
    assert!(!place.path("nowhere").exists());
    Ok(())
}

#[test]
fn a_file_with_other_names_is_not_overwritten() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path("victim"), "precious")?;
    fs::hard_link(place.path("victim"), place.path("out"))?;
    refused(&place.export("out")?, "other names");
    assert_eq!(fs::read_to_string(place.path("victim"))?, "precious");
    Ok(())
}

#[test]
fn what_belongs_to_somebody_else_is_not_written_into() -> anyhow::Result<()> {
    if !turn::is_root() {
        turn::skip("somebody else's file", "not root: cannot give files away");
        return Ok(());
    }
    let place = Place::new()?;
    fs::write(place.path("file"), "theirs")?;
    pipe(&place.path("pipe"))?;
    for name in ["file", "pipe"] {
        chown(place.path(name), Some(65534), Some(65534))?;
        refused(&place.export(name)?, "somebody else");
    }
    assert_eq!(fs::read_to_string(place.path("file"))?, "theirs");
    Ok(())
}

#[test]
fn a_directory_is_no_file() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.path("directory"))?;
    for name in ["directory", "directory/", "new/", "."] {
        refused(&place.export(name)?, "directory");
    }
    assert!(!place.path("new").exists());
    Ok(())
}

#[test]
fn standard_output_is_named_as_elsewhere() -> anyhow::Result<()> {
    let usual = export("-")?;
    assert_eq!(usual.status, 0, "{usual:?}");
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(export(name)?.stdout, usual.stdout, "{name}");
    }
    assert_eq!(export("/dev/null")?.status, 0);
    let full = export("/dev/full")?;
    // Without samples there is nothing to write, and nothing that could fail.
    assert!(usual.stdout.is_empty() || full.status == 2, "{full:?}");
    Ok(())
}

#[test]
fn a_pipe_is_written_to_its_reader() -> anyhow::Result<()> {
    let place = Place::new()?;
    let path = place.path("pipe");
    pipe(&path)?;
    let reader = thread::spawn({
        let path = path.clone();
        move || {
            let mut text = String::new();
            fs::File::open(path)?.read_to_string(&mut text)?;
            anyhow::Ok(text)
        }
    });
    let mut command = gopulse(&["diagnose", "--format", "json"])?;
    command.arg(workspace::fixture("stuck-upload"));
    command.arg("-o").arg(&path);
    assert_eq!(run(&mut command, PATIENCE)?.status, 1);
    let text = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader failed"))??;
    assert!(text.contains("gopulse.report/1"), "{text}");
    assert!(fs::symlink_metadata(&path)?.file_type().is_fifo());
    Ok(())
}

#[test]
fn a_recording_goes_into_a_directory_that_nobody_else_can_open() -> anyhow::Result<()> {
    if !turn::is_root() {
        turn::skip(
            "somebody else's directory",
            "not root: cannot give files away",
        );
        return Ok(());
    }
    let place = Place::new()?;
    fs::create_dir(place.path("theirs"))?;
    chown(place.path("theirs"), Some(65534), Some(65534))?;
    fs::create_dir(place.path("there"))?;
    symlink(place.path("there"), place.path("link"))?;
    for (name, why) in [
        ("theirs", "belongs to the user 65534"),
        ("link", "not a directory"),
    ] {
        let us = process::id().to_string();
        let mut command = gopulse(&["record", "--pid", &us, "-d", "100ms", "-o"])?;
        let ended = run(command.arg(place.path(name)), PATIENCE)?;
        if ended.status == 3 {
            turn::skip("somebody else's directory", "this host cannot trace");
            return Ok(());
        }
        refused(&ended, why);
        assert_eq!(fs::read_dir(place.path(name))?.count(), 0);
    }
    Ok(())
}

#[test]
fn what_says_nothing_is_refused_soon_however_large_it_is() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::File::create(place.path("huge"))?.set_len(1 << 40)?;
    fs::write(place.path("empty"), "")?;
    let (huge, empty) = (place.path("huge"), place.path("empty"));
    let endless = [Path::new("/dev/zero"), &huge];
    let nothing = [&empty, Path::new("/dev/null")];
    let all = [endless, nothing].concat();
    for (verb, files) in [
        ("diagnose", &all[..]),
        ("export", &all[..]),
        ("goroutines", &nothing[..]),
    ] {
        for file in files {
            let mut command = gopulse(&[verb])?;
            let to = if verb == "export" {
                &["--to", "folded"][..]
            } else {
                &[]
            };
            let ended = run(command.args(to).arg(file), PATIENCE)?;
            assert_eq!(ended.status, 2, "{verb} {}: {ended:?}", file.display());
        }
    }
    Ok(())
}

/// A log is searched for dumps to its end. One without an end takes time until Ctrl-C, and no memory.
#[test]
fn a_line_without_an_end_takes_no_memory() -> anyhow::Result<()> {
    // Whoever runs us in the background has us ignore it.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(workspace::gopulse()?);
    let mut process = Process::start(command.args(["goroutines", "/dev/zero"]))?;
    let read = || -> anyhow::Result<Option<u64>> {
        let told = fs::read_to_string(format!("/proc/{}/io", process.pid()))?;
        let read = told.lines().find_map(|line| line.strip_prefix("rchar: "));
        Ok(read.and_then(|bytes| bytes.parse().ok()))
    };
    wait::until("1 GiB to be read", PATIENCE, || {
        Ok(read()?.filter(|bytes| *bytes > 1 << 30))
    })?;
    assert!(process.runs()?);
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most: u64 = most
        .unwrap_or_default()
        .trim_end_matches("kB")
        .trim()
        .parse()?;
    assert!(most < 256 << 10, "{most} KiB");
    process.interrupt()?;
    assert_eq!(process.wait(PATIENCE)?.status, 130);
    Ok(())
}

/// A source that is a pipe is read to its end, as from `curl … |`.
#[test]
fn a_capture_and_a_dump_may_come_through_a_pipe() -> anyhow::Result<()> {
    let place = Place::new()?;
    let fixture = workspace::fixture("stuck-upload");
    let dump = fixture.join("goroutines/001-20181-memory.txt");
    for (verb, from, status) in [
        ("diagnose", fixture.join("capture.pcapng"), 0),
        ("goroutines", dump, 0),
    ] {
        let path = place.path(verb);
        pipe(&path)?;
        let writer = thread::spawn({
            let path = path.clone();
            move || fs::write(path, fs::read(from)?)
        });
        let mut command = gopulse(&[verb])?;
        let ended = run(command.arg(&path), PATIENCE)?;
        assert_eq!(ended.status, status, "{ended:?}");
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer failed"))??;
    }
    Ok(())
}

fn pipe(path: &Path) -> anyhow::Result<()> {
    Ok(nix::unistd::mkfifo(
        path,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )?)
}
