//! The loads: as much as goes (wrk), for throughput; and a fixed rate (pace), for latency, since the
//! latency of a saturated service falls when a tool slows it down.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::Context as _;
use gopulse_tests::{process::succeed, services};

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Kept for the next request.
    Kept,
    /// One for every request.
    Fresh,
}

/// What the service gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// As many as it could.
    pub(super) requests_per_s: f64,
    /// The 99th percentile at a fixed rate, in seconds.
    pub(super) p99_s: f64,
    /// How long the load ran altogether.
    pub(super) took: Duration,
}

impl Load {
    pub(super) const ALL: [Self; 2] = [Self::Kept, Self::Fresh];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept connections",
            Self::Fresh => "a connection per request",
        }
    }

    /// Requests per second at which latency is measured: what a small machine does with ease.
    fn rate(self) -> u32 {
        match self {
            Self::Kept => 2_000,
            Self::Fresh => 1_000,
        }
    }

    /// Both loads, one after the other.
    pub(super) fn run(self, service: SocketAddr, time: Duration) -> anyhow::Result<Measured> {
        let url = format!("http://{service}/");
        Ok(Measured {
            requests_per_s: self.wrk(&url, time)?,
            p99_s: self.pace(&url, time)?,
            took: time * 2,
        })
    }

    fn wrk(self, url: &str, time: Duration) -> anyhow::Result<f64> {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c32"])
            .arg(format!("-d{}s", time.as_secs()));
        if self == Self::Fresh {
            wrk.args(["-H", "Connection: close"]);
        }
        let said = succeed(wrk.arg(url))?;
        said.lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"))
            .and_then(|rate| rate.trim().parse().ok())
            .with_context(|| format!("wrk gave no rate: {said}"))
    }

    fn pace(self, url: &str, time: Duration) -> anyhow::Result<f64> {
        let mut pace = Command::new(services::program("pace")?);
        pace.args(["-url", url, "-rate", &self.rate().to_string()]);
        pace.args(["-duration", &services::go_time(time)]);
        if self == Self::Fresh {
            pace.arg("-fresh");
        }
        let said = succeed(&mut pace)?;
        let sum: serde_json::Value = serde_json::from_str(&said)?;
        anyhow::ensure!(sum["failed"] == 0, "requests failed: {said}");
        sum["p99_s"].as_f64().context("pace gave no percentile")
    }
}
