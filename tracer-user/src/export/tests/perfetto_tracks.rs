//! Perfetto's traces, as they are written; what its trace processor makes of them is a test of its own.

use std::collections::HashMap;

use prost::Message;

use crate::{
    detect::large_uploads_fail,
    event::{Fact, Left, Switch, Waiting},
    export::perfetto::message::{DebugAnnotation, Kind, TracePacket, TrackEvent},
    model::story::{Asked, Story},
};

use super::Told;

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

impl Trace {
    fn of(told: &Told) -> Self {
        Self::decode(told.perfetto().as_slice()).unwrap()
    }

    /// Events of this kind with the names of their tracks.
    fn events(&self, kind: Kind) -> Vec<(String, &TrackEvent)> {
        let names: HashMap<u64, String> = self
            .packet
            .iter()
            .filter_map(|packet| packet.track_descriptor.as_ref())
            .map(|track| {
                let thread = track.thread.as_ref();
                let name = track
                    .name
                    .clone()
                    .or(thread.map(|of| of.thread_name.clone()));
                (track.uuid, name.unwrap_or_default())
            })
            .collect();
        self.packet
            .iter()
            .filter_map(|packet| packet.track_event.as_ref())
            .filter(|event| event.r#type() == kind)
            .map(|event| (names[&event.track_uuid].clone(), event))
            .collect()
    }
}

fn argument<'e>(event: &'e TrackEvent, name: &str) -> Option<&'e DebugAnnotation> {
    event.debug_annotations.iter().find(|of| of.name == name)
}

/// Two events that one flow touches.
fn joined(a: &TrackEvent, b: &TrackEvent) -> bool {
    a.flow_ids.iter().any(|flow| b.flow_ids.contains(flow))
}

#[test]
fn a_request_flows_to_its_upstream_and_to_its_finding() {
    let mut story = large_uploads_fail(1000.0);
    let told = Told::of(story.in_order().to_vec());
    let trace = Trace::of(&told);
    let slices = trace.events(Kind::SliceBegin);
    let on = |heading: &str| {
        slices
            .iter()
            .filter(|(track, event)| track == heading && argument(event, "exchange").is_some())
            .map(|(_, event)| *event)
            .collect::<Vec<_>>()
    };
    let (served, asked) = (on("serves 127.0.0.1:9000"), on("asks 127.0.0.1:9001"));
    assert_eq!(served.len(), 7);
    assert!(
        served
            .iter()
            .all(|served| asked.iter().any(|asked| joined(served, asked)))
    );
    let instants = trace.events(Kind::Instant);
    let (_, finding) = instants
        .iter()
        .find(|(track, _)| track == "findings")
        .unwrap();
    assert!(finding.name().contains("gave up"), "{finding:?}");
    assert!(
        asked
            .iter()
            .chain(&served)
            .any(|exchange| joined(exchange, finding))
    );
    let path = argument(served[0], "path").unwrap();
    assert_eq!(path.string_value(), "/upload");
}

#[test]
fn a_request_flows_to_the_waits_of_its_own_goroutine() {
    let mut story = Story::new();
    story.go(10, "api");
    let socket = story.accepted(1.0, 10, "127.0.0.1:5000", "127.0.0.1:80");
    story.http(
        socket,
        0,
        "GET /slow",
        Asked::at(10.0, 100).by(10, 7).answered(90.0, 200),
    );
    story
        .waited(
            (20.0, 60.0),
            (10, 12, Some(7)),
            Waiting::Preempted,
            Some((99, "ffmpeg")),
        )
        .waited((30.0, 50.0), (10, 13, Some(8)), Waiting::Throttled, None);
    let told = Told::of(story.in_order().to_vec());
    let trace = Trace::of(&told);
    let slices = trace.events(Kind::SliceBegin);
    let (_, request) = slices
        .iter()
        .find(|(track, event)| track == "serves 127.0.0.1:80" && argument(event, "path").is_some())
        .unwrap();
    let waits: Vec<_> = slices
        .iter()
        .filter(|(track, _)| track == "api")
        .map(|(_, event)| (event.name(), joined(request, event)))
        .collect();
    assert_eq!(
        waits,
        [
            ("waits for a CPU (preempted)", true),
            ("throttled by its cgroup's quota", false)
        ]
    );
    let of_goroutine: Vec<_> = slices
        .iter()
        .filter(|(track, _)| track == "goroutine 7")
        .map(|(_, event)| event.name())
        .collect();
    assert_eq!(of_goroutine, ["GET /slow", "waits for a CPU (preempted)"]);
}

#[test]
fn switches_are_told_by_cpu_as_the_kernel_tells_them() {
    let mut story = Story::new();
    story.go(10, "api");
    let switch = |from, left, to| {
        Fact::Switched(Switch {
            cpu: 1,
            from,
            left,
            goroutine: None,
            to,
        })
    };
    story
        .tell(1.0, switch(None, Left::Runnable, Some((10, 12))))
        .tell(2.0, switch(Some((10, 12)), Left::Sleeping, None));
    let told = Told::of(story.in_order().to_vec());
    let trace = Trace::of(&told);
    let bundle = trace
        .packet
        .iter()
        .find_map(|packet| packet.ftrace_events.as_ref())
        .unwrap();
    assert_eq!(bundle.cpu, Some(1));
    let told: Vec<_> = bundle
        .event
        .iter()
        .filter_map(|event| event.sched_switch.as_ref())
        .map(|switch| {
            (
                switch.prev_pid(),
                switch.prev_state(),
                switch.next_comm(),
                switch.next_pid(),
            )
        })
        .collect();
    assert_eq!(told, [(0, 0, "api", 12), (12, 1, "swapper/1", 0)]);
}

/// On each track, times do not go back, slices end that began, and none is left open.
pub(super) fn check(trace: &[u8]) {
    let trace = Trace::decode(trace).unwrap();
    let mut tracks: HashMap<u64, (u64, u32)> = HashMap::new();
    for packet in &trace.packet {
        if let Some(track) = &packet.track_descriptor {
            let parent_known = track.parent_uuid.is_none_or(|of| tracks.contains_key(&of));
            assert!(parent_known);
            assert!(tracks.insert(track.uuid, (0, 0)).is_none());
        }
        let Some(event) = &packet.track_event else {
            continue;
        };
        let (now, open) = tracks.get_mut(&event.track_uuid).unwrap();
        let at = packet.timestamp();
        match event.r#type() {
            Kind::SliceBegin => *open += 1,
            Kind::SliceEnd => *open = open.checked_sub(1).unwrap(),
            Kind::Instant | Kind::Unspecified => continue,
        }
        assert!(*now <= at, "{now} > {at}");
        *now = at;
    }
    assert!(tracks.values().all(|(_, open)| *open == 0));
}
