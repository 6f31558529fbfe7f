use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{samples, *};
use crate::{
    event::{BootInstant, Event, Packet, SocketId, SourceKind, Unseen},
    pcapng::tests::run,
};

/// A directory for one test, and a path in it where nothing is yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("rec");
    (parent, path)
}

fn create(path: &Path) -> Writer {
    Writer::create(path, &samples::source()).unwrap()
}

fn refused(path: &Path) -> RecordingError {
    Writer::create(path, &samples::source()).err().unwrap()
}

fn end() -> End {
    End {
        ended: BootInstant(6_500_000_000),
        targets: vec![samples::process()],
        losses: Losses {
            events_lost: 12,
            packets_lost: 3,
            by_probe: [("exchanges".to_owned(), 12)].into(),
        },
    }
}

/// The first segment of a connection, as loopback carries it.
fn packet() -> Packet {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    bytes.extend([0xcf, 0x82, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend([0x50, 0x02, 0x10, 0, 0xfe, 0x1c, 0, 0]);
    Packet {
        at: BootInstant(5_500_000_000),
        interface: 1,
        outgoing: true,
        wire_length: 40,
        bytes,
        socket: SocketId(3),
    }
}

/// A finished recording of every sample.
fn recorded(path: &Path) {
    let mut writer = create(path);
    for event in samples::events() {
        writer.event(&event).unwrap();
    }
    writer.packet(&packet()).unwrap();
    writer.attach("report.json", b"{}").unwrap();
    writer.finish(end()).unwrap();
}

/// Everything that can be read of a recording, and what is missing.
fn read(path: &Path) -> (Vec<Event>, Vec<Unseen>) {
    let mut reader = Reader::open(path).unwrap();
    let events = reader.by_ref().collect();
    (events, reader.unseen())
}

/// An error without the place that differs from run to run.
fn words(error: &dyn std::error::Error, path: &Path) -> String {
    error
        .to_string()
        .replace(&path.display().to_string(), "DIR/rec")
        .replace(&path.parent().unwrap().display().to_string(), "DIR")
}

#[test]
fn what_was_recorded_is_read_back() {
    let (_parent, path) = place();
    recorded(&path);
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(reader.by_ref().collect::<Vec<_>>(), samples::events());
    assert_eq!(reader.unseen(), []);
    assert_eq!(reader.ended(), BootInstant(6_500_000_000));
    assert_eq!(reader.source().kind, SourceKind::Recording);
    assert_eq!(reader.source().started_wall, samples::source().started_wall);
    assert_eq!(reader.meta().targets, [samples::process()]);
    assert_eq!(reader.meta().losses, end().losses);
    assert!(reader.meta().complete);
}

#[test]
fn the_files_are_those_that_were_promised_and_nobody_elses_to_read() {
    let (_parent, path) = place();
    recorded(&path);
    let mut found = Vec::new();
    for directory in [path.clone(), path.join("goroutines")] {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path();
            let name = name.strip_prefix(&path).unwrap().display().to_string();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            found.push(format!("{name} {mode:o}"));
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "capture.pcapng 600",
            "events.gpl 600",
            "goroutines 700",
            "goroutines/001-2585-memory.txt 600",
            "meta.json 600",
            "report.json 600",
        ]
    );
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o700);
    let dump = fs::read_to_string(path.join("goroutines/001-2585-memory.txt")).unwrap();
    assert!(
        dump.starts_with("goroutine 34 [select]:\nnet/http."),
        "{dump}"
    );
}

#[test]
fn meta_reads_well() {
    let (_parent, path) = place();
    recorded(&path);
    insta::assert_snapshot!(fs::read_to_string(path.join("meta.json")).unwrap());
}

#[test]
fn an_empty_directory_is_taken_and_closed_to_others() {
    let (_parent, path) = place();
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    create(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o700);
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_left_alone() {
    let (_parent, path) = place();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("meta.json"), "mine").unwrap();
    insta::assert_snapshot!(words(&refused(&path), &path));
    assert_eq!(fs::read_to_string(path.join("meta.json")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn a_symbolic_link_is_refused_however_it_is_written() {
    let (parent, path) = place();
    let elsewhere = parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for target in [elsewhere.clone(), parent.path().join("nowhere")] {
        let _ = fs::remove_file(&path);
        symlink(target, &path).unwrap();
        for spelling in ["", "/", "/."] {
            let mut spelled = path.clone().into_os_string();
            spelled.push(spelling);
            let error = refused(Path::new(&spelled));
            assert!(
                matches!(error, RecordingError::NotADirectory { .. }),
                "{error}"
            );
        }
    }
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
    insta::assert_snapshot!(words(&refused(&path), &path));
}

#[test]
fn a_missing_parent_is_told_with_the_command_that_makes_it() {
    let (_parent, path) = place();
    let path = path.join("deep");
    insta::assert_snapshot!(words(&refused(&path), path.parent().unwrap()));
}

#[test]
fn an_attachment_cannot_leave_the_directory_or_replace_a_file() {
    let (_parent, path) = place();
    let mut writer = create(&path);
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/x",
        "a\0b",
        "meta.json",
        "events.gpl",
    ] {
        let error = writer.attach(name, b"x").unwrap_err();
        assert!(
            matches!(error, RecordingError::Name { .. }),
            "{name:?}: {error}"
        );
    }
    symlink("/dev/null", path.join("report.html")).unwrap();
    writer.attach("report.json", b"x").unwrap();
    for name in ["report.html", "report.json"] {
        let error = writer.attach(name, b"y").unwrap_err();
        assert!(
            matches!(error, RecordingError::Name { .. }),
            "{name}: {error}"
        );
    }
    assert_eq!(fs::read(path.join("report.json")).unwrap(), b"x");
    writer.finish(end()).unwrap();
    assert!(Reader::open(&path).unwrap().meta().complete);
}

#[test]
fn a_recording_that_was_never_finished_is_read_up_to_the_last_flush() {
    let (_parent, path) = place();
    let events = samples::events();
    let mut writer = create(&path);
    for event in &events {
        writer.event(event).unwrap();
    }
    writer.packet(&packet()).unwrap();
    writer.flush().unwrap();
    writer.event(&events[0]).unwrap();
    // As if killed: nothing is dropped, so nothing is written any more.
    std::mem::forget(writer);

    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(reader.by_ref().collect::<Vec<_>>(), events);
    assert!(!reader.meta().complete);
    assert_eq!(reader.ended(), events.last().unwrap().at);
    let unseen = reader.unseen();
    assert_eq!(unseen.len(), 1, "{unseen:?}");
    assert!(unseen[0].why.contains("never finished"), "{unseen:?}");
    if let Some(rows) = run("tshark", &[], &path.join("capture.pcapng")) {
        assert_eq!(rows.lines().count(), 1);
    }
}

#[test]
fn a_capture_is_replaced_by_what_is_made_of_it_when_that_is_whole() {
    let (_parent, path) = place();
    let mut writer = create(&path);
    writer.packet(&packet()).unwrap();
    let capture = path.join("capture.pcapng");
    let rewritten = writer.rewrite_packets(end().ended, 3, |before, after| {
        assert_eq!(
            fs::read(&capture).unwrap().len() as u64,
            before.metadata()?.len()
        );
        after.write_all(b"half of it")?;
        Err(io::Error::other("no more"))
    });
    assert!(rewritten.unwrap_err().to_string().contains("no more"));
    let plain = fs::read(&capture).unwrap();
    assert!(!path.join("capture.pcapng.next").exists());

    writer
        .rewrite_packets(end().ended, 3, |before, after| {
            io::copy(before, after)?;
            after.write_all(b"and more")
        })
        .unwrap();
    writer.finish(end()).unwrap();
    let replaced = fs::read(&capture).unwrap();
    assert_eq!(replaced, [&plain[..], b"and more"].concat());
    let reader = Reader::open(&path).unwrap();
    let mut read = Vec::new();
    io::Read::read_to_end(&mut reader.capture().unwrap(), &mut read).unwrap();
    assert_eq!(read, replaced);
    assert!(reader.meta().complete);
}

#[test]
fn a_recording_whose_writer_is_dropped_keeps_everything() {
    let (_parent, path) = place();
    let mut writer = create(&path);
    for event in samples::events() {
        writer.event(&event).unwrap();
    }
    drop(writer);
    assert_eq!(read(&path).0, samples::events());
}

#[test]
fn a_cut_file_is_told_also_where_the_cut_is_between_blocks() {
    let (_parent, path) = place();
    recorded(&path);
    let events = path.join("events.gpl");
    let file = fs::OpenOptions::new().write(true).open(&events).unwrap();
    let none = format!("0 of {} events", samples::events().len());
    for (length, reason) in [(100, "in the middle of a block"), (12, none.as_str())] {
        file.set_len(length).unwrap();
        let (found, unseen) = read(&path);
        assert_eq!(found, []);
        assert!(unseen[0].why.contains(reason), "{unseen:?}");
    }
}

#[test]
fn a_damaged_block_is_told() {
    let (_parent, path) = place();
    recorded(&path);
    let events = path.join("events.gpl");
    let mut bytes = fs::read(&events).unwrap();
    bytes[200] ^= 1;
    fs::write(&events, bytes).unwrap();
    let (found, unseen) = read(&path);
    assert_eq!(found, []);
    assert!(unseen[0].why.contains("checksum"), "{unseen:?}");
}

#[test]
fn a_later_recording_is_refused_with_both_versions() {
    let (_parent, path) = place();
    recorded(&path);
    let meta = fs::read_to_string(path.join("meta.json")).unwrap();
    fs::write(
        path.join("meta.json"),
        meta.replace("gopulse.recording/1", "gopulse.recording/2"),
    )
    .unwrap();
    insta::assert_snapshot!(words(&Reader::open(&path).err().unwrap(), &path));
}

#[test]
fn keys_of_a_later_gopulse_are_ignored() {
    let (_parent, path) = place();
    recorded(&path);
    let meta = fs::read_to_string(path.join("meta.json")).unwrap();
    fs::write(
        path.join("meta.json"),
        meta.replacen('{', "{\"mood\": \"fine\",", 1),
    )
    .unwrap();
    assert_eq!(read(&path), (samples::events(), vec![]));
}

#[test]
fn a_directory_that_is_no_recording_is_refused() {
    let (parent, path) = place();
    let open = |path: &Path| Reader::open(path).err().unwrap();
    insta::assert_snapshot!("nothing_there", words(&open(&path), &path));
    assert!(matches!(open(parent.path()), RecordingError::Read { .. }));

    fs::create_dir(&path).unwrap();
    fs::write(path.join("meta.json"), "{}").unwrap();
    insta::assert_snapshot!("another_meta", words(&open(&path), &path));
    fs::write(path.join("meta.json"), "\u{0}").unwrap();
    assert!(matches!(open(&path), RecordingError::NotARecording { .. }));
}

#[test]
fn a_pipe_or_link_in_a_strangers_recording_is_not_opened() {
    let (_parent, path) = place();
    recorded(&path);
    let events = path.join("events.gpl");
    fs::remove_file(&events).unwrap();
    nix::unistd::mkfifo(&events, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = Reader::open(&path).err().unwrap();
    assert!(error.to_string().contains("not a plain file"), "{error}");
    fs::remove_file(&events).unwrap();
    symlink("/dev/zero", &events).unwrap();
    assert!(matches!(
        Reader::open(&path).err().unwrap(),
        RecordingError::Read { .. }
    ));
}

/// Runs `test` with a file system of so many bytes that only its thread can see, and that is gone with it.
fn on_a_small_disk(bytes: usize, test: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let disk = tempfile::tempdir().unwrap();
            if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
                // What has no mount of its own is held by the tests of whole blocks.
                assert!(
                    std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                    "cannot mount a small disk: {errno}"
                );
                writeln!(
                    io::stderr(),
                    "skipped (1): cannot mount a small disk: {errno}"
                )
                .unwrap();
                return;
            }
            let nothing = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(nothing, "/", nothing, private, nothing).unwrap();
            let options = format!("size={bytes}");
            mount(
                Some("tmpfs"),
                disk.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .unwrap();
            test(disk.path());
            nix::mount::umount(disk.path()).unwrap();
        });
        run.join().unwrap();
    });
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_it_readable() {
    on_a_small_disk(1 << 20, |disk| {
        let path = disk.join("rec");
        let events = samples::events();
        let mut writer = create(&path);
        let mut given = 0;
        let error = loop {
            let event = &events[given % events.len()];
            let outcome = writer.event(event).and_then(|()| writer.packet(&packet()));
            given += 1;
            match outcome {
                Ok(_) if given % 100 == 0 => {
                    if let Err(error) = writer.flush() {
                        break error;
                    }
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, RecordingError::Full { .. }), "{error}");
        let too_large = vec![0; 2 << 20];
        let error = writer.attach("report.json", &too_large).unwrap_err();
        assert!(matches!(error, RecordingError::Full { .. }), "{error}");
        assert!(!path.join("report.json").exists());
        writer.finish(end()).unwrap();

        let (found, unseen) = read(&path);
        assert!(found.len() > 1000, "{} of {given}", found.len());
        assert!(found.iter().eq(events.iter().cycle().take(found.len())));
        assert_eq!(unseen.len(), 1, "{unseen:?}");
        assert!(unseen[0].why.contains("stays readable"), "{unseen:?}");
        let meta = Reader::open(&path).unwrap().meta().clone();
        assert!(!meta.complete);
        assert_eq!(meta.targets, [samples::process()]);
        if let Some(rows) = run("tshark", &[], &path.join("capture.pcapng")) {
            assert!(rows.lines().count() > 100);
        }
    });
}

#[test]
fn a_disk_too_small_to_begin_on_is_told_at_once() {
    on_a_small_disk(16 << 10, |disk| {
        let error = refused(&disk.join("rec"));
        assert!(matches!(error, RecordingError::Full { .. }), "{error}");
    });
}
