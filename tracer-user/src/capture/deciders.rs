//! Uprobes on the Go functions that decide a connection's fate.
//!
//! In: a program. Out: the probes in its file, once for each file. What always holds: a program in which
//! deadlines pass, or connections are asked for, so often that the probe would slow it down loses that
//! probe. For deadlines that is told; of who asks for connections enough is known by then.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, time::Duration};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData},
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};

use super::attach::chain;
use crate::{
    capabilities::{self, Step},
    event::{Pid, Unseen},
    golang::Program,
};

/// Go functions that run only when a connection's fate is decided, and the program for each.
const DECIDERS: [(&str, &str); 7] = [
    ("transport_close", "net/http.(*persistConn).closeLocked"),
    ("transport_cancel", "net/http.(*persistConn).cancelRequest"),
    ("client_timeout", "net/http.setRequestCancel.func1"),
    ("server_shutdown", "net/http.(*Server).Shutdown"),
    ("server_shutdown", "net/http.(*Server).Close"),
    (DEADLINE, "runtime.netpolldeadlineimpl"),
    (DIAL, "net/http.(*Transport).queueForDial"),
];
const DIAL: &str = "transport_dial";
/// Connections that may be asked for in a second by one process.
const DIALS: u32 = 500;
const DEADLINE: &str = "deadline_passed";
/// Deadlines that may pass in a second in all processes of a program. Each costs it some 5 µs, so this is
/// half a percent of a CPU.
const DEADLINES: u64 = 1000;

/// An executable, by device and inode.
pub(super) type File = (u64, u64);

/// What is known of one that carries the uprobes.
struct Probed {
    comm: String,
    deadlines: Option<UProbeLinkId>,
    dials: Option<UProbeLinkId>,
}

/// Executables that carry the uprobes.
pub(super) struct Deciders {
    probed: HashMap<File, Probed>,
    /// The kernel half's count of deadlines, by process.
    hits: BpfHashMap<MapData, Pid, u64>,
    counted: HashMap<Pid, u64>,
    /// Connections asked for in this second, by process.
    dialled: HashMap<Pid, u32>,
}

impl Deciders {
    pub(super) fn new(hits: BpfHashMap<MapData, Pid, u64>) -> Self {
        Self {
            probed: HashMap::new(),
            hits,
            counted: HashMap::new(),
            dialled: HashMap::new(),
        }
    }

    /// Puts the uprobes into the program's file, if it is the first process of it; what cannot be seen.
    pub(super) fn probe(
        &mut self,
        pid: Pid,
        program: &Program,
        comm: &str,
        ebpf: &mut Ebpf,
    ) -> Option<Unseen> {
        let path = executable(pid);
        let file = file(&path)?;
        if self.probed.contains_key(&file) {
            return None;
        }
        let mut probed = Probed {
            comm: comm.to_owned(),
            deadlines: None,
            dials: None,
        };
        let mut refused = None;
        for (name, function) in DECIDERS {
            let Some(entry) = program.function(function) else {
                continue; // it does not link net/http, or nobody calls this
            };
            match attach(ebpf, name, entry.offset, &path) {
                Ok(link) if name == DEADLINE => probed.deadlines = Some(link),
                Ok(link) if name == DIAL => probed.dials = Some(link),
                Ok(_) => {}
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        self.probed.insert(file, probed);
        Some(Unseen {
            what: format!("which Go setting made {comm} give a connection up"),
            why: refused?,
            remedy: "uprobes must be allowed (CAP_SYS_ADMIN, CONFIG_UPROBE_EVENTS)".to_owned(),
        })
    }

    /// `pid` asked for a connection. Who does so all the time is known soon, and is let alone.
    pub(super) fn dialled(&mut self, pid: Pid, ebpf: &mut Ebpf) {
        let dialled = self.dialled.entry(pid).or_default();
        *dialled += 1;
        if *dialled != DIALS {
            return;
        }
        let link = file(&executable(pid))
            .and_then(|file| self.probed.get_mut(&file))
            .and_then(|probed| probed.dials.take());
        let program = ebpf
            .program_mut(DIAL)
            .and_then(|program| <&mut UProbe>::try_from(program).ok());
        if let (Some(link), Some(program)) = (link, program) {
            // Where it fails the program has ended, and its probe with it.
            let _ = program.detach(link);
        }
    }

    /// Takes the probe for deadlines from programs that passed too many `since` it was called last.
    pub(super) fn relieve(&mut self, since: Duration, ebpf: &mut Ebpf) -> Vec<Unseen> {
        self.dialled.clear();
        let mut passed: HashMap<File, u64> = HashMap::new();
        let mut counted = HashMap::new();
        for (pid, count) in self.hits.iter().flatten() {
            let new = count.saturating_sub(self.counted.get(&pid).copied().unwrap_or(0));
            counted.insert(pid, count);
            if new > 0
                && let Some(file) = file(&executable(pid))
            {
                *passed.entry(file).or_default() += new;
            }
        }
        self.counted = counted;
        passed
            .into_iter()
            .map(|(file, count)| (file, (count as f64 / since.as_secs_f64().max(1.0)) as u64))
            .filter(|(_, count)| *count > DEADLINES)
            .filter_map(|(file, count)| {
                let probed = self.probed.get_mut(&file)?;
                let link = probed.deadlines.take()?;
                let program: &mut UProbe = ebpf.program_mut(DEADLINE)?.try_into().ok()?;
                program.detach(link).ok()?;
                Some(Unseen {
                    what: format!("which deadlines of {} pass", probed.comm),
                    why: format!("{count} passed in a second, and to see each costs it 5 µs"),
                    remedy: "what it closes is told all the same".to_owned(),
                })
            })
            .collect()
    }
}

pub(super) fn executable(pid: Pid) -> String {
    format!("/proc/{pid}/exe")
}

pub(super) fn file(path: &str) -> Option<File> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

fn attach(ebpf: &mut Ebpf, name: &str, offset: u64, path: &str) -> Result<UProbeLinkId, String> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("no program {name}"))?;
    let program: &mut UProbe = program.try_into().map_err(|error| chain(&error))?;
    if program.fd().is_err() {
        program.load().map_err(|error| chain(&error))?;
    }
    let place = UProbeAttachLocation::AbsoluteOffset(offset);
    capabilities::raised(Step::Uprobes, || {
        program.attach(place, path, UProbeScope::AllProcesses)
    })
    .map_err(|error| chain(&error))
}
