//! The tracks of processes and threads, told when they are first needed.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use crate::{event::Pid, model::Model};

use super::{
    message::{ProcessDescriptor, ThreadDescriptor, TrackDescriptor},
    packets::{Packets, Track},
};

pub(super) struct Tracks<'m> {
    model: &'m Model,
    comms: HashMap<(Pid, u32), &'m str>,
    processes: BTreeMap<Pid, Track>,
    threads: BTreeMap<(Pid, u32), Track>,
}

impl<'m> Tracks<'m> {
    pub(super) fn of(model: &'m Model) -> Self {
        Self {
            model,
            comms: model
                .threads()
                .map(|thread| ((thread.pid, thread.tid), thread.comm.as_str()))
                .collect(),
            processes: BTreeMap::new(),
            threads: BTreeMap::new(),
        }
    }

    pub(super) fn process(
        &mut self,
        pid: Pid,
        packets: &mut Packets<impl Write>,
    ) -> io::Result<Track> {
        if let Some(track) = self.processes.get(&pid) {
            return Ok(*track);
        }
        let about = TrackDescriptor {
            process: Some(ProcessDescriptor {
                pid: pid.cast_signed(),
                process_name: self.model.name(pid),
            }),
            ..TrackDescriptor::default()
        };
        let track = packets.track(None, about)?;
        self.processes.insert(pid, track);
        Ok(track)
    }

    pub(super) fn thread(
        &mut self,
        pid: Pid,
        tid: u32,
        packets: &mut Packets<impl Write>,
    ) -> io::Result<Track> {
        if let Some(track) = self.threads.get(&(pid, tid)) {
            return Ok(*track);
        }
        let process = self.process(pid, packets)?;
        let about = TrackDescriptor {
            thread: Some(ThreadDescriptor {
                pid: pid.cast_signed(),
                tid: tid.into(),
                thread_name: self.comm(pid, tid),
            }),
            ..TrackDescriptor::default()
        };
        let track = packets.track(Some(process), about)?;
        self.threads.insert((pid, tid), track);
        Ok(track)
    }

    /// The thread's name; its process's where it was never told.
    pub(super) fn comm(&self, pid: Pid, tid: u32) -> String {
        match self.comms.get(&(pid, tid)) {
            Some(comm) => (*comm).to_owned(),
            None => self.model.name(pid),
        }
    }
}
