//! What `proxy-timeout` and `client-timeout` have in common: the same limit, run out again and again.

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        docket::Docket,
        finding::{Ends, Finding, Measured, Rule, Setting, Severity, Subject, Witness},
        own_code::{brief, own_frame},
        wording::seconds,
    },
    event::{Frame, is_host},
    model::{Connection, Exchange, Model},
};

use super::{
    breakdown::Breakdown,
    give_up::GiveUp,
    limit::{self, Limit},
    scene::Scene,
    telling::{
        decider, deciding_frame, late_answer, still_at_work, timeline, waits_in_dump, who,
        wireshark_filter,
    },
    want_of_cpu::WantOfCpu,
    workers,
};

/// Equal waits that make it believable that a timer ended them, each of which had other reasons too.
const AGAIN: usize = 3;

/// All occurrences of one give-up, and the one that stands for them.
pub(crate) struct Occasion<'g, 'm> {
    pub(crate) model: &'m Model,
    pub(crate) all: Vec<&'g GiveUp<'m>>,
    pub(crate) example: &'g GiveUp<'m>,
    pub(crate) limit: Limit,
    /// What the setting is set to, as far as the waits tell.
    pub(crate) value_s: Option<f64>,
    /// Who gave up, for people: in a title with the number of workers that did.
    named: String,
    at_work: Option<Witness>,
    waits: Option<Witness>,
    /// Who was given up on lacked a CPU, and where all of the wait went; as the example shows it.
    want: Option<(WantOfCpu, Breakdown)>,
    /// That decided most of the occurrences.
    wanting: bool,
}

impl<'g, 'm> Occasion<'g, 'm> {
    /// `None` where there is no occurrence. The example is the first of those of which most is
    /// known; `harmed` says whose request was harmed.
    pub(crate) fn of(
        scene: &Scene<'m>,
        all: Vec<&'g GiveUp<'m>>,
        harmed: impl Fn(&GiveUp<'m>) -> bool,
    ) -> Option<Self> {
        let model = scene.model;
        let mut wants: Vec<_> = all
            .iter()
            .map(|give_up| WantOfCpu::behind(scene, give_up))
            .collect();
        let decided = |want: &Option<(WantOfCpu, _)>| {
            want.as_ref().is_some_and(|(want, _)| want.is_decisive())
        };
        let starved = wants.iter().filter(|want| decided(want)).count();
        let known = |give_up: &GiveUp<'m>| {
            u8::from(give_up.decision.is_some())
                + 2 * u8::from(
                    still_at_work(model, give_up)
                        .or(waits_in_dump(model, give_up))
                        .is_some(),
                )
                + 4 * u8::from(harmed(give_up))
        };
        let (place, example) =
            all.iter()
                .copied()
                .enumerate()
                .rev()
                .max_by_key(|(place, give_up)| {
                    (known(give_up), wants.get(*place).is_some_and(decided))
                })?;
        let want = wants.swap_remove(place);
        let waits: Vec<_> = all
            .iter()
            .map(|give_up| (give_up.waited, give_up.at))
            .collect();
        Some(Self {
            model,
            example,
            limit: example.limit,
            value_s: limit::value(example.limit, &waits).filter(|_| !example.begun_before),
            named: workers::named(
                who(model, example),
                all.iter().map(|give_up| give_up.connection),
            ),
            at_work: still_at_work(model, example),
            waits: waits_in_dump(model, example),
            wanting: decided(&want) && starved * 2 >= all.len(),
            want,
            all,
        })
    }

    pub(crate) fn connection(&self) -> &'m Connection {
        self.example.connection
    }

    /// What another rule found to be why it took so long.
    pub(crate) fn cause(&self, docket: &Docket) -> Option<usize> {
        let by_socket: Vec<Option<usize>> = self
            .all
            .iter()
            .map(|give_up| docket.explaining(give_up.connection.socket))
            .collect();
        let most = |place: &usize| {
            let of_it = by_socket.iter().filter(|by| **by == Some(*place));
            of_it.count() * 2 >= self.all.len()
        };
        let by_socket = docket
            .explaining(self.connection().socket)
            .or_else(|| by_socket.iter().flatten().copied().find(most));
        let want = self.want.as_ref().filter(|_| self.wanting);
        by_socket.or_else(|| want.and_then(|(want, _)| want.cause(docket)))
    }

    /// Who gave up, for people.
    pub(crate) fn who(&self) -> String {
        who(self.model, self.example)
    }

    /// The finding, but for what differs between the rules: severity, explanation, advice, harm.
    pub(crate) fn finding(&self, rule: Rule) -> Finding {
        let connection = self.connection();
        let mut measured = Measured::default();
        measured.waits(self.all.iter().map(|give_up| give_up.waited).collect());
        let exchange = self.example.exchange.as_ref();
        if let Some((_, parts)) = &self.want {
            measured.parts_s = parts.measured();
        }
        measured.request_bytes = exchange.map(|exchange| exchange.request_bytes);
        measured.response_bytes = exchange.map(|exchange| exchange.response_bytes);
        let serves = self
            .example
            .serving
            .as_ref()
            .and_then(|serving| self.model.connection(serving.socket));
        let goroutines = [
            decider(self.model, self.example),
            self.waits.clone(),
            self.at_work.clone(),
        ];
        Finding {
            id: String::new(),
            caused_by: None,
            rule,
            severity: Severity::Info,
            confidence: self.confidence().number(),
            count: self.all.len() as u64,
            title: self.title(&measured),
            explanation: String::new(),
            process: Subject {
                pid: connection.pid,
                comm: self.who(),
            },
            connection: Some(connection.into()),
            related_connections: serves.into_iter().map(Ends::from).collect(),
            setting: self.limit.setting().map(|name| Setting {
                name: name.into(),
                value_s: self.value_s,
            }),
            code: self.code().cloned(),
            goroutines: goroutines.into_iter().flatten().collect(),
            measured,
            evidence: timeline(self.model, self.example),
            advice: Vec::new(),
            wireshark_filter: wireshark_filter([connection].into_iter().chain(serves)),
            incomplete: self.incomplete(),
        }
    }

    fn title(&self, measured: &Measured) -> String {
        let connection = self.connection();
        let verb = if self.example.exchange.is_some() || self.example.begun_before {
            "gave up on"
        } else {
            "gave up connecting to"
        };
        // What it is set to says more than what it came to this time.
        let waited = self.value_s.or(measured.waited_s).unwrap_or_default();
        let waited = std::time::Duration::from_secs_f64(waited);
        format!(
            "{} {verb} {} after {}{}",
            self.named,
            connection.remote,
            if self.example.begun_before {
                "more than "
            } else {
                ""
            },
            seconds(waited)
        )
    }

    /// As sure as the surest occurrence: the others only repeat it. But that the same wait comes
    /// again is worth something where the reason of each could not be read.
    fn confidence(&self) -> Confidence {
        let again = self.value_s.is_some() && self.all.len() >= AGAIN;
        let of = |give_up: &GiveUp<'_>| {
            let mut doubts = give_up.doubts.clone();
            if again {
                doubts.retain(|doubt| *doubt != Doubt::ReasonUnread);
            }
            let confidence = if again && self.limit == Limit::Connecting {
                Confidence::SEEN.but(Doubt::SettingUnknown)
            } else {
                give_up.confidence
            };
            confidence.but_all(&doubts)
        };
        let mut best = of(self.example);
        for give_up in &self.all {
            let next = of(give_up);
            if next > best {
                best = next;
            }
        }
        best
    }

    /// The line that decided; where none was seen, the own line that closed.
    fn code(&self) -> Option<&Frame> {
        let frames = self.model.frames(self.example.stack);
        if self.example.decision.is_some() {
            deciding_frame(frames)
        } else if self.limit == Limit::Unknown {
            own_frame(frames)
        } else {
            frames
                .iter()
                .find(|frame| frame.function.starts_with("net.(*sysDialer).dialSingle"))
                .or_else(|| frames.first())
        }
    }

    fn incomplete(&self) -> Option<String> {
        let upstream = self.connection().remote;
        let mut missing: Vec<String> = Vec::new();
        if self.example.decision.is_none() && self.limit == Limit::Unknown {
            missing
                .push("No decision of the program was seen, so the setting is not known.".into());
        }
        if self.example.begun_before {
            missing.push(format!(
                "The request was sent before the window began, so it waited longer than {}; a window longer than the time limit measures it.",
                seconds(self.example.waited)
            ));
        } else if self.example.exchange.is_none() {
            // Nobody was there yet who could have been looked at.
        } else if self.connection().other_end.is_none() {
            missing.push(format!(
                "{upstream} is not traced here, so what it was doing is not known."
            ));
        } else if self.at_work.is_none() && is_host(self.connection().pid) {
            missing.push(format!(
                "Packets do not show what {upstream} was doing; a goroutine dump of it, taken meanwhile, does (--goroutines DUMP)."
            ));
        } else if self.at_work.is_none() {
            missing.push("The upstream's goroutine was not looked at in time.".into());
        }
        (!missing.is_empty()).then(|| missing.join(" "))
    }

    /// The limit in a sentence, as the subject's.
    pub(crate) fn limit_sentence(&self) -> String {
        let who = self.who();
        let value = self.value_s.map(|value| format!("{value:.3} s"));
        let at_most = value
            .as_deref()
            .map_or_else(String::new, |value| format!(" {value}"));
        let of = value
            .as_deref()
            .map_or_else(String::new, |value| format!(" of {value}"));
        match self.limit {
            Limit::ResponseHeader => format!(
                "After the last byte of a request {who} waits{at_most} for the headers of the response (net/http.Transport.ResponseHeaderTimeout), then closes the connection."
            ),
            Limit::Client => format!(
                "{who}'s http.Client has a Timeout{of}, which covers the whole exchange from connecting to the last byte of the body."
            ),
            Limit::Context => format!(
                "The context of {who}'s request had a deadline, and it passed{}.",
                value.map_or_else(String::new, |value| format!(" after {value}"))
            ),
            Limit::Dialer => format!(
                "{who}'s net.Dialer has a Timeout{of} for connecting, and no answer to its SYN had come by then."
            ),
            Limit::Connecting => format!(
                "{who} abandoned the connection before it was established; that was net.Dialer.Timeout, or the deadline of a context or http.Client.Timeout under which it dialled: from outside these look alike."
            ),
            Limit::Unknown if self.example.exchange.is_none() => {
                format!("{who} abandoned the connection before it was established.")
            }
            Limit::Unknown if self.value_s.is_some() && self.all.len() > 2 => format!(
                "{who} waited the same time again and again, then closed the connection; so a time limit ended it."
            ),
            Limit::Unknown => format!(
                "{who} closed the connection while it waited for the response; that it was a time limit is a guess."
            ),
        }
    }

    /// That the upstream had no CPU meanwhile.
    pub(crate) fn want_sentence(&self) -> Option<String> {
        let (want, parts) = self.want.as_ref()?;
        let other = self.model.other_end(self.connection())?;
        let how_much = if want.is_decisive() {
            "hardly ran"
        } else {
            "did not always run"
        };
        Some(format!(
            "{} {how_much} while it was waited for. {}",
            self.model.owner(other),
            parts.sentence()
        ))
    }

    /// What the upstream was doing meanwhile.
    pub(crate) fn upstream_sentence(&self) -> Option<String> {
        let exchange = self.example.exchange.as_ref()?;
        let mut told = match &self.at_work {
            Some(witness) if is_host(witness.process.pid) => in_dump(witness, "is at work at"),
            Some(witness) => {
                let at = own_frame(&witness.frames)
                    .or(witness.frames.first())
                    .map_or_else(|| format!("goroutine {}", witness.id), brief);
                format!(
                    "At that moment {}'s handler {at} was still at work ({}).",
                    witness.process.comm, witness.state
                )
            }
            None => unanswered(exchange, self.connection()),
        };
        if let Some(witness) = &self.waits {
            told.push(' ');
            told.push_str(&in_dump(witness, "waits for it in"));
        }
        if let Some((late, other)) = late_answer(self.model, self.example) {
            told.push_str(&format!(
                " {} wrote its answer {} later, to nobody.",
                self.model.owner(other),
                seconds(late.since(self.example.at))
            ));
        }
        Some(told)
    }

    /// What would have to change at the upstream.
    pub(crate) fn faster_upstream(&self) -> String {
        if let (true, Some((want, _))) = (self.wanting, &self.want) {
            return format!(
                "Or let {} have the CPU that it lacked; then its code may be quick enough.",
                self.model.name(want.pid)
            );
        }
        let own = self
            .at_work
            .as_ref()
            .and_then(|witness| own_frame(&witness.frames));
        match own {
            Some(frame) => format!(
                "Or let the upstream answer sooner: {} is where it spends the time.",
                brief(frame)
            ),
            None => format!(
                "Or let {} answer sooner; sending the headers early is enough where only they are awaited.",
                self.connection().remote
            ),
        }
    }
}

/// What a goroutine dump shows of a handler; when it was taken is only roughly known.
fn in_dump(witness: &Witness, does: &str) -> String {
    let transport = |frame: &&Frame| frame.function.starts_with("net/http.(*persistConn)");
    let at = own_frame(&witness.frames)
        .or(witness.frames.iter().find(transport))
        .or(witness.frames.first())
        .map_or_else(|| format!("goroutine {}", witness.id), brief);
    format!(
        "In the goroutine dump of {} the handler {does} {at} ({}).",
        witness.process.comm, witness.state
    )
}

fn unanswered(exchange: &Exchange, connection: &Connection) -> String {
    let upstream = connection.remote;
    if exchange.answered() {
        format!("{upstream} had begun to answer, and was cut off.")
    } else if connection.peer_left().is_some() {
        format!("{upstream} had not sent a byte by then, and closed its side later.")
    } else {
        format!("{upstream} had not sent a byte of a response by then.")
    }
}

/// Half as much again, in round numbers: what to raise a limit to, at least.
pub(crate) fn above(value_s: Option<f64>) -> String {
    value_s.map_or_else(String::new, |value| format!(" above {value:.3} s"))
}
