//! Which frames of a stack a Go stack trace shows.
//!
//! The runtime leaves its own frames out of the traces it prints (`runtime.gopark` below
//! `main.wait`), and functions the compiler generated. The same is done to stacks read from memory
//! and to dumps that hold everything (a SIGQUIT under `GOTRACEBACK=system`), so that a goroutine looks
//! alike whoever read it and snapshots of different sources can be compared.

use super::symbols::Call;
use crate::event::Frame;

/// Whether the runtime's traces show a function (`runtime.showfuncinfo`, `src/runtime/traceback.go`).
/// `innermost` says that no frame is shown below it.
pub(super) fn shows(function: &str, innermost: bool) -> bool {
    match function.strip_prefix("runtime.") {
        None => function.contains('.') || function.starts_with("0x"),
        // Always told, as the reason why user code runs there.
        Some("runFinalizers" | "runCleanups") => true,
        // The border between ordinary code and deferred code that a panic runs.
        Some("gopanic") => !innermost,
        Some(name) => exported(name),
    }
}

/// Whether the rest of a name after `runtime.` is exported: `GC`, `(*Func).Entry`
/// (`runtime.isExportedRuntime`).
fn exported(name: &str) -> bool {
    let upper = |name: &str| name.starts_with(|first: char| first.is_ascii_uppercase());
    match name.rsplit_once('.') {
        None => upper(name),
        Some((receiver, method)) => {
            let receiver = receiver
                .strip_prefix("(*")
                .and_then(|receiver| receiver.strip_suffix(')'))
                .unwrap_or(receiver);
            upper(receiver) && upper(method)
        }
    }
}

/// The calls of a stack, innermost first, as frames; without the functions that the compiler
/// generated, unless one panicked instead of calling what it wraps (`runtime.elideWrapperCalling`).
pub(super) fn written<'a>(
    calls: impl IntoIterator<Item = &'a Call>,
) -> impl Iterator<Item = &'a Frame> {
    let mut callee = "";
    calls.into_iter().filter_map(move |call| {
        let panicked = matches!(
            callee,
            "runtime.gopanic" | "runtime.sigpanic" | "runtime.panicwrap"
        );
        callee = &call.frame.function;
        (!call.wrapper || panicked).then_some(&call.frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_own_frames_are_left_out_and_its_api_is_not() {
        for shown in [
            "main.main",
            "time.Sleep",
            "internal/poll.runtime_pollWait",
            "runtime.GC",
            "runtime.(*Func).Entry",
            "runtime/pprof.writeGoroutineStacks",
            "runtime.runFinalizers",
        ] {
            assert!(shows(shown, true), "{shown}");
        }
        for hidden in [
            "runtime.gopark",
            "runtime.(*timers).run",
            "runtime.(*mheap).Alloc",
            "runtime.goexit",
            "cgocallee",
        ] {
            assert!(!shows(hidden, false), "{hidden}");
        }
    }

    #[test]
    fn a_panic_is_shown_above_the_deferred_code_it_runs() {
        assert!(shows("runtime.gopanic", false));
        assert!(!shows("runtime.gopanic", true));
    }
}
