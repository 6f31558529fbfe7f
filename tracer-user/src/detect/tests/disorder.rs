use proptest::prelude::*;

use super::*;

proptest! {
    /// A few milliseconds of disorder change nothing that is concluded.
    #[test]
    fn a_little_disorder_changes_no_finding(delays in prop::collection::vec(0_u64..2_000, 400)) {
        let mut story = large_uploads_fail(1000.0);
        let calm = findings(&story.model(30_000.0));
        let mut delays = delays.into_iter().cycle();
        let stirred = story.model_in_order_of(30_000.0, |_| {
            Duration::from_micros(delays.next().unwrap_or_default())
        });
        prop_assert_eq!(findings(&stirred), calm);
    }
}
