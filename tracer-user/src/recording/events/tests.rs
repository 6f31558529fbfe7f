use std::{fmt::Write, path::Path};

use proptest::prelude::*;

use super::{super::samples, super::whole_blocks::tests::Room, *};
use crate::event::{BootInstant, Event, Fact};

/// The bytes of a file with these events, a block ended behind every `block` of them.
fn written(events: &[Event], block: usize) -> Vec<u8> {
    let room = Room::of(usize::MAX);
    let mut writer = EventWriter::new(room.clone()).unwrap();
    for events in events.chunks(block) {
        for event in events {
            writer.event(event).unwrap();
        }
        writer.flush().unwrap();
    }
    room.bytes.take()
}

/// What can be read of a file, and how it ends; `None` where it is refused at once.
fn read(file: &[u8]) -> (Vec<Event>, Option<Ending>) {
    let Ok(mut reader) = EventReader::new(file, file.len() as u64, Path::new("events.gpl")) else {
        return (Vec::new(), None);
    };
    let events = reader.by_ref().collect();
    (events, reader.ending().cloned())
}

/// A fault of the format is a fault of every recording made with it: this fails when the encoding changes.
/// If that was meant, raise `FORMAT`.
#[test]
fn the_encoding_of_every_event_is_what_its_format_says() {
    let mut listing = format!("format {FORMAT}\n");
    for event in samples::events() {
        let kind = format!("{:?}", event.fact);
        let kind = kind.split([' ', '(']).next().unwrap();
        write!(listing, "{kind}:").unwrap();
        for byte in postcard::to_stdvec(&event).unwrap() {
            write!(listing, " {byte:02x}").unwrap();
        }
        listing.push('\n');
    }
    insta::assert_snapshot!(listing);
}

#[test]
fn every_event_is_read_as_it_was_written() {
    let events = samples::events();
    assert_eq!(read(&written(&events, 3)), (events, Some(Ending::Whole)));
}

#[test]
fn a_full_block_is_ended_without_being_asked() {
    let room = Room::of(usize::MAX);
    let mut writer = EventWriter::new(room.clone()).unwrap();
    let event = Event {
        at: BootInstant(1),
        fact: samples::exchange(),
    };
    for _ in 0..20_000 {
        writer.event(&event).unwrap();
    }
    drop(writer);
    let file = room.bytes.take();
    let (header, _) = BlockHeader::read_from_prefix(&file[size_of::<FileHeader>()..]).unwrap();
    let length = header.length.get() as usize;
    assert!((BLOCK_SIZE..BLOCK_SIZE + 200).contains(&length), "{length}");
    assert_eq!(read(&file).0.len(), 20_000);
}

#[test]
fn a_block_tells_the_times_in_it_whatever_their_order() {
    let at = |at| Event {
        at: BootInstant(at),
        fact: Fact::ProcessEnded { pid: 1 },
    };
    let file = written(&[at(20), at(10), at(30), at(25)], 4);
    let (header, _) = BlockHeader::read_from_prefix(&file[size_of::<FileHeader>()..]).unwrap();
    assert_eq!((header.first.get(), header.last.get()), (10, 30));
    assert_eq!(header.count.get(), 4);
}

#[test]
fn a_snapshot_larger_than_a_block_is_spread_over_several() {
    let small = samples::events();
    let mut events = small.clone();
    events.push(Event {
        at: BootInstant(9_000_000_000),
        fact: samples::snapshot(300_000),
    });
    events.extend(small);
    let file = written(&events, usize::MAX);
    assert!(file.len() > 2 * BLOCK_LIMIT, "{} bytes", file.len());
    let (found, ending) = read(&file);
    assert!(found == events, "{} of {}", found.len(), events.len());
    assert_eq!(ending, Some(Ending::Whole));
}

#[test]
fn a_snapshot_of_which_a_block_is_missing_is_not_read() {
    let mut events = samples::events();
    events.push(Event {
        at: BootInstant(9_000_000_000),
        fact: samples::snapshot(300_000),
    });
    let mut file = written(&events, usize::MAX);
    file.truncate(2 * BLOCK_LIMIT);
    let (found, ending) = read(&file);
    assert_eq!(found.len(), events.len() - 1);
    let Some(Ending::Truncated { at, bytes }) = ending else {
        panic!("{ending:?}");
    };
    assert_eq!(at + bytes, file.len() as u64);
    assert!(
        at < 10_000,
        "lost from the snapshot's first block on, not from {at}"
    );
}

#[test]
fn an_absurd_length_takes_no_memory() {
    let mut file = written(&samples::events(), usize::MAX);
    let at = file.len() as u64;
    file.extend([0xff; 28]);
    let (events, ending) = read(&file);
    assert_eq!(events, samples::events());
    assert_eq!(
        ending,
        Some(Ending::Damaged {
            at,
            bytes: 28,
            why: "its length of 4294967295 bytes is absurd".to_owned()
        })
    );
}

#[test]
fn zeros_where_a_block_should_be_are_damage() {
    // As a filesystem leaves them when the host goes down before the data is on disk.
    let mut file = written(&samples::events(), usize::MAX);
    file.extend([0; 4096]);
    let (events, ending) = read(&file);
    assert_eq!(events, samples::events());
    assert!(matches!(ending, Some(Ending::Damaged { bytes: 4096, .. })));
}

#[test]
fn a_later_format_is_refused_with_both_versions() {
    let mut file = written(&samples::events(), usize::MAX);
    file[8] = u8::try_from(FORMAT).unwrap() + 1;
    let error = EventReader::new(&*file, file.len() as u64, Path::new("events.gpl"))
        .err()
        .unwrap();
    insta::assert_snapshot!(error);
}

#[test]
fn another_file_is_refused() {
    let error = EventReader::new(&b"#!/bin/sh"[..], 9, Path::new("events.gpl"))
        .err()
        .unwrap();
    insta::assert_snapshot!(error);
}

#[test]
fn a_full_disk_leaves_whole_blocks_only() {
    let events = samples::events();
    let whole = written(&events, 3).len();
    for size in size_of::<FileHeader>()..whole {
        let room = Room::of(size);
        let mut writer = EventWriter::new(room.clone()).unwrap();
        let failed = events.chunks(3).any(|events| {
            events.iter().any(|event| writer.event(event).is_err()) || writer.flush().is_err()
        });
        assert!(failed, "room for {size} of {whole} bytes");
        drop(writer);
        let (found, ending) = read(&room.bytes.borrow());
        assert_eq!(found, events[..found.len()]);
        assert_eq!(ending, Some(Ending::Whole));
    }
}

proptest! {
    #[test]
    fn a_file_cut_anywhere_gives_the_events_of_its_whole_blocks(block in 1_usize..8, cut: prop::sample::Index) {
        let events = samples::events();
        let mut file = written(&events, block);
        file.truncate(cut.index(file.len()));
        let (found, ending) = read(&file);
        prop_assert_eq!(&found, &events[..found.len()]);
        prop_assert_eq!(found.len() % block, 0);
        let ending = ending.unwrap();
        match ending {
            Ending::Whole => {}
            Ending::Truncated { at, bytes } => prop_assert_eq!(at + bytes, file.len() as u64),
            Ending::Damaged { .. } => prop_assert!(false, "{:?}", ending),
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_block_and_those_after_it(block in 1_usize..8, at: prop::sample::Index, bit in 0..8) {
        let events = samples::events();
        let mut file = written(&events, block);
        // In front of the blocks it may make one known format of another.
        let at = size_of::<FileHeader>() + at.index(file.len() - size_of::<FileHeader>());
        file[at] ^= 1_u8 << bit;
        let (found, ending) = read(&file);
        prop_assert_eq!(&found, &events[..found.len()]);
        prop_assert!(found.len() < events.len());
        prop_assert!(ending != Some(Ending::Whole));
    }

    #[test]
    fn any_bytes_behind_the_header_are_read_without_panic(tail: Vec<u8>) {
        let mut file = written(&[], 1);
        file.extend(tail);
        read(&file);
    }

    /// Past the checksum, as a stranger could make it.
    #[test]
    fn any_payload_with_a_right_checksum_is_read_without_panic(payload in prop::collection::vec(any::<u8>(), 1..200), count: u32) {
        let mut header = BlockHeader {
            length: u32::try_from(payload.len()).unwrap().into(),
            count: count.into(),
            first: 0.into(),
            last: 0.into(),
            checksum: 0.into(),
        };
        header.checksum = header.sum(&payload).into();
        let mut file = written(&[], 1);
        file.extend(header.as_bytes());
        file.extend(payload);
        read(&file);
    }
}
