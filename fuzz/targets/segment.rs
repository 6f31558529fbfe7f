//! A packet of any link type, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::pcap::{file::Packet, segment};

fuzz_target!(|bytes: &[u8]| {
    let [link, length, bytes @ ..] = bytes else {
        return;
    };
    let links = [0, 1, 12, 101, 108, 113, 228, 229, 276];
    let packet = Packet {
        at: 0,
        frame: 1,
        link: links[usize::from(*link) % links.len()],
        place: 0,
        length: bytes.len() as u32 + u32::from(*length),
        bytes,
    };
    if let Ok(segment) = segment::decode(&packet) {
        segment.window_scale();
        segment.span();
    }
});
