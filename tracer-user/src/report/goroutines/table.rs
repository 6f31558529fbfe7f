//! Groups of goroutines as a table that fits a terminal.
//!
//! Numbers stand on the left, and beside them on lines of their own what the goroutines do: the line of
//! the program's own code, what they wait for, what started them, their labels.

use std::io::{self, Write};

use super::{Goroutines, GroupTold};
use crate::{
    detect::{brief, own_frame, wording::count},
    event::{Frame, SnapshotSource},
    plain::clean,
};

/// What stands between two columns.
const GAP: usize = 2;
/// Names are never cut to less.
const NARROWEST: usize = 30;

/// Writes the table, at most `width` columns wide where names can be shortened to that.
///
/// # Errors
///
/// What `out` says.
pub fn write(goroutines: &Goroutines, out: &mut impl Write, width: usize) -> io::Result<()> {
    writeln!(out, "{}", title(goroutines))?;
    let columns = columns(goroutines);
    if goroutines.groups.is_empty() {
        return writeln!(out, "\nNone of them does what was asked for.");
    }
    let widths: Vec<usize> = columns
        .iter()
        .map(|(title, number)| {
            let numbers = goroutines.groups.iter().map(|group| number(group).len());
            numbers.max().unwrap_or_default().max(title.len())
        })
        .collect();
    let left: usize = widths.iter().map(|width| width + GAP).sum();
    let room = width.saturating_sub(left).max(NARROWEST);
    let line = |cells: &mut dyn Iterator<Item = String>| -> String {
        let cells = cells.zip(&widths);
        cells
            .map(|(cell, width)| format!("{cell:>width$}{:GAP$}", ""))
            .collect()
    };
    let titles = line(&mut columns.iter().map(|(title, _)| (*title).to_owned()));
    writeln!(out, "\n{}", titles.trim_end())?;
    for group in &goroutines.groups {
        let mut numbers = line(&mut columns.iter().map(|(_, number)| number(group)));
        for text in lines(group) {
            writeln!(out, "{numbers}{}", fit(&clean(&text), room))?;
            numbers = " ".repeat(left);
        }
    }
    if goroutines.groups_left_out > 0 {
        writeln!(
            out,
            "\n{} more with {} not shown (--top)",
            count(goroutines.groups_left_out, "group", "groups"),
            count(goroutines.goroutines_left_out, "goroutine", "goroutines"),
        )?;
    }
    Ok(())
}

/// `5062 goroutines of pid 77, from memory; 5012 in the first of 3 snapshots, 4.0 s before`.
fn title(goroutines: &Goroutines) -> String {
    let (Some(first), Some(last)) = (goroutines.snapshots.first(), goroutines.snapshots.last())
    else {
        return "no goroutines".to_owned();
    };
    let way = match last.source {
        SnapshotSource::Memory => ", from its memory",
        SnapshotSource::Pprof => ", by pprof",
        SnapshotSource::File => "",
    };
    let mut title = format!(
        "{} of {}{way}",
        count(last.total, "goroutine", "goroutines"),
        clean(&last.from)
    );
    if last.told < last.total {
        title += &format!(" ({} told)", last.told);
    }
    let number = goroutines.snapshots.len();
    if number > 1 {
        let before = goroutines
            .duration_s
            .map(|time| format!(", {time:.1} s before"));
        let before = before.unwrap_or_else(|| format!(", {}", clean(&first.from)));
        title += &format!(
            "; {} in the first of {number} snapshots{before}",
            first.total
        );
    }
    title
}

type Column = (&'static str, fn(&GroupTold) -> String);

/// The numbers that are known.
fn columns(goroutines: &Goroutines) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![("COUNT", |group| group.count.to_string())];
    let any = |has: fn(&GroupTold) -> bool| goroutines.groups.iter().any(has);
    if any(|group| group.growth.is_some()) {
        columns.push(("GROWTH", |group| signed(group.growth)));
    }
    if any(|group| group.growth_per_s.is_some()) {
        columns.push(("PER S", |group| {
            let rate = group.growth_per_s.filter(|rate| *rate != 0.0);
            rate.map_or_else(String::new, |rate| format!("{rate:+.1}"))
        }));
    }
    if any(|group| group.born.is_some()) {
        columns.push(("BORN", |group| told(group.born)));
        columns.push(("ENDED", |group| told(group.ended)));
    }
    columns
}

fn signed(number: Option<i64>) -> String {
    match number {
        None => String::new(),
        Some(0) => "0".to_owned(),
        Some(number) => format!("{number:+}"),
    }
}

fn told(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// What a group does, the most telling line first.
fn lines(group: &GroupTold) -> Vec<String> {
    let mut lines = Vec::new();
    let innermost = group.frames.first();
    let own = own_frame(&group.frames).or(innermost);
    lines.extend(own.map(brief));
    let waits = waits(group, innermost.filter(|frame| Some(*frame) != own));
    if !waits.is_empty() {
        lines.push(waits);
    }
    if let Some(creator) = &group.created_by {
        lines.push(format!("started by {}", brief(creator)));
    }
    if !group.labels.is_empty() {
        let labels = group
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        lines.push(format!("labels {}", labels.collect::<Vec<_>>().join(", ")));
    }
    if lines.is_empty() {
        lines.push("nothing more is told of them".to_owned());
    }
    lines
}

/// `sleep for up to 3 min, locked to their threads, in time.Sleep (time.go:315)`.
fn waits(group: &GroupTold, innermost: Option<&Frame>) -> String {
    let mut parts = Vec::new();
    if let Some(state) = &group.state {
        let wait = group.wait_max_s.filter(|wait| *wait >= 0.001);
        let wait = wait.map(|wait| format!(" for up to {}", rounded(wait)));
        parts.push(format!("{state}{}", wait.unwrap_or_default()));
    }
    if group.locked {
        parts.push("locked to their threads".to_owned());
    }
    parts.extend(innermost.map(|frame| format!("in {}", brief(frame))));
    parts.join(", ")
}

/// `250 ms`, `4.2 s`, `3 min`, `5.1 h`.
fn rounded(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..60.0 => format!("{seconds:.1} s"),
        60.0..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// `text` in `room` columns: without the directories of import paths, and cut in the middle where that
/// is not enough.
fn fit(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let words: Vec<&str> = text.split(' ').map(without_directories).collect();
    let short = words.join(" ");
    let length = short.chars().count();
    if length <= room {
        return short;
    }
    // The end tells file and line.
    let tail = room * 2 / 5;
    let head: String = short.chars().take(room.saturating_sub(tail + 1)).collect();
    let tail: String = short.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

/// `store.(*DB).Save` of `github.com/acme/shop/store.(*DB).Save`.
fn without_directories(word: &str) -> &str {
    let plain = word.split(['(', '[', '=']).next().unwrap_or_default();
    let name = plain.rfind('/').and_then(|slash| word.get(slash + 1..));
    name.unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Selection, SnapshotTold},
        *,
    };
    use crate::golang::{dump, growth::By};

    fn snapshot(name: &str, senders: u64) -> (SnapshotTold, crate::golang::census::Census) {
        let senders = (100..100 + senders).map(|id| {
            format!(
                "goroutine {id} [chan send, {} minutes]:\n\
                 github.com/acme/shop/internal/storage/journal.(*Journal[...]).Append(0xc0)\n\
                 \t/srv/internal/storage/journal/journal.go:57 +0x1d\n\
                 created by main.handle in goroutine 1\n\t/srv/main.go:12 +0x2\n\n",
                id - 99
            )
        });
        let text = senders.collect::<String>()
            + "goroutine 7 [sleep, locked to thread] {tenant: acme}:\ntime.Sleep(0x1)\n\t/go/time.go:315 +0x1\n\
               main.tick()\n\t/srv/tick.go:9 +0x2\n\n";
        let census = dump::parse(text.as_bytes()).census;
        let told = SnapshotTold::of(&census, name.to_owned(), SnapshotSource::File);
        (told, census)
    }

    fn table(
        snapshots: &[(SnapshotTold, crate::golang::census::Census)],
        width: usize,
        filter: &[&str],
        top: usize,
    ) -> String {
        let selection = Selection {
            by: By::ALL.to_vec(),
            filters: filter.iter().map(|text| (*text).to_owned()).collect(),
            top,
        };
        let mut out = Vec::new();
        write(&Goroutines::new(snapshots, &selection), &mut out, width).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.chars().count() <= width),
            "{text}"
        );
        text
    }

    #[test]
    fn one_snapshot_is_told_by_size() {
        insta::assert_snapshot!(table(&[snapshot("a.txt", 3)], 100, &[], 10));
    }

    #[test]
    fn several_are_told_by_growth_and_names_are_shortened() {
        let two = [snapshot("a.txt", 3), snapshot("b.txt", 5)];
        insta::assert_snapshot!(table(&two, 72, &[], 10));
    }

    #[test]
    fn groups_are_chosen_by_what_they_mention() {
        let one = [snapshot("a.txt", 3)];
        for filter in ["tenant=ACME", "Sleep", "main.tick"] {
            let table = table(&one, 100, &[filter], 10);
            assert!(
                table.contains("tick") && !table.contains("Append"),
                "{table}"
            );
        }
        assert!(table(&one, 100, &["sleep", "journal"], 10).contains("None of them"));
        assert!(table(&one, 100, &[], 1).contains("1 group more with 1 goroutine not shown"));
    }
}
