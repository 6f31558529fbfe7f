//! One finding on the page, and below it its consequences.

use std::{io, time::Duration};

use crate::{
    detect::{
        Evidence, Finding, Severity, Subject, Witness, brief, is_standard,
        wording::{bytes, count, seconds, times},
    },
    event::{Attribution, Frame, is_host},
};

use super::page::{Ink, NO_BREAK, Page};

/// Frames shown of one goroutine, own code apart, which is always shown.
const FRAMES: usize = 8;

/// Width of the names of numbers, and of events.
const LABEL: usize = 10;

/// Writes `cause`, then those of `all` that follow from it, indented below it.
pub(super) fn write<W: io::Write>(
    page: &mut Page<'_, W>,
    all: &[Finding],
    cause: &Finding,
) -> io::Result<()> {
    let (word, ink) = match cause.severity {
        Severity::Critical => ("CRITICAL", Ink::Red),
        Severity::Warning => ("WARNING", Ink::Yellow),
        Severity::Info => ("INFO", Ink::Bold),
    };
    page.text(0, ink, &format!("{word}: {}", cause.title))?;
    page.text(0, Ink::Dim, &subtitle(cause))?;
    page.blank()?;
    body(page, 2, cause, None)?;
    consequences(page, 2, all, cause)
}

fn consequences<W: io::Write>(
    page: &mut Page<'_, W>,
    indent: usize,
    all: &[Finding],
    cause: &Finding,
) -> io::Result<()> {
    for finding in all
        .iter()
        .filter(|f| f.caused_by.as_ref() == Some(&cause.id))
    {
        page.blank()?;
        page.hanging(indent, "└ so ", Ink::Bold, &finding.title)?;
        page.text(indent + 2, Ink::Dim, &subtitle(finding))?;
        body(page, indent + 2, finding, Some(cause))?;
        consequences(page, indent + 2, all, finding)?;
    }
    Ok(())
}

fn subtitle(finding: &Finding) -> String {
    let rule = serde_json::to_value(finding.rule).ok();
    format!(
        "{} · {} · {} · {:.0}% sure",
        finding.id,
        rule.as_ref()
            .and_then(|rule| rule.as_str())
            .unwrap_or_default(),
        times(finding.count),
        finding.confidence * 100.0
    )
}

/// What there is to say of `finding`. The occurrence that its cause has told already is not told again.
fn body<W: io::Write>(
    page: &mut Page<'_, W>,
    indent: usize,
    finding: &Finding,
    cause: Option<&Finding>,
) -> io::Result<()> {
    let told_already = cause.is_some_and(|cause| {
        let connection = finding.connection.as_ref();
        cause
            .connection
            .iter()
            .chain(&cause.related_connections)
            .any(|told| connection == Some(told))
    });
    page.text(indent, Ink::Plain, &finding.explanation)?;
    numbers(page, indent, finding)?;
    if !told_already {
        timeline(page, indent, &finding.evidence)?;
    }
    for witness in &finding.goroutines {
        goroutine(page, indent, witness)?;
    }
    if !finding.advice.is_empty() {
        page.blank()?;
        page.text(indent, Ink::Bold, "What to change")?;
        for advice in &finding.advice {
            page.hanging(indent + 2, "- ", Ink::Plain, advice)?;
        }
    }
    if let Some(filter) = finding.wireshark_filter.as_ref().filter(|_| !told_already) {
        page.blank()?;
        page.text(indent, Ink::Bold, "In Wireshark")?;
        page.verbatim(indent + 2, filter)?;
    }
    if let Some(incomplete) = &finding.incomplete {
        page.blank()?;
        page.hanging(indent, "Not known: ", Ink::Plain, incomplete)?;
    }
    Ok(())
}

fn numbers<W: io::Write>(
    page: &mut Page<'_, W>,
    indent: usize,
    finding: &Finding,
) -> io::Result<()> {
    let lines: Vec<(&str, String)> = [
        ("process", Some(subject(&finding.process))),
        (
            "connection",
            finding
                .connection
                .map(|ends| format!("{} → {}", ends.client, ends.server)),
        ),
        ("setting", setting(finding)),
        ("code", finding.code.as_ref().map(brief)),
        ("quota", quota(finding)),
        ("waited", waited(finding)),
        ("request", finding.measured.request_bytes.map(bytes)),
        ("harmed", harmed(finding)),
        ("attempts", attempts(finding)),
        ("dropped", dropped(finding)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    page.blank()?;
    for (name, value) in lines {
        page.hanging(indent, &format!("{name:<LABEL$}  "), Ink::Plain, &value)?;
    }
    Ok(())
}

fn subject(process: &Subject) -> String {
    if is_host(process.pid) {
        format!("{} (packets name no process)", process.comm)
    } else {
        format!("{} (pid {})", process.comm, process.pid)
    }
}

fn setting(finding: &Finding) -> Option<String> {
    let setting = finding.setting.as_ref()?;
    Some(match (setting.value_s, finding.measured.max_procs) {
        (None, Some(number)) if setting.name == "GOMAXPROCS" => format!("GOMAXPROCS = {number}"),
        (Some(value), _) => format!(
            "{} = {}",
            setting.name,
            seconds(Duration::from_secs_f64(value))
        ),
        (None, _) => setting.name.clone(),
    })
}

fn quota(finding: &Finding) -> Option<String> {
    let measured = &finding.measured;
    Some(format!(
        "{:.2} CPUs, used up in {} of {}; threads stopped for {} in all",
        measured.quota_cpus?,
        measured.throttled_periods?,
        count(measured.periods?, "period", "periods"),
        seconds(Duration::from_secs_f64(measured.throttled_s?)),
    ))
}

fn waited(finding: &Finding) -> Option<String> {
    let measured = &finding.measured;
    let told = |value: f64| seconds(Duration::from_secs_f64(value));
    let median = told(measured.waited_s?);
    let (shortest, longest) = (told(measured.waited_min_s?), told(measured.waited_max_s?));
    Some(if shortest == longest {
        median
    } else {
        format!("{median} (from {shortest} to {longest})")
    })
}

fn harmed(finding: &Finding) -> Option<String> {
    let measured = &finding.measured;
    let harmed = measured.requests_harmed?;
    let all = count(measured.requests?.max(harmed), "request", "requests");
    Some(format!(
        "{harmed} of {all}, {} fine",
        measured.requests_fine.unwrap_or(0)
    ))
}

fn attempts(finding: &Finding) -> Option<String> {
    let measured = &finding.measured;
    let established = measured.established?;
    let mut told = format!(
        "{}, {established} established",
        count(measured.attempts?, "connect", "connects")
    );
    if let Some(again) = measured.syn_retransmits {
        told.push_str(&format!(", {} sent again", count(again, "SYN", "SYNs")));
    }
    Some(told)
}

fn dropped(finding: &Finding) -> Option<String> {
    let drops = &finding.measured.drops;
    let told: Vec<String> = drops
        .iter()
        .map(|(reason, times)| format!("{reason} {times}"))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// One occurrence; times count from its first event.
fn timeline<W: io::Write>(
    page: &mut Page<'_, W>,
    indent: usize,
    evidence: &[Evidence],
) -> io::Result<()> {
    let Some(first) = evidence.first() else {
        return Ok(());
    };
    page.blank()?;
    page.text(
        indent,
        Ink::Bold,
        &format!("One occurrence, from {:.6}", first.time),
    )?;
    for event in evidence {
        let since = event.time.duration_since(first.time).as_secs_f64() * 1e3;
        let label = format!("{since:>10.1} ms  {:<LABEL$}  ", event.event);
        let detail = match event.frame {
            Some(frame) => format!("{} (frame{NO_BREAK}{frame})", event.detail),
            None => event.detail.clone(),
        };
        page.hanging(indent, &label, Ink::Plain, &detail)?;
    }
    Ok(())
}

fn goroutine<W: io::Write>(
    page: &mut Page<'_, W>,
    indent: usize,
    witness: &Witness,
) -> io::Result<()> {
    let waited = witness.wait_s.map_or_else(String::new, |wait| {
        format!(" for {}", seconds(Duration::from_secs_f64(wait)))
    });
    let how = match witness.attribution {
        Attribution::Direct => "",
        Attribution::LastOwner => ", by its last use of the connection",
        Attribution::Inferred => ", inferred",
    };
    let does = if witness.frames.is_empty() {
        " had the request".to_owned()
    } else {
        format!(", {}{waited}", witness.state)
    };
    page.blank()?;
    page.text(
        indent,
        Ink::Bold,
        &format!(
            "goroutine {} of {}{does}{how}",
            witness.id, witness.process.comm
        ),
    )?;
    let shown = worth_showing(&witness.frames);
    for frame in &shown {
        let mark = if is_standard(frame) { "  " } else { "> " };
        page.hanging(indent, mark, Ink::Plain, &brief(frame))?;
    }
    let hidden = witness.frames.len() - shown.len();
    if hidden > 0 {
        let told = format!(
            "{} of the runtime and the library not shown",
            count(hidden as u64, "frame", "frames")
        );
        page.hanging(indent, "  ", Ink::Dim, &told)?;
    }
    if let Some(starter) = &witness.created_by {
        page.hanging(indent, "  started by ", Ink::Plain, &brief(&starter.frame))?;
    }
    Ok(())
}

/// Every frame of own code, and as many of the library's around them as there is room for; none of
/// the runtime's.
fn worth_showing(frames: &[Frame]) -> Vec<&Frame> {
    let noise = |frame: &Frame| {
        ["runtime.", "internal/", "runtime/", "reflect."]
            .iter()
            .any(|package| frame.function.starts_with(package))
    };
    let quiet: Vec<&Frame> = frames.iter().filter(|frame| !noise(frame)).collect();
    let candidates = if quiet.is_empty() {
        frames.iter().collect()
    } else {
        quiet
    };
    let mut room = FRAMES.saturating_sub(
        candidates
            .iter()
            .filter(|frame| !is_standard(frame))
            .count(),
    );
    candidates
        .into_iter()
        .filter(|frame| {
            if !is_standard(frame) {
                return true;
            }
            let fits = room > 0;
            room = room.saturating_sub(1);
            fits
        })
        .collect()
}
