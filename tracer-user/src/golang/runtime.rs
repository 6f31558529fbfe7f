//! What a Go runtime says of itself: on how many threads it runs Go code, its timers, its collector.
//!
//! In: a [`Program`], its memory, its environment. Out: a [`Runtime`]. Where the runtime keeps these is told by
//! its own code, so a stripped program tells as much as another. Its threads run on meanwhile, and nothing
//! read is trusted: what contradicts itself, or cannot be, is told as unknown.

use std::fs;

use gobin::GoBinary;

use super::{
    CODE_LOOKED_AT, GoError, Program, code,
    executable::Executable,
    layout::Figures,
    process_memory::{Memory, Want},
    symbols::Symbols,
};
use crate::event::{Pid, Runtime};

/// More Ps than the runtime makes (`_MaxGomaxprocs`, `src/runtime/runtime2.go`) are a wrong address.
const MOST_PS: u64 = 1 << 10;
/// So many timers in one heap would fill more memory than there is.
const MOST_TIMERS: u64 = 1 << 32;
/// No heap is larger: the address space of a process is (`src/runtime/malloc.go`, `heapAddrBits`).
const LARGEST_HEAP: u64 = 1 << 48;
/// `GOGC` beyond this is a wrong address.
const HIGHEST_GOGC: i32 = 1_000_000;
/// The minor version from which on the runtime follows the cgroup's quota by itself.
const ADAPTS: u32 = 25;
/// Reads of what may be in the middle of a change.
const ATTEMPTS: u32 = 3;

/// What is known of a program's runtime before it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) globals: Globals,
    /// `GOMAXPROCS` is in its environment.
    max_procs_set: bool,
    /// It was built to follow the cgroup's quota, and started so.
    adapts: bool,
}

/// Where the runtime keeps its figures; addresses as linked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Globals {
    /// `runtime.gomaxprocs` and `runtime.allp`.
    pub(super) processors: Option<code::Processors>,
    /// `runtime.memstats.enablegc`.
    pub(super) collector_enabled: Option<u64>,
    /// `runtime.gcController`.
    pub(super) pacer: Option<u64>,
}

impl Known {
    pub(super) fn of(
        pid: Pid,
        executable: &Executable,
        go: &GoBinary<'_>,
        minor: Option<u32>,
        symbols: &Symbols,
    ) -> Self {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let max_procs_set = variable(&environment, "GOMAXPROCS")
            .is_some_and(|set| set.parse::<i32>().is_ok_and(|number| number > 0));
        let by_default = go
            .build_info()
            .and_then(|built| built.setting("DefaultGODEBUG"));
        let follows = [
            by_default.unwrap_or_default(),
            &variable(&environment, "GODEBUG").unwrap_or_default(),
        ]
        .into_iter()
        .fold(true, follows_quota);
        Self {
            globals: Globals::of(executable, symbols),
            max_procs_set,
            adapts: follows && !max_procs_set && minor.is_some_and(|minor| minor >= ADAPTS),
        }
    }
}

impl Globals {
    fn of(executable: &Executable, symbols: &Symbols) -> Self {
        let code = |function: &str, length: usize| {
            let address = symbols.entry(function)?;
            Some((executable.at(address, length)?, address))
        };
        Self {
            processors: code("runtime.procresize", 4 * CODE_LOOKED_AT)
                .and_then(|(code, at)| code::processors(code, at)),
            collector_enabled: code("runtime.gcTrigger.test", CODE_LOOKED_AT)
                .and_then(|(code, at)| code::collector_enabled(code, at)),
            pacer: code("runtime.gcinit", CODE_LOOKED_AT)
                .and_then(|(code, at)| code::pacer(code, at)),
        }
    }
}

/// Reads what `program`'s runtime says of itself now.
///
/// # Errors
///
/// [`GoError::Memory`] without the privilege to read, [`GoError::Gone`] where the process ended.
pub fn read(program: &Program) -> Result<Runtime, GoError> {
    let reader = Reader {
        memory: program.memory.as_ref(),
        globals: program.runtime.globals,
        bias: program.bias,
        figures: program.layout.as_ref().ok().and_then(|known| known.figures),
    };
    let (max_procs, timers) = reader.processors()?;
    let collections = reader.collections()?;
    let pacer = reader.pacer()?;
    Ok(Runtime {
        pid: program.pid,
        max_procs,
        max_procs_set: program.runtime.max_procs_set,
        adapts: program.runtime.adapts,
        timers,
        collections,
        // Before the first collection it holds a guess.
        live_bytes: pacer.and_then(|pacer| (collections? > 0).then_some(pacer.live)),
        gc_percent: pacer.map(|pacer| pacer.percent),
        memory_limit: pacer.and_then(|pacer| pacer.limit),
    })
}

struct Reader<'a> {
    memory: &'a dyn Memory,
    globals: Globals,
    bias: u64,
    figures: Option<Figures>,
}

/// What is read of `runtime.gcController`.
#[derive(Clone, Copy)]
struct Pacer {
    percent: i32,
    limit: Option<u64>,
    live: u64,
}

impl Reader<'_> {
    /// `GOMAXPROCS`, and the timers of all Ps.
    fn processors(&self) -> Result<(Option<u32>, Option<u64>), GoError> {
        let Some(at) = self.globals.processors else {
            return Ok((None, None));
        };
        for _ in 0..ATTEMPTS {
            let (mut number, mut slice) = ([0; 4], [0; 24]);
            let mut wants = [
                Want::new(at.max.wrapping_add(self.bias), &mut number),
                Want::new(at.all.wrapping_add(self.bias), &mut slice),
            ];
            self.memory.read_each(&mut wants)?;
            if !wants.iter().all(|want| want.read) {
                break;
            }
            let number = u64::from(u32::from_le_bytes(number));
            let [address, length, capacity] = words(&slice);
            // While the number changes the world stands still, but we do not.
            if (1..=MOST_PS).contains(&number) && length == number && capacity >= length {
                let timers = self.timers(address, number)?;
                return Ok((u32::try_from(number).ok(), timers));
            }
        }
        Ok((None, None))
    }

    /// The timers in the heaps of the `number` Ps whose addresses lie at `address`.
    fn timers(&self, address: u64, number: u64) -> Result<Option<u64>, GoError> {
        let Some(figures) = self.figures else {
            return Ok(None);
        };
        let number = usize::try_from(number).unwrap_or(0);
        let mut pointers = vec![0; number * 8];
        if self.memory.read(address, &mut pointers).is_err() {
            return Ok(None);
        }
        let mut heads = vec![([0; 4], [0; 28]); number];
        let mut wants = Vec::with_capacity(2 * number);
        for (pointer, (id, heap)) in pointers.chunks_exact(8).zip(&mut heads) {
            let [pointer] = words(pointer);
            wants.push(Want::new(pointer, id));
            wants.push(Want::new(
                pointer.wrapping_add(figures.p_timers.into()),
                heap,
            ));
        }
        self.memory.read_each(&mut wants)?;
        if !wants.iter().all(|want| want.read) {
            return Ok(None);
        }
        let counts = heads.iter().zip(0_u32..).map(|((id, heap), index)| {
            (u32::from_le_bytes(*id) == index)
                .then(|| timers(heap))
                .flatten()
        });
        Ok(counts.sum())
    }

    /// Collections so far.
    fn collections(&self) -> Result<Option<u64>, GoError> {
        let (Some(figures), Some(enabled)) = (self.figures, self.globals.collector_enabled) else {
            return Ok(None);
        };
        let enabled = enabled.wrapping_add(self.bias);
        let memstats = enabled.wrapping_sub(figures.memstats_enabled.into());
        let (mut flag, mut number) = ([0; 1], [0; 4]);
        let mut wants = [
            Want::new(enabled, &mut flag),
            Want::new(
                memstats.wrapping_add(figures.memstats_collections.into()),
                &mut number,
            ),
        ];
        self.memory.read_each(&mut wants)?;
        let read = wants.iter().all(|want| want.read);
        Ok((read && flag == [1]).then(|| u32::from_le_bytes(number).into()))
    }

    fn pacer(&self) -> Result<Option<Pacer>, GoError> {
        let (Some(figures), Some(at)) = (self.figures, self.globals.pacer) else {
            return Ok(None);
        };
        let at = |offset: u32| at.wrapping_add(self.bias).wrapping_add(offset.into());
        let (mut percent, mut limit, mut live) = ([0; 4], [0; 8], [0; 8]);
        let mut wants = [
            Want::new(at(figures.pacer_percent), &mut percent),
            Want::new(at(figures.pacer_limit), &mut limit),
            Want::new(at(figures.pacer_live), &mut live),
        ];
        self.memory.read_each(&mut wants)?;
        if !wants.iter().all(|want| want.read) {
            return Ok(None);
        }
        let percent = i32::from_le_bytes(percent);
        let (limit, live) = (i64::from_le_bytes(limit), u64::from_le_bytes(live));
        let believed = (-1..=HIGHEST_GOGC).contains(&percent) && limit >= 0 && live <= LARGEST_HEAP;
        Ok(believed.then(|| Pacer {
            percent,
            // `math.MaxInt64` stands for none.
            limit: (limit < i64::MAX).then(|| limit.unsigned_abs()),
            live,
        }))
    }
}

/// How many timers a P's heap holds: a slice, and behind it their number as others may read it at any time.
fn timers(heap: &[u8; 28]) -> Option<u64> {
    let [address, length, capacity] = words(heap);
    let (_, told) = heap.split_last_chunk()?;
    let told = u64::from(u32::from_le_bytes(*told));
    // Both change together, but not at once.
    let agree = length.abs_diff(told) <= 16 + length.max(told) / 4;
    let whole = length <= capacity && capacity < MOST_TIMERS && (address == 0) == (capacity == 0);
    (agree && whole).then_some(told)
}

/// The first words of `bytes`; zero where they end before.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = bytes.chunks_exact(8).map(|word| {
        word.first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    });
    std::array::from_fn(|_| words.next().unwrap_or(0))
}

/// A variable of an environment as the kernel keeps it.
fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Whether the runtime follows the quota after `settings` (`GODEBUG`), the last word being the one that counts.
fn follows_quota(before: bool, settings: &str) -> bool {
    let told = settings
        .split(',')
        .filter_map(|setting| setting.trim().strip_prefix("containermaxprocs="))
        .next_back();
    told.map_or(before, |told| told != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_by_whole_names() {
        let environment = b"PATH=/bin\0XGOMAXPROCS=1\0GOMAXPROCS=16\0GODEBUG=a=1\0";
        assert_eq!(variable(environment, "GOMAXPROCS").as_deref(), Some("16"));
        assert_eq!(variable(environment, "GODEBUG").as_deref(), Some("a=1"));
        assert_eq!(variable(environment, "GO"), None);
    }

    #[test]
    fn the_last_setting_decides_whether_a_quota_is_followed() {
        let by_default = "asynctimerchan=1,containermaxprocs=0,updatemaxprocs=0";
        assert!(!follows_quota(true, by_default));
        assert!(follows_quota(false, "containermaxprocs=1"));
        assert!(!follows_quota(
            true,
            "containermaxprocs=1,containermaxprocs=0"
        ));
        assert!(follows_quota(true, "updatemaxprocs=0"));
        assert!(follows_quota(true, ""));
    }

    #[test]
    fn a_heap_of_timers_that_contradicts_itself_is_not_believed() {
        let heap = |address: u64, length: u64, capacity: u64, told: u32| {
            let mut bytes = [0; 28];
            for (place, word) in [address, length, capacity].iter().enumerate() {
                bytes[place * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
            bytes[24..].copy_from_slice(&told.to_le_bytes());
            bytes
        };
        assert_eq!(timers(&heap(0xc000, 10, 16, 10)), Some(10));
        assert_eq!(timers(&heap(0xc000, 10, 16, 12)), Some(12));
        assert_eq!(timers(&heap(0, 0, 0, 0)), Some(0));
        assert_eq!(timers(&heap(0xc000, 17, 16, 17)), None);
        assert_eq!(timers(&heap(0xc000, 1_000, 1_024, 10)), None);
        assert_eq!(timers(&heap(0, 10, 16, 10)), None);
        assert_eq!(timers(&heap(0xc000, 1 << 40, 1 << 41, 0)), None);
    }
}
