//! What a finding is, and how sure one can be of it.
//!
//! The names and units of the fields are those of the JSON report; they are promised to scripts.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    event::{Attribution, Creation, Frame, Goroutine, Pid, Role},
    model::{Connection, Model},
};

/// Something that is wrong, with the proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `f1`, `f2`, … in the order of the report.
    pub id: String,
    /// The finding this one is a consequence of; its harm is counted there.
    pub caused_by: Option<String>,
    /// What kind of trouble it is.
    pub rule: Rule,
    /// How much harm it does.
    pub severity: Severity,
    /// From 0 to 1; see [`Confidence`].
    pub confidence: f64,
    /// How often it happened in the window.
    pub count: u64,
    /// One line.
    pub title: String,
    /// Two or three sentences.
    pub explanation: String,
    /// Who did it.
    pub process: Subject,
    /// On which connection; the one of the occurrence that `evidence` tells.
    pub connection: Option<Ends>,
    /// Other connections of the same story.
    pub related_connections: Vec<Ends>,
    /// The setting that made it so, where it is known.
    pub setting: Option<Setting>,
    /// The line that decided.
    pub code: Option<Frame>,
    /// Who decided, and who was still at work.
    pub goroutines: Vec<Witness>,
    /// Numbers.
    pub measured: Measured,
    /// One occurrence, in the order of time.
    pub evidence: Vec<Evidence>,
    /// What to change.
    pub advice: Vec<String>,
    /// Shows the packets of that occurrence in any capture of this host.
    pub wireshark_filter: Option<String>,
    /// What was missing to be sure.
    pub incomplete: Option<String>,
}

/// What kind of trouble; its name never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// SYNs went unanswered.
    ConnectTimeout,
    /// A SYN was answered by RST.
    ConnectRefused,
    /// A process gave up on its upstream, harming a request it was serving.
    ProxyTimeout,
    /// A process gave up on its server, with no request being served.
    ClientTimeout,
    /// A connection that carried a request ended with no response byte.
    EmptyResponse,
}

/// How much harm is done. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nobody was harmed, or it passed by itself.
    Info,
    /// Requests fail.
    Warning,
    /// A good part of the requests fail.
    Critical,
}

/// A process, named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
}

impl Subject {
    pub(super) fn of(model: &Model, pid: Pid) -> Self {
        Self {
            pid,
            comm: model.name(pid),
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Who asks.
    pub client: SocketAddr,
    /// Who answers.
    pub server: SocketAddr,
    /// Which of both the process is.
    pub role: Role,
}

impl From<&Connection> for Ends {
    fn from(connection: &Connection) -> Self {
        Self {
            client: connection.client(),
            server: connection.server(),
            role: connection.role,
        }
    }
}

/// A setting of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// `net/http.Transport.ResponseHeaderTimeout` and the like.
    pub name: String,
    /// What it is set to, as far as the waits tell; `None` where they differ too much to tell.
    pub value_s: Option<f64>,
}

/// A goroutine that has to do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// Its process.
    pub process: Subject,
    /// Its id.
    pub id: u64,
    /// What it was doing.
    pub state: String,
    /// For how long it had been waiting.
    pub wait_s: Option<f64>,
    /// How it is known to be this one.
    pub attribution: Attribution,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// The `go` statement that started it.
    pub created_by: Option<Starter>,
}

impl Witness {
    pub(super) fn looked_at(process: Subject, goroutine: &Goroutine, how: Attribution) -> Self {
        Self {
            process,
            id: goroutine.id,
            state: goroutine.state.clone(),
            wait_s: goroutine.wait.map(|wait| wait.as_secs_f64()),
            attribution: how,
            frames: goroutine.frames.clone(),
            created_by: goroutine.created_by.as_ref().map(Starter::from),
        }
    }
}

/// The `go` statement that started a goroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starter {
    /// Where it stands.
    #[serde(flatten)]
    pub frame: Frame,
    /// The goroutine that ran it.
    pub goroutine: Option<u64>,
}

impl From<&Creation> for Starter {
    fn from(creation: &Creation) -> Self {
        Self {
            frame: creation.frame.clone(),
            goroutine: creation.goroutine,
        }
    }
}

/// Numbers. Only those are written that the rule measures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The median wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_s: Option<f64>,
    /// The shortest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_min_s: Option<f64>,
    /// The longest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_max_s: Option<f64>,
    /// Size of the request in the occurrence that `evidence` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// What came of the response in that occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Requests served on the same port in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Of these, harmed by this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_harmed: Option<u64>,
    /// Of these, answered without failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_fine: Option<u64>,
    /// Harmed requests by the status their client got; `none` where it got no byte.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub harmed_by_status: BTreeMap<String, u64>,
    /// Attempts to connect to the same address in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Of these, established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established: Option<u64>,
    /// SYNs sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_retransmits: Option<u64>,
    /// Packets that this kernel dropped, by its own reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub drops: BTreeMap<String, u64>,
}

impl Measured {
    /// The shortest, the median and the longest of `waits`.
    pub(super) fn waits(&mut self, mut waits: Vec<Duration>) {
        waits.sort();
        let seconds = |wait: Option<&Duration>| wait.map(Duration::as_secs_f64);
        self.waited_min_s = seconds(waits.first());
        self.waited_s = seconds(waits.get(waits.len() / 2));
        self.waited_max_s = seconds(waits.last());
    }
}

/// One event of an occurrence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// When, on the wall clock.
    #[serde(serialize_with = "rfc3339_nanoseconds")]
    pub time: jiff::Timestamp,
    /// One or two words.
    pub event: String,
    /// The rest.
    pub detail: String,
    /// The packet's number in the capture, where there is one.
    pub frame: Option<u64>,
}

/// Writes a time as RFC 3339 with all nine digits of its fraction.
pub(crate) fn rfc3339_nanoseconds<S: Serializer>(
    time: &jiff::Timestamp,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.9}"))
}

/// How sure a finding is, as a number that follows from its evidence.
///
/// It begins with what was seen:
///
/// | seen | confidence |
/// | --- | --- |
/// | the program's own decision, or the kernel's own word | 0.97 |
/// | no decision, but *n* waits of the same length (n ≥ 3) | 0.85 − 0.45 / n: 0.70 for 3, 0.81 for 10 |
/// | no decision, and too few waits to compare | 0.50 |
///
/// and is multiplied by the factor of each [`Doubt`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Confidence(f64);

/// A reason to be less sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The error was not text that could be read; that of a deadline is not. (0.9;
    /// not where the same wait came again and again)
    ReasonUnread,
    /// Which connection the decision was about was concluded from the close that followed. (0.93)
    ConnectionInferred,
    /// Which setting it was was concluded from another goroutine's doing. (0.9)
    SettingInferred,
    /// Which of several settings it was could not be told. (0.9)
    SettingUnknown,
    /// Which request was being served was concluded from time, method and path. (0.95)
    RequestInferred,
    /// Several requests, or connections, would have fitted. (0.8)
    Ambiguous,
    /// Only one end of the connection was seen. (0.95)
    OneEnd,
    /// Records were lost. (0.9)
    Losses,
}

impl Doubt {
    fn factor(self) -> f64 {
        match self {
            Self::RequestInferred | Self::OneEnd => 0.95,
            Self::ConnectionInferred => 0.93,
            Self::ReasonUnread | Self::SettingInferred | Self::SettingUnknown | Self::Losses => 0.9,
            Self::Ambiguous => 0.8,
        }
    }
}

impl Confidence {
    /// The decision itself, or the kernel's own word, was seen.
    pub const SEEN: Self = Self(0.97);

    /// `waits` of the same length were seen, and no decision.
    #[must_use]
    pub fn from_timing(waits: usize) -> Self {
        if waits < 3 {
            Self(0.5)
        } else {
            Self(0.85 - 0.45 / waits as f64)
        }
    }

    /// A number given before.
    #[must_use]
    pub fn of(number: f64) -> Self {
        Self(number.clamp(0.0, 1.0))
    }

    /// With one more doubt.
    #[must_use]
    pub fn but(self, doubt: Doubt) -> Self {
        Self(self.0 * doubt.factor())
    }

    /// With several more doubts; each counts once.
    #[must_use]
    pub fn but_all(self, doubts: &[Doubt]) -> Self {
        let mut counted: Vec<Doubt> = Vec::new();
        for doubt in doubts {
            if !counted.contains(doubt) {
                counted.push(*doubt);
            }
        }
        counted.into_iter().fold(self, Self::but)
    }

    /// The number, to two digits.
    #[must_use]
    pub fn number(self) -> f64 {
        (self.0 * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_grows_with_the_number_of_equal_waits_and_stays_below_a_seen_decision() {
        let of = |waits| Confidence::from_timing(waits);
        assert_eq!(of(1).number(), 0.5);
        assert_eq!(of(3).number(), 0.7);
        assert!(of(3) < of(10));
        assert!(of(1_000_000) < Confidence::SEEN);
    }

    #[test]
    fn a_doubt_counts_once() {
        let doubts = [Doubt::Ambiguous, Doubt::Ambiguous, Doubt::OneEnd];
        assert_eq!(Confidence::SEEN.but_all(&doubts).number(), 0.74);
    }

    #[test]
    fn times_are_written_with_nanoseconds() {
        let evidence = Evidence {
            time: "2026-01-01T00:00:01.5Z".parse().unwrap(),
            event: "close".into(),
            detail: String::new(),
            frame: None,
        };
        let json = serde_json::to_value(&evidence).unwrap();
        assert_eq!(json["time"], "2026-01-01T00:00:01.500000000Z");
    }

    #[test]
    fn rules_and_severities_have_the_promised_names() {
        let json = serde_json::to_value((Rule::ProxyTimeout, Severity::Critical)).unwrap();
        assert_eq!(json, serde_json::json!(["proxy-timeout", "critical"]));
    }
}
