//! Findings, each an instant where its occurrence ended, and under it the evidence.

use std::io::{self, Write};

use crate::{detect::Finding, event::BootInstant, export::wireshark::word, model::Model};

use super::{
    flows::Flows,
    packets::{Packets, Told},
};

pub(super) fn write(
    model: &Model,
    findings: &[Finding],
    flows: &Flows,
    packets: &mut Packets<impl Write>,
) -> io::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let all = packets.named_track(None, "findings".to_owned())?;
    for finding in findings {
        let told = told(finding).flows(flows.of_finding(&finding.id));
        packets.instant(moment(model, finding), all, told)?;
        if finding.evidence.is_empty() {
            continue;
        }
        let name = format!("{} {}", finding.id, word(finding.rule));
        let track = packets.named_track(Some(all), name)?;
        for event in &finding.evidence {
            let told = Told::new("evidence", &event.event)
                .text("detail", &event.detail)
                .maybe(event.frame, |told, frame| told.number("frame", frame));
            packets.instant(at(model, event.time), track, told)?;
        }
    }
    Ok(())
}

/// When its occurrence ended; one that is about the whole window stands at its end.
pub(super) fn moment(model: &Model, finding: &Finding) -> BootInstant {
    let last = finding.evidence.iter().map(|event| event.time).max();
    last.map_or(model.now(), |time| at(model, time))
}

/// A time of the wall clock, on the boot clock.
pub(super) fn at(model: &Model, time: jiff::Timestamp) -> BootInstant {
    let source = model.source();
    let shift = time.as_nanosecond() - source.started_wall.as_nanosecond();
    let at = i128::from(source.started.0) + shift;
    BootInstant(u64::try_from(at.max(0)).unwrap_or(u64::MAX))
}

fn told(finding: &Finding) -> Told {
    Told::new("finding", &finding.title)
        .text("id", &finding.id)
        .text("rule", word(finding.rule))
        .text("severity", word(finding.severity))
        .fraction("confidence", finding.confidence)
        .number("count", finding.count)
        .text("explanation", &finding.explanation)
        .text("process", &finding.process.comm)
        .number("pid", finding.process.pid)
        .maybe(finding.caused_by.as_ref(), |told, cause| {
            told.text("caused_by", cause)
        })
        .text("advice", finding.advice.join("\n"))
}
