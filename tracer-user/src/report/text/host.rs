//! The host over the window, in two or three lines: what the CPUs did, then the threads and the memory, then
//! who else was busy.

use std::{collections::BTreeMap, io, time::Duration};

use crate::{
    detect::wording::{bytes, count, join, percent, seconds},
    report::host::{HostTold, NeighbourTold},
};

use super::page::{Ink, Page};

/// Neighbours named; the JSON has them all.
const NAMED: usize = 3;

/// A neighbour that took a smaller share of the CPUs is not worth a line.
const NOTABLE: f64 = 0.05;

/// Disks and hypervisors that took a smaller share are not worth a word.
const WORTH_A_WORD: f64 = 0.005;

pub(super) fn write<W: io::Write>(page: &mut Page<'_, W>, host: &HostTold) -> io::Result<()> {
    page.hanging(2, "", Ink::Plain, &cpus(host))?;
    page.hanging(2, "", Ink::Plain, &threads_and_memory(host))?;
    match busy_neighbours(host) {
        Some(told) => page.hanging(2, "", Ink::Plain, &told),
        None => Ok(()),
    }
}

fn cpus(host: &HostTold) -> String {
    let mut parts = vec![
        format!("{} user", percent(host.user_share)),
        format!("{} system", percent(host.system_share)),
        format!("{} idle", percent(host.idle_share)),
    ];
    for (share, what) in [
        (host.io_wait_share, "waiting for disks"),
        (host.steal_share, "stolen by the hypervisor"),
    ] {
        if share >= WORTH_A_WORD {
            parts.push(format!("{} {what}", percent(share)));
        }
    }
    let cpus = match host.cpus {
        1 => "CPU".to_owned(),
        many => format!("{many} CPUs"),
    };
    let waited = host.pressure.as_ref().map_or_else(String::new, |pressure| {
        format!(
            "; somebody waited for one {} of the time",
            percent(pressure.cpu_some_share)
        )
    });
    let [one, five, fifteen] = host.load;
    format!(
        "The host's {cpus}: {}{waited}; load {one:.2} {five:.2} {fifteen:.2}.",
        parts.join(", "),
    )
}

fn threads_and_memory(host: &HostTold) -> String {
    let (swapped_in, swapped_out) = (host.swapped_in_pages_per_s, host.swapped_out_pages_per_s);
    let swapping = if swapped_in + swapped_out > 0.0 {
        format!("swapping {swapped_in:.0} pages in and {swapped_out:.0} out a second")
    } else {
        "no swapping".to_owned()
    };
    format!(
        "{:.1} threads runnable on average, {} at most; {:.0} context switches and {:.0} forks a second; {} of {} available, {swapping}.",
        host.runnable_avg,
        host.runnable_max,
        host.switches_per_s,
        host.forks_per_s,
        bytes(host.memory_available_bytes),
        bytes(host.memory_total_bytes),
    )
}

fn busy_neighbours(host: &HostTold) -> Option<String> {
    let mut by_name: BTreeMap<&str, (f64, f64, Vec<&NeighbourTold>)> = BTreeMap::new();
    for neighbour in &host.neighbours {
        let (took, share, all) = by_name.entry(&neighbour.comm).or_default();
        *took += neighbour.cpu_s;
        *share += neighbour.cpu_share;
        all.push(neighbour);
    }
    let mut all: Vec<_> = by_name.into_iter().collect();
    all.sort_by(|(_, one), (_, other)| other.1.total_cmp(&one.1));
    let named: Vec<String> = all
        .into_iter()
        .filter(|(_, (_, share, _))| *share >= NOTABLE)
        .take(NAMED)
        .map(|(comm, (took, share, all))| {
            let who = match all.as_slice() {
                [one] => format!("pid {}", one.pid),
                many => count(many.len() as u64, "process", "processes"),
            };
            format!(
                "{} ({who}; {} of CPU, {} of all)",
                if comm.is_empty() {
                    "one without a name"
                } else {
                    comm
                },
                seconds(Duration::from_secs_f64(took)),
                percent(share)
            )
        })
        .collect();
    (!named.is_empty()).then(|| format!("Beside the targets ran {}.", join(&named)))
}
