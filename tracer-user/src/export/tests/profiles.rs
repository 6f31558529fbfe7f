//! Flame graphs and pprof's profiles.

use std::{collections::HashSet, io::Read as _};

use flate2::read::GzDecoder;
use prost::Message as _;

use crate::{
    event::{Fact, Sample, StackId},
    export::pprof::message::Profile,
    model::{
        TICK,
        story::{Story, ms},
    },
};

use super::Told;

const WORK: [&str; 2] = ["main.work /srv/main.go:12", "main.main /srv/main.go:5"];

/// A service that was seen at work, once in the kernel, and once where no stack could be walked.
fn working() -> Told {
    let mut story = Story::new();
    story.go(10, "gateway").native(11, "odd;\nname");
    let work = story.stack(&WORK);
    let kernel = story.stack(&["copy_to_user", "ksys_read"]);
    story.samples((0.0, 50.0), (10, Some(7)), work, 5);
    story.samples((50.0, 60.0), (10, None), work, 1);
    let sample = |pid, stack, kernel| {
        Fact::Sampled(Sample {
            pid,
            tid: pid + 1,
            goroutine: None,
            stack,
            kernel,
        })
    };
    story
        .tell(70.0, sample(10, work, kernel))
        .tell(80.0, sample(11, None, None));
    Told::of(story.in_order().to_vec())
}

#[test]
fn a_line_of_a_flame_graph_goes_from_the_program_to_the_kernel() {
    assert_eq!(
        working().folded(),
        "gateway;main.main;main.work 6\n\
         gateway;main.main;main.work;ksys_read_[k];copy_to_user_[k] 1\n\
         odd:\\nname;[unknown] 1\n"
    );
}

#[test]
fn the_same_lines_under_two_names_are_one_stack() {
    let mut story = Story::new();
    story.go(10, "gateway");
    for _ in 0..2 {
        let stack = story.stack(&WORK);
        story.samples((0.0, 10.0), (10, None), stack, 2);
    }
    let told = Told::of(story.in_order().to_vec());
    assert_eq!(told.folded(), "gateway;main.main;main.work 4\n");
}

#[test]
fn a_profile_tells_who_was_where_for_how_long() {
    let profile = decoded(&working().pprof());
    let text = |number: i64| profile.string_table[usize::try_from(number).unwrap()].as_str();
    let types: Vec<_> = profile
        .sample_type
        .iter()
        .map(|of| (text(of.r#type), text(of.unit)))
        .collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(profile.period, 10_101_010);
    assert_eq!(text(profile.mapping[0].filename), "/srv/gateway");
    let named = |location: u64| {
        let line = profile.location[usize::try_from(location - 1).unwrap()].line[0];
        let function = profile.function[usize::try_from(line.function_id - 1).unwrap()];
        (text(function.name), text(function.filename), line.line)
    };
    let of_goroutine = profile
        .sample
        .iter()
        .find(|sample| {
            sample
                .label
                .iter()
                .any(|label| text(label.key) == "goroutine")
        })
        .unwrap();
    let tick = i64::try_from(TICK.as_nanos()).unwrap();
    assert_eq!(of_goroutine.value, [5, 5 * tick]);
    let places: Vec<_> = of_goroutine
        .location_id
        .iter()
        .map(|id| named(*id))
        .collect();
    assert_eq!(
        places,
        [
            ("main.work", "/srv/main.go", 12),
            ("main.main", "/srv/main.go", 5)
        ]
    );
    let labels: Vec<_> = of_goroutine
        .label
        .iter()
        .map(|label| (text(label.key), text(label.str), label.num))
        .collect();
    assert_eq!(
        labels,
        [
            ("pid", "", 10),
            ("thread", "", 10),
            ("goroutine", "", 7),
            ("comm", "gateway", 0)
        ]
    );
    let in_kernel = profile
        .sample
        .iter()
        .find(|sample| sample.location_id.len() == 4)
        .unwrap();
    assert_eq!(named(in_kernel.location_id[0]).0, "copy_to_user");
}

#[test]
fn a_stack_that_was_never_told_is_unknown_and_counts() {
    let mut story = Story::new();
    story.samples((0.0, 10.0), (10, None), Some(StackId(99)), 3);
    let told = Told::of(story.in_order().to_vec());
    assert_eq!(told.folded(), "process 10;[unknown] 3\n");
    check(&told.pprof(), 3);
    assert!(told.model.now() >= ms(5.0));
}

fn decoded(packed: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    Profile::decode(bytes.as_slice()).unwrap()
}

/// Everything that is referred to is there, and nothing was lost.
pub(super) fn check(packed: &[u8], samples: u64) {
    let profile = decoded(packed);
    let counted: i64 = profile.sample.iter().map(|sample| sample.value[0]).sum();
    assert_eq!(counted.cast_unsigned(), samples);
    assert!(profile.sample.iter().all(|sample| sample.value.len() == 2));
    let locations: HashSet<u64> = profile.location.iter().map(|of| of.id).collect();
    let functions: HashSet<u64> = profile.function.iter().map(|of| of.id).collect();
    let mappings: HashSet<u64> = profile.mapping.iter().map(|of| of.id).collect();
    for sample in &profile.sample {
        assert!(!sample.location_id.is_empty());
        assert!(sample.location_id.iter().all(|id| locations.contains(id)));
    }
    for location in &profile.location {
        assert!(mappings.contains(&location.mapping_id));
        assert!(
            location
                .line
                .iter()
                .all(|of| functions.contains(&of.function_id))
        );
    }
    let texts = i64::try_from(profile.string_table.len()).unwrap();
    assert_eq!(profile.string_table[0], "");
    let numbers = profile
        .function
        .iter()
        .flat_map(|of| [of.name, of.filename])
        .chain(profile.mapping.iter().map(|of| of.filename));
    for number in numbers {
        assert!((0..texts).contains(&number));
    }
}
