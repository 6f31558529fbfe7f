//! The processes that are traced, and what is known of their programs.

use std::{collections::HashMap, sync::Arc};

use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use tracer_ebpf::Target;

use zerocopy::FromZeros as _;

use super::{attach::chain, early::Found, seed::bytes};
use crate::{
    event::{Pid, Process, Relation, Unseen},
    golang::{GoError, Program},
    target,
};

/// `net/http.persistConn.conn`: behind an interface, a pointer, three strings and a bool, in every Go
/// from 1.21 to 1.27.
const PERSIST_CONN_CONN: u32 = 80;

/// A traced process.
pub(super) struct Known {
    /// As it is told.
    pub(super) process: Process,
    /// Its network namespace, by its inode.
    pub(super) network: Option<u64>,
    /// Its Go program, where it is one that we can read.
    pub(super) program: Option<Arc<Program>>,
    /// What the kernel half is told of it.
    target: Target,
}

impl Known {
    /// Its Go program, where the kernel half can tell its goroutines.
    pub(super) fn understood(&self) -> Option<&Arc<Program>> {
        let program = self.program.as_ref();
        program.filter(|_| self.target.tls != 0)
    }
}

/// The map by which the kernel half knows the processes; its values as bytes of [`Target`].
pub(super) type Targets = BpfHashMap<MapData, u32, [u8; size_of::<Target>()]>;

/// Everybody who is traced.
pub(super) struct Processes {
    known: HashMap<Pid, Known>,
    targets: Targets,
    /// Which ids targets may have, by their last sixteen bits: see the kernel half's map of marks.
    marks: Array<MapData, u8>,
}

impl Processes {
    pub(super) fn new(targets: Targets, marks: Array<MapData, u8>) -> Self {
        Self {
            known: HashMap::new(),
            targets,
            marks,
        }
    }

    pub(super) fn get(&self, pid: Pid) -> Option<&Known> {
        self.known.get(&pid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Gets to know `pid`, which runs that program, or looks at it anew after `execve`. What cannot be seen
    /// of it is returned beside it; `None` where it is gone already.
    pub(super) fn know(
        &mut self,
        pid: Pid,
        relation: Relation,
        found: Found,
    ) -> Option<(Process, Vec<Unseen>)> {
        let comm = target::comm(pid)?;
        let mut unseen = Vec::new();
        let program = match found {
            Ok(program) => program,
            Err(GoError::Gone { .. }) => return None,
            Err(error) => {
                unseen.push(not_read(&comm, pid, &error));
                None
            }
        };
        let mut target = Target::new_zeroed();
        if let Some(program) = &program {
            match runtime(program) {
                Ok(known) => target = known,
                Err(error) => unseen.push(not_read(&comm, pid, &error)),
            }
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
            network: target::listeners::network(pid),
            program,
            target,
        };
        self.known.insert(pid, known);
        Some((process, unseen))
    }

    /// Traces `pid` from now on, of which everything is known that is needed to.
    pub(super) fn trace(&mut self, pid: Pid) -> Option<Unseen> {
        let known = self.known.get(&pid)?;
        let marked = self.marks.set(pid & 0xffff, 1, 0);
        let traced = marked.and_then(|()| self.targets.insert(pid, bytes(&known.target), 0));
        traced.err().map(|error| Unseen {
            what: format!("{} (pid {pid})", known.process.comm),
            why: chain(&error),
            remedy: "trace fewer processes".to_owned(),
        })
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

    /// Processes that the kernel half traces, as children of others, and that were never looked at.
    pub(super) fn unknown_targets(&self) -> Vec<Pid> {
        let targets = self.targets.keys().flatten();
        targets
            .filter(|pid| !self.known.contains_key(pid))
            .collect()
    }

    /// The process is gone for good.
    pub(super) fn forget(&mut self, pid: Pid) {
        // That an entry is gone already is fine: the kernel half removes some itself.
        let _ = self.targets.remove(&pid);
        self.known.remove(&pid);
    }

    /// Has a process traced without looking at it, nor at its threads: for the moment in which it starts a
    /// child.
    pub(super) fn mark(&mut self, pid: Pid, traced: bool) {
        let _ = if traced {
            self.targets.insert(pid, bytes(&Target::new_zeroed()), 0)
        } else {
            self.targets.remove(&pid)
        };
    }
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
        poll_read_seq: offsets.poll_read_seq,
        poll_write_seq: offsets.poll_write_seq,
        _pad: 0,
    })
}
