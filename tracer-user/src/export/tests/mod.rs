//! What holds for every exporter of the model, whatever the events said; and the story of a service that
//! works, which each of them tells.

use proptest::prelude::*;

use crate::{
    detect,
    event::Event,
    model::{Model, story::source},
};

use super::*;

mod any_events;
mod perfetto_tracks;
mod profiles;

/// The events as a recording would tell them.
struct Told {
    events: Vec<Event>,
    model: Model,
    samples: Samples,
}

impl Told {
    fn of(events: Vec<Event>) -> Self {
        let mut model = Model::new(source());
        let mut samples = Samples::default();
        for event in &events {
            model.apply(event);
            samples.tell(event);
        }
        model.end(model.now());
        Self {
            events,
            model,
            samples,
        }
    }

    fn folded(&self) -> String {
        let mut output = Vec::new();
        folded::write(&self.samples, &self.model, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn pprof(&self) -> Vec<u8> {
        let mut output = Vec::new();
        pprof::write(&self.samples, &self.model, &mut output).unwrap();
        output
    }

    fn perfetto(&self) -> Vec<u8> {
        let mut output = Vec::new();
        let findings = detect::findings(&self.model);
        let again = self.events.iter().cloned();
        perfetto::write(&self.model, &findings, again, &mut output).unwrap();
        output
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A recording may come from a stranger.
    #[test]
    fn exporters_bear_any_events(events in prop::collection::vec(any_events::event(), 0..200)) {
        let told = Told::of(events);
        let folded = told.folded();
        let counted: u64 = folded
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        prop_assert_eq!(counted, told.model.samples().count() as u64);
        profiles::check(&told.pprof(), counted);
        perfetto_tracks::check(&told.perfetto());
    }
}
