//! `unsafe` stays where it is known to be.

use super::{Complaint, Source};

/// Everything a program in the kernel touches is behind a raw pointer.
const KERNEL_HALF: &str = "tracer-ebpf/src/";

/// Files of the user half that hold `unsafe`.
const KNOWN: [&str; 0] = [];

const OPENINGS: [&str; 5] = [
    "unsafe {",
    "unsafe fn",
    "unsafe impl",
    "unsafe extern",
    "unsafe(",
];

pub(super) fn check(sources: &[Source]) -> Vec<Complaint> {
    sources
        .iter()
        .filter(|source| !source.path.starts_with(KERNEL_HALF))
        // These rules' own files speak of it.
        .filter(|source| !source.path.starts_with("xtask/src/lint/"))
        .filter_map(|source| {
            let opens = |code: &str| OPENINGS.iter().any(|opening| code.contains(opening));
            let line = source.code().find(|(_, code)| opens(code));
            let known = KNOWN.contains(&source.path.as_str());
            match line {
                Some((line, _)) if !known => Some(Complaint::of(
                    source,
                    Some(line),
                    "unsafe where none is known to be (is there a safe wrapper? if not, name it in xtask/src/lint/unsafety.rs)",
                )),
                None if known => Some(Complaint::of(
                    source,
                    None,
                    "no longer unsafe: take it off the list in xtask/src/lint/unsafety.rs",
                )),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::sources::source, *};

    #[test]
    fn unsafe_is_found_in_the_user_half_and_borne_in_the_kernel_half() {
        let text = "// unsafe {\nfn f() { unsafe { g() } }\n";
        assert_eq!(check(&[source("tracer-ebpf/src/main.rs", text)]), []);
        let complaints = check(&[source("tracer-user/src/lib.rs", text)]);
        assert_eq!(complaints[0].line, Some(2));
    }
}
