//! Every rule in `detect/` stands in the list of rules: a file that nobody asks finds nothing.

use super::{Complaint, Source};

const DETECT: &str = "tracer-user/src/detect/";

pub(super) fn check(sources: &[Source]) -> Vec<Complaint> {
    let list = format!("{DETECT}mod.rs");
    let Some(list) = sources.iter().find(|source| source.path == list) else {
        return Vec::new();
    };
    let asked = |name: &str| {
        let path = format!("{name}::");
        list.code().any(|(_, code)| code.contains(&path))
    };
    sources
        .iter()
        .filter(|source| source.path.starts_with(DETECT) && source.path != list.path)
        // A directory's files are its own `mod.rs`'s business.
        .filter(|source| {
            !source.path[DETECT.len()..]
                .trim_end_matches("/mod.rs")
                .contains('/')
        })
        .filter(|source| !asked(source.module()))
        .map(|source| {
            let says = format!("detect/mod.rs never asks `{}`", source.module());
            Complaint::of(source, None, says)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::source, *};

    #[test]
    fn a_rule_that_nobody_asks_is_found() {
        let list = "mod one;\nmod two;\nconst RULES: [Rule; 1] = [one::judge];\n// two::judge\n";
        let sources = [
            source("tracer-user/src/detect/mod.rs", list),
            source("tracer-user/src/detect/one.rs", ""),
            source("tracer-user/src/detect/two.rs", ""),
        ];
        let complaints = check(&sources);
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].path, "tracer-user/src/detect/two.rs");
    }
}
