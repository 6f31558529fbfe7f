//! Rounds to ratios, ratios to medians, medians to a table.

use super::{Run, load::Load, tool::Tool};

/// A round in one line: requests per second, in thousands, of each run.
pub(super) fn line(round: &[Run]) -> String {
    round
        .iter()
        .map(|run| {
            format!(
                "{} {:.1}k",
                run.tool.name(),
                run.measured.requests_per_s / 1e3
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) fn print(rounds: &[Vec<Run>]) {
    println!("\nRatios to nothing attached in the same round: median (lowest–highest).");
    println!("CPU is the tool's own, as a share of one core; lost is the sum over all rounds.");
    for load in Load::ALL {
        let bases = of(rounds, load, Tool::Nothing);
        println!("\n{}", row(load.name(), "requests/s", "p99", "CPU", "lost"));
        println!("{}", absolute(&bases));
        for tool in [Tool::Gopulse, Tool::Tcpdump] {
            println!("{}", relative(tool, &of(rounds, load, tool), &bases));
        }
    }
}

/// The runs of one tool under one load, one for each round.
fn of(rounds: &[Vec<Run>], load: Load, tool: Tool) -> Vec<&Run> {
    let wanted = |run: &&Run| run.load == load && run.tool == tool;
    rounds.iter().flatten().filter(wanted).collect()
}

/// What the service gives with nobody watching.
fn absolute(runs: &[&Run]) -> String {
    let rate = median(runs.iter().map(|run| run.measured.requests_per_s));
    let p99 = median(runs.iter().map(|run| run.measured.p99_s * 1e3));
    let name = Tool::Nothing.name();
    row(name, &format!("{rate:.0}"), &format!("{p99:.2} ms"), "", "")
}

/// What a tool left of that, and what it took.
fn relative(tool: Tool, runs: &[&Run], bases: &[&Run]) -> String {
    let ratio = |value: fn(&Run) -> f64| {
        let pairs = runs.iter().zip(bases);
        spread(pairs.map(|(run, base)| value(run) / value(base)))
    };
    let cpu = median(
        runs.iter()
            .map(|run| run.cost.cpu.as_secs_f64() / run.measured.took.as_secs_f64()),
    );
    let lost: u64 = runs.iter().map(|run| run.cost.lost).sum();
    row(
        tool.name(),
        &ratio(|run| run.measured.requests_per_s),
        &ratio(|run| run.measured.p99_s),
        &format!("{:.1}%", 100.0 * cpu),
        &lost.to_string(),
    )
}

fn row(name: &str, requests: &str, p99: &str, cpu: &str, lost: &str) -> String {
    format!("{name:<26}{requests:<20}{p99:<20}{cpu:>7}{lost:>9}")
}

pub(super) fn spread(values: impl Iterator<Item = f64>) -> String {
    let values = sorted(values);
    let (Some(lowest), Some(highest)) = (values.first(), values.last()) else {
        return "-".to_owned();
    };
    format!("{:.2} ({lowest:.2}–{highest:.2})", middle(&values))
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    middle(&sorted(values))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values; of an even number, the mean of the two in the middle.
fn middle(values: &[f64]) -> f64 {
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_spread_shows_median_and_ends() {
        assert_eq!(spread([0.9, 1.1, 1.0].into_iter()), "1.00 (0.90–1.10)");
    }
}
