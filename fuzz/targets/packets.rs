//! Captures come from anywhere: the whole way from the bytes of a file to findings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::{
    detect,
    event::{BootInstant, Source, SourceKind},
    model::Model,
    pcap::{file::Reader, segment, tracker::Tracker},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(bytes) else {
        return;
    };
    let mut tracker = Tracker::new();
    let (mut packets, mut ended) = (0, 0);
    while let Ok(Some(packet)) = reader.next_packet() {
        packets += 1;
        ended = ended.max(packet.at);
        if let Ok(segment) = segment::decode(&packet) {
            tracker.take(&segment);
        }
    }
    tracker.end(ended);
    // A record takes eight bytes at least, in whichever format.
    assert!(packets <= bytes.len() / 8);
    let mut model = Model::new(Source {
        kind: SourceKind::Pcap,
        host: String::new(),
        kernel: String::new(),
        started: BootInstant(0),
        started_wall: jiff::Timestamp::UNIX_EPOCH,
        hooks: Vec::new(),
    });
    for event in tracker.events().drain(..) {
        model.apply(&event);
    }
    model.end(BootInstant(ended));
    detect::findings(&model);
});
