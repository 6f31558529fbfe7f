//! The kernel half's state machine, fed with whatever calls and packets a socket may see.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_ebpf::{ROLE_CLIENT, ROLE_SERVER, STALL, Socket, begins_request, http_status};
use zerocopy::FromZeros as _;

fuzz_target!(|bytes: &[u8]| {
    let mut socket = Socket::new_zeroed();
    let Some((first, steps)) = bytes.split_first() else {
        return;
    };
    socket.role = if first & 1 == 0 {
        ROLE_CLIENT
    } else {
        ROLE_SERVER
    };
    let (mut now, mut told, mut moved) = (1, 0_u64, 0_u64);
    for step in steps.chunks_exact(12) {
        now += u64::from(step[1]) << 20;
        let sent = step[0] & 1 == 0;
        let payload = u32::from(step[2]) + 1;
        if step[0] & 2 == 0 {
            let sequence = u32::from_be_bytes([step[3], step[4], step[5], step[6]]);
            if !sent {
                let copied = u32::from_be_bytes([step[8], step[9], step[10], step[11]]);
                let kernel = || (step[7] & 1 == 0).then_some((copied, copied));
                socket.arrives(sequence, payload, || now, kernel);
            }
            if socket.begins_message(sent, sequence, payload) && !socket.asks(sent) {
                let mut line = *b"HTTP/1.1 200";
                line[6..].copy_from_slice(&step[6..12]);
                socket.set_status(http_status(&line));
            }
            begins_request(&[step[3], step[4], step[5], step[6]]);
            continue;
        }
        moved += u64::from(payload);
        let read = (!sent).then(|| {
            let copied = u32::from_be_bytes([step[8], step[9], step[10], step[11]]);
            socket.reads(now, payload.into(), copied, || Some(copied))
        });
        if socket.asks(sent) && socket.is_complete() {
            socket.is_remarkable();
            told += socket.turn.request_bytes + socket.turn.response_bytes;
            socket.begin_next();
        }
        if let Some(read) = read {
            assert!(read.since <= now);
            if read.unbroken && socket.ends_gap(false, now) {
                let gap = socket.receiving_gap(now, read);
                assert!(gap.from + STALL <= gap.until && gap.arrived <= gap.until);
            }
            socket.notes_arrival(read);
        } else {
            socket.has_sent(0);
        }
        assert!(socket.turn.arrived <= now);
        if socket.asks(sent) {
            socket.asked(now, payload.into());
        } else {
            socket.answered(now, payload.into());
        }
        // No byte is lost, and none counted twice.
        assert_eq!(
            told + socket.turn.request_bytes + socket.turn.response_bytes,
            moved
        );
        let (out, back) = socket.totals();
        assert_eq!(out + back, moved);
        assert!(socket.turn.started <= socket.turn.last_byte && socket.turn.last_byte <= now);
    }
});
