//! What ends a run before its time: Ctrl-C, `kill`, a terminal that goes away.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::Context as _;
use procfs::process::Process;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// A flag that is set when the run is to end; what was seen until then is told. The second signal ends us at
/// once, and the kernel removes what we put there.
///
/// # Errors
///
/// The system does not let us be told.
pub(super) fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = vec![SIGINT, SIGTERM];
    // nohup(1) has us ignore it, and means it.
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    for signal in signals {
        flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("cannot be told of Ctrl-C")?;
    }
    Ok(stop)
}

/// Whether we were started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    Process::myself()
        .and_then(|us| us.status())
        .is_ok_and(|status| status.sigign >> (signal - 1) & 1 == 1)
}
