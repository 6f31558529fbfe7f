//! `stalled-transfer`: bytes stopped flowing in the middle of a message; says who was silent.
//!
//! Most silences are meant: a stream of events ticks, a watch waits, a player pauses its download, a
//! client sends as its user types. Blamed is a response that came to its end after few and irregular
//! gaps, or after more than others of its kind ever take; a receiver that does not read; packets that
//! were lost. Silences at regular intervals, of requests, and on long paths are worth knowing at most.
//! A proxy that only passes a silence on is not accused, and what another finding tells is not told
//! again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    event::{BootInstant, Message, SocketId},
    model::{Connection, Kind, Model, Service},
};

use super::{
    confidence::{Confidence, Doubt},
    docket::{Case, Docket},
    finding::{Ends, Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
    grounds::{
        breakdown::Breakdown,
        gaps::{self, Gap, Silent},
        lateness::is_plain,
        scene::Scene,
        telling::{Timeline, what, wireshark_filter},
        work::at_work,
    },
    own_code::{brief, own_frame},
    wording::{bytes, count, seconds, times},
};

/// From so many gaps of about the same length on, somebody paces the transfer on purpose.
const PACED: usize = 4;

/// From so many gaps on it is a stream of events, however irregular.
const STREAM: usize = 8;

/// Gaps are of about the same length where the longest is less than this many times the shortest.
const ALIKE: u32 = 2;

/// Longer silences are rather meant (a watch without news), unless others of the kind are quick.
const MEANT: Duration = Duration::from_secs(10);

/// Who waits this long notices.
const LONG: Duration = Duration::from_secs(1);

/// A smaller share of the requests is an outlier.
const OUTLIERS: f64 = 0.01;

/// After a silence this many times as long as any before, nothing more was to come.
const SURELY_OVER: u32 = 3;

/// Who leaves this soon after the last byte had what it came for.
const HAD_ENOUGH: Duration = Duration::from_millis(50);

/// The gaps of one exchange that have the same cause.
struct Stalled<'g, 'm> {
    gaps: Vec<&'g Gap<'m>>,
}

/// What is told together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Culprit {
    cause: Option<usize>,
    silent: Silent,
    service: Option<Service>,
    server: SocketAddr,
    route: String,
}

/// Adds a case for each process that was silent, and each path.
pub(super) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let all = gaps::all(scene.model);
    let mut by_exchange: BTreeMap<(SocketId, u32, Silent), Vec<&Gap<'_>>> = BTreeMap::new();
    for gap in &all {
        if is_plain(&gap.exchange) && gap.passed_on_by(&all).is_none() {
            by_exchange
                .entry((gap.connection.socket, gap.exchange.number, gap.silent))
                .or_default()
                .push(gap);
        }
    }
    let mut groups: BTreeMap<Culprit, Vec<Stalled<'_, '_>>> = BTreeMap::new();
    for ((_, _, silent), gaps) in by_exchange {
        let Some(first) = gaps.first() else { continue };
        let cause = told_by(docket, first);
        // What is lost is told as the consequence of the loss; all else, once.
        if cause.is_some() != (silent == Silent::Lost) {
            continue;
        }
        let culprit = culprit(scene, first, cause);
        groups.entry(culprit).or_default().push(Stalled { gaps });
    }
    for (culprit, stalled) in groups {
        if let Some(case) = case(scene, &culprit, stalled) {
            docket.add(case);
        }
    }
}

/// What explains a gap. A connect that took a second SYN is over by then.
fn told_by(docket: &Docket, gap: &Gap<'_>) -> Option<usize> {
    docket
        .explaining(gap.connection.socket)
        .or_else(|| docket.explaining(gap.connection.other_end?))
        .filter(|place| docket.rule(*place) != Some(Rule::ConnectTimeout))
}

fn culprit(scene: &Scene<'_>, gap: &Gap<'_>, cause: Option<usize>) -> Culprit {
    let kind = Kind::of(&gap.exchange);
    Culprit {
        cause,
        silent: gap.silent,
        service: gap.culprit().map(|end| scene.service(end.pid)),
        server: gap.connection.server(),
        route: kind.map_or_else(String::new, |kind| kind.route),
    }
}

impl<'g, 'm> Stalled<'g, 'm> {
    fn first(&self) -> Option<&'g Gap<'m>> {
        self.gaps.first().copied()
    }

    fn is_of(&self, message: Message) -> bool {
        self.gaps.iter().all(|gap| gap.message == message)
    }

    fn sum(&self) -> Duration {
        self.gaps.iter().map(|gap| gap.length()).sum()
    }

    fn longest(&self) -> Duration {
        self.gaps
            .iter()
            .map(|gap| gap.length())
            .max()
            .unwrap_or_default()
    }

    /// Many gaps, or some of about the same length.
    fn is_paced(&self) -> bool {
        let shortest = self.gaps.iter().map(|gap| gap.length()).min();
        let alike = shortest.is_some_and(|shortest| self.longest() < shortest * ALIKE);
        self.gaps.len() >= STREAM || (self.gaps.len() >= PACED && alike)
    }

    /// The response came to its end, so that somebody waited for it. A stream ends when its reader
    /// leaves.
    fn came_to_its_end(&self, now: BootInstant) -> bool {
        let Some(gap) = self.first() else {
            return false;
        };
        let (connection, exchange) = (gap.connection, &gap.exchange);
        let last = exchange.last_byte;
        let soon = |left: BootInstant| left.since(last) <= HAD_ENOUGH;
        let next_came = exchange.complete;
        let ended = connection.ended().unwrap_or(now);
        let resumed = self.gaps.iter().all(|gap| gap.resumed);
        let quiet_since = ended.since(last) >= self.longest() * SURELY_OVER;
        resumed && (next_came || connection.ended().is_some_and(soon) || quiet_since)
    }
}

fn severity(scene: &Scene<'_>, culprit: &Culprit, stalled: &[Stalled<'_, '_>]) -> Severity {
    let now = scene.model.now();
    let believed: Vec<&Stalled<'_, '_>> = stalled
        .iter()
        .filter(|stalled| match culprit.silent {
            Silent::Lost => true,
            // Of one that is not traced and never read again it is not known whether it reads slowly.
            Silent::Receiver => {
                let resumed = stalled.gaps.iter().all(|gap| gap.resumed);
                !stalled.is_paced() && (culprit.service.is_some() || resumed)
            }
            Silent::Sender | Silent::Beyond => {
                stalled.is_of(Message::Response)
                    && !stalled.is_paced()
                    && stalled.longest() < MEANT
                    && stalled.came_to_its_end(now)
            }
            Silent::Path => false,
        })
        .collect();
    let Some(first) = stalled.first().and_then(Stalled::first) else {
        return Severity::Info;
    };
    let all = scene
        .served_at(first.connection.pid, first.connection.server())
        .exchanges
        .exchanges
        .max(1);
    let share = believed.len() as f64 / all as f64;
    let noticed = believed.iter().any(|stalled| stalled.sum() >= LONG);
    if !believed.is_empty() && (share >= OUTLIERS || noticed) {
        Severity::Warning
    } else {
        Severity::Info
    }
}

fn case(scene: &Scene<'_>, culprit: &Culprit, stalled: Vec<Stalled<'_, '_>>) -> Option<Case> {
    let model = scene.model;
    let severity = severity(scene, culprit, &stalled);
    if severity == Severity::Info && !is_worth_knowing(culprit, &stalled, model.now()) {
        return None;
    }
    let example = stalled.iter().max_by_key(|stalled| stalled.sum())?;
    let gap = example.first()?;
    let (connection, exchange) = (gap.connection, &gap.exchange);
    let all: Vec<&Gap<'_>> = stalled
        .iter()
        .flat_map(|s| s.gaps.iter().copied())
        .collect();
    let mut measured = Measured {
        requests: Some(
            scene
                .served_at(connection.pid, connection.server())
                .exchanges
                .exchanges,
        )
        .filter(|requests| *requests > 0),
        requests_slow: Some(stalled.len() as u64),
        gaps: Some(all.len() as u64),
        request_bytes: Some(exchange.request_bytes),
        response_bytes: Some(exchange.response_bytes),
        parts_s: Breakdown::of_exchange(scene, connection, exchange).measured(),
        ..Measured::default()
    };
    measured.waits(all.iter().map(|gap| gap.length()).collect());
    let witness = witness(model, gap);
    let subject = gap.culprit().unwrap_or(connection);
    let other = model.other_end(connection);
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::StalledTransfer,
        severity,
        confidence: confidence(gap).number(),
        count: stalled.len() as u64,
        title: title(model, gap, example),
        explanation: explanation(scene, gap, &stalled, witness.as_ref()),
        process: Subject::of(model, subject.pid),
        connection: Some(subject.into()),
        related_connections: [Some(connection), other]
            .into_iter()
            .flatten()
            .filter(|end| end.socket != subject.socket)
            .map(Ends::from)
            .collect(),
        setting: None,
        code: witness
            .as_ref()
            .and_then(|witness| own_frame(&witness.frames).cloned()),
        goroutines: witness.into_iter().collect(),
        measured,
        evidence: evidence(model, gap),
        advice: vec![advice(model, gap)],
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: incomplete(model, gap),
    };
    let sockets: BTreeSet<SocketId> = all
        .iter()
        .flat_map(|gap| [Some(gap.connection.socket), gap.connection.other_end])
        .flatten()
        .collect();
    Some(Case {
        finding,
        cause: culprit.cause,
        explains: sockets.into_iter().collect(),
    })
}

/// Streams that tick, requests that come in pieces and long paths would be told on every host.
fn is_worth_knowing(culprit: &Culprit, stalled: &[Stalled<'_, '_>], now: BootInstant) -> bool {
    match culprit.silent {
        Silent::Sender | Silent::Beyond => stalled.iter().any(|stalled| {
            stalled.is_of(Message::Response)
                && stalled.gaps.len() < STREAM
                && stalled.longest() < MEANT
                && stalled.came_to_its_end(now)
        }),
        Silent::Receiver => stalled.iter().any(|stalled| !stalled.is_paced()),
        Silent::Lost => true,
        Silent::Path => stalled.iter().any(|stalled| stalled.sum() >= LONG),
    }
}

fn confidence(gap: &Gap<'_>) -> Confidence {
    let one_end = gap.sender.is_none() || gap.receiver.is_none();
    let doubts: &[Doubt] = match gap.silent {
        Silent::Beyond => &[Doubt::OneEnd, Doubt::Ambiguous],
        Silent::Receiver if one_end && gap.culprit().is_none() => &[Doubt::OneEnd],
        Silent::Sender if gap.receiver.is_none() && gap.message == Message::Request => {
            &[Doubt::OneEnd]
        }
        _ => &[],
    };
    Confidence::SEEN.but_all(doubts)
}

/// The goroutine that should have sent, or read.
fn witness(model: &Model, gap: &Gap<'_>) -> Option<Witness> {
    let end = gap.culprit()?;
    let exchange = end
        .exchanges()
        .into_iter()
        .rfind(|exchange| exchange.started <= gap.until)?;
    at_work(model, end, &exchange, gap.from, gap.until)
}

/// Sender and receiver, by name where they are traced.
fn names(model: &Model, gap: &Gap<'_>) -> (String, String) {
    let name = |own: Option<&Connection>, other: Option<&Connection>| match (own, other) {
        (Some(own), _) => model.owner(own),
        (None, Some(other)) => other.remote.to_string(),
        (None, None) => "nobody".into(),
    };
    (
        name(gap.sender, gap.receiver),
        name(gap.receiver, gap.sender),
    )
}

fn message(gap: &Gap<'_>) -> &'static str {
    match gap.message {
        Message::Request => "request",
        Message::Response => "response",
    }
}

fn title(model: &Model, gap: &Gap<'_>, example: &Stalled<'_, '_>) -> String {
    let (sender, receiver) = names(model, gap);
    let message = message(gap);
    let long = seconds(example.longest());
    match gap.silent {
        Silent::Sender => {
            format!("{sender} paused for {long} in the middle of a {message} to {receiver}")
        }
        Silent::Receiver => {
            format!("{receiver} did not read for {long} in the middle of a {message} of {sender}")
        }
        Silent::Lost => format!(
            "a {message} of {sender} to {receiver} stood still for {long}: packets were lost"
        ),
        Silent::Path => {
            format!("a {message} of {sender} to {receiver} stood still for {long} on its way")
        }
        Silent::Beyond => format!(
            "nothing came from {sender} for {long} in the middle of a {message} to {receiver}"
        ),
    }
}

/// What the sender itself waited for during most of the gap.
fn waited_for(scene: &Scene<'_>, gap: &Gap<'_>) -> Option<SocketAddr> {
    if gap.silent != Silent::Sender || gap.message != Message::Response {
        return None;
    }
    scene
        .upstreams
        .during(gap.connection.socket, gap.exchange.number)
        .iter()
        .find(|wait| {
            wait.span().is_some_and(|(from, until)| {
                until.min(gap.until).since(from.max(gap.from)) * 2 >= gap.length()
            })
        })
        .map(|wait| wait.connection.remote)
}

fn explanation(
    scene: &Scene<'_>,
    gap: &Gap<'_>,
    stalled: &[Stalled<'_, '_>],
    witness: Option<&Witness>,
) -> String {
    let (sender, receiver) = names(scene.model, gap);
    let message = message(gap);
    let number: usize = stalled.iter().map(|stalled| stalled.gaps.len()).sum();
    let mut told = vec![format!(
        "{}: after {} of {} nothing more flowed for {}{}.",
        what(&gap.exchange),
        bytes(gap.bytes_before),
        match gap.message {
            Message::Request => "the request",
            Message::Response => "the response",
        },
        seconds(gap.length()),
        if gap.resumed {
            ""
        } else {
            ", until the connection or the window ended"
        }
    )];
    told.push(match gap.silent {
        Silent::Sender => {
            let read = gap.receiver.map_or_else(String::new, |_| {
                format!(", and {receiver} had read what there was")
            });
            format!(
                "The sender was silent: {sender} had nothing to send while its socket's buffer had room{read}."
            )
        }
        Silent::Receiver => format!(
            "The receiver was silent: bytes lay in {receiver}'s socket and it did not read them, so its window closed and {sender} could not send."
        ),
        Silent::Lost => format!(
            "The network was silent: {sender} had sent, packets were lost, and it sent them again."
        ),
        Silent::Path => format!(
            "The network was silent: {sender} had sent, {receiver} was waiting, and nothing was sent again; so the path is slow."
        ),
        Silent::Beyond => format!(
            "{receiver} was waiting and nothing arrived: {sender} paused, or the way to it did."
        ),
    });
    if let Some(witness) = witness {
        let at = own_frame(&witness.frames)
            .map_or_else(String::new, |frame| format!(" in {}", brief(frame)));
        told.push(format!(
            "Goroutine {} of {} was then{at} ({}).",
            witness.id, witness.process.comm, witness.state
        ));
    }
    if let Some(upstream) = waited_for(scene, gap) {
        told.push(format!("Meanwhile it waited for {upstream}."));
    }
    if number > 1 {
        told.push(format!(
            "That happened {} here, in {}.",
            times(number as u64),
            count(stalled.len() as u64, message, &format!("{message}s"))
        ));
    }
    told.join(" ")
}

fn advice(model: &Model, gap: &Gap<'_>) -> String {
    let (sender, receiver) = names(model, gap);
    let port = gap.connection.server().port();
    match gap.silent {
        Silent::Sender => format!(
            "Look at what {sender}'s handler does between its writes: a slow query, a lock, work that could be done before the first byte."
        ),
        Silent::Receiver => format!(
            "See what keeps {receiver} from reading (ss -tnmp 'sport = :{port} or dport = :{port}' shows Recv-Q): it works on what it has, or its own output is blocked."
        ),
        Silent::Lost => "See the packet loss.".into(),
        Silent::Path => format!(
            "Measure the path between {sender} and {receiver} (ss -ti shows rtt and cwnd); on a long one, larger buffers and connections kept warm help."
        ),
        Silent::Beyond => format!("Trace {sender} on its own host to see why it paused."),
    }
}

fn incomplete(model: &Model, gap: &Gap<'_>) -> Option<String> {
    let (sender, receiver) = names(model, gap);
    match gap.silent {
        Silent::Beyond => Some(format!(
            "{sender} is not traced here, so whether it paused or the way to it did is not known."
        )),
        Silent::Receiver if gap.receiver.is_none() => Some(format!(
            "{receiver} is not traced here, so why it does not read is not known."
        )),
        _ => None,
    }
}

fn evidence(model: &Model, gap: &Gap<'_>) -> Vec<Evidence> {
    let mut timeline = Timeline::of(model);
    let message = message(gap);
    timeline.add(
        gap.exchange.started,
        "begin",
        format!("{} begins", what(&gap.exchange)),
    );
    timeline.add(
        gap.from,
        "stop",
        format!("the {message} stops after {}", bytes(gap.bytes_before)),
    );
    let end = if gap.resumed {
        "its bytes flow again"
    } else {
        "they have not flowed again by then"
    };
    timeline.add(gap.until, "go on", end.into());
    timeline.evidence()
}
