//! Completions for shells, from the command line itself.

use clap_complete::{Shell, generate};

/// One shell's completions.
pub(crate) struct Script {
    /// Its file, by the name that the shell looks for.
    pub(crate) file: &'static str,
    /// Where Debian's shell looks for it.
    pub(crate) home: &'static str,
    pub(crate) text: Vec<u8>,
}

const SHELLS: [(Shell, &str, &str); 3] = [
    (
        Shell::Bash,
        "gopulse",
        "usr/share/bash-completion/completions",
    ),
    (Shell::Zsh, "_gopulse", "usr/share/zsh/vendor-completions"),
    (
        Shell::Fish,
        "gopulse.fish",
        "usr/share/fish/vendor_completions.d",
    ),
];

/// For each shell.
pub(crate) fn scripts() -> Vec<Script> {
    let script = |(shell, file, home)| {
        let mut text = Vec::new();
        generate(
            shell,
            &mut tracer_user::cli::command(),
            "gopulse",
            &mut text,
        );
        Script { file, home, text }
    };
    SHELLS.map(script).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_is_told_every_verb_and_its_options() {
        for script in scripts() {
            let text = String::from_utf8_lossy(&script.text);
            for word in ["diagnose", "record", "fail-on", "timeline"] {
                assert!(text.contains(word), "{} lacks {word}", script.file);
            }
        }
    }
}
