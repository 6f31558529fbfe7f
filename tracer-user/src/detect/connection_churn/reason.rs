//! Why no connection is kept.

use std::net::SocketAddr;

use crate::{event::Decider, model::Connection};

/// Why a connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// `net/http` keeps fewer idle ones for one host than are in use at once.
    IdlePerHost,
    /// The same for all hosts together.
    IdleAtAll,
    /// `http.Transport.DisableKeepAlives`.
    KeepAlivesDisabled,
    /// `CloseIdleConnections` was called.
    ClosedIdle,
    /// The process closes each; why was not seen.
    Ours,
    /// The peer closes first.
    Theirs,
}

/// Errors with which `net/http` closes a connection rather than keep it (transport.go, `errTooManyIdleHost`
/// and its neighbours).
const DECISIONS: [(&str, Reason); 4] = [
    ("too many idle connections for host", Reason::IdlePerHost),
    ("too many idle connections", Reason::IdleAtAll),
    ("keep alives disabled", Reason::KeepAlivesDisabled),
    ("CloseIdleConnections", Reason::ClosedIdle),
];

impl Reason {
    /// That of most.
    pub(super) fn of(short: &[&Connection]) -> Self {
        let decided = |reason: Self| {
            short
                .iter()
                .filter(|connection| decided(connection) == Some(reason))
                .count()
        };
        let most = DECISIONS
            .into_iter()
            .map(|(_, reason)| (decided(reason), reason))
            .max_by_key(|(number, _)| *number);
        if let Some((number, reason)) = most
            && number * 2 >= short.len()
        {
            return reason;
        }
        let theirs = short
            .iter()
            .filter(|c| {
                c.peer_closed
                    .is_some_and(|peer| c.left().is_none_or(|left| peer < left))
            })
            .count();
        if theirs * 2 > short.len() {
            Self::Theirs
        } else {
            Self::Ours
        }
    }

    /// The process itself decides that none is kept.
    pub(super) fn is_ours(self) -> bool {
        self != Self::Theirs
    }

    pub(super) fn setting(self) -> Option<&'static str> {
        match self {
            Self::IdlePerHost => Some("net/http.Transport.MaxIdleConnsPerHost"),
            Self::IdleAtAll => Some("net/http.Transport.MaxIdleConns"),
            Self::KeepAlivesDisabled => Some("net/http.Transport.DisableKeepAlives"),
            Self::ClosedIdle | Self::Ours | Self::Theirs => None,
        }
    }

    pub(super) fn sentence(self, who: &str, remote: SocketAddr) -> String {
        match self {
            Self::IdlePerHost => format!(
                "{who}'s http.Transport closes them because it keeps fewer idle ones for one host than it uses at once (MaxIdleConnsPerHost, 2 where it is not set)."
            ),
            Self::IdleAtAll => format!(
                "{who}'s http.Transport closes them because it has as many idle ones as it may (MaxIdleConns)."
            ),
            Self::KeepAlivesDisabled => {
                format!("{who}'s http.Transport has DisableKeepAlives set.")
            }
            Self::ClosedIdle => format!("{who} calls CloseIdleConnections after each."),
            Self::Ours => format!("{who} closes each itself."),
            Self::Theirs => format!(
                "{remote} closes each first: it keeps none open, or was asked to close (Connection: close)."
            ),
        }
    }

    /// What to change in a program of Go, or (`go` is false) of another language.
    pub(super) fn advice(self, remote: SocketAddr, go: bool) -> Vec<String> {
        match self {
            Self::Ours if !go => vec!["Keep the connection and use it again. A proxy has to be told to: nginx by keepalive in the upstream block and proxy_http_version 1.1, haproxy by http-reuse.".into()],
            Self::Theirs if !go => vec![format!("See why {remote} closes: keep-alive switched off there, HTTP/1.0, or a request that asked for it (Connection: close).")],
            Self::IdlePerHost => vec!["Set MaxIdleConnsPerHost of the http.Transport to as many as are in use at once.".into()],
            Self::IdleAtAll => vec!["Raise MaxIdleConns of the http.Transport.".into()],
            Self::KeepAlivesDisabled => vec!["Leave DisableKeepAlives unset.".into()],
            Self::ClosedIdle => vec!["Keep one http.Client for the whole program, and do not call CloseIdleConnections.".into()],
            Self::Ours => vec!["Keep the connection and use it again. With net/http: one http.Client and Transport for the whole program, every response's Body read to its end and closed, and no Connection: close.".into()],
            Self::Theirs => vec![format!("See why {remote} closes: keep-alive switched off there, HTTP/1.0, or a request that asked for it (Request.Close, Connection: close, DisableKeepAlives).")],
        }
    }
}

/// Why `net/http` did not keep this one, where it said so.
fn decided(connection: &Connection) -> Option<Reason> {
    let errors = connection
        .decisions
        .iter()
        .filter(|decided| decided.decision.decider == Decider::TransportClose)
        .filter_map(|decided| decided.decision.error.as_deref());
    errors.into_iter().find_map(|error| {
        DECISIONS
            .into_iter()
            .find(|(text, _)| error.contains(text))
            .map(|(_, reason)| reason)
    })
}
