//! The processes that are traced, and what is known of their programs.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData},
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeScope},
    },
};
use tracer_ebpf::Target;

use zerocopy::FromZeros as _;

use super::{attach::chain, seed::bytes};
use crate::{
    event::{Pid, Process, Relation, Unseen},
    golang::{GoError, Program},
    target,
};

/// `net/http.persistConn.conn`: behind an interface, a pointer, three strings and a bool, in every Go
/// from 1.21 to 1.27.
const PERSIST_CONN_CONN: u32 = 80;

/// Go functions that run only when a connection's fate is decided, and the program for each.
const DECIDERS: [(&str, &str); 3] = [
    ("transport_close", "net/http.(*persistConn).closeLocked"),
    ("transport_cancel", "net/http.(*persistConn).cancelRequest"),
    ("client_timeout", "net/http.setRequestCancel.func1"),
];

/// A traced process.
pub(super) struct Known {
    /// As it is told.
    pub(super) process: Process,
    /// Its Go program, where it is one that we can read.
    pub(super) program: Option<Arc<Program>>,
}

/// The map by which the kernel half knows the processes; its values as bytes of [`Target`].
pub(super) type Targets = BpfHashMap<MapData, u32, [u8; size_of::<Target>()]>;

/// Everybody who is traced.
pub(super) struct Processes {
    known: HashMap<Pid, Known>,
    targets: Targets,
    /// Executables that carry the uprobes, by device and inode.
    probed: HashSet<(u64, u64)>,
}

impl Processes {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            known: HashMap::new(),
            targets,
            probed: HashSet::new(),
        }
    }

    pub(super) fn get(&self, pid: Pid) -> Option<&Known> {
        self.known.get(&pid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Traces `pid` from now on, or looks at it anew after `execve`. What cannot be seen of it is
    /// returned beside it; `None` where it is gone already.
    pub(super) fn follow(
        &mut self,
        pid: Pid,
        relation: Relation,
        ebpf: &mut Ebpf,
    ) -> Option<(Process, Vec<Unseen>)> {
        let comm = target::comm(pid)?;
        let mut unseen = Vec::new();
        let program = match Program::of_process(pid) {
            Ok(program) => program.map(Arc::new),
            Err(GoError::Gone { .. }) => return None,
            Err(error) => {
                unseen.push(not_read(&comm, pid, &error));
                None
            }
        };
        let mut target = Target::new_zeroed();
        if let Some(program) = &program {
            match runtime(program) {
                Ok(known) => {
                    target = known;
                    self.probe_deciders(pid, program, &comm, ebpf, &mut unseen);
                }
                Err(error) => unseen.push(not_read(&comm, pid, &error)),
            }
        }
        if let Err(error) = self.targets.insert(pid, bytes(&target), 0) {
            unseen.push(Unseen {
                what: format!("{comm} (pid {pid})"),
                why: chain(&error),
                remedy: "trace fewer processes".to_owned(),
            });
        }
        let process = Process {
            pid,
            comm,
            exe: target::exe(pid).map(|path| path.to_string_lossy().into_owned()),
            go_version: program.as_ref().map(|program| program.version().to_owned()),
            pprof_url: None,
            container: target::container(pid),
            relation,
        };
        let known = Known {
            process: process.clone(),
            program,
        };
        self.known.insert(pid, known);
        Some((process, unseen))
    }

    /// Why `pid` is traced, which holds for its children, and for what it executes.
    pub(super) fn relation(&self, pid: Pid) -> Relation {
        self.known
            .get(&pid)
            .map_or(Relation::Target, |known| known.process.relation)
    }

    /// A process's pprof endpoint was found.
    pub(super) fn has_endpoint(&mut self, pid: Pid, url: String) -> Option<Process> {
        let known = self.known.get_mut(&pid)?;
        known.process.pprof_url = Some(url);
        Some(known.process.clone())
    }

    /// The process is gone for good.
    pub(super) fn forget(&mut self, pid: Pid) {
        // That an entry is gone already is fine: the kernel half removes some itself.
        let _ = self.targets.remove(&pid);
        self.known.remove(&pid);
    }

    /// Marks a process as traced without looking at it: for the moment in which it starts a child.
    pub(super) fn mark(&mut self, pid: Pid, traced: bool) {
        let _ = if traced {
            self.targets.insert(pid, bytes(&Target::new_zeroed()), 0)
        } else {
            self.targets.remove(&pid)
        };
    }

    /// Puts the uprobes into the program's file, once for each file.
    fn probe_deciders(
        &mut self,
        pid: Pid,
        program: &Program,
        comm: &str,
        ebpf: &mut Ebpf,
        unseen: &mut Vec<Unseen>,
    ) {
        let path = format!("/proc/{pid}/exe");
        let Ok(file) = fs::metadata(&path) else {
            return;
        };
        if !self.probed.insert((file.dev(), file.ino())) {
            return;
        }
        let mut refused = Vec::new();
        for (name, function) in DECIDERS {
            let Some(entry) = program.function(function) else {
                continue; // it does not link net/http's client, or nobody calls this
            };
            let done = attach_decider(ebpf, name, entry.offset, &path);
            refused.extend(done.err());
        }
        if let Some(why) = refused.into_iter().next() {
            unseen.push(Unseen {
                what: format!("which Go setting made {comm} give a connection up"),
                why,
                remedy: "uprobes must be allowed (CAP_PERFMON, CONFIG_UPROBE_EVENTS)".to_owned(),
            });
        }
    }
}

fn attach_decider(ebpf: &mut Ebpf, name: &str, offset: u64, path: &str) -> Result<(), String> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("no program {name}"))?;
    let program: &mut UProbe = program.try_into().map_err(|error| chain(&error))?;
    if program.fd().is_err() {
        program.load().map_err(|error| chain(&error))?;
    }
    program
        .attach(
            UProbeAttachLocation::AbsoluteOffset(offset),
            path,
            UProbeScope::AllProcesses,
        )
        .map_err(|error| chain(&error))?;
    Ok(())
}

fn not_read(comm: &str, pid: Pid, error: &GoError) -> Unseen {
    Unseen {
        what: format!("which goroutine of {comm} (pid {pid}) did what"),
        why: error.to_string(),
        remedy: "findings name the process and the connection all the same".to_owned(),
    }
}

/// What the kernel half needs to find the running goroutine of a program.
fn runtime(program: &Program) -> Result<Target, GoError> {
    let offsets = program.runtime_offsets()?;
    Ok(Target {
        tls: offsets.tls,
        g_m: offsets.g_m,
        m_curg: offsets.m_curg,
        g_goid: offsets.g_goid,
        persist_conn_conn: PERSIST_CONN_CONN,
        _pad: 0,
    })
}
