//! A kernel under QEMU, and what its guest tells.
//!
//! Translated, not virtualised (TCG): it runs wherever QEMU does, inside another machine too. The guest
//! tells on its second serial line; its console is kept for who has to find out why it did not.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{cases::Case, initramfs::Initramfs};

/// How long a guest may say nothing: longer than a scenario is given in `init.sh`.
const SILENCE: Duration = Duration::from_secs(240);

/// Memory in MiB. gopulse's maps and the unpacked file system are most of it.
const MEMORY: &str = "2048";
/// QEMU counts the instructions of one CPU only.
const CPUS: &str = "1";
/// Without `-cx16` 6.12 faulted early in three of four boots.
const CPU: &str = "max,-cx16";

/// The guest's clock counts instructions (2 ns each), and leaps where all CPUs sleep: time limits hold in it
/// however busy the host is, and waiting costs nothing.
const CLOCK: &str = "shift=1,sleep=off";

const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off";

/// Boots `image` and gives the guest's lines to `hear`, until it is off.
pub(super) fn boot(
    image: &Path,
    initramfs: &Path,
    console: &Path,
    mut hear: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut machine = Machine::start(image, initramfs, console)?;
    let stdout = machine.0.stdout.take().context("no serial line")?;
    let (told, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        let mut stdout = BufReader::new(stdout);
        while stdout
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if told.send(text).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    loop {
        match heard.recv_timeout(SILENCE) {
            Ok(line) if line == "@off" => return Ok(()),
            Ok(line) => hear(&line)?,
            Err(RecvTimeoutError::Timeout) => bail!(
                "the guest said nothing for {SILENCE:?}, {:?} after it began; its console: {}",
                began.elapsed(),
                console.display()
            ),
            Err(RecvTimeoutError::Disconnected) => bail!(
                "the guest ended too early; at last it said: {}",
                last_words(console)
            ),
        }
    }
}

/// A QEMU, which ends with this.
struct Machine(Child);

impl Machine {
    fn start(image: &Path, initramfs: &Path, console: &Path) -> anyhow::Result<Self> {
        let console = format!("file:{}", console.display());
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-cpu", CPU])
            .args(["-icount", CLOCK, "-rtc", "clock=vm"])
            .args(["-m", MEMORY, "-smp", CPUS])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", COMMAND_LINE])
            .args(["-serial", &console, "-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        Ok(Self(child))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The end of what the kernel wrote.
fn last_words(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Writes the file system of one guest: what all carry, and behind it this kernel's modules and cases.
pub(super) fn file_system(
    luggage: &[u8],
    modules: &[PathBuf],
    cases: &[&Case],
    to: &Path,
) -> anyhow::Result<()> {
    let mut own = Initramfs::default();
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().context("a module without a name")?;
        let name = name.to_string_lossy();
        own.copy(&format!("/modules/{name}"), module)?;
        order.push_str(&format!("{name}\n"));
    }
    own.file("/modules/order", order.as_bytes());
    let line = |case: &&Case| {
        let crowded = case.crowded.join(" ");
        format!("{} {} {} {crowded}\n", case.name, case.program, case.test)
    };
    own.file(
        "/cases",
        cases.iter().map(line).collect::<String>().as_bytes(),
    );
    fs::write(to, [luggage, &own.finish()].concat())
        .with_context(|| format!("cannot write {}", to.display()))
}
