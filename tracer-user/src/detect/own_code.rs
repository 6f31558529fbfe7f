//! Which frames of a Go stack are the user's own.
//!
//! A stack of a waiting goroutine begins in the runtime and ends in net/http; the line to change is
//! somewhere between. Standard library code is known by its import path, dependencies by the module
//! cache in the file's path.

use crate::event::Frame;

/// First elements of the standard library's import paths (`go list std`, Go 1.21 to 1.27). A module
/// may be named without a dot (`module shop`), so the absence of one says nothing.
const STANDARD: [&str; 52] = [
    "archive",
    "arena",
    "bufio",
    "builtin",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "vendor",
];

/// The import path of a Go function's package; `None` for a name that is not Go's.
fn package(function: &str) -> Option<&str> {
    let plain = function.split('[').next()?;
    let last = plain.rfind('/').map_or(0, |slash| slash + 1);
    let dot = plain.get(last..)?.find('.')?;
    plain.get(..last + dot).filter(|path| !path.is_empty())
}

/// The frame's function belongs to Go's standard library or runtime.
#[must_use]
pub fn is_standard(frame: &Frame) -> bool {
    let Some(package) = package(&frame.function) else {
        return false;
    };
    let first = package.split('/').next().unwrap_or(package);
    // `_.goready.func1`: a closure that was inlined into another package, which Go 1.27 names so. Whose
    // it is follows from who called it.
    STANDARD.contains(&first) || ["weak", "type:", "_"].contains(&first)
}

/// The frame's function belongs to a dependency, not to the program's own module.
fn is_dependency(frame: &Frame) -> bool {
    frame.file.as_deref().is_some_and(|file| {
        file.contains("/pkg/mod/") || file.contains("@v") || file.contains("/vendor/")
    })
}

/// The innermost frame of the program's own code; of a dependency where there is none of its own.
#[must_use]
pub fn own_frame(frames: &[Frame]) -> Option<&Frame> {
    let foreign = |frame: &&Frame| package(&frame.function).is_some() && !is_standard(frame);
    frames
        .iter()
        .filter(foreign)
        .find(|frame| !is_dependency(frame))
        .or_else(|| frames.iter().find(foreign))
}

/// A frame in one breath: `main.(*store).save (store.go:57)`.
#[must_use]
pub fn brief(frame: &Frame) -> String {
    let base = frame
        .file
        .as_deref()
        .and_then(|file| file.rsplit('/').next());
    match (base, frame.line) {
        (Some(base), Some(line)) => format!("{} ({base}:{line})", frame.function),
        (Some(base), None) => format!("{} ({base})", frame.function),
        (None, _) => frame.function.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::story::{frame, frames};

    #[test]
    fn packages_are_read_from_every_shape_of_name() {
        for (function, expected) in [
            ("main.main.func1", Some("main")),
            ("net/http.(*conn).serve", Some("net/http")),
            (
                "github.com/acme/shop/store.(*DB).Save",
                Some("github.com/acme/shop/store"),
            ),
            ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml%2ev3")),
            ("main.Map[github.com/acme/shop.Item]", Some("main")),
            ("0x4711", None),
            ("do_syscall_64", None),
        ] {
            assert_eq!(package(function), expected, "{function}");
        }
    }

    #[test]
    fn the_library_is_told_from_modules_without_a_dot() {
        for standard in [
            "time.Sleep",
            "internal/poll.(*FD).Read",
            "_.goready.func1",
            "vendor/golang.org/x/net/http2/hpack.x",
        ] {
            assert!(is_standard(&frame(standard)), "{standard}");
        }
        for own in [
            "main.handler",
            "shop/store.Save",
            "golang.org/x/sync/errgroup.(*Group).Go.func1",
        ] {
            assert!(!is_standard(&frame(own)), "{own}");
        }
    }

    #[test]
    fn the_innermost_own_frame_is_found_below_the_runtime() {
        let stack = frames(&[
            "runtime.gopark /go/src/runtime/proc.go:424",
            "time.Sleep /go/src/runtime/time.go:300",
            "main.(*store).save /srv/upstream/store.go:57",
            "main.handle /srv/upstream/main.go:12",
            "net/http.HandlerFunc.ServeHTTP /go/src/net/http/server.go:2322",
        ]);
        assert_eq!(
            own_frame(&stack).map(brief).as_deref(),
            Some("main.(*store).save (store.go:57)")
        );
    }

    #[test]
    fn own_code_comes_before_the_driver_it_waits_in() {
        let stack = frames(&[
            "internal/poll.(*FD).Read /go/src/internal/poll/fd_unix.go:165",
            "github.com/lib/pq.(*conn).recv /root/go/pkg/mod/github.com/lib/pq@v1.10.9/conn.go:980",
            "github.com/acme/shop/orders.Load /src/orders/load.go:31",
        ]);
        assert_eq!(
            own_frame(&stack).map(brief).as_deref(),
            Some("github.com/acme/shop/orders.Load (load.go:31)")
        );
        assert_eq!(
            own_frame(&stack[..2]).map(brief).as_deref(),
            Some("github.com/lib/pq.(*conn).recv (conn.go:980)")
        );
    }

    #[test]
    fn a_stack_of_the_library_alone_has_no_own_frame() {
        let stack = frames(&["runtime.gopark", "net/http.(*conn).serve", "0xdead"]);
        assert_eq!(own_frame(&stack), None);
    }
}
