//! What leaked goroutines wait for, and what that says about whether it will ever come.

use crate::{
    detect::{
        grounds::{origin::Origin, standing::serves_http},
        own_code::{is_standard, own_frame},
    },
    event::Frame,
};

/// What goroutines of one origin wait for, from the surest to leak to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// At a nil channel, or in a `select` without cases.
    Never,
    /// To send on a channel.
    Send,
    /// For a `sync.WaitGroup`.
    Group,
    /// A transport's connection whose response body is neither read to its end nor closed.
    Body,
    /// To receive from a channel.
    Receive,
    /// For one of several channels.
    Select,
    /// For a `sync.Cond`.
    Condition,
}

/// Serves a request in a stream of its own; how long it takes is for its client to say.
const SERVES_A_STREAM: [&str; 3] = [
    "net/http.(*http2serverConn).runHandler",
    "net/http/internal/http2.(*serverConn).runHandler",
    "google.golang.org/grpc.(*Server).handleStream",
];

/// Waits for its response's body to be read.
const HOLDS_BODY: &str = "net/http.(*persistConn).readLoop";

/// Its goroutine is in a handler: it has a request, and does not wait for the next one.
pub(super) fn handles(frames: &[Frame]) -> bool {
    let streams = frames
        .iter()
        .any(|frame| SERVES_A_STREAM.contains(&frame.function.as_str()));
    (streams || serves_http(frames)) && own_frame(frames).is_some()
}

impl Kind {
    /// `None` for what ends by itself, and for what other rules judge: locks, the network.
    pub(super) fn of(origin: &Origin<'_>) -> Option<Self> {
        let has = |name: &str| origin.frames.iter().any(|frame| frame.function == name);
        if has(HOLDS_BODY) {
            return (origin.state == "select").then_some(Self::Body);
        }
        // The library's own loops end with what they belong to.
        let own = |frame: &Frame| !is_standard(frame);
        if !origin.frames.iter().any(own) && !origin.created_by.is_some_and(own) {
            return None;
        }
        let state = origin.state.split(" (durable)").next()?;
        let kind = match state {
            "chan send (nil chan)" | "chan receive (nil chan)" | "select (no cases)" => Self::Never,
            "chan send" => Self::Send,
            "sync.WaitGroup.Wait" => Self::Group,
            "semacquire" if has("sync.(*WaitGroup).Wait") => Self::Group,
            "chan receive" => Self::Receive,
            "select" => Self::Select,
            "sync.Cond.Wait" => Self::Condition,
            _ => return None,
        };
        let serves = serves_http(origin.frames) || SERVES_A_STREAM.iter().any(|name| has(name));
        (!serves || kind.needs_somebody()).then_some(kind)
    }

    /// Nobody waits like this for news, or for the day to end: somebody else must let it go on at once.
    pub(super) fn needs_somebody(self) -> bool {
        matches!(self, Self::Never | Self::Send | Self::Group)
    }

    pub(super) fn advice(self, at: &str) -> String {
        match self {
            Self::Never => format!(
                "See which channel is never made at {at}: sending to a nil channel, and receiving from one, blocks for ever."
            ),
            Self::Send => format!(
                "Let {at} go on when nobody receives any more: make the channel with room for what is sent (make(chan T, 1)), or select on ctx.Done() beside it."
            ),
            Self::Group => format!(
                "See which path of the goroutines that {at} waits for never calls Done: defer it as their first statement, and call Add before go."
            ),
            Self::Body => format!(
                "Close the response's body in every path at {at} (defer resp.Body.Close()), and read it to its end if the connection is to be used again."
            ),
            Self::Receive => format!(
                "Close the channel when nothing will be sent any more, which ends a range over it and the wait at {at}; or select on ctx.Done() beside it."
            ),
            Self::Select => format!(
                "Give the select at {at} a case that ends it when its request or owner is done: <-ctx.Done(), or a channel that is closed then."
            ),
            Self::Condition => format!(
                "See who should call Signal or Broadcast for {at}, also when there is nothing left to do."
            ),
        }
    }
}
