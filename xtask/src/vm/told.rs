//! What a guest tells, line by line, and whether it is what was wanted.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use gopulse_tests::{gopulse::Told as Verdict, report::Report};

use super::cases::Case;

/// Everything a guest told until now.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `uname -r`.
    pub(super) release: String,
    /// What `gopulse doctor` printed.
    pub(super) doctor: String,
    /// Of the cases that ended.
    pub(super) outcomes: Vec<Outcome>,
    running: Option<Running>,
}

/// A case that is not over.
#[derive(Debug)]
struct Running {
    outcome: Outcome,
    began: Instant,
}

/// What became of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    case: String,
    /// The test program's exit status.
    status: i32,
    took: Duration,
    /// What it said, of which the assertion that failed is the end.
    said: Vec<String>,
    reports: Vec<Report>,
}

impl Told {
    /// Takes a line of `init.sh`. Gives what is worth telling at once.
    pub(super) fn hear(&mut self, line: &str) -> anyhow::Result<Option<String>> {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "@kernel" => rest.clone_into(&mut self.release),
            "@doctor" => return Ok(Some(format!("{}: doctor says {rest}", self.release))),
            "@case" => self.running = Some(Running::new(rest)),
            "@verdict" => {
                let verdict: Verdict =
                    serde_json::from_str(rest).context("a verdict is cut off")?;
                let running = self.running.as_mut().context("a verdict without a case")?;
                running.outcome.reports.push(verdict.report);
            }
            "@ended" => {
                let mut ended = self.running.take().context("an end without a case")?;
                ended.outcome.status = rest.parse().unwrap_or(-1);
                ended.outcome.took = ended.began.elapsed();
                let told = format!("{} ended with {rest}", ended.outcome.case);
                self.outcomes.push(ended.outcome);
                return Ok(Some(told));
            }
            _ => self.keep(line),
        }
        Ok(None)
    }

    fn keep(&mut self, line: &str) {
        match &mut self.running {
            Some(running) => running.outcome.said.push(line.to_owned()),
            None => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
            }
        }
    }

    /// For each case the title of its finding, or why there is none.
    pub(super) fn judged(&self, cases: &[&Case]) -> impl Iterator<Item = Result<String, String>> {
        cases.iter().map(|case| match self.outcome(case.name) {
            Some(outcome) => outcome.judge(case),
            None => Err("it did not run to its end".to_owned()),
        })
    }

    /// What a case took in the guest, reports sent; 0 where it did not end.
    pub(super) fn seconds(&self, case: &str) -> f64 {
        let took = self.outcome(case).map(|outcome| outcome.took);
        took.unwrap_or_default().as_secs_f64()
    }

    fn outcome(&self, case: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.case == case)
    }
}

impl Running {
    fn new(case: &str) -> Self {
        Self {
            outcome: Outcome {
                case: case.to_owned(),
                ..Outcome::default()
            },
            began: Instant::now(),
        }
    }
}

impl Outcome {
    /// Its own assertions held, and a report that came with it has the finding.
    fn judge(&self, case: &Case) -> Result<String, String> {
        if self.status != 0 {
            return Err(format!("status {}: {}", self.status, self.reason()));
        }
        let found = self.reports.iter().find_map(|report| {
            let found = report.of(case.rule);
            Some((found.first()?.title().to_owned(), report.hooks()))
        });
        let (title, hooks) =
            found.ok_or_else(|| format!("no report has a finding of {}", case.rule))?;
        match case.kprobes().find(|kprobe| !hooks.contains(kprobe)) {
            Some(other) => Err(format!("not told by {other}, but by {hooks}")),
            None => Ok(title),
        }
    }

    /// What a failed test said, without where and how it was called.
    fn reason(&self) -> String {
        let at = |word: &str| self.said.iter().position(|line| line.contains(word));
        let from = at("panicked at").or_else(|| at("Error: ")).unwrap_or(0);
        let said = self.said.iter().skip(from).take(8);
        said.map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::cases::CASES;

    fn hear(lines: &str) -> Told {
        let mut told = Told::default();
        for line in lines.lines() {
            told.hear(line).unwrap();
        }
        told
    }

    #[test]
    fn a_case_is_fine_if_its_test_passed_and_its_report_came_with_the_finding() {
        let told = hear(
            "@kernel 6.1.0\n  yes  connections\n@doctor 0\n@case N1\ntest a ... ok\n@verdict {\"took_s\": 3.5, \"report\": \
             {\"schema\": \"gopulse.report/1\", \"findings\": [{\"rule\": \"proxy-timeout\", \"title\": \"gave up\"}]}}\n\
             @ended 0\n@case N5\ntest b ... ok\n@ended 0\n@case N4\n",
        );
        assert_eq!(
            (told.release.as_str(), told.doctor.as_str()),
            ("6.1.0", "  yes  connections\n")
        );
        let judged = |name| {
            let case = CASES.iter().find(|case| case.name == name).unwrap();
            told.judged(&[case]).next().unwrap()
        };
        assert_eq!(judged("N1"), Ok("gave up".to_owned()));
        assert!(judged("N5").is_err(), "no report");
        assert!(judged("N4").is_err(), "not ended");
    }

    #[test]
    fn a_case_for_kprobes_is_not_fine_by_another_way() {
        let by = |way| {
            let report = format!(
                "{{\"schema\": \"gopulse.report/1\", \"findings\": [{{\"rule\": \"proxy-timeout\", \"title\": \"gave up\"}}], \
                 \"coverage\": {{\"hooks\": [{{\"wants\": \"bytes\", \"by\": \"{way}\"}}]}}}}"
            );
            let told = hear(&format!(
                "@case N1-kprobe\n@verdict {{\"took_s\": 1, \"report\": {report}}}\n@ended 0\n"
            ));
            let case = Case::named("N1-kprobe").unwrap();
            told.judged(&[case]).next().unwrap().is_ok()
        };
        assert!(by("kprobe/tcp_sendmsg + kprobe/tcp_cleanup_rbuf"));
        assert!(!by("fexit/tcp_sendmsg"));
    }
}
