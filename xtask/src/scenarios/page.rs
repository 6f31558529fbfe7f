//! The page: what was measured, where, what counts as right, a row for each case, and all that went wrong.

use std::fmt::Write as _;

use gopulse_tests::cases::NOT_REPRODUCED;

use super::{
    Arguments,
    judge::{Tally, wilson},
    machine::Machine,
};
use crate::bench::median;

pub(super) fn write(tallies: &[Tally], machine: &Machine, arguments: &Arguments) -> String {
    let tallies: Vec<&Tally> = tallies.iter().filter(|tally| tally.ran()).collect();
    let tallies = tallies.as_slice();
    let mut page = String::from("# How often gopulse is right\n\n");
    page += &measured(machine, arguments);
    page += WHAT_COUNTS;
    page += &rates(tallies);
    page += &table(tallies);
    page += &wrong(tallies);
    page
}

const WHAT_COUNTS: &str = "
## What counts as right

Each case of `tests/src/cases.rs` is reproduced with real processes, with times that are drawn at random in
each run, and `gopulse diagnose` watches from before until after. A run is right if

- the rules found at warning or above, that no other finding explains, are those expected, each once, and
  no other; on a healthy scene there are none; and
- what the finding must name is named: the setting and its value, the line, the process, the count. The
  live test of the case asserts that.

A finding that is not expected is counted as false, also where something was really wrong besides, such as
others who took the CPUs. *Seconds* is the median from the command to its verdict; of these the host was
watched for as long as is said in brackets, most of which is the scene itself. *Confidence* is the median
of the least in each run.
";

fn measured(machine: &Machine, arguments: &Arguments) -> String {
    let Machine {
        date,
        commit,
        kernel,
        cpus,
        ..
    } = machine;
    let only = match arguments.only.as_slice() {
        [] => String::new(),
        only => format!(" --only {}", only.join(",")),
    };
    let loads = machine.loads();
    let most = loads.iter().copied().fold(0.0, f64::max);
    format!(
        "`cargo xtask scenarios --repeat {}{only} -o docs/accuracy.md` writes this page. Written on {date} at \
         {commit}, kernel\n{kernel}, {cpus} CPUs; load average {:.1} in the median, {most:.1} at most: what the \
         scenes make is in it, and others\nat work on the machine.\n",
        arguments.repeat,
        median(loads.iter().copied()),
    )
}

/// The rates of all, of what is wrong, and of what is healthy.
fn rates(tallies: &[&Tally]) -> String {
    let mut rates = String::from(
        "\n## Rates\n\n| | scenes | runs | right | rate | 95% interval (Wilson) | false findings |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let (healthy, sick): (Vec<&Tally>, Vec<&Tally>) = tallies
        .iter()
        .partition(|tally| tally.case.expected.is_empty());
    let all = tallies.to_vec();
    for (name, of) in [
        ("something is wrong", sick),
        ("healthy", healthy),
        ("all", all),
    ] {
        let judged: u64 = of.iter().map(|tally| tally.judged()).sum();
        let right: u64 = of.iter().map(|tally| tally.right()).sum();
        let surplus: usize = of.iter().map(|tally| tally.surplus()).sum();
        let (low, high) = wilson(right, judged);
        let _ = writeln!(
            rates,
            "| {name} | {} | {judged} | {right} | {} | {}–{} | {surplus} |",
            of.len(),
            percent(right as f64 / judged as f64),
            percent(low),
            percent(high),
        );
    }
    rates
}

fn table(tallies: &[&Tally]) -> String {
    let mut table = String::from(
        "\n## Cases\n\n| case | what happens | expected | found | right | confidence | seconds | false findings |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for tally in tallies {
        let _ = writeln!(table, "{}", row(tally));
    }
    for (id, what, why) in NOT_REPRODUCED {
        let _ = writeln!(table, "| {id} | {what} | | not reproduced: {why} | | | | |");
    }
    table
}

fn row(tally: &Tally) -> String {
    let case = tally.case;
    let expected = match case.expected {
        [] => "nothing".to_owned(),
        rules => rules.join(" + "),
    };
    let found = tally.found();
    let found = match (&tally.skipped, found.len()) {
        (Some(why), _) => format!("skipped: {why}"),
        (None, 1) => found.into_keys().collect(),
        (None, _) => {
            let each = found
                .into_iter()
                .map(|(rules, times)| format!("{rules} ({times})"));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    let of = |value: fn(&super::judge::Judged) -> Option<f64>| {
        let values: Vec<_> = tally.verdicts.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| median(values.into_iter()))
    };
    let confidence =
        of(|judged| judged.confidence).map_or_else(String::new, |sure| format!("{sure:.2}"));
    let seconds = match (
        of(|judged| Some(judged.took_s)),
        of(|judged| Some(judged.watched_s)),
    ) {
        (Some(took), Some(watched)) => format!("{took:.1} ({watched:.1})"),
        _ => String::new(),
    };
    format!(
        "| {} | {} | {expected} | {found} | {}/{} | {confidence} | {seconds} | {} |",
        case.id,
        case.what,
        tally.right(),
        tally.judged(),
        tally.surplus(),
    )
}

fn wrong(tallies: &[&Tally]) -> String {
    let mut wrong = String::new();
    for tally in tallies {
        let case = tally.case;
        for judged in tally.verdicts.iter().filter(|judged| !judged.right) {
            let why = if !judged.surplus.is_empty() {
                judged.surplus.join("; ")
            } else if judged.found != case.expected {
                "missed".to_owned()
            } else {
                let what = judged.complaint.as_deref().unwrap_or("not said");
                format!("the rule is right, a fact is not: {what}")
            };
            let _ = writeln!(wrong, "- {} {}: {why}", case.id, case.what);
        }
        for why in &tally.spoiled {
            let (id, what) = (case.id, case.what);
            let _ = writeln!(
                wrong,
                "- {id} {what}: the scene failed before a verdict, not counted: {why}"
            );
        }
    }
    if wrong.is_empty() {
        wrong.push_str("Nothing.\n");
    }
    format!("\n## What went wrong\n\n{wrong}")
}

fn percent(part: f64) -> String {
    format!("{:.1}%", 100.0 * part)
}
