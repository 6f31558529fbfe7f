//! Who may run, and when: a live scenario needs a host that allows it, and the machine to itself.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::gopulse;

/// One scenario runs at a time: they measure waiting times of milliseconds.
static MACHINE: Mutex<()> = Mutex::new(());

/// The right to run, until dropped.
pub struct Turn(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Turn {
    /// Waits for the machine, if gopulse can trace on this host and `programs` are installed. If not,
    /// says so in one line, which `cargo xtask test` counts, and gives `None`.
    ///
    /// # Panics
    ///
    /// Where `CI` is set: there nothing may be skipped.
    pub fn take(scenario: &str, programs: &[&str]) -> Option<Self> {
        Self::take_if(scenario, possible(programs).and_then(|()| host_allows()))
    }

    /// The same for a scenario that gopulse takes no part in.
    ///
    /// # Panics
    ///
    /// As [`Turn::take`].
    pub fn take_without_tracing(scenario: &str, programs: &[&str]) -> Option<Self> {
        Self::take_if(scenario, possible(programs))
    }

    fn take_if(scenario: &str, possible: Result<(), String>) -> Option<Self> {
        if let Err(why) = possible {
            skip(scenario, &why);
            return None;
        }
        Some(Self(MACHINE.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Says in one line that a test cannot run here.
///
/// # Panics
///
/// Where `CI` is set.
pub fn skip(test: &str, why: &str) {
    assert!(
        env::var("CI").is_err(),
        "{test} cannot run, and in CI nothing is skipped: {why}"
    );
    // Written past the test runner, which shows what a passing test prints to nobody.
    drop(writeln!(io::stderr(), "skipped: {test}: {why}"));
}

/// Whether these programs are installed, for a test that needs no more than them. If not, says so as
/// [`skip`] does.
///
/// # Panics
///
/// As [`skip`].
pub fn have(test: &str, programs: &[&str]) -> bool {
    match programs.iter().find(|program| !installed(program)) {
        Some(program) => {
            skip(test, &format!("no {program} (cargo xtask setup)"));
            false
        }
        None => true,
    }
}

/// This process may do what only root may.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn possible(programs: &[&str]) -> Result<(), String> {
    if env::var("GOPULSE_LIVE").is_err() {
        return Err("GOPULSE_LIVE is not set (cargo xtask test sets it)".to_owned());
    }
    if !is_root() {
        return Err("not root".to_owned());
    }
    match programs.iter().find(|program| !installed(program)) {
        Some(program) => Err(format!("no {program} (cargo xtask setup)")),
        None => Ok(()),
    }
}

/// Asks the tool itself, once: `doctor` exits with 3 where the kernel or the privileges forbid tracing. Where
/// `GOPULSE_LIVE` is `asked`, somebody did.
fn host_allows() -> Result<(), String> {
    static ALLOWS: OnceLock<Result<(), String>> = OnceLock::new();
    let ask = || match gopulse::ended(&["doctor"]) {
        Ok(doctor) if doctor.status == 3 => {
            let why = doctor.stderr.lines().next().unwrap_or("no reason given");
            Err(format!("this host cannot trace: {why}"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error:#}")),
    };
    if env::var("GOPULSE_LIVE").is_ok_and(|live| live == "asked") {
        return Ok(());
    }
    ALLOWS.get_or_init(ask).clone()
}

fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}
