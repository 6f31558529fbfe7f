//! The report as text: what somebody reads at three in the morning.
//!
//! The verdict comes first, then one story for each cause with its consequences below it, and last
//! what was watched and what was not, for "nothing found" is worth as much as what was looked at.

mod host;
mod page;
mod story;
mod threads;

use std::{io, net::SocketAddr};

use crate::{
    detect::{
        Severity,
        wording::{count, join},
    },
    event::{Pid, SourceKind, is_host},
    target::containers::short,
};

use super::json::{Report, TargetTold};
use page::{Ink, Page};

pub use page::Style;

/// Stories told in full; of more only the title is.
const STORIES: usize = 20;

/// Processes named; of more only the number is told.
const NAMED: usize = 12;

/// Writes `report` for a person.
///
/// # Errors
///
/// Those of `out`.
pub fn write(report: &Report, out: &mut impl io::Write, style: Style) -> io::Result<()> {
    let mut page = Page::new(out, style);
    verdict(&mut page, report)?;
    let stories: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.caused_by.is_none())
        .collect();
    let (whole, rest) = stories.split_at(stories.len().min(STORIES));
    for cause in whole {
        page.blank()?;
        story::write(&mut page, &report.findings, cause)?;
    }
    if !rest.is_empty() {
        page.blank()?;
        page.text(
            0,
            Ink::Bold,
            &format!("And {} more, told in full by --format json", rest.len()),
        )?;
        for cause in rest {
            page.hanging(2, "- ", Ink::Plain, &cause.title)?;
        }
    }
    page.blank()?;
    watched(&mut page, report)?;
    if let Some(host) = &report.host {
        host::write(&mut page, host)?;
    }
    losses(&mut page, report)?;
    unseen(&mut page, report)
}

fn verdict<W: io::Write>(page: &mut Page<'_, W>, report: &Report) -> io::Result<()> {
    let causes = |severity| {
        report
            .findings
            .iter()
            .filter(|f| f.caused_by.is_none() && f.severity == severity)
            .count() as u64
    };
    let (critical, warning, info) = (
        causes(Severity::Critical),
        causes(Severity::Warning),
        causes(Severity::Info),
    );
    let mut parts = Vec::new();
    if critical > 0 {
        parts.push(format!("{critical} critical"));
    }
    if warning > 0 {
        parts.push(count(warning, "warning", "warnings"));
    }
    if info > 0 {
        parts.push(format!("{info} worth knowing"));
    }
    let ink = match report.worst() {
        Some(Severity::Critical) => Ink::Red,
        Some(Severity::Warning) => Ink::Yellow,
        Some(Severity::Info) | None => Ink::Green,
    };
    let verdict = match report.worst() {
        None => "Healthy: nothing found.".to_owned(),
        Some(Severity::Info) => format!("Healthy: nothing that needs doing, {}.", join(&parts)),
        Some(_) => format!("Unwell: {}.", join(&parts)),
    };
    page.text(0, ink, &verdict)
}

fn watched<W: io::Write>(page: &mut Page<'_, W>, report: &Report) -> io::Result<()> {
    let source = &report.source;
    let place = match source.kind {
        SourceKind::Live => format!("on {} (kernel {}), live", source.host, source.kernel),
        SourceKind::Recording => format!(
            "on {} (kernel {}), from a recording",
            source.host, source.kernel
        ),
        // On which host it was made, a capture does not say.
        SourceKind::Pcap => {
            let files: Vec<String> = report.coverage.hooks.iter().map(|h| h.by.clone()).collect();
            format!("in the packet capture {}", join(&files))
        }
    };
    page.text(0, Ink::Bold, "What was watched")?;
    page.hanging(
        2,
        "",
        Ink::Plain,
        &format!(
            "{} for {:.1} s from {:.3} {place}.",
            join(&report.coverage.watched),
            source.duration_s,
            source.started,
        ),
    )?;
    page.hanging(2, "", Ink::Plain, &processes(report))?;
    let connections = report.connections.len() as u64 + report.connections_left_out;
    let requests: u64 = report.connections.iter().map(|c| c.requests).sum();
    let more = if report.connections_left_out > 0 {
        format!(
            " on the {} told one by one; {} only counted",
            report.connections.len(),
            count(report.connections_left_out, "other is", "others are")
        )
    } else {
        String::new()
    };
    page.hanging(
        2,
        "",
        Ink::Plain,
        &format!(
            "{}, {}{more}.",
            count(connections, "connection", "connections"),
            count(requests, "request", "requests")
        ),
    )?;
    for snapshots in report.goroutines.snapshots.chunk_by(|a, b| a.pid == b.pid) {
        if let [first, .., last] | [first @ last] = snapshots {
            page.hanging(
                2,
                "",
                Ink::Plain,
                &format!(
                    "{} of {}: {} goroutines in the first, {} in the last.",
                    count(
                        snapshots.len() as u64,
                        "goroutine snapshot",
                        "goroutine snapshots"
                    ),
                    whose(report, first.pid),
                    first.total,
                    last.total
                ),
            )?;
        }
    }
    threads::write(page, report)
}

fn processes(report: &Report) -> String {
    let named = |told: &[TargetTold]| {
        let mut names: Vec<String> = told.iter().take(NAMED).map(name).collect();
        if told.len() > NAMED {
            names.push(format!("{} more", told.len() - NAMED));
        }
        join(&names)
    };
    match (report.targets.is_empty(), report.peers.is_empty()) {
        (true, true) => "No process was seen.".into(),
        (_, true) => format!("{}.", named(&report.targets)),
        (true, false) => format!("Only peers: {}.", named(&report.peers)),
        (false, false) => format!(
            "{}; and at the other end of their connections {}.",
            named(&report.targets),
            named(&report.peers)
        ),
    }
}

fn name(told: &TargetTold) -> String {
    if is_host(told.pid) {
        return host(&told.comm);
    }
    let container = told.container.as_deref().map(short);
    let more = [
        Some(format!("pid {}", told.pid)),
        told.go_version.clone(),
        container.map(|id| format!("container {id}")),
    ];
    let more: Vec<String> = more.into_iter().flatten().collect();
    format!("{} ({})", told.comm, more.join(", "))
}

/// Whose goroutines these are.
fn whose(report: &Report, pid: Pid) -> String {
    if !is_host(pid) {
        return format!("pid {pid}");
    }
    let told = report.targets.iter().find(|told| told.pid == pid);
    told.map_or_else(
        || "a process that no host of the capture could be found for".to_owned(),
        |told| host(&told.comm),
    )
}

/// What stands for a process in a packet capture: a host, or a service of one that a dump shows.
fn host(name: &str) -> String {
    if name.parse::<SocketAddr>().is_ok() {
        format!("service {name}")
    } else {
        format!("host {name}")
    }
}

fn losses<W: io::Write>(page: &mut Page<'_, W>, report: &Report) -> io::Result<()> {
    let losses = &report.losses;
    if losses.by_probe.is_empty() {
        return page.text(2, Ink::Plain, "Nothing was lost.");
    }
    let by: Vec<String> = losses
        .by_probe
        .iter()
        .map(|(probe, count)| format!("{probe} {count}"))
        .collect();
    page.text(
        2,
        Ink::Yellow,
        &format!(
            "{} and {} were lost ({}): what happened there is not in this report.",
            count(losses.events_lost, "event", "events"),
            count(losses.packets_lost, "packet", "packets"),
            join(&by)
        ),
    )
}

fn unseen<W: io::Write>(page: &mut Page<'_, W>, report: &Report) -> io::Result<()> {
    if report.coverage.unseen.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.text(0, Ink::Bold, "What was not seen")?;
    for unseen in &report.coverage.unseen {
        let told = format!("{}: {}. Remedy: {}", unseen.what, unseen.why, unseen.remedy);
        page.hanging(2, "- ", Ink::Plain, &told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        detect::{GATEWAY, findings, large_uploads_fail},
        event::{ConnectFailure, Fact, Host, Memory, Pressures, Unseen},
        model::story::{Asked, Story},
    };

    fn told(story: &mut Story, style: Style) -> String {
        let model = story.model(30_000.0);
        let report = Report::new(&model, &findings(&model));
        let mut out = Vec::new();
        write(&report, &mut out, style).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_timeout_with_its_consequence_is_one_story() {
        insta::assert_snapshot!(told(&mut large_uploads_fail(1000.0), Style::default()));
    }

    #[test]
    fn an_unanswered_syn_with_the_dialers_timeout_is_one_story() {
        let mut story = Story::new();
        story.go(7, "worker");
        let stack = story.stack(&[
            "net.socket /go/src/net/sock_posix.go:75",
            "net.(*sysDialer).dialSingle /go/src/net/dial.go:680",
            "net.(*Dialer).Dial /go/src/net/dial.go:450",
            "main.connect /srv/worker/main.go:20",
        ]);
        let socket = story.connecting(100.0, 7, "10.0.0.1:40000", "10.9.9.9:5432");
        for at in [100.1, 1110.0] {
            story.tell(
                at,
                Fact::Dropped {
                    socket,
                    reason: "NETFILTER_DROP".into(),
                },
            );
        }
        story
            .tell(1110.0, Fact::Retransmitted { socket, syn: true })
            .connect_failed(1600.2, socket, ConnectFailure::Abandoned, stack);
        insta::assert_snapshot!(told(&mut story, Style::default()));
    }

    #[test]
    fn healthy_says_what_was_watched_and_what_was_not() {
        let mut story = Story::new();
        story.go(GATEWAY, "gateway");
        let socket = story.accepted(1.0, GATEWAY, "10.0.0.9:5000", "10.0.0.1:80");
        story
            .http(socket, 0, "GET /", Asked::at(2.0, 90).answered(3.0, 200))
            .tell(
                0.0,
                Fact::Unseen(Unseen {
                    what: "who decides to close".into(),
                    why: "uprobes are not permitted".into(),
                    remedy: "run as root".into(),
                }),
            )
            .tell(
                9.0,
                Fact::Lost {
                    probe: "exchanges".into(),
                    count: 2,
                },
            );
        insta::assert_snapshot!(told(&mut story, Style::default()));
    }

    #[test]
    fn the_host_is_told_as_vmstat_and_top_would() {
        let ticks = Duration::from_millis;
        let mut story = Story::new();
        for second in 0..=30_u64 {
            let host = Host {
                cpus: 2,
                user: ticks(90_000 + 1_400 * second),
                system: ticks(20_000 + 200 * second),
                idle: ticks(500_000 + 360 * second),
                io_wait: ticks(40 * second),
                runnable: 3 + u32::from(second == 7),
                switches: 12_345 * second,
                forks: 9_000 + 4 * second,
                load: [1.94, 1.31, 0.8],
                memory: Memory {
                    total: 8 << 30,
                    available: 5 << 30,
                    ..Memory::default()
                },
                pressure: Some(Pressures {
                    cpu_some: ticks(220 * second),
                    ..Pressures::default()
                }),
                ..Host::default()
            };
            story.host(1_000.0 * second as f64, host);
        }
        story.neighbours(30_000.0, &[(4_711, "cc1plus", 18_200), (1, "systemd", 40)]);
        insta::assert_snapshot!(told(&mut story, Style::default()));
    }

    #[test]
    fn a_process_in_a_container_is_told_with_it() {
        let mut told = TargetTold {
            pid: 7,
            comm: "web".to_owned(),
            exe: None,
            go_version: Some("go1.27.3".to_owned()),
            pprof_url: None,
            container: Some("3fa1b2c3d4e5f607".to_owned()),
        };
        assert_eq!(name(&told), "web (pid 7, go1.27.3, container 3fa1b2c3d4e5)");
        told.container = None;
        assert_eq!(name(&told), "web (pid 7, go1.27.3)");
    }

    #[test]
    fn no_line_but_the_filter_is_wider_than_asked() {
        let style = Style {
            colour: false,
            width: 60,
        };
        let text = told(&mut large_uploads_fail(1000.0), style);
        for line in text.lines().filter(|line| !line.contains("tcp.port")) {
            let breakable = line.trim_start().contains(' ');
            assert!(line.chars().count() <= 60 || !breakable, "{line}");
        }
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let style = Style {
            colour: true,
            ..Style::default()
        };
        assert!(told(&mut large_uploads_fail(1000.0), style).contains("\x1b[1;31m"));
        assert!(!told(&mut large_uploads_fail(1000.0), Style::default()).contains('\x1b'));
    }

    #[test]
    fn a_process_cannot_write_to_the_terminal_by_its_name() {
        let mut story = large_uploads_fail(1000.0);
        story.go(GATEWAY, "gate\x1b]0;way\x07");
        let text = told(&mut story, Style::default());
        assert!(
            !text.contains('\x1b') && text.contains("gate\\u{1b}"),
            "{text}"
        );
    }
}
