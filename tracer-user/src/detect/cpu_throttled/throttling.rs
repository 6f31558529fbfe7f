//! What a CPU quota did to a process in the window, by the cgroup's own count.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    event::{Pid, Quota},
    model::Model,
};

/// The quota that stopped a process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Throttling {
    /// The cgroup that has it.
    pub(super) cgroup: String,
    /// CPU time in each period.
    pub(super) quota: Duration,
    /// The period.
    pub(super) period: Duration,
    /// Periods in the window in which the cgroup had something to run.
    pub(super) periods: u64,
    /// Those in which the quota was used up.
    pub(super) throttled_periods: u64,
    /// For so long its threads were stopped, on all CPUs together.
    pub(super) throttled: Duration,
}

impl Throttling {
    /// Of several cgroups that `pid` was in, the one that stopped it for longest; `None` where no quota was
    /// used up.
    pub(super) fn of(model: &Model, pid: Pid) -> Option<Self> {
        let course = model.quota(pid)?;
        let mut readings: Vec<&Quota> = course.readings().map(|(_, quota)| quota).collect();
        readings.push(&course.last().1);
        let mut by_cgroup: BTreeMap<&str, Self> = BTreeMap::new();
        for pair in readings.windows(2) {
            let [before, after] = pair else { continue };
            // The counters of another cgroup are others.
            if before.cgroup != after.cgroup {
                continue;
            }
            let Some(quota) = after.quota.or(before.quota) else {
                continue;
            };
            let sum = by_cgroup.entry(&after.cgroup).or_insert_with(|| Self {
                cgroup: after.cgroup.clone(),
                quota,
                period: after.period,
                periods: 0,
                throttled_periods: 0,
                throttled: Duration::ZERO,
            });
            (sum.quota, sum.period) = (quota, after.period);
            sum.periods += after.periods.saturating_sub(before.periods);
            sum.throttled_periods += after
                .throttled_periods
                .saturating_sub(before.throttled_periods);
            sum.throttled += after.throttled.saturating_sub(before.throttled);
        }
        by_cgroup
            .into_values()
            .filter(|sum| sum.throttled_periods > 0)
            .max_by_key(|sum| sum.throttled)
    }

    /// How many CPUs the quota is worth.
    pub(super) fn cpus(&self) -> f64 {
        self.quota.as_secs_f64() / self.period.as_secs_f64().max(f64::EPSILON)
    }

    /// The share of the periods in which it was used up.
    pub(super) fn share(&self) -> f64 {
        self.throttled_periods as f64 / self.periods.max(1) as f64
    }
}
