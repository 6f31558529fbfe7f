//! Findings in the making: who causes whom, and in which order they are told.

use std::collections::HashSet;

use crate::{
    event::{Pid, SocketId},
    model::Services,
};

use super::finding::{Finding, Rule, Severity};

/// A finding whose place in the report is not known yet.
#[derive(Debug)]
pub(super) struct Case {
    /// What will be told; its `id` and `caused_by` are set at the end.
    pub(super) finding: Finding,
    /// The place of its cause in the docket.
    pub(super) cause: Option<usize>,
    /// Connections whose end, or whose failed requests, this case explains.
    pub(super) explains: HashSet<SocketId>,
}

/// All cases so far. Rules run causes first, so a later one finds here what explains its own.
#[derive(Debug, Default)]
pub(super) struct Docket {
    cases: Vec<Case>,
    services: Services,
}

impl Docket {
    /// An empty one for processes that are these services.
    pub(super) fn new(services: &Services) -> Self {
        Self {
            cases: Vec::new(),
            services: services.clone(),
        }
    }

    pub(super) fn add(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// The case that explains what happened on `socket`.
    pub(super) fn explaining(&self, socket: SocketId) -> Option<usize> {
        self.cases
            .iter()
            .position(|case| case.explains.contains(&socket))
    }

    /// The worst case of this rule about this process; about another worker of its service where there is
    /// none.
    pub(super) fn worst_of(&self, rule: Rule, pid: Pid) -> Option<usize> {
        let service = self.services.of_process(pid);
        let of = |case: &Case| {
            let about = case.finding.process.pid;
            let fits = case.finding.rule == rule && self.services.of_process(about) == service;
            fits.then_some((about == pid, case.finding.severity))
        };
        (0..self.cases.len())
            .filter_map(|place| Some((of(self.cases.get(place)?)?, place)))
            .max()
            .map(|(_, place)| place)
    }

    /// The finding at `place`.
    pub(super) fn finding(&self, place: usize) -> Option<&Finding> {
        self.cases.get(place).map(|case| &case.finding)
    }

    /// What the case at `place` causes is worse than what it looked like: so it is that bad itself,
    /// and so is its own cause.
    pub(super) fn raise(&mut self, place: usize, severity: Severity) {
        let mut next = Some(place);
        for _ in 0..self.cases.len() {
            let Some(case) = next.and_then(|place| self.cases.get_mut(place)) else {
                return;
            };
            case.finding.severity = case.finding.severity.max(severity);
            next = case.cause;
        }
    }

    /// What kind of trouble the case at `place` is.
    pub(super) fn rule(&self, place: usize) -> Option<Rule> {
        self.cases.get(place).map(|case| case.finding.rule)
    }

    /// The findings as they are told: the worst story first, and within each story the cause before
    /// its consequences, which are never worse than it.
    pub(super) fn close(mut self) -> Vec<Finding> {
        for place in 0..self.cases.len() {
            let cause = self.cases.get(place).and_then(|case| case.cause);
            let worst = cause
                .and_then(|cause| self.cases.get(cause))
                .map(|case| case.finding.severity);
            if let (Some(worst), Some(case)) = (worst, self.cases.get_mut(place)) {
                case.finding.severity = case.finding.severity.min(worst);
                // The harm is the cause's, and counted there.
                case.finding.measured.requests_harmed = None;
                case.finding.measured.harmed_by_status.clear();
            }
        }
        let mut stories: Vec<usize> = (0..self.cases.len())
            .filter(|place| self.cases.get(*place).is_some_and(|c| c.cause.is_none()))
            .collect();
        stories.sort_by_key(|place| self.cases.get(*place).map(|case| rank(&case.finding)));
        let mut told = Vec::new();
        for story in stories {
            self.tell(story, None, &mut told);
        }
        told
    }

    fn tell(&self, place: usize, cause: Option<&str>, told: &mut Vec<Finding>) {
        let Some(case) = self.cases.get(place) else {
            return;
        };
        let id = format!("f{}", told.len() + 1);
        told.push(Finding {
            id: id.clone(),
            caused_by: cause.map(Into::into),
            ..case.finding.clone()
        });
        for (consequence, case) in self.cases.iter().enumerate() {
            if case.cause == Some(place) && consequence > place {
                self.tell(consequence, Some(&id), told);
            }
        }
    }
}

/// The worst harm first; of equal ones the more frequent, then the earlier.
fn rank(finding: &Finding) -> impl Ord + use<> {
    use std::cmp::Reverse;
    let harmed = finding.measured.requests_harmed.unwrap_or(0);
    let first = finding.evidence.first().map(|evidence| evidence.time);
    (
        Reverse(finding.severity),
        Reverse(harmed),
        Reverse(finding.count),
        first,
    )
}
