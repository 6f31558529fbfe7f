//! `server-timeout`: a server's own limit of time cut a request off.
//!
//! Not accused: limits for idle connections, which harm nobody; clients that left first; a server that
//! ends or is shut down; and, at more than `info`, the removal of whoever sent a part of a request and
//! then nothing.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    event::{Attribution, BootInstant},
    model::{Group, Model},
};

use super::{
    confidence::Confidence,
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Setting, Subject, Witness},
    grounds::{
        broken,
        closing::{closing_frames, telling_frame},
        cut_off::{self, CutOff, ServerLimit, grouped, started_by_it},
        hands,
        harm::{severity_of, were_harmed},
        limit::set_to,
        occasion::above,
        scene::Scene,
        telling::{Timeline, wireshark_filter},
        workers,
    },
    own_code::{brief, own_frame},
    wording::{bytes, count, join, seconds, times},
};

/// How much older or younger than the passing of the limit a look at the handler may be.
const LOOK_AROUND: Duration = Duration::from_millis(250);

/// Adds a case for each port and limit.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let all = cut_off::all(scene, |socket| docket.explaining(socket).is_some());
    for together in grouped(scene, all) {
        if let Some(told) = Told::of(scene, &together) {
            docket.add(told.case());
        }
    }
}

/// All that one limit cut off, and the one that stands for it.
struct Told<'c, 'm> {
    scene: &'c Scene<'m>,
    all: &'c [CutOff<'m>],
    example: &'c CutOff<'m>,
    value_s: Option<f64>,
    at_work: Option<Witness>,
    who: String,
    /// The same with the number of its workers that did it.
    workers: String,
}

impl<'c, 'm> Told<'c, 'm> {
    /// The example is one that was harmed, and of these the largest request.
    fn of(scene: &'c Scene<'m>, all: &'c [CutOff<'m>]) -> Option<Self> {
        let example = all
            .iter()
            .rev()
            .max_by_key(|cut| (cut.is_harm(), cut.exchange.request_bytes))?;
        let waits: Vec<Duration> = all.iter().map(|cut| cut.waited).collect();
        let who = scene.model.owner(example.connection);
        let exact = all.iter().all(|cut| !cut.at_most);
        Some(Self {
            value_s: set_to(&waits, false).filter(|_| exact),
            at_work: at_work(scene.model, example),
            workers: workers::named(who.clone(), all.iter().map(|cut| cut.connection)),
            who,
            scene,
            all,
            example,
        })
    }

    fn case(&self) -> Case {
        let model = self.scene.model;
        let cut = self.example;
        let connection = cut.connection;
        let served = self.scene.served_at(connection.pid, connection.local);
        let harmed = self.harmed();
        let mut measured = Measured {
            request_bytes: Some(cut.exchange.request_bytes),
            response_bytes: Some(cut.exchange.response_bytes),
            requests: Some(served.exchanges.exchanges),
            requests_harmed: Some(harmed),
            requests_fine: Some(
                served
                    .exchanges
                    .fine()
                    .saturating_sub(self.harmed_though_fine()),
            ),
            harmed_by_status: self.by_status(),
            request_rate_bytes: cut.rate().filter(|_| cut.sending),
            ..Measured::default()
        };
        measured.waits(self.all.iter().map(|cut| cut.waited).collect());
        let beyond = broken::serving(self.scene, connection, cut.at)
            .and_then(|pairing| model.connection(pairing.socket));
        let finding = Finding {
            id: String::new(),
            caused_by: None,
            rule: Rule::ServerTimeout,
            severity: severity_of(harmed, served.exchanges.exchanges),
            confidence: self.confidence().number(),
            count: self.all.len() as u64,
            title: self.title(),
            explanation: self.explanation(),
            process: Subject::owner(model, connection),
            connection: Some(connection.into()),
            related_connections: beyond.into_iter().map(Ends::from).collect(),
            setting: cut.setting.map(|name| Setting {
                name: name.into(),
                value_s: self.value_s,
            }),
            code: self.code(),
            goroutines: self.at_work.as_ref().map_or_else(
                || hands::on(model, connection, &cut.exchange),
                |at_work| vec![at_work.clone()],
            ),
            measured,
            evidence: self.evidence(),
            advice: self.advice(),
            wireshark_filter: wireshark_filter([connection].into_iter().chain(beyond)),
            incomplete: self.incomplete(),
        };
        Case {
            finding,
            cause: None,
            explains: self
                .all
                .iter()
                .flat_map(|cut| broken::reaches(self.scene, cut.connection, cut.at))
                .collect(),
        }
    }

    fn harmed(&self) -> u64 {
        self.all.iter().filter(|cut| cut.is_harm()).count() as u64
    }

    /// Those whose status alone would not tell that they were harmed.
    fn harmed_though_fine(&self) -> u64 {
        let fine = |cut: &&CutOff<'_>| cut.is_harm() && cut.exchange.fine();
        self.all.iter().filter(fine).count() as u64
    }

    /// What the harmed clients got; `none` where it was not a byte.
    fn by_status(&self) -> BTreeMap<String, u64> {
        let mut by_status = BTreeMap::new();
        for cut in self.all.iter().filter(|cut| cut.is_harm()) {
            let status = match cut.exchange.status {
                Some(status) if cut.exchange.answered() => status.to_string(),
                _ if cut.exchange.answered() => "unknown".into(),
                _ => "none".into(),
            };
            *by_status.entry(status).or_default() += 1;
        }
        by_status
    }

    /// As sure as the surest: the others repeat it.
    fn confidence(&self) -> Confidence {
        let of = |cut: &CutOff<'_>| cut.confidence.but_all(&cut.doubts);
        let mut best = of(self.example);
        for cut in self.all {
            let next = of(cut);
            if next > best {
                best = next;
            }
        }
        best
    }

    /// What it is set to, or what came of it.
    fn waited(&self) -> Duration {
        self.value_s
            .map_or(self.example.waited, Duration::from_secs_f64)
    }

    fn title(&self) -> String {
        let who = &self.workers;
        let after = seconds(self.waited());
        let requests = count(self.all.len() as u64, "request", "requests");
        match self.example.limit {
            ServerLimit::Read => format!("{who} stopped reading {requests} after {after}"),
            ServerLimit::ReadHeader => {
                format!("{who} stopped waiting for the head of {requests} after {after}")
            }
            ServerLimit::Write if self.example.at_most => {
                format!("{who} threw the answers to {requests} away: its time to write was over")
            }
            ServerLimit::Write => format!(
                "{who} threw the answers to {requests} away: its time to write was over after {after}"
            ),
            ServerLimit::Handler => format!("{who} answered {requests} with 503 after {after}"),
            ServerLimit::Conn | ServerLimit::Unknown => {
                format!("{who} cut {requests} off after {after}")
            }
        }
    }

    fn explanation(&self) -> String {
        let mut sentences = vec![self.limit_sentence()];
        sentences.extend(self.reason());
        if self.all.len() > 1 {
            sentences.push(format!(
                "That happened {} here.",
                times(self.all.len() as u64)
            ));
        }
        sentences.push(self.harm());
        sentences.join(" ")
    }

    fn limit_sentence(&self) -> String {
        let who = &self.who;
        let is = self
            .value_s
            .map_or_else(String::new, |value| format!(" is {value:.3} s and"));
        match self.example.limit {
            ServerLimit::Read => format!(
                "net/http.Server.ReadTimeout of {who}{is} covers the whole request, from its beginning (the first one's from the connection's) to the last byte of its body."
            ),
            ServerLimit::ReadHeader => format!(
                "net/http.Server.ReadHeaderTimeout of {who}{is} covers the head of a request (ReadTimeout stands in for it where it is not set); the head was not whole by then, and no handler ran."
            ),
            ServerLimit::Write => format!(
                "net/http.Server.WriteTimeout of {who}{is} counts from the head of the request to the last byte of the response. What the handler writes after that is thrown away without an error it would notice, and the connection is closed: the service's own log may say that it answered."
            ),
            ServerLimit::Handler if self.example.setting.is_some() => format!(
                "net/http.TimeoutHandler of {who}{is} answers 503 when the handler is not done by then; the handler works on, for nobody."
            ),
            ServerLimit::Handler => format!(
                "{who} answered 503 after the same time again and again, so a time limit of its own did: net/http.TimeoutHandler, or one that its handler keeps."
            ),
            ServerLimit::Conn => format!(
                "A deadline that {who} had set on the connection (net.Conn.SetDeadline) passed while {} was in flight, and it closed.",
                match self.example.exchange.head {
                    Some(_) => "a request",
                    None => "a message",
                }
            ),
            ServerLimit::Unknown if self.said_so() => {
                format!("{who} answered 408: the request was not whole when its time was over.")
            }
            ServerLimit::Unknown => format!(
                "{who} waited the same time again and again, then closed the connection without an answer; so a time limit of its own ended it."
            ),
        }
    }

    fn said_so(&self) -> bool {
        self.example.exchange.status == Some(408)
    }

    /// Why the time was not enough: who was slow.
    fn reason(&self) -> Option<String> {
        let cut = self.example;
        let client = self.client();
        let sent = bytes(cut.exchange.request_bytes);
        match cut.limit {
            ServerLimit::Write if cut.exchange.answered() => {
                let took = cut.at.since(cut.exchange.first_byte?).as_secs_f64();
                let written = cut.exchange.response_bytes;
                let rate = (took > 0.0).then(|| (written as f64 / took) as u64);
                Some(format!(
                    "It had written {} of the response by then{}; the rest never left.",
                    bytes(written),
                    rate.map_or_else(String::new, |rate| format!(", {} a second", bytes(rate)))
                ))
            }
            ServerLimit::Write | ServerLimit::Handler => {
                let witness = self.at_work.as_ref()?;
                let at = own_frame(&witness.frames)
                    .or(witness.frames.first())
                    .map(brief)?;
                Some(format!(
                    "The handler was still at work in {at} ({}).",
                    witness.state
                ))
            }
            _ if cut.sending => Some(format!(
                "{client} had sent {sent} by then, {} a second, and was still sending.",
                bytes(cut.rate()?)
            )),
            _ => Some(format!(
                "{client} had sent {sent} by then, and nothing for the last {}.",
                seconds(cut.at.since(cut.exchange.request_ended))
            )),
        }
    }

    fn client(&self) -> String {
        let connection = self.example.connection;
        match self.scene.model.other_end(connection) {
            Some(client) => self.scene.model.owner(client),
            None => format!("The client at {}", connection.remote.ip()),
        }
    }

    fn harm(&self) -> String {
        let harmed = self.harmed();
        if harmed == 0 {
            return "Nobody who was waiting for an answer is known to have been harmed; such a limit protects the server.".into();
        }
        let connection = self.example.connection;
        let served = self.scene.served_at(connection.pid, connection.local);
        let got: Vec<String> = self
            .by_status()
            .keys()
            .map(|status| match status.as_str() {
                "none" => "nothing (the connection was closed without a byte)".into(),
                status if self.example.limit == ServerLimit::Write => {
                    format!("a part of the response ({status})")
                }
                status => format!("status {status}"),
            })
            .collect();
        format!(
            "{}: the client got {}.",
            were_harmed(harmed, served.exchanges.exchanges),
            join(&got).replace(" and ", " or ")
        )
    }

    fn code(&self) -> Option<crate::event::Frame> {
        let witness = self.at_work.as_ref();
        let frames = closing_frames(self.scene.model, self.example.connection);
        witness
            .and_then(|witness| own_frame(&witness.frames))
            .or_else(|| telling_frame(frames))
            .cloned()
    }

    fn advice(&self) -> Vec<String> {
        let who = &self.who;
        let value = above(self.value_s);
        let slow = || {
            self.at_work
                .as_ref()
                .and_then(|witness| own_frame(&witness.frames))
                .map(|frame| {
                    format!(
                        "Or let the handler be done sooner: {} is where it spends the time.",
                        brief(frame)
                    )
                })
        };
        match self.example.limit {
            ServerLimit::Read => vec![
                format!("Raise ReadTimeout of {who}'s http.Server{value}, or drop it and set ReadHeaderTimeout, which does not count the body."),
                "Where only some handlers take large bodies, give these more time by http.ResponseController.SetReadDeadline.".into(),
            ],
            ServerLimit::ReadHeader if self.harmed() == 0 => Vec::new(),
            ServerLimit::ReadHeader => vec![format!(
                "Raise ReadHeaderTimeout of {who}'s http.Server{value}, if clients whose heads come this slowly are welcome."
            )],
            ServerLimit::Write => [
                Some(format!("Raise WriteTimeout of {who}'s http.Server{value}, or give the slow handlers more time by http.ResponseController.SetWriteDeadline.")),
                slow(),
                Some("Bound handlers by http.TimeoutHandler with less time than WriteTimeout, so that clients get an answer.".into()),
            ]
            .into_iter()
            .flatten()
            .collect(),
            ServerLimit::Handler => [
                Some(format!("Raise the time that {who} gives its handler{value}.")),
                slow(),
                Some("Let the handler heed its request's context, so that it does not work on for nobody.".into()),
            ]
            .into_iter()
            .flatten()
            .collect(),
            ServerLimit::Conn => vec![format!(
                "See where {who} calls SetDeadline or SetReadDeadline on its connections, and set it anew while bytes come."
            )],
            ServerLimit::Unknown => vec![format!(
                "Raise the time limit that {who} has for its clients{value} (nginx: client_body_timeout and client_header_timeout; haproxy: timeout client and timeout http-request), or let these send faster."
            )],
        }
    }

    fn incomplete(&self) -> Option<String> {
        let mut missing: Vec<String> = Vec::new();
        let cut = self.example;
        match cut.limit {
            ServerLimit::Unknown => missing.push(format!(
                "Which setting of {} it is was not to be seen.",
                self.who
            )),
            ServerLimit::Write if cut.at_most => missing.push(
                "That the deadline passed was concluded from the close without an answer; how long it is was not to be seen.".into(),
            ),
            ServerLimit::Handler if cut.setting.is_none() => missing.push(
                "No goroutine of net/http.TimeoutHandler was seen, so the limit may be the handler's own.".into(),
            ),
            _ => {}
        }
        let handler_ran = matches!(cut.limit, ServerLimit::Write | ServerLimit::Handler);
        if handler_ran && !cut.exchange.answered() && self.at_work.is_none() {
            missing.push("The handler's goroutine was not looked at in time.".into());
        }
        (!missing.is_empty()).then(|| missing.join(" "))
    }

    fn evidence(&self) -> Vec<Evidence> {
        let cut = self.example;
        let who = &self.who;
        let mut timeline = Timeline::of(self.scene.model);
        timeline.request_read(cut.connection, &cut.exchange);
        if cut.exchange.request_ended > cut.exchange.started {
            timeline.add(
                cut.exchange.request_ended,
                "read",
                format!("the last byte of it that {who} reads"),
            );
        }
        if cut.confidence == Confidence::SEEN && cut.setting.is_some() && !cut.at_most {
            timeline.add(cut.at, "deadline", deadline(cut));
        }
        timeline.outcome(cut.connection, &cut.exchange);
        if cut.exchange.answered() {
            timeline.add_if(cut.connection.left(), "close", || {
                format!("{who} closes the connection of {}", cut.connection.remote)
            });
        }
        timeline.evidence()
    }
}

fn deadline(cut: &CutOff<'_>) -> String {
    let of = match cut.limit {
        ServerLimit::Write => "writing",
        ServerLimit::Handler => return "the handler's time is over".into(),
        _ => "reading",
    };
    format!(
        "the deadline for {of} passes, {} after it was set",
        seconds(cut.waited)
    )
}

/// The handler, as it was when its time was over: looked at then, or one of those that
/// `TimeoutHandler` started.
fn at_work(model: &Model, cut: &CutOff<'_>) -> Option<Witness> {
    let connection = cut.connection;
    let subject = || Subject::owner(model, connection);
    if cut.limit == ServerLimit::Handler {
        let groups = model.goroutine_groups();
        return Some(of_group(subject(), started_by_it(&groups, connection.pid)?));
    }
    let near = |at: &BootInstant| at.since(cut.at).max(cut.at.since(*at)) <= LOOK_AROUND;
    let looked = connection.looks.iter().find(|(at, _)| near(at));
    if let Some((_, goroutine)) = looked {
        return Some(Witness::looked_at(
            subject(),
            goroutine,
            Attribution::LastOwner,
        ));
    }
    let goroutine = cut.exchange.actor?.goroutine?;
    let from = cut.at.minus(LOOK_AROUND);
    let (_, goroutine) = model.look(connection.pid, goroutine, from, cut.at.plus(LOOK_AROUND))?;
    Some(Witness::looked_at(
        subject(),
        goroutine,
        Attribution::Inferred,
    ))
}

fn of_group(process: Subject, group: &Group) -> Witness {
    Witness {
        process,
        id: 0,
        state: group.state.clone(),
        wait_s: group.wait_max.map(|wait| wait.as_secs_f64()),
        attribution: Attribution::Inferred,
        frames: group.frames.clone(),
        created_by: group
            .created_by
            .as_ref()
            .map(|frame| crate::detect::Starter {
                frame: frame.clone(),
                goroutine: None,
            }),
    }
}
