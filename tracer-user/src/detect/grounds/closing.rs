//! What the stack of a close says about why a server closed.

use crate::{
    detect::own_code::{is_standard, own_frame},
    event::{BootInstant, Frame, Role},
    model::{Connection, Model},
};

use super::scene::Scene;

/// The frames of our own close, innermost first; none where the other end closed.
pub(crate) fn closing_frames<'m>(model: &'m Model, connection: &Connection) -> &'m [Frame] {
    match connection.role {
        Role::Server => model.frames(connection.local_closed.and_then(|closed| closed.stack)),
        Role::Client => &[],
    }
}

/// The line that explains a close: where a panic was raised; else the own line nearest to it, or
/// net/http's.
pub(crate) fn telling_frame(frames: &[Frame]) -> Option<&Frame> {
    if let Some(after) = after_panic(frames) {
        return own_frame(after).or(after.first());
    }
    own_frame(frames).or_else(|| {
        frames
            .iter()
            .find(|frame| is_standard(frame) && frame.function.starts_with("net/http."))
    })
}

/// The frames that were running when the panic was raised.
pub(crate) fn after_panic(frames: &[Frame]) -> Option<&[Frame]> {
    let raised = frames
        .iter()
        .position(|frame| frame.function == "runtime.gopanic")?;
    frames.get(raised + 1..)
}

/// Who raised a panic; `http.ErrAbortHandler` is raised like any other, and only its value, which no
/// stack shows, tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// The runtime: a nil pointer, an index out of range. That is never on purpose.
    Runtime,
    /// `httputil.ReverseProxy`, which aborts a response when the upstream's body breaks off.
    ReverseProxy,
    /// A call of `panic`, with an error, or with `http.ErrAbortHandler`.
    Call,
}

impl Raised {
    pub(crate) fn of(frames: &[Frame]) -> Option<Self> {
        let raiser = after_panic(frames)?.first()?;
        let function = raiser.function.as_str();
        Some(if function.starts_with("runtime.") {
            Self::Runtime
        } else if function.starts_with("net/http/httputil.(*ReverseProxy).") {
            Self::ReverseProxy
        } else {
            Self::Call
        })
    }
}

/// `net/http`'s server itself closed, at the end of its loop over the connection's requests; not the
/// handler, nor `Server.Close`.
pub(crate) fn by_http_server(frames: &[Frame]) -> bool {
    let has = |name: &str| frames.iter().any(|frame| frame.function == name);
    has("net/http.(*conn).serve")
        && (has("net/http.(*conn).serve.func1")
            || has("net/http.(*conn).close")
            || has("net/http.(*conn).closeWriteAndWait"))
}

/// The server that `connection` was served by ended then, or had been told to end: what it closes, it
/// closes for that.
pub(crate) fn ending(scene: &Scene<'_>, connection: &Connection, at: BootInstant) -> bool {
    let told = scene.model.shut_down(connection.pid);
    scene.exiting(connection.pid, at) || told.is_some_and(|told| told <= at)
}
