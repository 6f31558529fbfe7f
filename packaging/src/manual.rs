//! The manual: gopulse(1), and a page for each verb, gopulse-diagnose(1) and so on, as git and cargo do.
//!
//! What an option does is told once, in the command line itself; here stands what `--help` has no room
//! for: examples, exit status, where to read on.

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use jiff::Timestamp;

use crate::VERSION;

/// A page's file and its text in roff(7).
pub(crate) type Page = (String, Vec<u8>);

/// What a verb is used for, each with the command.
struct Examples {
    verb: &'static str,
    each: &'static [(&'static str, &'static str)],
}

const EXAMPLES: [Examples; 5] = [
    Examples {
        verb: "diagnose",
        each: &[
            (
                "What is wrong with whoever listens on port 8080, in the next ten seconds:",
                "gopulse diagnose --port 8080",
            ),
            (
                "The same for a script, which looks at the exit status and at JSON:",
                "gopulse diagnose --comm gateway -d 30s --format json --fail-on critical -o report.json",
            ),
            (
                "What a capture and a goroutine dump that somebody took tell:",
                "gopulse diagnose incident.pcapng --goroutines dump.txt",
            ),
        ],
    },
    Examples {
        verb: "record",
        each: &[
            (
                "Half a minute of a process, its children and whoever serves it on this host:",
                "gopulse record --pid 4711 -d 30s -o incident",
            ),
            (
                "A command, from its first instruction to its end:",
                "gopulse record -d 5m -o run -- ./service -listen :8080",
            ),
        ],
    },
    Examples {
        verb: "export",
        each: &[
            (
                "For ui.perfetto.dev:",
                "gopulse export incident --to perfetto -o incident.pftrace",
            ),
            (
                "For go tool pprof:",
                "gopulse export incident --to pprof -o cpu.pb.gz",
            ),
        ],
    },
    Examples {
        verb: "goroutines",
        each: &[
            (
                "What the goroutines of a process do, without stopping it:",
                "gopulse goroutines --pid 4711",
            ),
            (
                "Which groups grew between two dumps:",
                "gopulse goroutines before.txt after.txt",
            ),
        ],
    },
    Examples {
        verb: "doctor",
        each: &[("What this host lets be seen:", "gopulse doctor")],
    },
];

const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "Healthy, or done."),
    (
        "1",
        "diagnose found something as severe as --fail-on or more so.",
    ),
    ("2", "The arguments or the input cannot be used."),
    ("3", "The host or the privileges do not allow it."),
    ("130", "Interrupted before anything was seen."),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "NO_COLOR",
        "Set to anything, it keeps colours out of reports.",
    ),
    ("COLUMNS", "The width of reports, from 60 to 120."),
];

/// Every page, dated by a time in seconds since 1970.
pub(crate) fn pages(epoch: u64) -> anyhow::Result<Vec<Page>> {
    let at = Timestamp::from_second(i64::try_from(epoch)?)?;
    let date = at.strftime("%F").to_string();
    let mut command = tracer_user::cli::command().disable_help_subcommand(true);
    command.build();
    let verbs: Vec<String> = names(&command).map(str::to_owned).collect();
    let mut pages = vec![page(command.clone(), None, &verbs, &date)?];
    for verb in command.get_subcommands() {
        pages.push(page(verb.clone(), Some(verb.get_name()), &verbs, &date)?);
    }
    Ok(pages)
}

fn names(command: &Command) -> impl Iterator<Item = &str> {
    command.get_subcommands().map(Command::get_name)
}

fn page(
    command: Command,
    verb: Option<&str>,
    verbs: &[String],
    date: &str,
) -> anyhow::Result<Page> {
    let man = Man::new(command)
        .date(date)
        .source(format!("gopulse {VERSION}"))
        .manual("gopulse's manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if verb.is_none() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    examples(&mut more, verb);
    listed(&mut more, "EXIT STATUS", &EXIT_STATUS);
    listed(&mut more, "ENVIRONMENT", &ENVIRONMENT);
    see_also(&mut more, verb, verbs);
    more.to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

/// Those of a verb; of all in the page that is no verb's.
fn examples(roff: &mut Roff, verb: Option<&str>) {
    roff.control("SH", ["EXAMPLES"]);
    for of in EXAMPLES {
        if verb.is_some_and(|verb| verb != of.verb) {
            continue;
        }
        for (what, command) in of.each {
            roff.control("TP", []).text([roman(*what)]);
            roff.text([bold(*command)]);
        }
    }
}

fn listed(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, what) in entries {
        roff.control("TP", []).text([bold(*name)]);
        roff.text([roman(*what)]);
    }
}

fn see_also(roff: &mut Roff, verb: Option<&str>, verbs: &[String]) {
    let ours = std::iter::once("gopulse".to_owned())
        .filter(|_| verb.is_some())
        .chain(
            verbs
                .iter()
                .filter(|other| verb != Some(other.as_str()))
                .map(|other| format!("gopulse-{other}")),
        )
        .map(|name| (name, "1"));
    let others = [
        ("tcpdump", "8"),
        ("tshark", "1"),
        ("bpftrace", "8"),
        ("strace", "1"),
    ];
    let others = others.map(|(name, section)| (name.to_owned(), section));
    let all: Vec<_> = ours.chain(others).collect();
    roff.control("SH", ["SEE ALSO"]);
    for (at, (name, section)) in all.iter().enumerate() {
        let comma = if at + 1 < all.len() { "," } else { "" };
        roff.text([bold(name), roman(format!("({section}){comma}"))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> anyhow::Result<String> {
        let pages = pages(1_795_271_490)?;
        let page = pages.into_iter().find(|(file, _)| file == name);
        let (_, text) = page.ok_or_else(|| anyhow::anyhow!("no page {name}"))?;
        Ok(String::from_utf8(text)?)
    }

    #[test]
    fn every_verb_has_a_page_and_an_example() -> anyhow::Result<()> {
        let command = tracer_user::cli::command();
        for verb in names(&command) {
            let page = text(&format!("gopulse-{verb}.1"))?;
            assert!(page.contains(&format!("gopulse {verb}")), "{page}");
            assert!(EXAMPLES.iter().any(|of| of.verb == verb), "{verb}");
        }
        Ok(())
    }

    #[test]
    fn examples_are_commands_that_the_command_line_takes() -> anyhow::Result<()> {
        for (_, command) in EXAMPLES.iter().flat_map(|of| of.each) {
            tracer_user::cli::command().try_get_matches_from(command.split(' '))?;
        }
        Ok(())
    }

    #[test]
    fn the_page_of_the_whole_leads_to_each_verb() -> anyhow::Result<()> {
        let page = text("gopulse.1")?;
        assert!(page.contains(r"gopulse\-diagnose\fR(1)"), "{page}");
        assert!(page.contains("EXIT STATUS"), "{page}");
        assert!(page.contains(".TH gopulse 1 2026-11-21 "), "{page}");
        Ok(())
    }
}
