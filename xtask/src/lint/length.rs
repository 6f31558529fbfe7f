//! A file that passes 500 lines is read again for two things living in it.

use super::{Complaint, Source};

const MOST: usize = 500;

/// Files that were read again and found to be one thing.
const ONE_THING: [&str; 1] = [
    // One harness, and every way of building a Go program compared with that program's own dump.
    "tracer-user/src/golang/live_tests.rs",
];

pub(super) fn check(sources: &[Source]) -> Vec<Complaint> {
    sources
        .iter()
        .filter(|source| !ONE_THING.contains(&source.path.as_str()))
        .filter_map(|source| {
            let lines = source.text.lines().count();
            let says = format!(
                "{lines} lines: does more than one thing live here? (if not, name it in xtask/src/lint/length.rs)"
            );
            (lines > MOST).then(|| Complaint::of(source, None, says))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::source, *};

    #[test]
    fn five_hundred_lines_pass_and_one_more_does_not() {
        let lines = |count| source("tests/a.rs", &"x\n".repeat(count));
        assert_eq!(check(&[lines(500)]), []);
        assert_eq!(check(&[lines(501)]).len(), 1);
    }
}
