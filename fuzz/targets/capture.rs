//! A capture out of a recording that may come from a stranger.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::pcapng::{Blocks, Content, Rewriter, Segment};

/// The same capture as it is written anew, with its own comments on each packet.
fn rewritten(capture: &[u8]) -> Option<Vec<u8>> {
    let mut blocks = Blocks::new(capture);
    let mut rewriter = Rewriter::new(Vec::new());
    while let Some(block) = blocks.next().ok()? {
        match block.content() {
            Content::Packet(packet) => {
                Segment::of(packet.bytes, packet.wire_length);
                rewriter.packet(&packet, packet.comments()).ok()?;
            }
            Content::Journal(entry) => {
                entry.field("GOPULSE_EVENT");
                rewriter.copy(&block).ok()?;
            }
            Content::Statistics | Content::Other => rewriter.copy(&block).ok()?,
        }
    }
    Some(rewriter.into_output())
}

fuzz_target!(|bytes: &[u8]| {
    let Some(once) = rewritten(bytes) else {
        return;
    };
    // What was written is read whole, and nothing is left to change in it.
    assert_eq!(rewritten(&once).as_ref(), Some(&once));
});
