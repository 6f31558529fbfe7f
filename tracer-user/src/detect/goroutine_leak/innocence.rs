//! What else goroutines that come and stay may be, besides leaked.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    detect::grounds::{
        origin::{Growth, Origin},
        scene::Scene,
        standing::Standing,
    },
    event::{Pid, Role, Runtime},
};

use super::kind::{Kind, handles};

/// Whoever waits for news may be given so long before it is said that none will come.
const PATIENT: Duration = Duration::from_secs(4);

/// Why goroutines that grow in number may be none that leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Innocence {
    /// It is so: nothing is said.
    Plain,
    /// They wait at the same channels, as workers of a pool do.
    Pool,
    /// They wait for a timer as well, and it has not gone off yet.
    Timed,
    /// They may wait for a service that has not answered for as long.
    Upstream,
    /// The window is too short to say.
    Short,
}

impl Innocence {
    pub(super) fn of(
        scene: &Scene<'_>,
        pid: Pid,
        kind: Kind,
        origin: &Origin<'_>,
        growth: &Growth,
    ) -> Option<Self> {
        match kind {
            Kind::Group if children_at_work(scene, pid, origin) => return Some(Self::Plain),
            Kind::Body if read_by_others(scene, pid, growth) => return Some(Self::Plain),
            Kind::Receive | Kind::Select | Kind::Condition
                if come_with(scene, pid, growth) || handlers_wait_on(scene, pid, origin) =>
            {
                return Some(Self::Plain);
            }
            _ => {}
        }
        if hanging_upstream(scene, pid, growth) && kind != Kind::Never && kind != Kind::Body {
            return Some(Self::Upstream);
        }
        if kind.needs_somebody() || kind == Kind::Body {
            return None;
        }
        if shared_channels(scene, pid, origin) {
            return Some(Self::Pool);
        }
        if timed(scene, pid, origin) || timers_come_with(scene, pid, origin, growth) {
            return Some(Self::Timed);
        }
        (growth.span() < PATIENT).then_some(Self::Short)
    }

    /// What is said of it.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Pool => {
                "They all wait at the same channels, as the workers of a pool do; a pool that fills up stops growing."
            }
            Self::Timed => {
                "A timer runs for each of them as well (a deadline of its context, a time.After, a ticker); whether they end when it goes off, or wait for it again as those at a ticker do, was not to be seen."
            }
            Self::Upstream => {
                "A service that was asked meanwhile has not answered for most of the window; they may wait for what comes of that."
            }
            Self::Short => {
                "The window is too short to say that nothing comes for them; a longer one shows it."
            }
        }
    }
}

/// A goroutine that one of them started is at work: it will say when it is done.
fn children_at_work(scene: &Scene<'_>, pid: Pid, origin: &Origin<'_>) -> bool {
    let waiting: HashSet<u64> = origin.present.iter().copied().collect();
    scene.model.everybody(pid).any(|(_, child)| {
        Standing::of(child.state) == Standing::Busy
            && child.parent.is_some_and(|parent| waiting.contains(&parent))
    })
}

/// About as many goroutines read responses as grew: the bodies are long, not forgotten.
fn read_by_others(scene: &Scene<'_>, pid: Pid, growth: &Growth) -> bool {
    let readers = scene.model.everybody(pid).filter(|(_, other)| {
        let mut frames = other.frames.iter();
        frames.any(|frame| frame.function == "net/http.(*bodyEOFSignal).Read")
    });
    readers.count() as u64 * 2 >= growth.stayed
}

/// Connections came with them and are as open as they are, or requests did and are as unanswered: each
/// waits for its own to say something, or to end. That is load, however it grows.
fn come_with(scene: &Scene<'_>, pid: Pid, growth: &Growth) -> bool {
    let of_process = || scene.model.connections().filter(|c| c.pid == pid);
    let connections = of_process().filter(|c| c.opened > growth.from && c.ended().is_none());
    let requests = of_process()
        .filter(|c| c.role == Role::Server && c.opened <= growth.from && c.ended().is_none())
        .filter_map(|connection| connection.exchanges().pop())
        .filter(|asked| asked.started > growth.from && !asked.answered());
    (connections.count() + requests.count()) as u64 * 2 >= growth.stayed
}

/// Most of them were started by handlers that are at their requests still: they end with these. Several
/// requests may share a connection (HTTP/2, gRPC), so this shows where exchanges do not.
fn handlers_wait_on(scene: &Scene<'_>, pid: Pid, origin: &Origin<'_>) -> bool {
    let handling = |parent: u64| {
        let at = scene.model.whereabouts(pid, parent);
        at.is_some_and(|at| handles(at.frames))
    };
    let started = origin.present.iter().filter(|id| {
        let child = scene.model.whereabouts(pid, **id);
        child.and_then(|child| child.parent).is_some_and(handling)
    });
    started.count() * 2 > origin.present.len()
}

/// About as many timers came as they did, and none of them is known to have outlived one: a context with a
/// deadline (`context.WithTimeout`) has one, which ends whoever waits for its `Done`.
fn timers_come_with(scene: &Scene<'_>, pid: Pid, origin: &Origin<'_>, growth: &Growth) -> bool {
    let Some(course) = scene.model.runtime(pid) else {
        return false;
    };
    let timers = |at| course.at(at).and_then(|runtime: &Runtime| runtime.timers);
    let first = timers(growth.from).or(course.first().1.timers);
    let Some((first, last)) = first.zip(timers(growth.until)) else {
        return false;
    };
    let outlived = origin
        .present
        .iter()
        .filter(|id| scene.model.moved(pid, **id));
    last.saturating_sub(first) * 4 >= growth.stayed * 3
        && outlived.count() * 2 < origin.present.len()
}

/// `pid` asked another service in the first half of the window, and has no answer.
fn hanging_upstream(scene: &Scene<'_>, pid: Pid, growth: &Growth) -> bool {
    let half = growth.from.plus(growth.span() / 2);
    scene.clients_of(pid).iter().any(|connection| {
        let asked = connection.exchanges().pop();
        connection.role == Role::Client
            && connection.ended().is_none()
            && asked.is_some_and(|asked| !asked.answered() && asked.request_ended < half)
    })
}

/// None of them waits at a channel that others do not wait at too, as far as is known.
fn shared_channels(scene: &Scene<'_>, pid: Pid, origin: &Origin<'_>) -> bool {
    let mut known = 0_usize;
    let mut waiting: HashMap<u64, u64> = HashMap::new();
    for at in origin
        .present
        .iter()
        .filter_map(|id| scene.model.at_channels(pid, *id))
    {
        known += 1;
        for channel in &at.channels {
            *waiting.entry(*channel).or_default() += 1;
        }
    }
    known > 0 && waiting.len() * 10 <= known
}

/// Most of them wait for a timer, which none has been seen to outlive.
fn timed(scene: &Scene<'_>, pid: Pid, origin: &Origin<'_>) -> bool {
    let at = |id: &&u64| {
        let at = scene.model.at_channels(pid, **id);
        at.is_some_and(|at| at.timed) && !scene.model.moved(pid, **id)
    };
    origin.present.iter().filter(at).count() * 2 > origin.present.len()
}
