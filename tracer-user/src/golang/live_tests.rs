//! What is read from outside, compared with what Go itself says: the same program built in the ways
//! services are built, by every toolchain at hand.
//!
//! `GOPULSE_GO` names `go` binaries, separated by colons; without it the one in `PATH` is taken. With
//! none the tests say so in one line, and fail where `CI` is set.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::*;
use crate::event::{Creation, Goroutine, Snapshot, SnapshotSource};

mod blocking;
mod figures;
mod hostile;
mod labels;
mod torn;

/// A toolchain.
struct Go {
    binary: PathBuf,
}

/// A way to build.
#[derive(Clone, Copy, Debug)]
struct Build {
    name: &'static str,
    arguments: &'static [&'static str],
    cgo: bool,
}

const PLAIN: Build = Build {
    name: "plain",
    arguments: &[],
    cgo: false,
};
const BUILDS: [Build; 5] = [
    PLAIN,
    Build {
        name: "stripped",
        arguments: &["-ldflags=-s -w"],
        cgo: false,
    },
    Build {
        name: "pie",
        arguments: &["-buildmode=pie"],
        cgo: false,
    },
    Build {
        name: "cgo, stripped pie",
        arguments: &["-buildmode=pie", "-ldflags=-s -w"],
        cgo: true,
    },
    Build {
        name: "cgo, static",
        arguments: &["-ldflags=-linkmode=external -extldflags=-static"],
        cgo: true,
    },
];

fn toolchains() -> Vec<Go> {
    let named = std::env::var("GOPULSE_GO").unwrap_or_default();
    let mut found: Vec<Go> = std::env::split_paths(&named)
        .filter(|path| !path.as_os_str().is_empty())
        .map(|binary| Go { binary })
        .collect();
    if found.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        found.extend(
            std::env::split_paths(&path)
                .map(|directory| directory.join("go"))
                .find(|binary| binary.is_file())
                .map(|binary| Go { binary }),
        );
    }
    if found.is_empty() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no Go toolchain: set GOPULSE_GO to a go binary"
        );
        println!("skipped: no Go toolchain (set GOPULSE_GO to a go binary)");
    }
    found
}

impl Go {
    fn build(&self, directory: &Path, how: Build) -> PathBuf {
        self.build_of("waiters", directory, how)
    }

    fn build_of(&self, program: &str, directory: &Path, how: Build) -> PathBuf {
        let output = directory.join(how.name.replace([' ', ','], "_"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golang/testdata");
        let source = source.join(program);
        let root = self.binary.parent().and_then(Path::parent).unwrap();
        let status = Command::new(&self.binary)
            .args(["build", "-o"])
            .arg(&output)
            .args(how.arguments)
            .arg(".")
            .current_dir(source)
            .env("GOROOT", root)
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod -buildvcs=false")
            .env("CGO_ENABLED", if how.cgo { "1" } else { "0" })
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{} {how:?}", self.binary.display());
        output
    }

    /// Runs `check` on the program built in each of `builds`.
    fn each(&self, builds: &[Build], check: impl Fn(&mut Waiters, &str)) {
        let directory = tempfile::tempdir().unwrap();
        for build in builds {
            let binary = self.build(directory.path(), *build);
            let mut waiters = Waiters::start(binary);
            let program = waiters.program();
            let name = format!("{} {}", program.version(), build.name);
            check(&mut waiters, &name);
        }
    }
}

/// The running program.
struct Waiters {
    binary: PathBuf,
    child: Child,
    /// Where it serves pprof.
    address: String,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Waiters {
    fn start(binary: PathBuf) -> Self {
        // Whatever the module says: where there are timers that feed channels, they do.
        let mut command = Command::new(&binary);
        command.env("GODEBUG", "asynctimerchan=0,tracebacklabels=1");
        Self::run(command, binary)
    }

    fn run(mut command: Command, binary: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut waiters = Self {
            binary,
            child,
            address: String::new(),
            commands,
            answers,
        };
        let ready = waiters.answer();
        waiters.address = ready.strip_prefix("ready ").unwrap().to_owned();
        waiters
    }

    fn program(&self) -> Program {
        Program::of_process(self.child.id()).unwrap().unwrap()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// `runtime.Stack(all)`, the text that `debug=2` also gives.
    fn dump(&mut self) -> String {
        let length: usize = self.ask("dump").parse().unwrap();
        let mut text = vec![0; length];
        self.answers.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// What its pprof endpoint answers.
    fn get(&self, what: &str) -> Vec<u8> {
        let url = format!("http://{}/debug/pprof/{what}", self.address);
        let mut answer = ureq::get(url).call().unwrap();
        answer.body_mut().read_to_vec().unwrap()
    }

    /// A symbol of the executable, where it has any.
    fn symbol(&self, name: &str) -> Option<u64> {
        let bytes = std::fs::read(&self.binary).unwrap();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        file.symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .map(|symbol| symbol.address())
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn snapshot(program: &Program, limit: usize) -> Result<Snapshot, GoError> {
    memory::read(program, limit).map(|reading| reading.snapshot)
}

#[test]
fn a_program_that_is_not_go_is_told_so() {
    assert!(Program::of_process(std::process::id()).unwrap().is_none());
    assert!(matches!(
        Program::of_process(u32::MAX >> 1),
        Err(GoError::Gone { .. })
    ));
}

#[test]
fn the_layout_table_agrees_with_the_debug_information() {
    let mut differences = Vec::new();
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(go.build(directory.path(), PLAIN)).unwrap();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let mut told = dwarf::layout(&file).unwrap();
        let built = GoBinary::parse(&bytes).unwrap();
        let version = Version::of(built.go_version().unwrap()).unwrap();
        let table = Layout::of(version).unwrap();
        // Where it is not needed, it is not in the table.
        told.m_syscall_tick = told
            .m_syscall_tick
            .and(table.m_syscall_tick)
            .and(told.m_syscall_tick);
        let (table, told) = (format!("{table:#?}"), format!("{told:#?}"));
        for (table, told) in table.lines().zip(told.lines()) {
            if table != told {
                differences.push(format!("{version:?}: table{table} debug information{told}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_functions_a_uprobe_needs_are_found_stripped_or_not() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            for function in [
                "net/http.(*persistConn).closeLocked",
                "runtime.netpolldeadlineimpl",
                "internal/poll.(*FD).Close",
            ] {
                let entry = program.function(function).unwrap();
                if let Some(symbol) = waiters.symbol(function) {
                    assert_eq!(entry.address - program.bias, symbol, "{name} {function}");
                }
                // The bytes in the file and in memory are the same code.
                let file = std::fs::read(&waiters.binary).unwrap();
                let mut code = [0; 16];
                program.memory.read(entry.address, &mut code).unwrap();
                assert_eq!(
                    file[entry.offset as usize..][..16],
                    code,
                    "{name} {function}"
                );
            }
            assert_eq!(program.function("net/http.nobody"), None);
        });
    }
}

#[test]
fn the_thread_local_word_and_allgs_are_read_from_the_code() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let offsets = program.runtime_offsets().unwrap();
            if name.ends_with("static") {
                assert!(offsets.tls < -8, "{name} {offsets:?}");
            } else {
                assert_eq!(offsets.tls, -8, "{name}");
            }
            assert!(program.allgs.is_some(), "{name}");
            if let Some(symbol) = waiters.symbol("runtime.allgs") {
                assert_eq!(program.allgs, Some(symbol), "{name}");
            }
        });
    }
}

#[test]
fn addresses_become_lines_and_what_is_not_go_stays_a_number() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let main = program.function("main.main").unwrap();
            let frames = program.frames(&[main.address, 0x10]);
            assert_eq!(frames.len(), 2, "{name}");
            assert_eq!(frames[0].function, "main.main", "{name}");
            assert!(frames[0].file.as_ref().unwrap().ends_with("main.go"));
            assert!(frames[0].line.is_some());
            assert_eq!(frames[1].function, "0x10", "{name}");
            drop(waiters.dump());
        });
    }
}

/// What of a goroutine must be the same in memory and in the runtime's own dump.
fn comparable(goroutine: &Goroutine) -> (u64, String, Vec<Frame>, Option<Creation>) {
    let frames = goroutine.frames.iter().take(45).cloned().collect();
    (
        goroutine.id,
        goroutine.state.clone(),
        frames,
        goroutine.created_by.clone(),
    )
}

fn one_by_one(dump: &dump::Dump) -> Vec<Goroutine> {
    let snapshot = dump.census.snapshot(1, SnapshotSource::File, usize::MAX);
    snapshot.goroutines
}

#[test]
fn a_snapshot_from_memory_tells_what_the_runtimes_own_dump_tells() {
    for go in toolchains() {
        go.each(&BUILDS, |waiters, name| {
            let program = waiters.program();
            let told = dump::parse(waiters.dump().as_bytes());
            assert_eq!(told.unread_lines, 0, "{name}");
            let told = one_by_one(&told);
            let snapshot = snapshot(&program, usize::MAX).unwrap();
            assert_eq!(snapshot.total, told.len() as u64, "{name}");
            assert_eq!(snapshot.goroutines.len(), told.len(), "{name}");
            for expected in &told {
                let found = snapshot
                    .goroutines
                    .iter()
                    .find(|goroutine| goroutine.id == expected.id)
                    .unwrap_or_else(|| panic!("{name}: {expected:?} is missing"));
                // The main goroutine was running when it dumped, and waits for a command by now.
                if expected.id != 1 {
                    assert_eq!(comparable(found), comparable(expected), "{name}");
                }
            }
            let main = snapshot
                .goroutines
                .iter()
                .find(|found| found.id == 1)
                .unwrap();
            assert_eq!(main.frames.last().unwrap().function, "main.main", "{name}");
            assert_eq!(main.created_by, None, "{name}");
        });
    }
}

#[test]
fn waiting_times_are_known_from_the_second_garbage_collection_on() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let program = waiters.program();
            let wait = || {
                let snapshot = snapshot(&program, usize::MAX).unwrap();
                let mut all = snapshot.goroutines.into_iter();
                all.find(|found| found.state == "sleep").unwrap().wait
            };
            let started = std::time::Instant::now();
            waiters.ask("gc");
            waiters.ask("gc");
            let waited = wait().unwrap();
            assert!(waited <= started.elapsed(), "{name} {waited:?}");
            assert!(wait().unwrap() > waited, "{name}");
        });
    }
}

#[test]
fn one_goroutine_is_found_by_its_address_and_only_while_it_is_the_same() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let program = waiters.program();
            let mut reader = memory::Reader::new(&program).unwrap();
            let all = reader.census().unwrap();
            let snapshot = snapshot(&program, usize::MAX).unwrap();
            for g::Key { address, id } in all {
                let found = memory::goroutine(&program, address, id).unwrap().unwrap();
                assert!(
                    snapshot.goroutines.iter().any(|other| other.id == found.id),
                    "{name}"
                );
                assert_eq!(memory::goroutine(&program, address, id + 1).unwrap(), None);
            }
            assert_eq!(memory::goroutine(&program, 0x10, 1).unwrap(), None);
            drop(waiters.dump());
        });
    }
}

#[test]
fn a_limit_cuts_the_list_and_not_the_total() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let program = waiters.program();
            waiters.ask("more 5000");
            let all = snapshot(&program, usize::MAX).unwrap();
            assert!(all.total > 5000, "{name} {}", all.total);
            assert_eq!(all.goroutines.len() as u64, all.total, "{name}");
            let some = snapshot(&program, 100).unwrap();
            assert_eq!(some.total, all.total, "{name}");
            assert!((50..=100).contains(&some.goroutines.len()), "{name}");
            assert!(snapshot(&program, 0).unwrap().goroutines.is_empty());
        });
    }
}

#[test]
fn a_wrong_layout_is_an_error_and_not_a_wrong_answer() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let mut program = waiters.program();
            let right = program.layout().unwrap();
            for wrong in [
                Layout {
                    status: right.goid,
                    ..right
                },
                Layout {
                    m_procid: right.m_procid + 8,
                    ..right
                },
                Layout {
                    m_curg: right.m_curg + 8,
                    ..right
                },
            ] {
                program.layout = Ok(wrong);
                let result = snapshot(&program, 10);
                assert!(
                    matches!(result, Err(GoError::Layout { .. })),
                    "{name} {result:?}"
                );
            }
            program.layout = Ok(right);
            program.allgs = program.allgs.map(|address| address + 8);
            assert!(snapshot(&program, 10).is_err(), "{name}");
            drop(waiters.dump());
        });
    }
}

/// The same program, whose file says that another version built it, so that it is read by a layout that is
/// not its own.
#[test]
fn a_program_that_lies_about_its_version_is_told_by_pprof() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let binary = go.build(directory.path(), PLAIN);
        let mut bytes = std::fs::read(&binary).unwrap();
        let version = GoBinary::parse(&bytes)
            .unwrap()
            .go_version()
            .unwrap()
            .to_owned();
        let minor = Version::of(&version).unwrap().minor;
        // One whose threads are kept elsewhere.
        let other = if minor < 25 { "27" } else { "22" };
        let lie = version.replacen(&minor.to_string(), other, 1);
        let found: Vec<usize> = memchr::memmem::find_iter(&bytes, &version).collect();
        for at in found {
            bytes[at..at + lie.len()].copy_from_slice(lie.as_bytes());
        }
        std::fs::remove_file(&binary).unwrap();
        std::fs::write(&binary, bytes).unwrap();
        make_executable(&binary);
        let waiters = Waiters::start(binary);
        let program = waiters.program();
        assert_eq!(program.version(), lie);
        let read = memory::read(&program, 10);
        assert!(
            matches!(read, Err(GoError::Layout { .. })),
            "{version}: {read:?}"
        );
        let endpoint = pprof::discover(program.pid()).unwrap();
        let (saved, _) = pprof::census(&endpoint).unwrap();
        assert!(saved.census.total > 10, "{version}");
    }
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_dump_of_a_quit_signal_tells_every_goroutine_labelled_or_not() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let binary = go.build(directory.path(), PLAIN);
        for level in ["single", "system"] {
            let mut command = Command::new(&binary);
            command
                .env("GODEBUG", "tracebacklabels=1")
                .env("GOTRACEBACK", level)
                .stderr(Stdio::piped());
            let mut waiters = Waiters::run(command, binary.clone());
            let program = waiters.program();
            let expected = snapshot(&program, usize::MAX).unwrap().goroutines;
            let process = nix::unistd::Pid::from_raw(waiters.child.id().cast_signed());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGQUIT).unwrap();
            let mut text = String::new();
            let mut errors = waiters.child.stderr.take().unwrap();
            errors.read_to_string(&mut text).unwrap();
            let dump = dump::parse(text.as_bytes());
            let name = format!("{} {level}", program.version());
            assert_eq!(dump.unread_lines, 0, "{name}: {text}");
            let dump = one_by_one(&dump);
            for goroutine in &expected {
                let told = dump.iter().find(|told| told.id == goroutine.id);
                let mut told = told
                    .unwrap_or_else(|| panic!("{name}: {goroutine:?} is missing"))
                    .clone();
                if program.minor == Some(21) {
                    // Its closures around go statements are named like those people write.
                    told.frames.retain(|frame| goroutine.frames.contains(frame));
                }
                assert_eq!(comparable(&told), comparable(goroutine), "{name}");
            }
        }
    }
}

#[test]
fn pprof_is_found_and_told_with_ids_only_while_there_are_few() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            let pid = waiters.child.id();
            let endpoint = pprof::discover(pid).unwrap();
            assert!(endpoint.url.ends_with("/debug/pprof/"), "{}", endpoint.url);
            let few = pprof::snapshot(&endpoint, pid, usize::MAX).unwrap();
            let asleep = few
                .goroutines
                .iter()
                .find(|found| found.state == "sleep")
                .unwrap();
            assert!(asleep.id > 0, "{name}");
            assert_eq!(asleep.frames[0].function, "time.Sleep", "{name}");
            waiters.ask("more 2000");
            let many = pprof::snapshot(&endpoint, pid, 1000).unwrap();
            assert!(many.total > 2000, "{name}");
            assert!(many.goroutines.iter().all(|found| found.id == 0), "{name}");
            let receivers = many.goroutines.iter().filter(|found| {
                found
                    .frames
                    .first()
                    .is_some_and(|frame| frame.function == "main.receive")
            });
            assert!((900..=1000).contains(&receivers.count()), "{name}");
        });
    }
}

#[test]
fn pprof_is_found_in_another_network_namespace() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a network namespace of its own needs root");
        return;
    }
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let binary = go.build(directory.path(), PLAIN);
        let script = "ip link set lo up && exec \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(&binary);
        let waiters = Waiters::run(command, binary);
        let pid = waiters.child.id();
        let endpoint = pprof::discover(pid).unwrap();
        assert!(pprof::snapshot(&endpoint, pid, 100).unwrap().total > 10);
    }
}

#[test]
fn a_program_that_was_deleted_since_it_started_is_read_all_the_same() {
    for go in toolchains() {
        go.each(&[PLAIN], |waiters, name| {
            std::fs::remove_file(&waiters.binary).unwrap();
            let program = waiters.program();
            assert!(program.function("main.main").is_some(), "{name}");
            assert!(snapshot(&program, 10).unwrap().total > 10, "{name}");
            drop(waiters.dump());
        });
    }
}

/// Numbers that look random and are the same in every run.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |last| {
        let mut next = *last;
        next ^= next << 13;
        next ^= next >> 7;
        Some(next ^ (next << 17))
    })
}

#[test]
fn a_damaged_executable_gives_less_and_never_a_panic() {
    for go in toolchains() {
        let directory = tempfile::tempdir().unwrap();
        let whole = std::fs::read(go.build(directory.path(), PLAIN)).unwrap();
        let file = object::File::parse(whole.as_slice()).unwrap();
        let tables: Vec<std::ops::Range<u64>> = file
            .sections()
            .filter(|section| {
                let name = section.name().unwrap();
                [".gopclntab", ".go.module", ".noptrdata", ".go.func"].contains(&name)
            })
            .filter_map(|section| section.file_range())
            .map(|(start, size)| start..start + size)
            .chain(std::iter::once(0..0x400))
            .collect();
        let text = Program::new(0, &Executable::of_bytes(whole.clone()).unwrap(), 0)
            .unwrap()
            .function("runtime.gopark")
            .unwrap();
        let mut numbers = numbers();
        let mut number = || numbers.next().unwrap();
        for round in 0..40 {
            let mut bytes = whole.clone();
            for table in &tables {
                for _ in 0..1 << (round % 12) {
                    let at = table.start + number() % (table.end - table.start);
                    bytes[at as usize] = number() as u8;
                }
            }
            let Ok(executable) = Executable::of_bytes(bytes) else {
                continue;
            };
            let Ok(program) = Program::new(std::process::id(), &executable, 0) else {
                continue;
            };
            let pcs: Vec<u64> = (0..200)
                .map(|_| text.address + number() % 0x10_0000)
                .collect();
            assert!(program.frames(&pcs).len() <= pcs.len() * 64);
            let stack: Vec<u8> = pcs.iter().flat_map(|pc| pc.to_le_bytes()).collect();
            let position = stack::Position {
                pc: text.address + 1,
                sp: 0,
            };
            assert!(stack::walk(&program, position, &stack).sites.len() <= stack::DEEPEST);
            assert!(snapshot(&program, 10).is_err());
        }
    }
}
