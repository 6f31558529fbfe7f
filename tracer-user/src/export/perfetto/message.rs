//! The messages of a Perfetto trace that we write (package `perfetto.protos`), as its
//! `protos/perfetto/trace` describes them. Field numbers and names are its; fields that we never write are
//! left out. The schema is of proto2, so numbers that repeat are not packed.

use prost::{Enumeration, Message};

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct TracePacket {
    #[prost(message, optional, tag = "1")]
    pub(in crate::export) ftrace_events: Option<FtraceEventBundle>,
    #[prost(message, optional, tag = "6")]
    pub(in crate::export) clock_snapshot: Option<ClockSnapshot>,
    /// Nanoseconds of the boot clock.
    #[prost(uint64, optional, tag = "8")]
    pub(in crate::export) timestamp: Option<u64>,
    #[prost(uint32, tag = "10")]
    pub(in crate::export) trusted_packet_sequence_id: u32,
    #[prost(message, optional, tag = "11")]
    pub(in crate::export) track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "12")]
    pub(in crate::export) interned_data: Option<InternedData>,
    #[prost(uint32, tag = "13")]
    pub(in crate::export) sequence_flags: u32,
    #[prost(message, optional, tag = "45")]
    pub(in crate::export) system_info: Option<SystemInfo>,
    #[prost(message, optional, tag = "59")]
    pub(in crate::export) trace_packet_defaults: Option<TracePacketDefaults>,
    #[prost(message, optional, tag = "60")]
    pub(in crate::export) track_descriptor: Option<TrackDescriptor>,
    #[prost(message, optional, tag = "66")]
    pub(in crate::export) perf_sample: Option<PerfSample>,
}

/// `SEQ_INCREMENTAL_STATE_CLEARED`: what was interned before is forgotten.
pub(in crate::export) const CLEARED: u32 = 1;
/// `SEQ_NEEDS_INCREMENTAL_STATE`: the packet refers to what was interned.
pub(in crate::export) const NEEDS: u32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct ClockSnapshot {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::export) clocks: Vec<Clock>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct Clock {
    #[prost(enumeration = "BuiltinClock", tag = "1")]
    pub(in crate::export) clock_id: i32,
    #[prost(uint64, tag = "2")]
    pub(in crate::export) timestamp: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(in crate::export) enum BuiltinClock {
    Unknown = 0,
    Realtime = 1,
    Boottime = 6,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct SystemInfo {
    #[prost(message, optional, tag = "1")]
    pub(in crate::export) utsname: Option<Utsname>,
    #[prost(string, tag = "17")]
    pub(in crate::export) machine_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct Utsname {
    #[prost(string, tag = "1")]
    pub(in crate::export) sysname: String,
    #[prost(string, tag = "3")]
    pub(in crate::export) release: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct TrackDescriptor {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) uuid: u64,
    #[prost(string, optional, tag = "2")]
    pub(in crate::export) name: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::export) process: Option<ProcessDescriptor>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::export) thread: Option<ThreadDescriptor>,
    #[prost(uint64, optional, tag = "5")]
    pub(in crate::export) parent_uuid: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct ProcessDescriptor {
    #[prost(int32, tag = "1")]
    pub(in crate::export) pid: i32,
    #[prost(string, tag = "6")]
    pub(in crate::export) process_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct ThreadDescriptor {
    #[prost(int32, tag = "1")]
    pub(in crate::export) pid: i32,
    #[prost(int64, tag = "2")]
    pub(in crate::export) tid: i64,
    #[prost(string, tag = "5")]
    pub(in crate::export) thread_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    pub(in crate::export) debug_annotations: Vec<DebugAnnotation>,
    #[prost(enumeration = "Kind", tag = "9")]
    pub(in crate::export) r#type: i32,
    #[prost(uint64, tag = "11")]
    pub(in crate::export) track_uuid: u64,
    #[prost(string, repeated, tag = "22")]
    pub(in crate::export) categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    pub(in crate::export) name: Option<String>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub(in crate::export) flow_ids: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(in crate::export) enum Kind {
    Unspecified = 0,
    SliceBegin = 1,
    SliceEnd = 2,
    Instant = 3,
}

/// An argument of an event; one of the values.
#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct DebugAnnotation {
    #[prost(uint64, optional, tag = "3")]
    pub(in crate::export) uint_value: Option<u64>,
    #[prost(double, optional, tag = "5")]
    pub(in crate::export) double_value: Option<f64>,
    #[prost(string, optional, tag = "6")]
    pub(in crate::export) string_value: Option<String>,
    #[prost(string, tag = "10")]
    pub(in crate::export) name: String,
}

/// What happened on one CPU.
#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct FtraceEventBundle {
    #[prost(uint32, optional, tag = "1")]
    pub(in crate::export) cpu: Option<u32>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::export) event: Vec<FtraceEvent>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct FtraceEvent {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) timestamp: u64,
    /// The thread that it happened in.
    #[prost(uint32, optional, tag = "2")]
    pub(in crate::export) pid: Option<u32>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::export) sched_switch: Option<SchedSwitch>,
}

/// `pid` is the thread's id, as the kernel's tracepoint has it; 0 is idle.
#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct SchedSwitch {
    #[prost(string, optional, tag = "1")]
    pub(in crate::export) prev_comm: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub(in crate::export) prev_pid: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    pub(in crate::export) prev_prio: Option<i32>,
    #[prost(int64, optional, tag = "4")]
    pub(in crate::export) prev_state: Option<i64>,
    #[prost(string, optional, tag = "5")]
    pub(in crate::export) next_comm: Option<String>,
    #[prost(int32, optional, tag = "6")]
    pub(in crate::export) next_pid: Option<i32>,
    #[prost(int32, optional, tag = "7")]
    pub(in crate::export) next_prio: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct TracePacketDefaults {
    #[prost(message, optional, tag = "12")]
    pub(in crate::export) perf_sample_defaults: Option<PerfSampleDefaults>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct PerfSampleDefaults {
    #[prost(message, optional, tag = "1")]
    pub(in crate::export) timebase: Option<Timebase>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct Timebase {
    /// Samples in a second.
    #[prost(uint64, tag = "2")]
    pub(in crate::export) frequency: u64,
    #[prost(enumeration = "Counter", tag = "4")]
    pub(in crate::export) counter: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(in crate::export) enum Counter {
    Unknown = 0,
    CpuClock = 1,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct PerfSample {
    #[prost(uint32, tag = "2")]
    pub(in crate::export) pid: u32,
    #[prost(uint32, tag = "3")]
    pub(in crate::export) tid: u32,
    #[prost(uint64, optional, tag = "4")]
    pub(in crate::export) callstack_iid: Option<u64>,
    #[prost(enumeration = "CpuMode", tag = "5")]
    pub(in crate::export) cpu_mode: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(in crate::export) enum CpuMode {
    Unknown = 0,
    Kernel = 1,
    User = 2,
}

/// What later packets of the sequence refer to by number.
#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct InternedData {
    #[prost(message, repeated, tag = "5")]
    pub(in crate::export) function_names: Vec<InternedString>,
    #[prost(message, repeated, tag = "6")]
    pub(in crate::export) frames: Vec<Frame>,
    #[prost(message, repeated, tag = "7")]
    pub(in crate::export) callstacks: Vec<Callstack>,
    #[prost(message, repeated, tag = "17")]
    pub(in crate::export) mapping_paths: Vec<InternedString>,
    #[prost(message, repeated, tag = "19")]
    pub(in crate::export) mappings: Vec<Mapping>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct InternedString {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) iid: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::export) str: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(in crate::export) struct Frame {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) iid: u64,
    #[prost(uint64, tag = "2")]
    pub(in crate::export) function_name_id: u64,
    #[prost(uint64, tag = "3")]
    pub(in crate::export) mapping_id: u64,
}

/// The outermost frame first.
#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct Callstack {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) iid: u64,
    #[prost(uint64, repeated, packed = "false", tag = "2")]
    pub(in crate::export) frame_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::export) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub(in crate::export) iid: u64,
    #[prost(uint64, repeated, packed = "false", tag = "7")]
    pub(in crate::export) path_string_ids: Vec<u64>,
}
