//! Data goes one way: a stage of `tracer-user` imports only stages above it in `lib.rs`.
//!
//! Stages that stand together in that list, with no empty line between, do not know of each other.

use super::{Complaint, Source};

const LIB: &str = "tracer-user/src/lib.rs";

pub(super) fn check(sources: &[Source]) -> Vec<Complaint> {
    let Some(lib) = sources.iter().find(|source| source.path == LIB) else {
        return Vec::new();
    };
    let ranks = ranks(&lib.text);
    let rank = |stage: &str| {
        let found = ranks.iter().find(|(name, _)| name == stage);
        found.map(|(_, rank)| *rank)
    };
    let mut complaints = Vec::new();
    for source in sources {
        let Some(own) = stage(&source.path).filter(|own| rank(own).is_some()) else {
            continue;
        };
        for (line, imported) in imports(source) {
            if imported != own && rank(&imported).is_some_and(|its| Some(its) >= rank(own)) {
                let says = format!(
                    "`{own}` imports `{imported}`, which does not stand above it in lib.rs"
                );
                complaints.push(Complaint::of(source, Some(line), says));
            }
        }
    }
    complaints
}

/// Each stage with the number of its group, counted from the top of `lib.rs`.
fn ranks(lib: &str) -> Vec<(String, usize)> {
    let mut ranks = Vec::new();
    let mut group = 0;
    for line in lib.lines() {
        if line.trim().is_empty() {
            group += 1;
        }
        let module = line.strip_prefix("pub mod ").or(line.strip_prefix("mod "));
        if let Some(name) = module.and_then(|rest| rest.strip_suffix(';')) {
            ranks.push((name.to_owned(), group));
        }
    }
    ranks
}

/// The stage a file belongs to.
fn stage(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("tracer-user/src/")?;
    let (stage, _) = rest.split_once('/').or_else(|| rest.split_once('.'))?;
    Some(stage)
}

/// What stands right behind each `crate::`, and in which line: one name, or the names that open the
/// parts of a `{…}`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code: Vec<_> = source.code().collect();
    let mut imports = Vec::new();
    for (index, (line, text)) in code.iter().enumerate() {
        for (at, found) in text.match_indices("crate::") {
            let rest = &text[at + found.len()..];
            if rest.starts_with('{') {
                let following = code[index + 1..].iter().map(|(_, text)| *text);
                let tree: String = std::iter::once(rest).chain(following).collect();
                imports.extend(tops(&tree).into_iter().map(|name| (*line, name)));
            } else {
                imports.push((*line, name(rest)));
            }
        }
    }
    imports
}

/// The names that open the parts of the use tree that `text` begins with.
fn tops(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = Vec::new();
    for (at, char) in text.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(char, '{' | ',') {
            names.push(name(text[at + 1..].trim_start()));
        }
    }
    names
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::source, *};

    const STAGES: &str = "pub mod event;\n\npub mod golang;\npub mod host;\n\npub mod model;\n";

    fn complaints(path: &str, text: &str) -> Vec<Option<usize>> {
        let sources = [source(LIB, STAGES), source(path, text)];
        check(&sources)
            .iter()
            .map(|complaint| complaint.line)
            .collect()
    }

    #[test]
    fn a_stage_may_import_the_ones_above_it_and_itself() {
        let text = "use crate::event::Event;\nuse crate::{golang, host::{a, model}, model::b};\n";
        assert_eq!(complaints("tracer-user/src/model/mod.rs", text), []);
    }

    #[test]
    fn a_stage_may_not_import_one_below() {
        let text = "use x;\nfn f() -> crate::model::Model {}\n";
        assert_eq!(complaints("tracer-user/src/golang/mod.rs", text), [Some(2)]);
    }

    #[test]
    fn stages_that_stand_together_do_not_import_each_other() {
        let text = "use crate::{\n    event::Event,\n    host,\n};\n";
        assert_eq!(complaints("tracer-user/src/golang/x.rs", text), [Some(1)]);
    }

    #[test]
    fn comments_may_speak_of_any_stage() {
        let text = "//! What [`crate::model`] takes.\nfn f() {} // crate::model\n";
        assert_eq!(complaints("tracer-user/src/event.rs", text), []);
    }
}
