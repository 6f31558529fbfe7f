//! A module is named for what it is about. These names are about nothing.

use super::{Complaint, Source};

const NOTHING: [&str; 12] = [
    "util", "utils", "common", "misc", "helper", "helpers", "shared", "manager", "managers",
    "stuff", "base", "core",
];

pub(super) fn check(sources: &[Source]) -> Vec<Complaint> {
    sources
        .iter()
        .filter(|source| NOTHING.contains(&source.module()))
        .map(|source| {
            let says = format!("`{}` says nothing of what lives here", source.module());
            Complaint::of(source, None, says)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::source, *};

    #[test]
    fn a_name_that_says_nothing_is_found_as_file_and_as_directory() {
        let sources = [
            source("tests/src/utils.rs", ""),
            source("tracer-user/src/common/mod.rs", ""),
            source("tracer-user/src/common_name.rs", ""),
        ];
        assert_eq!(check(&sources).len(), 2);
    }
}
