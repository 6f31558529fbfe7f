//! What goroutines stand at: who serves a connection, and whether it will ever go on.

use std::collections::HashSet;

use crate::{
    detect::{
        finding::{Starter, Subject, Witness},
        own_code::{brief, own_frame},
        wording::{count, join},
    },
    event::{Attribution, BootInstant, Frame, Pid, Role},
    model::{Connection, Exchange, Group, Model, Whereabouts},
};

/// The function in which a Go server serves a connection; the handler runs below it.
const SERVES: &str = "net/http.(*conn).serve";

/// Events come only almost in order.
const SLACK: std::time::Duration = std::time::Duration::from_millis(2);

/// How a goroutine waits, from the most harmless to the least. The words are the runtime's wait
/// reasons (runtime/runtime2.go, `waitReasonStrings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It works, sleeps, or waits for the network: it goes on by itself.
    Busy,
    /// In a `select`: it waits for the first of several, as whoever waits for news does.
    Choosing,
    /// It receives from one channel, or waits for a condition, and for nothing else.
    Awaiting,
    /// At a lock, at a WaitGroup, sending to a channel, or where nothing can ever come: somebody else
    /// must let it go on, and nothing can call it off.
    Stuck,
}

impl Standing {
    pub(crate) fn of(state: &str) -> Self {
        match state {
            "select" => Self::Choosing,
            "chan receive" | "sync.Cond.Wait" => Self::Awaiting,
            "chan send"
            | "chan send (nil chan)"
            | "chan receive (nil chan)"
            | "select (no cases)"
            | "semacquire"
            | "sync.Mutex.Lock"
            | "sync.RWMutex.Lock"
            | "sync.RWMutex.RLock"
            | "sync.WaitGroup.Wait" => Self::Stuck,
            _ => Self::Busy,
        }
    }
}

fn witness(model: &Model, pid: Pid, id: u64, found: &Whereabouts<'_>) -> Witness {
    Witness {
        process: Subject::of(model, pid),
        id,
        state: found.state.into(),
        wait_s: found.wait.map(|wait| wait.as_secs_f64()),
        attribution: Attribution::LastOwner,
        frames: found.frames.to_vec(),
        created_by: found.created_by.map(|frame| Starter {
            frame: frame.clone(),
            goroutine: None,
        }),
    }
}

/// The goroutine that serves `connection`, where it was last: when all were looked at at the window's
/// end, else when its client gave up.
pub(crate) fn serving(model: &Model, connection: &Connection) -> Option<Witness> {
    let exchanges = connection.exchanges();
    let last = exchanges
        .iter()
        .rev()
        .filter_map(|exchange| exchange.actor?.goroutine);
    let seen: Vec<Witness> = last
        .filter_map(|id| {
            let found = model.whereabouts(connection.pid, id)?;
            Some(witness(model, connection.pid, id, &found))
        })
        .collect();
    let serves = seen.iter().find(|witness| serves_http(&witness.frames));
    // A proxy's request may have been read by the transport's writer, which serves nobody.
    let other = seen
        .iter()
        .find(|witness| !within(&witness.frames, "net/http.(*persistConn)"));
    serves.or(other).cloned().or_else(|| {
        let (_, goroutine) = connection.looks.last()?;
        let subject = Subject::owner(model, connection);
        Some(Witness::looked_at(
            subject,
            goroutine,
            Attribution::LastOwner,
        ))
    })
}

/// Where a goroutine was in its process's last snapshot.
pub(crate) fn at_last(model: &Model, pid: Pid, id: u64) -> Option<Witness> {
    let found = model.whereabouts(pid, id)?;
    Some(witness(model, pid, id, &found))
}

/// The goroutines that had requests in hand of which something was seen.
pub(crate) fn seen_at_requests(model: &Model, pid: Pid) -> HashSet<u64> {
    let servers = model
        .connections()
        .filter(|c| c.pid == pid && c.role == Role::Server);
    servers
        .flat_map(|connection| connection.exchanges())
        .filter_map(|exchange| exchange.actor?.goroutine)
        .collect()
}

pub(crate) fn serves_http(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| frame.function == SERVES)
}

fn within(frames: &[Frame], function: &str) -> bool {
    frames
        .iter()
        .any(|frame| frame.function.starts_with(function))
}

/// The frame to name of a goroutine: the innermost own one.
pub(crate) fn place(witness: &Witness) -> Option<&Frame> {
    own_frame(&witness.frames).or(witness.frames.first())
}

/// `goroutine 77 stands at main.(*store).save (store.go:57) (chan send)`.
pub(crate) fn stands_at(witness: &Witness) -> String {
    let at = place(witness).map_or_else(String::new, |frame| format!(" at {}", brief(frame)));
    format!("goroutine {} stands{at} ({})", witness.id, witness.state)
}

/// `pid` asked another service after `exchange` began and has no answer yet: whoever serves it waits
/// for that, or for one that does.
pub(crate) fn waits_for_another(model: &Model, pid: Pid, exchange: &Exchange) -> bool {
    model
        .connections()
        .filter(|c| c.pid == pid && c.role == Role::Client && c.ended().is_none())
        .any(|connection| {
            let asked = connection.exchanges().pop();
            let since = |at: BootInstant| at.plus(SLACK) >= exchange.started;
            match asked {
                Some(asked) => !asked.answered() && since(asked.started),
                None => connection.connecting() && since(connection.opened),
            }
        })
}

/// Who takes new connections of a Go process, as its last snapshot shows.
pub(crate) struct Acceptors {
    /// Goroutines in `Accept`, for the next connection.
    pub(crate) waiting: u64,
    /// Listening sockets of the process that are known.
    listeners: usize,
    /// An accept loop of net/http that is elsewhere than in `Accept`.
    away: Option<Group>,
}

impl Acceptors {
    /// `None` where the goroutines of `pid` are not known.
    pub(crate) fn of(model: &Model, pid: Pid) -> Option<Self> {
        model.snapshots().find(|taken| taken.pid == pid)?;
        // Not only waiting there: the call also sets options of what it accepted.
        let in_accept = |group: &Group| {
            [
                "internal/poll.(*FD).Accept",
                "net.(*netFD).accept",
                "net.(*TCPListener)",
            ]
            .iter()
            .any(|function| within(&group.frames, function))
        };
        let groups = model.goroutine_groups();
        let of_process = || groups.iter().filter(|group| group.pid == pid);
        let away = of_process()
            .find(|group| within(&group.frames, "net/http.(*Server).Serve") && !in_accept(group));
        Some(Self {
            waiting: of_process()
                .filter(|group| in_accept(group))
                .map(|group| group.count)
                .sum(),
            listeners: model
                .queues()
                .filter(|queue| queue.last.1.pid == pid)
                .count(),
            away: away.cloned(),
        })
    }

    /// The accept loop's own line, where it is not in `Accept`.
    pub(crate) fn away_at(&self) -> Option<&Frame> {
        let away = self.away.as_ref()?;
        own_frame(&away.frames).or(away.frames.first())
    }

    /// The accept loop is elsewhere and could go on: it is not stuck, it has not got its turn.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = |away: &Group| away.state == "runnable";
        self.away.as_ref().is_some_and(ready)
    }

    /// The accept loop waits for something else than its turn.
    pub(crate) fn is_stuck(&self) -> bool {
        let stuck = |away: &Group| !matches!(away.state.as_str(), "runnable" | "running");
        self.away.as_ref().is_some_and(stuck)
    }

    /// What they do while connections wait for them.
    pub(crate) fn sentence(&self, who: &str) -> String {
        if let (Some(frame), true) = (self.away_at(), self.is_ready()) {
            return format!(
                "Its accept loop is ready to run at {}, and has not got its turn.",
                brief(frame)
            );
        }
        if let (Some(frame), Some(away)) = (self.away_at(), &self.away) {
            return format!(
                "Its accept loop is not in Accept but stands at {} ({}).",
                brief(frame),
                away.state
            );
        }
        match self.waiting {
            0 => format!("No goroutine of {who} is in Accept: nobody takes new connections."),
            waiting if self.listeners > 1 && (waiting as usize) < self.listeners => format!(
                "Only {} in Accept, for {} listening sockets.",
                count(waiting, "goroutine is", "goroutines are"),
                self.listeners
            ),
            waiting => format!(
                "{} in Accept.",
                count(waiting, "goroutine is", "goroutines are")
            ),
        }
    }
}

/// Where these goroutines stand, the most crowded place first: `12 at main.handle (main.go:31) (chan
/// receive)`. At most three places.
pub(crate) fn crowds(witnesses: &[Witness]) -> Option<String> {
    let mut crowds: Vec<(String, u64)> = Vec::new();
    for witness in witnesses {
        let at = place(witness).map_or_else(|| "an unknown place".into(), brief);
        let told = format!("{at} ({})", witness.state);
        match crowds.iter_mut().find(|(place, _)| *place == told) {
            Some((_, number)) => *number += 1,
            None => crowds.push((told, 1)),
        }
    }
    crowds.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let parts: Vec<String> = crowds
        .iter()
        .take(3)
        .map(|(place, number)| format!("{number} at {place}"))
        .collect();
    (!parts.is_empty()).then(|| join(&parts))
}
