//! What a process holds in the kernel, told by its open files, and whether it is gone.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::Context as _;
use aya::{maps::loaded_maps, programs::loaded_links, programs::loaded_programs};

use crate::wait;

/// The kernel frees programs and maps some time after their last holder is gone (RCU, work queues).
const FREEING: Duration = Duration::from_secs(20);

/// BPF objects and perf events, by the ids that the kernel gives and never gives again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// What attaches programs: also those to cgroups and iterators.
    pub links: BTreeSet<u32>,
    /// Perf events by themselves: before 5.15 the clocks of CPUs and uprobes, which have links since.
    pub perf_events: usize,
}

impl Held {
    /// What a process holds now.
    pub fn by(pid: u32) -> Self {
        let mut held = Self::default();
        let files = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for file in files.flatten() {
            let kind = fs::read_link(file.path()).unwrap_or_default();
            let name = file.file_name();
            let info = format!("/proc/{pid}/fdinfo/{}", name.to_string_lossy());
            let info = fs::read_to_string(info).unwrap_or_default();
            let id = |key: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim_start_matches(':').trim().parse::<u32>().ok()
            };
            match kind.to_str() {
                Some("anon_inode:bpf-prog") => held.programs.extend(id("prog_id")),
                Some("anon_inode:bpf-map") => held.maps.extend(id("map_id")),
                Some("anon_inode:bpf_link") => held.links.extend(id("link_id")),
                Some("anon_inode:[perf_event]") => held.perf_events += 1,
                _ => {}
            }
        }
        held
    }

    /// Waits until the kernel has none of it any more, so nobody else holds it either, such as a child that
    /// was handed its descriptor. What others have of their own is not counted.
    ///
    /// # Errors
    ///
    /// Something stays; the error says what.
    pub fn wait_until_gone(&self) -> anyhow::Result<()> {
        let mut left = self.clone();
        wait::until("the kernel to free what was held", FREEING, || {
            left = self.left()?;
            Ok((left == Self::default()).then_some(()))
        })
        .with_context(|| format!("left: {left:?}"))
    }

    fn left(&self) -> anyhow::Result<Self> {
        let mut left = Self::default();
        // What is freed while it is listed is gone.
        left.programs.extend(
            loaded_programs()
                .flatten()
                .map(|program| program.id())
                .filter(|id| self.programs.contains(id)),
        );
        left.maps.extend(
            loaded_maps()
                .flatten()
                .map(|map| map.id())
                .filter(|id| self.maps.contains(id)),
        );
        left.links.extend(
            loaded_links()
                .flatten()
                .map(|link| link.id())
                .filter(|id| self.links.contains(id)),
        );
        Ok(left)
    }
}
