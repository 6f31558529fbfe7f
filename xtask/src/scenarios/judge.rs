//! What counts as right, and with what confidence a rate is known.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use gopulse_tests::cases::Case;

use super::{kept, scene::Run};

/// The runs of a case.
pub(super) struct Tally {
    pub(super) case: &'static Case,
    pub(super) verdicts: Vec<Judged>,
    /// Why it never ran.
    pub(super) skipped: Option<String>,
    /// Why the scene itself failed before gopulse had said a word, for each such run.
    pub(super) spoiled: Vec<String>,
}

/// One run, judged.
pub(super) struct Judged {
    /// The rules are those expected, and the test's own assertions hold.
    pub(super) right: bool,
    /// The rules found at warning or above that nothing else explains.
    pub(super) found: Vec<String>,
    /// The confidence of the least sure finding that was expected.
    pub(super) confidence: Option<f64>,
    /// From the command to its verdict, in seconds.
    pub(super) took_s: f64,
    /// Of these, how long the host was watched.
    pub(super) watched_s: f64,
    /// The assertion that did not hold.
    pub(super) complaint: Option<String>,
    /// Findings that were not expected: severity, rule and title of each.
    pub(super) surplus: Vec<String>,
}

impl Tally {
    pub(super) fn new(case: &'static Case) -> Self {
        Self {
            case,
            verdicts: Vec::new(),
            skipped: None,
            spoiled: Vec::new(),
        }
    }

    /// Judges a run, keeps what was told if it was wrong, and says in a line what became of it.
    pub(super) fn add(&mut self, run: Run, pass: u32) -> anyhow::Result<String> {
        let Case { id, what, .. } = self.case;
        let became = if let Some(why) = run.skipped {
            let line = format!("skipped: {why}");
            self.skipped = Some(why);
            line
        } else if run.told.is_empty() {
            self.keep(&run, pass)?;
            let why = complaint(&run.said).unwrap_or_else(|| "it does not say why".to_owned());
            let line = format!("no verdict: {why}");
            self.spoiled.push(why);
            line
        } else {
            let judged = judge(self.case, &run);
            let line = if judged.right {
                format!("right after {:.1} s", judged.took_s)
            } else {
                self.keep(&run, pass)?;
                format!("WRONG: {:?} {:?}", judged.found, judged.surplus)
            };
            self.verdicts.push(judged);
            line
        };
        Ok(format!("{id} {what}: {became}"))
    }

    /// It was tried.
    pub(super) fn ran(&self) -> bool {
        self.judged() > 0 || !self.spoiled.is_empty() || self.skipped.is_some()
    }

    /// Runs that came to a verdict.
    pub(super) fn judged(&self) -> u64 {
        self.verdicts.len() as u64
    }

    /// Those that were right.
    pub(super) fn right(&self) -> u64 {
        self.verdicts.iter().filter(|judged| judged.right).count() as u64
    }

    /// Findings that were not expected, in all runs.
    pub(super) fn surplus(&self) -> usize {
        self.verdicts
            .iter()
            .map(|judged| judged.surplus.len())
            .sum()
    }

    /// What was found, each with how often.
    pub(super) fn found(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for judged in &self.verdicts {
            let told = match judged.found.as_slice() {
                [] => "nothing".to_owned(),
                rules => rules.join(" + "),
            };
            *found.entry(told).or_default() += 1;
        }
        found
    }

    fn keep(&self, run: &Run, pass: u32) -> anyhow::Result<()> {
        let name = self.case.test.replace("::", ".");
        let directory = kept().join(format!("{name}.{pass}"));
        let keep = || -> anyhow::Result<()> {
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("said"), &run.said)?;
            for (number, told) in run.told.iter().enumerate() {
                let report = serde_json::to_vec_pretty(&told.report)?;
                fs::write(directory.join(format!("report.{number}.json")), report)?;
            }
            Ok(())
        };
        keep().with_context(|| format!("cannot write to {}", directory.display()))
    }
}

fn judge(case: &Case, run: &Run) -> Judged {
    let is_expected = |rule: &str| case.expected.contains(&rule);
    let mut judged = Judged {
        right: run.passed,
        found: Vec::new(),
        confidence: None,
        took_s: 0.0,
        watched_s: 0.0,
        complaint: complaint(&run.said).filter(|_| !run.passed),
        surplus: Vec::new(),
    };
    for told in &run.told {
        let stories = told.report.stories();
        judged.right &= told.report.rules() == case.expected;
        judged.took_s += told.took_s;
        judged.watched_s += told.report.watched_s();
        for story in &stories {
            if !judged.found.iter().any(|rule| rule == story.rule()) {
                judged.found.push(story.rule().to_owned());
            }
            if is_expected(story.rule()) {
                let sure = story.confidence();
                judged.confidence = Some(judged.confidence.map_or(sure, |least| least.min(sure)));
            } else {
                let (severity, rule, title) = (story.severity(), story.rule(), story.title());
                judged.surplus.push(format!("{severity} {rule}: {title}"));
            }
        }
    }
    judged
}

/// What a failing test says first: in a line after the one that tells where it panicked, or as an error.
fn complaint(said: &str) -> Option<String> {
    const ENOUGH: usize = 160;
    let mut lines = said.lines();
    let line = lines.find_map(|line| match line.strip_prefix("Error: ") {
        Some(error) => Some(error.to_owned()),
        None => (line.starts_with("thread '") && line.contains("panicked at")).then(String::new),
    })?;
    let line = if line.is_empty() {
        lines.next()?.to_owned()
    } else {
        line
    };
    Some(line.chars().take(ENOUGH).collect())
}

/// The bounds between which a rate lies with 95% confidence, seen `right` times of `all` (Wilson 1927,
/// <https://doi.org/10.1080/01621459.1927.10502953>), as parts of 1.
pub(super) fn wilson(right: u64, all: u64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if all == 0 {
        return (0.0, 1.0);
    }
    let (right, all) = (right as f64, all as f64);
    let rate = right / all;
    let weight = Z * Z / all;
    let middle = (rate + weight / 2.0) / (1.0 + weight);
    let half = Z / (1.0 + weight) * (rate * (1.0 - rate) / all + weight / (4.0 * all)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_test_says_why_in_a_line() {
        let said =
            "running 1 test\nthread 'a' (7) panicked at tests/live_cpu.rs:9:5:\n0.12\nnote: run";
        assert_eq!(complaint(said).as_deref(), Some("0.12"));
        let said = "running 1 test\nError: no setting is named\ntest result: FAILED";
        assert_eq!(complaint(said).as_deref(), Some("no setting is named"));
        assert_eq!(complaint("test result: ok"), None);
    }

    #[test]
    fn a_rate_is_known_the_better_the_more_runs_there_were() {
        // Newcombe 1998, table I: 81 of 263 and 0 of 20.
        let (low, high) = wilson(81, 263);
        assert!(
            (low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4,
            "{low} {high}"
        );
        let (low, high) = wilson(0, 20);
        assert!(
            low.abs() < 1e-9 && (high - 0.1611).abs() < 1e-4,
            "{low} {high}"
        );
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
