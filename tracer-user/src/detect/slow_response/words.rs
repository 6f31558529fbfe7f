//! How late answers are told.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::{
    detect::{
        grounds::{
            breakdown::{Breakdown, Part, Watched},
            held_up,
            hot::Hot,
            lateness::{Late, Reason},
            scene::Scene,
            slowness::{Because, Believed, Culprit},
            turns,
            usual::median,
            workers,
        },
        own_code::brief,
        wording::{count, join, seconds},
    },
    event::Frame,
    model::Model,
};

/// Less of an answer's time is not worth a sentence.
const WORTH_A_WORD: Duration = Duration::from_millis(50);

/// Late answers of one culprit, with all that there is to say of them.
pub(super) struct Told<'t, 'l, 'm> {
    pub(super) scene: &'t Scene<'m>,
    pub(super) culprit: &'t Culprit,
    /// All that are late because of it.
    pub(super) late: &'t [&'l Late<'m>],
    /// Those of other services that waited for these.
    pub(super) outer: &'t [&'l Late<'m>],
    /// Those that are believed to be a fault.
    pub(super) believed: &'t Believed<'l, 'm>,
    /// One of these.
    pub(super) example: &'l Late<'m>,
    /// Where its time went.
    pub(super) parts: Breakdown,
    /// Where handlers wait for the network, and how many.
    pub(super) waiting: Option<(Frame, u64)>,
    /// What was computed.
    pub(super) hot: Option<&'t Hot>,
    /// The line that is to blame.
    pub(super) code: Option<&'t Frame>,
    /// The goroutine was looked at.
    pub(super) looked: bool,
    /// The other service is traced.
    pub(super) traced: bool,
}

impl Told<'_, '_, '_> {
    fn model(&self) -> &Model {
        self.scene.model
    }

    fn who(&self) -> String {
        match self.culprit {
            Culprit::Upstream(_) => owners(self.model(), &self.believed.late),
            Culprit::Unread(..) | Culprit::Handler(..) | Culprit::Crowd(..) => {
                self.model().name(self.example.connection.pid)
            }
        }
    }

    pub(super) fn title(&self) -> String {
        let late = self.believed.late.iter();
        let who = match self.culprit {
            Culprit::Upstream(_) => self.who(),
            _ => workers::named(self.who(), late.map(|late| late.connection)),
        };
        let waits = self.believed.late.iter().map(|late| late.wait);
        let waited = seconds(median(waits).unwrap_or_default());
        match (self.culprit, self.believed.because) {
            (Culprit::Upstream(address), _) => format!(
                "{who} answered late: it waited for {} ({waited})",
                at(self.model(), *address)
            ),
            (Culprit::Unread(_, port), _) => {
                format!("requests to {who} on port {port} lay unread in its socket for {waited}")
            }
            (Culprit::Handler(_, port, route), Because::Computed) => {
                let place = self
                    .hot
                    .map_or_else(String::new, |hot| format!(" in {}", hot.frame.function));
                let computed = seconds(self.parts.of(Part::OnCpu));
                format!(
                    "{who} on port {port} answered {route} late, after {waited}: it computed for {computed}{place}"
                )
            }
            (Culprit::Handler(_, port, route), Because::Queued) => format!(
                "{who} on port {port} answered late, after {waited}: {route} took all its turns on the CPU"
            ),
            (Culprit::Handler(_, port, route), Because::Other) => {
                format!("{who} on port {port} answered {route} late, after {waited}")
            }
            (Culprit::Crowd(_, port), _) => format!(
                "{who} on port {port} answered late, after {waited}: its goroutines queue for a turn on the CPU"
            ),
        }
    }

    pub(super) fn explanation(&self) -> String {
        let mut told = vec![self.what_happened()];
        let comparable = self.believed.because == Because::Other;
        let usual = self.believed.late.iter().find_map(|late| late.usual);
        match usual {
            Some(usual) => told.push(format!(
                "Half of the requests of the same kind are answered within {}.",
                seconds(usual)
            )),
            None if comparable && matches!(self.culprit, Culprit::Upstream(_)) => {
                told.push("No quick request of the same kind was seen to compare with.".into());
            }
            None => {}
        }
        let parts = self.parts.sentence().replacen("Of ", "of ", 1);
        told.push(format!("One of them: {parts}"));
        told.extend(self.inferred());
        told.extend(self.queued_behind());
        if !self.outer.is_empty() {
            told.push(format!(
                "{} of {} waited for these in turn.",
                count(self.outer.len() as u64, "request", "requests"),
                owners(self.model(), self.outer)
            ));
        }
        if let Some((frame, number)) = &self.waiting {
            told.push(format!(
                "When last looked at, {} {} for the network in {}.",
                count(*number, "goroutine", "goroutines"),
                if *number == 1 {
                    "waited"
                } else {
                    "were waiting"
                },
                brief(frame)
            ));
        }
        told.join(" ")
    }

    fn what_happened(&self) -> String {
        let who = self.who();
        let number = count(self.believed.late.len() as u64, "request", "requests");
        let longest = self.believed.late.iter().map(|late| late.wait).max();
        let longest = seconds(longest.unwrap_or_default());
        let waited = format!("{number} waited up to {longest} for the first byte");
        match (self.culprit, self.believed.because) {
            (Culprit::Upstream(address), _) => format!(
                "{number} to {who} waited up to {longest} for the first byte, most of that for {}.",
                at(self.model(), *address)
            ),
            (Culprit::Unread(..), _) => format!(
                "{waited}; most of that the request lay in {who}'s socket, and nobody read it."
            ),
            (Culprit::Handler(..), Because::Computed) => {
                format!("{waited}, and {who} was computing{}.", self.seen_in())
            }
            (Culprit::Handler(.., route), Because::Queued) => format!(
                "{waited}, most of that queued for a turn: {} had {route}{}.",
                self.processors(),
                self.seen_in()
            ),
            (Culprit::Handler(..), Because::Other) => {
                format!("{waited}, and nothing but {who} itself was waited for.")
            }
            (Culprit::Crowd(..), _) => format!(
                "{waited}, most of that queued for a turn: {} other goroutines of {who} had{}.",
                self.processors(),
                self.seen_in()
            ),
        }
    }

    /// `, by the profiler's samples 93% of it in main.burn (burn.go:31)`.
    fn seen_in(&self) -> String {
        self.hot.map_or_else(String::new, |hot| {
            let place = brief(&hot.frame);
            format!(
                ", by the profiler's samples {:.0}% of it in {place}",
                hot.share * 100.0
            )
        })
    }

    /// What goroutines queue for.
    fn processors(&self) -> String {
        match turns::processors(self.scene, self.example.connection.pid) {
            Some(1) => {
                "the only processor of the Go runtime (GOMAXPROCS is 1, or there is one CPU)".into()
            }
            Some(number) => format!("all {number} processors of the Go runtime (GOMAXPROCS)"),
            None => "all processors of the Go runtime (GOMAXPROCS)".into(),
        }
    }

    /// How much of the example's waiting for a CPU is not known of its own goroutine, or thread.
    fn inferred(&self) -> Option<String> {
        let Late {
            connection,
            exchange,
            ..
        } = self.example;
        let held = held_up::of(self.scene, connection, exchange.clone());
        let kept = held.run_queue + held.throttled;
        let inferred = kept.saturating_sub(held.own);
        (inferred >= WORTH_A_WORD && inferred * 10 >= kept).then(|| {
            format!(
                "Of the time without a CPU {} is inferred from waits of the process's other threads.",
                seconds(inferred)
            )
        })
    }

    /// Requests that were late because these computed.
    fn queued_behind(&self) -> Option<String> {
        let behind: Vec<&&Late<'_>> = self
            .late
            .iter()
            .filter(|late| matches!(late.reason, Reason::Queued(_)))
            .collect();
        if self.believed.because != Because::Computed || behind.is_empty() {
            return None;
        }
        let longest = behind
            .iter()
            .map(|late| late.wait)
            .max()
            .unwrap_or_default();
        let routes: BTreeSet<&str> = behind.iter().map(|late| late.kind.route.as_str()).collect();
        let routes: Vec<String> = routes.into_iter().take(3).map(Into::into).collect();
        Some(format!(
            "Meanwhile {} ({}) queued for a turn, up to {}: these had {}.",
            count(behind.len() as u64, "other request", "other requests"),
            join(&routes),
            seconds(longest),
            self.processors()
        ))
    }

    pub(super) fn advice(&self) -> String {
        let who = self.model().owner(self.example.connection);
        let place = self
            .code
            .map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
        match (self.culprit, self.believed.because) {
            (Culprit::Upstream(address), _) => format!(
                "Look at {}: its load, its slow queries, its locks. {who} only waits for it; a time limit of its own would fail sooner, not answer sooner.",
                at(self.model(), *address)
            ),
            (Culprit::Unread(_, port), _) => format!(
                "See what keeps {who} from reading: no worker or thread free, its loop blocked, the process stopped or without CPU (ss -tnp 'sport = :{port}' shows Recv-Q)."
            ),
            (Culprit::Handler(.., route), Because::Computed | Because::Queued) => format!(
                "Make what {route} computes{place} cheaper (less input, a cache), or take it out of the request; and limit how many of them run at once, so that other requests get a turn."
            ),
            (Culprit::Handler(..), Because::Other) => format!(
                "Look at what the handler of {} does{place} in the slow case: a lock, a large result, work that other requests do not have.",
                self.example.kind.route
            ),
            (Culprit::Crowd(..), _) => format!(
                "{who} is asked for more than it gets CPU for: give it more CPUs (and GOMAXPROCS), more instances, or less to compute{place}."
            ),
        }
    }

    pub(super) fn incomplete(&self) -> Option<String> {
        match (self.culprit, self.believed.because) {
            (Culprit::Upstream(address), _) if !self.traced => Some(format!(
                "{} is not traced here, so what it did meanwhile, and how long the way to it is, is not known.",
                at(self.model(), *address)
            )),
            (Culprit::Handler(..), Because::Other) => match self.parts.watched() {
                Watched::Nothing => Some(
                    "Whether it computed, or waited for a CPU or a lock, is not measured.".into(),
                ),
                Watched::Waits => Some(
                    "Whether it computed or waited for a lock is not measured: who ran was not sampled.".into(),
                ),
                Watched::All if !self.looked => Some(
                    "What it waited for is not known: its goroutine was not looked at meanwhile.".into(),
                ),
                Watched::All => None,
            },
            (_, Because::Queued) => Some(
                "That they queued is concluded from samples of who had the processors; the runtime does not say so.".into(),
            ),
            _ => None,
        }
    }
}

fn owners(model: &Model, late: &[&Late<'_>]) -> String {
    let names = late.iter().map(|late| model.owner(late.connection));
    let names: BTreeSet<String> = names.collect();
    join(&names.into_iter().collect::<Vec<_>>())
}

/// Who is at an upstream address: its name too, where it is traced.
fn at(model: &Model, address: SocketAddr) -> String {
    model
        .connections()
        .find(|c| c.remote == address && c.other_end.is_some())
        .and_then(|connection| model.other_end(connection))
        .map_or_else(
            || address.to_string(),
            |server| format!("{} ({address})", model.owner(server)),
        )
}
