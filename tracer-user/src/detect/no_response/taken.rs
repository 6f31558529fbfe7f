//! A request that was read and never answered.
//!
//! Silence alone proves nothing, for a long poll is silent too. So it takes a goroutine that is seen
//! waiting for another one of its own process, and besides: a client that is known to have given up,
//! or a wait that nothing can call off, where the others are answered in no time.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    detect::{
        confidence::{Confidence, Doubt},
        docket::{Case, Docket},
        finding::{Evidence, Finding, Measured, Rule, Severity, Subject, Witness},
        grounds::{
            harm::Fate,
            scene::Scene,
            standing::{Standing, place, serving, stands_at, waits_for_another},
            telling::{Timeline, wireshark_filter},
            workers,
        },
        own_code::brief,
        wording::{count, seconds},
    },
    event::{BootInstant, Role},
    model::{Connection, Exchange, Service},
};

use super::{Answered, both_ends, given_up, severity};

/// A goroutine that is to notice that its client left does so sooner.
const NOTICING: Duration = Duration::from_secs(1);

/// A shorter wait is nobody's concern, however fast the others are.
const SHORTEST: Duration = Duration::from_secs(1);

/// Nothing to compare with: so long a silence is worth a look.
const LONG: Duration = Duration::from_secs(5);

/// Requests to compare with, for saying that this one is not as they are.
const ENOUGH: usize = 5;

/// One request that was taken and not answered.
struct Taken<'m> {
    connection: &'m Connection,
    exchange: Exchange,
    witness: Witness,
    /// Its client left, or it was still waiting at the end of the window.
    left: Option<BootInstant>,
    /// The client is known to have given up.
    given_up: bool,
    waited: Duration,
    severity: Severity,
    /// How fast others were answered, where that tells this one apart.
    others: Option<(usize, Duration)>,
}

/// Adds a case for each port and each place where goroutines stand.
pub(in crate::detect) fn find(scene: &Scene<'_>, docket: &mut Docket) {
    let mut groups: BTreeMap<(Service, u16, String), Vec<Taken<'_>>> = BTreeMap::new();
    for connection in scene.model.connections() {
        if let Some(taken) = on(scene, connection) {
            let at = place(&taken.witness).map_or_else(String::new, |frame| frame.function.clone());
            let service = scene.service(connection.pid);
            let key = (service, connection.local.port(), at);
            groups.entry(key).or_default().push(taken);
        }
    }
    for group in groups.into_values() {
        if let Some(case) = case(scene, docket, group) {
            if let Some(cause) = case.cause {
                docket.raise(cause, case.finding.severity);
            }
            docket.add(case);
        }
    }
}

fn on<'m>(scene: &Scene<'m>, connection: &'m Connection) -> Option<Taken<'m>> {
    let model = scene.model;
    if connection.role != Role::Server || connection.left().is_some() || connection.is_over() {
        return None;
    }
    let exchange = connection
        .exchanges()
        .pop()
        .filter(|exchange| !exchange.answered() && exchange.request_bytes > 0)?;
    let witness = serving(model, connection)?;
    let standing = Standing::of(&witness.state);
    if standing == Standing::Busy || waits_for_another(model, connection.pid, &exchange) {
        return None;
    }
    let left = connection.peer_left();
    let waited = left.unwrap_or(model.now()).since(exchange.request_ended);
    let given_up = given_up(scene, connection);
    let mut others = None;
    let severity = match (given_up, left) {
        (Some((at, harm)), _) => {
            let unmoved = model.now().since(at) >= NOTICING;
            (standing == Standing::Stuck || unmoved).then_some(harm.max(Severity::Warning))
        }
        // Only HTTP promises an answer.
        _ if exchange.head.is_none() => None,
        (None, Some(left)) => {
            let unmoved = model.now().since(left) >= NOTICING && waited >= SHORTEST;
            (standing == Standing::Stuck && unmoved).then_some(Severity::Warning)
        }
        (None, None) => {
            others = outliers(scene, connection, &exchange, standing, waited);
            if others.is_some() {
                Some(Severity::Warning)
            } else {
                (standing >= Standing::Awaiting && waited >= LONG).then_some(Severity::Info)
            }
        }
    }?;
    Some(Taken {
        connection,
        exchange,
        witness,
        left,
        given_up: given_up.is_some(),
        waited,
        severity,
        others,
    })
}

/// Others are answered so much faster that this wait is none of their kind. Whoever receives from a
/// channel may wait for news, so only the same path is compared with; nobody waits for news at a lock.
fn outliers(
    scene: &Scene<'_>,
    connection: &Connection,
    exchange: &Exchange,
    standing: Standing,
    waited: Duration,
) -> Option<(usize, Duration)> {
    let same_path = |other: &Exchange| {
        let path = |of: &Exchange| of.head.as_ref().map(|h| (h.method.clone(), h.path.clone()));
        path(other).is_some() && path(other) == path(exchange)
    };
    let answered = match standing {
        Standing::Stuck => Answered::of(scene, connection, |_| true),
        Standing::Awaiting => Answered::of(scene, connection, same_path),
        Standing::Choosing | Standing::Busy => None,
    }?;
    (answered.number >= ENOUGH && waited >= SHORTEST && answered.far_exceeded_by(waited))
        .then_some((answered.number, answered.median))
}

fn case(scene: &Scene<'_>, docket: &Docket, group: Vec<Taken<'_>>) -> Option<Case> {
    let model = scene.model;
    let example = group
        .iter()
        .max_by_key(|taken| (taken.severity, taken.given_up, taken.waited))?;
    let connection = example.connection;
    let number = group.len() as u64;
    let served = scene.served_at(connection.pid, connection.local).exchanges;
    let mut measured = Measured {
        request_bytes: Some(example.exchange.request_bytes),
        response_bytes: Some(0),
        requests: Some(served.exchanges),
        requests_fine: Some(served.fine()),
        ..Measured::default()
    };
    measured.waits(group.iter().map(|taken| taken.waited).collect());
    let mut worst = group.iter().map(|taken| taken.severity).max()?;
    if worst >= Severity::Warning {
        measured.requests_harmed = Some(number);
        worst = worst.max(severity(scene, connection, number));
    }
    let mut confidence = Confidence::SEEN;
    if example.left.is_none() {
        confidence = confidence.but(Doubt::NotOver);
    }
    if example.others.is_none() && !example.given_up {
        confidence = confidence.but(Doubt::Ambiguous);
    }
    let who = model.owner(connection);
    let finding = Finding {
        id: String::new(),
        caused_by: None,
        rule: Rule::NoResponse,
        severity: worst,
        confidence: confidence.number(),
        count: number,
        title: format!(
            "{} took {} on port {} and never answered",
            workers::named(who.clone(), group.iter().map(|taken| taken.connection)),
            if number == 1 {
                "a request".into()
            } else {
                count(number, "request", "requests")
            },
            connection.local.port()
        ),
        explanation: explanation(&who, &group, example),
        process: Subject::owner(model, connection),
        connection: Some(connection.into()),
        related_connections: Vec::new(),
        setting: None,
        code: place(&example.witness).cloned(),
        goroutines: vec![example.witness.clone()],
        measured,
        evidence: evidence(scene, example),
        advice: advice(example),
        wireshark_filter: wireshark_filter([connection].into_iter()),
        incomplete: example.left.is_none().then(|| {
            "The window ended before the request did; a longer one shows whether it is answered after all.".into()
        }),
    };
    Some(Case {
        finding,
        cause: group
            .iter()
            .find_map(|taken| docket.explaining(taken.connection.socket)),
        explains: both_ends(
            group
                .iter()
                .filter(|taken| taken.severity >= Severity::Warning)
                .map(|taken| taken.connection),
        ),
    })
}

fn explanation(who: &str, group: &[Taken<'_>], example: &Taken<'_>) -> String {
    let number = group.len() as u64;
    let mut told = vec![format!(
        "{who} read {} whole and sent no byte in answer, up to {} long, while the {} open.",
        count(number, "request", "requests"),
        seconds(
            group
                .iter()
                .map(|taken| taken.waited)
                .max()
                .unwrap_or_default()
        ),
        if number == 1 {
            "connection stayed"
        } else {
            "connections stayed"
        }
    )];
    told.push(format!(
        "Of the one that waited {}, {}: {}.",
        seconds(example.waited),
        stands_at(&example.witness),
        match Standing::of(&example.witness.state) {
            Standing::Stuck => "another goroutine must let it go on, and none does",
            _ => "it waits for another goroutine, and none comes",
        }
    ));
    let left = group.iter().filter(|taken| taken.left.is_some()).count() as u64;
    if left > 0 {
        told.push(format!(
            "{} left without an answer, and it did not notice.",
            count(left, "client", "clients")
        ));
    }
    if let Some((others, median)) = example.others {
        told.push(format!(
            "{others} other requests were answered, half of them within {}.",
            seconds(median)
        ));
    } else if left == 0 {
        told.push(
            "That may be a long poll; nothing else was answered there to compare it with.".into(),
        );
    }
    told.join(" ")
}

fn advice(example: &Taken<'_>) -> Vec<String> {
    let state = example.witness.state.as_str();
    let at = place(&example.witness).map_or_else(|| "its line".into(), brief);
    let first = match state {
        "chan send" | "chan send (nil chan)" => {
            format!("See who should receive from the channel at {at}, and why it no longer does.")
        }
        "chan receive" | "chan receive (nil chan)" => {
            format!("See who should send to, or close, the channel at {at}, and why it does not.")
        }
        "sync.WaitGroup.Wait" => {
            format!("See which goroutine that {at} waits for never calls Done.")
        }
        "semacquire" | "sync.Mutex.Lock" | "sync.RWMutex.Lock" | "sync.RWMutex.RLock" => format!(
            "See who holds the lock that {at} waits for: gopulse goroutines --pid {} shows the others.",
            example.connection.pid
        ),
        _ => format!("See what {at} waits for."),
    };
    vec![
        first,
        "Give the wait an end: select on the request's Context().Done() beside it, so that the handler returns when its client leaves.".into(),
    ]
}

fn evidence(scene: &Scene<'_>, example: &Taken<'_>) -> Vec<Evidence> {
    let model = scene.model;
    let mut timeline = Timeline::of(model);
    timeline.request_read(example.connection, &example.exchange);
    timeline.add_if(example.left, "left", || {
        format!("{} leaves without an answer", example.connection.remote)
    });
    let told = match Fate::of(example.connection, &example.exchange) {
        Fate::Open => format!("no byte in answer yet; {}", stands_at(&example.witness)),
        _ => format!("still {}", stands_at(&example.witness)),
    };
    timeline.add(model.now(), "waiting", told);
    timeline.evidence()
}
