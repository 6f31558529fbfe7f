//! Reads a report as the contract promises it, and finds findings in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A report.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report(Value);

impl Report {
    /// Reads one, and holds it to the schema's name.
    ///
    /// # Errors
    ///
    /// It is no report.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let value: Value =
            serde_json::from_str(text).with_context(|| format!("no JSON: {text:?}"))?;
        anyhow::ensure!(
            value["schema"] == "gopulse.report/1",
            "schema {}",
            value["schema"]
        );
        Ok(Self(value))
    }

    /// Every finding, in the report's order.
    pub fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        let findings = self.0["findings"].as_array().into_iter().flatten();
        findings.map(Finding)
    }

    /// The findings of one rule.
    pub fn of(&self, rule: &str) -> Vec<Finding<'_>> {
        self.findings()
            .filter(|found| found.rule() == rule)
            .collect()
    }

    /// The one finding of a rule.
    ///
    /// # Errors
    ///
    /// There is none, or more than one.
    pub fn only(&self, rule: &str) -> anyhow::Result<Finding<'_>> {
        match self.of(rule).as_slice() {
            [one] => Ok(*one),
            others => bail!(
                "{} findings of {rule} where one was expected, among:\n{}",
                others.len(),
                self.titles()
            ),
        }
    }

    /// The findings that let `diagnose` fail by default.
    pub fn alarms(&self) -> Vec<Finding<'_>> {
        self.findings()
            .filter(|found| found.severity() != "info")
            .collect()
    }

    /// The findings at warning or above that no other finding explains.
    pub fn stories(&self) -> Vec<Finding<'_>> {
        let alarms = self.alarms().into_iter();
        alarms.filter(|found| found.caused_by().is_none()).collect()
    }

    /// The rules that these are of.
    pub fn rules(&self) -> Vec<&str> {
        self.stories().iter().map(Finding::rule).collect()
    }

    /// How long the host was watched, in seconds.
    pub fn watched_s(&self) -> f64 {
        self.0["source"]["duration_s"].as_f64().unwrap_or_default()
    }

    /// What the kernel could not hand over.
    pub fn events_lost(&self) -> Option<u64> {
        self.0["losses"]["events_lost"].as_u64()
    }

    /// Packets that a capture lacks.
    pub fn packets_lost(&self) -> Option<u64> {
        self.0["losses"]["packets_lost"].as_u64()
    }

    /// Who else had the host's CPUs: each name with its share of their time.
    pub fn neighbours(&self) -> Vec<(&str, f64)> {
        let neighbours = self.0["host"]["neighbours"].as_array();
        let neighbours = neighbours.into_iter().flatten();
        neighbours
            .filter_map(|told| Some((told["comm"].as_str()?, told["cpu_share"].as_f64()?)))
            .collect()
    }

    /// The traced processes of this name, targets before those at the other end of their connections.
    pub fn processes(&self, comm: &str) -> Vec<&Value> {
        let told = ["targets", "peers"].map(|key| self.0[key].as_array().into_iter().flatten());
        let told = told.into_iter().flatten();
        told.filter(|process| process["comm"] == comm).collect()
    }

    /// What goroutines were found, as the report tells it.
    pub fn goroutines(&self) -> &Value {
        &self.0["goroutines"]
    }

    /// What could not be seen.
    pub fn unseen(&self) -> &Value {
        &self.0["coverage"]["unseen"]
    }

    /// The hooks that told it, in a row.
    pub fn hooks(&self) -> String {
        let hooks = self.0["coverage"]["hooks"].as_array().into_iter().flatten();
        let by: Vec<_> = hooks.filter_map(|hook| hook["by"].as_str()).collect();
        by.join(", ")
    }

    /// What the same incident must come to, live and from its recording.
    pub fn gist(&self) -> Vec<Gist> {
        self.findings()
            .map(|found| Gist {
                rule: found.rule().to_owned(),
                severity: found.severity().to_owned(),
                count: found.count(),
                setting: found.setting(),
                caused_by: found.caused_by().map(str::to_owned),
            })
            .collect()
    }

    /// The findings' titles, a line each, for a failing test's message.
    pub fn titles(&self) -> String {
        self.findings()
            .map(|found| {
                format!(
                    "{} {} (caused by {:?}): {}\n",
                    found.severity(),
                    found.rule(),
                    found.caused_by(),
                    found.title()
                )
            })
            .collect()
    }
}

/// What is compared between two runs of `diagnose`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gist {
    rule: String,
    severity: String,
    count: Option<u64>,
    setting: Option<(String, f64)>,
    caused_by: Option<String>,
}

/// A finding.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a>(&'a Value);

impl<'a> Finding<'a> {
    /// Its name within the report.
    pub fn id(&self) -> &'a str {
        self.text(&["id"])
    }

    /// The rule's id.
    pub fn rule(&self) -> &'a str {
        self.text(&["rule"])
    }

    /// What it says in a line.
    pub fn title(&self) -> &'a str {
        self.text(&["title"])
    }

    /// `critical`, `warning` or `info`.
    pub fn severity(&self) -> &'a str {
        self.text(&["severity"])
    }

    /// The finding it is a consequence of.
    pub fn caused_by(&self) -> Option<&'a str> {
        self.0["caused_by"].as_str()
    }

    /// How often it happened.
    pub fn count(&self) -> Option<u64> {
        self.0["count"].as_u64()
    }

    /// The name of the process it is about.
    pub fn comm(&self) -> &'a str {
        self.text(&["process", "comm"])
    }

    /// The setting's name and value in seconds.
    pub fn setting(&self) -> Option<(String, f64)> {
        let setting = &self.0["setting"];
        Some((
            setting["name"].as_str()?.to_owned(),
            setting["value_s"].as_f64()?,
        ))
    }

    /// How sure it is.
    pub fn confidence(&self) -> f64 {
        self.0["confidence"].as_f64().unwrap_or_default()
    }

    /// One of the numbers it measured.
    pub fn measured(&self, name: &str) -> Option<f64> {
        self.0["measured"][name].as_f64()
    }

    /// Where the time of its example went, by part, in seconds.
    pub fn parts(&self) -> BTreeMap<&'a str, f64> {
        let parts = self.0["measured"]["parts_s"].as_object();
        let parts = parts.into_iter().flatten();
        parts
            .filter_map(|(part, seconds)| Some((part.as_str(), seconds.as_f64()?)))
            .collect()
    }

    /// The part of the waits for a CPU that was this process's, from 0 to 1.
    pub fn taken_by(&self, comm: &str) -> Option<f64> {
        self.0["measured"]["taken_by"][comm].as_f64()
    }

    /// It names this setting, and the time that was drawn for it.
    ///
    /// # Errors
    ///
    /// It names another, or a time further off than 5 ms and 1%.
    pub fn blames(&self, name: &str, drawn: Duration) -> anyhow::Result<()> {
        let Some((found, value_s)) = self.setting() else {
            bail!("no setting is named: {}", self.0);
        };
        let drawn_s = drawn.as_secs_f64();
        anyhow::ensure!(found == name, "{found} is named instead of {name}");
        anyhow::ensure!(
            (value_s - drawn_s).abs() <= 0.005 + drawn_s / 100.0,
            "{name} is said to be {value_s} s, and is {drawn_s} s"
        );
        Ok(())
    }

    /// The frames of the capture that its evidence names.
    pub fn frames(&self) -> BTreeSet<u64> {
        let evidence = self.0["evidence"].as_array().into_iter().flatten();
        evidence
            .filter_map(|event| event["frame"].as_u64())
            .collect()
    }

    /// Some text of it, at any depth, holds this, in whatever case.
    pub fn mentions(&self, text: &str) -> bool {
        let all = self.0.to_string().to_lowercase();
        all.contains(&text.to_lowercase())
    }

    /// The process id; `None` where none is told.
    pub fn pid(&self) -> Option<u64> {
        self.0["process"]["pid"].as_u64()
    }

    /// The median wait, in seconds.
    pub fn waited_s(&self) -> Option<f64> {
        self.0["measured"]["waited_s"].as_f64()
    }

    /// The display filter for Wireshark.
    pub fn wireshark_filter(&self) -> &'a str {
        self.text(&["wireshark_filter"])
    }

    fn text(&self, path: &[&str]) -> &'a str {
        let value = path.iter().fold(self.0, |value, key| &value[*key]);
        value.as_str().unwrap_or_default()
    }
}
