//! `GOMAXPROCS` beside a CPU quota: whether it fits, who set it, and what would.

use crate::{
    event::{Pid, Runtime},
    model::Model,
};

/// The version of Go from which on the runtime adapts `GOMAXPROCS` to the quota by itself.
const ADAPTS: &str = "1.25";

/// The least that the runtime takes by itself (`src/runtime/cgroup_linux.go`): with fewer there would be no
/// parallelism at all.
const LEAST: u32 = 2;

/// What is known of a Go program's processors, and the quota they share.
#[derive(Clone, Debug)]
pub(super) struct Processors<'m> {
    runtime: &'m Runtime,
    /// `GOMAXPROCS`.
    pub(super) max: u32,
    /// How many the quota keeps busy, rounded up.
    pub(super) fit: u32,
    version: &'m str,
    cpus: Option<u32>,
}

impl<'m> Processors<'m> {
    /// Those of `pid`; `None` where it is not Go, or does not tell.
    pub(super) fn of(model: &'m Model, pid: Pid, quota_cpus: f64) -> Option<Self> {
        let runtime = &model.runtime(pid)?.last().1;
        Some(Self {
            runtime,
            max: runtime.max_procs?,
            fit: whole(quota_cpus),
            version: model.process(pid)?.about.go_version.as_deref()?,
            cpus: model.host().map(|host| host.last().1.cpus),
        })
    }

    /// There are more than the quota keeps busy.
    pub(super) fn too_many(&self) -> bool {
        self.max > self.fit
    }

    /// How many threads can run Go code at once on this host.
    pub(super) fn at_once(&self) -> u32 {
        self.cpus
            .filter(|cpus| *cpus > 0)
            .map_or(self.max, |cpus| self.max.min(cpus))
    }

    /// Whether it fits, and how it came to be so.
    pub(super) fn sentence(&self) -> String {
        let (max, version) = (self.max, self.version);
        if !self.too_many() {
            return format!(
                "GOMAXPROCS is {max}, which suits the quota: there is simply more to compute than it allows."
            );
        }
        let why = if self.runtime.max_procs_set {
            format!(
                "its environment sets it, and so keeps {version} from choosing{}",
                if knows_quotas(version) {
                    format!(" {} by itself", self.by_itself())
                } else {
                    String::new()
                }
            )
        } else if !knows_quotas(version) {
            format!(
                "{version} takes the number of CPUs and knows nothing of quotas; Go {ADAPTS} and later adapt to them"
            )
        } else if !self.runtime.adapts {
            format!(
                "{version} would adapt it to the quota by itself, but was told not to: containermaxprocs=0, by GODEBUG or because go.mod asks for a Go before {ADAPTS}"
            )
        } else if max > self.by_itself() {
            format!(
                "{version} adapts it to the quota by itself, so the program sets it (runtime.GOMAXPROCS), or the quota is new"
            )
        } else {
            format!("{version} adapts it to the quota by itself, but never below {LEAST}")
        };
        format!("GOMAXPROCS is {max}: {why}.")
    }

    /// What to set it to, where that helps.
    pub(super) fn advice(&self) -> Option<String> {
        if !self.too_many() {
            return None;
        }
        let set = format!("GOMAXPROCS={}", self.fit);
        let adapting = self.runtime.adapts && self.max <= self.by_itself();
        Some(
            if knows_quotas(self.version) && self.runtime.max_procs_set {
                format!(
                    "Take GOMAXPROCS out of the environment: {} then follows the quota by itself, also when it changes. Or set {set}.",
                    self.version
                )
            } else if adapting {
                format!(
                    "Set {set}: fewer threads at once use the quota up later in each period. It does not give more CPU."
                )
            } else if knows_quotas(self.version) && !self.runtime.adapts {
                format!(
                    "Set {set}; or let the runtime follow the quota by itself: go {ADAPTS} or later in go.mod, or GODEBUG=containermaxprocs=1."
                )
            } else if knows_quotas(self.version) {
                format!(
                    "Drop the program's own runtime.GOMAXPROCS (or automaxprocs): {} follows the quota by itself. Or set {set}.",
                    self.version
                )
            } else {
                format!(
                    "Set {set}, or build with Go {ADAPTS} or later, whose runtime follows the quota by itself."
                )
            },
        )
    }

    /// What the runtime would take by itself.
    fn by_itself(&self) -> u32 {
        self.fit
            .max(LEAST)
            .min(self.cpus.filter(|cpus| *cpus > 0).unwrap_or(u32::MAX))
    }
}

/// CPUs, rounded up to whole ones.
pub(super) fn whole(cpus: f64) -> u32 {
    // A quota that was meant to be whole may be a little more.
    (cpus - 0.01).ceil().max(1.0) as u32
}

/// `go1.25.3` and later.
fn knows_quotas(version: &str) -> bool {
    let minor = version
        .split_once("go1.")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit));
    minor
        .and_then(|digits| digits.collect::<String>().parse::<u32>().ok())
        .is_some_and(|minor| minor >= 25)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_rounded_up_to_whole_cpus() {
        for (cpus, fit) in [(0.2, 1), (1.0, 1), (1.001, 1), (1.5, 2), (3.99, 4)] {
            assert_eq!(whole(cpus), fit, "{cpus}");
        }
    }

    #[test]
    fn versions_that_know_quotas() {
        for (version, knows) in [
            ("go1.24.11", false),
            ("go1.25.0", true),
            ("go1.27rc1", true),
            ("devel go1.28-a1b2c3", true),
            ("unknown", false),
        ] {
            assert_eq!(knows_quotas(version), knows, "{version}");
        }
    }
}
