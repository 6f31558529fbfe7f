//! Findings on the packets and rows that prove them.
//!
//! In: findings, and which packet or row each event of their evidence came with. Out: the comments, and the
//! numbers of the frames in the evidence.

use std::collections::{BTreeMap, HashMap};

use crate::{
    detect::{Evidence, Finding},
    pcapng::Entry,
    plain::clean,
};

use super::{
    cut_short,
    rows::{REALTIME, field},
};

/// The place of a finding among all, and that of an event in its evidence.
pub(super) type Place = (usize, usize);

/// Events that end a connection, as evidence words them: they decide.
const ENDS: [&str; 3] = ["close", "end", "reset"];

/// The events of all evidence by their time, in microseconds since 1970 as rows tell it, and their word.
pub(super) struct Moments(HashMap<(u64, String), Vec<Place>>);

impl Moments {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let mut moments = HashMap::<_, Vec<Place>>::new();
        for (number, finding) in findings.iter().enumerate() {
            for (place, event) in finding.evidence.iter().enumerate() {
                let at = u64::try_from(event.time.as_microsecond()).unwrap_or_default();
                let key = (at, event.event.clone());
                moments.entry(key).or_default().push((number, place));
            }
        }
        Self(moments)
    }

    /// What a row of this time and word proves.
    pub(super) fn proved_by(&self, at: u64, event: &str) -> &[Place] {
        self.0
            .get(&(at, event.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// What a row that was written before proves.
    pub(super) fn proved_by_entry(&self, entry: &Entry<'_>) -> &[Place] {
        let at = entry.field(REALTIME).and_then(|at| at.parse().ok());
        match (at, entry.field(field::EVENT)) {
            (Some(at), Some(event)) => self.proved_by(at, event),
            _ => &[],
        }
    }
}

/// The event of each finding that decides, among those that are on packets: how the connection ended,
/// or else the last one.
pub(super) fn deciding(
    findings: &[Finding],
    on_packets: impl Iterator<Item = Place>,
) -> Vec<Place> {
    let mut by_finding: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (finding, evidence) in on_packets {
        by_finding.entry(finding).or_default().push(evidence);
    }
    by_finding
        .into_iter()
        .filter_map(|(finding, mut places)| {
            places.sort_unstable();
            let ends = |evidence: &&usize| {
                event(findings, (finding, **evidence))
                    .is_some_and(|event| ENDS.contains(&event.event.as_str()))
            };
            let decides = places.iter().find(ends).or(places.last())?;
            Some((finding, *decides))
        })
        .collect()
}

/// `gopulse f1, proxy-timeout, critical: gateway sends POST /upload to 127.0.0.1:9001`, with the finding's
/// title on the packet that decides.
pub(super) fn comment(findings: &[Finding], place: Place, decides: bool) -> String {
    let (Some(finding), Some(event)) = (findings.get(place.0), event(findings, place)) else {
        return String::new();
    };
    let [rule, severity] = [word(finding.rule), word(finding.severity)];
    let id = &finding.id;
    let told = if decides {
        format!("{} ({})", finding.title, event.detail)
    } else {
        event.detail.clone()
    };
    let text = clean(&format!("gopulse {id}, {rule}, {severity}: {told}"));
    cut_short(&text).to_owned()
}

/// Says in the evidence which frame it was.
pub(super) fn number(findings: &mut [Finding], (finding, evidence): Place, frame: u64) {
    let event = findings
        .get_mut(finding)
        .and_then(|finding| finding.evidence.get_mut(evidence));
    if let Some(event) = event {
        event.frame = Some(frame);
    }
}

/// A rule or severity as the report words it.
pub(in crate::export) fn word(of: impl serde::Serialize) -> String {
    serde_json::to_value(of)
        .ok()
        .and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn event(findings: &[Finding], (finding, evidence): Place) -> Option<&Evidence> {
    findings.get(finding)?.evidence.get(evidence)
}
